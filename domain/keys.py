"""API keys: their form, their hash, and what they may allow.

A key is ``mst_live_`` + 43 random characters + ``_`` + 8 hexadecimal digits of CRC-32 over what stands before. The
checksum lets people and secret scanners tell a mistyped key from a revoked one without asking anybody; only the
SHA-256 of a key is ever stored.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib

KEY_PREFIX = "mst_live_"
KEY_SECRET_BYTES = 32
"""Random bytes behind one key."""
KEY_CHARACTERS_MAX = 200
"""Longest credential that is looked at."""
PREFIX_CHARACTERS = 16
"""How much of a key is kept in the open, so that a person recognises it."""

SCOPES = (
    "blobs:read",
    "blobs:write",
    "providers:write",
    "providers:execute",
    "runs:control",
    "audit:read",
    "admin",
)
"""Every scope; reading the catalogue, runs, cascades and events needs ``blobs:read``. None implies another."""

USER_SCOPES = tuple(scope for scope in SCOPES if scope != "admin")
"""What a person's key allows unless told otherwise."""

_FORM = re.compile(rf"{KEY_PREFIX}[A-Za-z0-9_-]{{43}}_[0-9a-f]{{8}}")


def mint_key(secret: bytes) -> str:
    """Return the key made of 32 random bytes; raises ValueError for any other number of bytes."""
    if len(secret) != KEY_SECRET_BYTES:
        raise ValueError(f"A key is made of {KEY_SECRET_BYTES} bytes.")
    body = KEY_PREFIX + base64.urlsafe_b64encode(secret).rstrip(b"=").decode()
    return f"{body}_{_checksum(body)}"


def key_is_mistyped(key: str) -> bool:
    """Tell whether a key has the form of ``mint_key`` with a checksum that does not fit.

    Keys of any other form are an operator's own (``STUDIO_DEV_API_KEY``): only the stored hash knows about those.
    """
    body, _, checksum = key.rpartition("_")
    return _FORM.fullmatch(key) is not None and checksum != _checksum(body)


def key_hash(key: str) -> bytes:
    """Return the SHA-256 by which a key is stored and found."""
    return hashlib.sha256(key.encode()).digest()


def key_prefix(key: str) -> str:
    """Return the open part of a key."""
    return key[:PREFIX_CHARACTERS]


def _checksum(body: str) -> str:
    return f"{zlib.crc32(body.encode()):08x}"
