"""Signed addresses: whoever holds one reads one version of one content until it expires, and nothing else.

The signature covers user, blob, version and expiry with the installation's secret, so nothing in the address can be
changed; no key is in it, and nothing is stored.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from uuid import UUID

from domain.errors import Forbidden, Invalid
from domain.ids import parse_id

_PURPOSE = b"content address\0"
_EXPIRY_DIGITS_MAX = 12
_VERSION_DIGITS_MAX = 10
ROUND_SECONDS = 60
"""Expiries are rounded up to this, so that an address asked for twice in a minute is the same, and can be cached."""

_INVALID = "The signature does not fit the address: it was cut short or altered. Read the blob for a new one."


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one signed address lets its holder read, until ``expires`` (seconds since 1970)."""

    user_id: UUID
    blob_id: UUID
    version: int
    expires: int


def expiry(now: float, lifetime_seconds: float) -> int:
    """Return when an address made now expires: after its lifetime, rounded up."""
    return int(-(-(now + lifetime_seconds) // ROUND_SECONDS)) * ROUND_SECONDS


def signature(secret: bytes, grant: Grant) -> str:
    """Return the signature of a grant, in hexadecimal digits."""
    # No part holds a space: two grants cannot have the same text.
    text = f"{grant.user_id} {grant.blob_id} {grant.version} {grant.expires}"
    return hmac.new(secret, _PURPOSE + text.encode(), hashlib.sha256).hexdigest()


def query(secret: bytes, grant: Grant) -> str:
    """Return the query string of a signed address."""
    parts = {"version": grant.version, "user": grant.user_id, "expires": grant.expires}
    return "&".join(f"{name}={value}" for name, value in parts.items()) + f"&signature={signature(secret, grant)}"


def granted(secret: bytes, *, blob_id: UUID, version: str, user: str, expires: str, given: str, now: float) -> Grant:
    """Return what a signed address grants.

    Raises Forbidden ``signature_invalid`` if anything was altered, ``signature_expired`` afterwards.
    """
    grant = _parsed(blob_id, version, user, expires)
    if grant is None or not hmac.compare_digest(signature(secret, grant).encode(), given.encode()):
        raise Forbidden(_INVALID, code="signature_invalid")
    if now >= grant.expires:
        raise Forbidden("The address has expired; read the blob for a new one.", code="signature_expired")
    return grant


def _parsed(blob_id: UUID, version: str, user: str, expires: str) -> Grant | None:
    for text, digits in ((version, _VERSION_DIGITS_MAX), (expires, _EXPIRY_DIGITS_MAX)):
        if not (text.isascii() and text.isdigit() and len(text) <= digits and text == str(int(text))):
            return None
    try:
        user_id = parse_id(user, "/query/user")
    except Invalid:
        return None
    return Grant(user_id=user_id, blob_id=blob_id, version=int(version), expires=int(expires))
