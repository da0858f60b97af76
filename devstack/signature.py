"""AWS Signature Version 4 for plain paths without query: enough to ask our own S3 server whether it works.

Source: AWS General Reference, "Create a signed AWS API request".
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from urllib.parse import urlsplit

REGION = "us-east-1"
ALGORITHM = "AWS4-HMAC-SHA256"
SIGNED_HEADERS = "host;x-amz-content-sha256;x-amz-date"


def sign(method: str, url: str, body: bytes, *, access_key: str, secret_key: str, now: dt.datetime) -> dict[str, str]:
    """Return the headers that sign one request; ``now`` is UTC."""
    parts = urlsplit(url)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    digest = hashlib.sha256(body).hexdigest()
    canonical_headers = f"host:{parts.netloc}\nx-amz-content-sha256:{digest}\nx-amz-date:{stamp}\n"
    request = f"{method}\n{parts.path}\n\n{canonical_headers}\n{SIGNED_HEADERS}\n{digest}"
    scope = f"{day}/{REGION}/s3/aws4_request"
    text = "\n".join((ALGORITHM, stamp, scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{secret_key}".encode()
    for part in (day, REGION, "s3", "aws4_request"):
        key = _mac(key, part)
    credential = f"Credential={access_key}/{scope}, SignedHeaders={SIGNED_HEADERS}"
    return {
        "x-amz-date": stamp,
        "x-amz-content-sha256": digest,
        "Authorization": f"{ALGORITHM} {credential}, Signature={_mac(key, text).hex()}",
    }


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
