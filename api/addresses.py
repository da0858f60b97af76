"""Where contents are: a plain address needs a key, a signed one is enough by itself until it expires."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

from fastapi import Request

from api.middleware import PREFIX
from domain.signatures import Grant, expiry, granted, query

NAMES = ("version", "user", "expires", "signature")
"""The parameters of a signed address."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Signs addresses of contents, and opens them, with the installation's secret."""

    secret: bytes
    lifetime_seconds: float

    def signed(self, user_id: UUID, blob_id: UUID, version: int) -> str:
        """Return an address that lets its holder read this version of this content for a while."""
        expires = expiry(time.time(), self.lifetime_seconds)
        grant = Grant(user_id=user_id, blob_id=blob_id, version=version, expires=expires)
        return f"{content_path(blob_id)}?{query(self.secret, grant)}"

    def granted(self, request: Request, blob_id: UUID) -> Grant:
        """Return what a signed address grants. Raises Forbidden ``signature_invalid``, ``signature_expired``."""
        given = request.query_params
        version, user, expires, signature = (given.get(name, "") for name in NAMES)
        return granted(
            self.secret,
            blob_id=blob_id,
            version=version,
            user=user,
            expires=expires,
            given=signature,
            now=time.time(),
        )


def content_path(blob_id: UUID) -> str:
    """Return the path of a blob's content."""
    return f"{PREFIX}/blobs/{blob_id}/content"
