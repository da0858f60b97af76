"""The cursor of the event log: one value resumes the list of events, a stream of them, a socket or a webhook.

It carries the installation and the sequence of the last event seen, signed for one user. A database restored from
a backup has another installation id, so that a reader of what it was before is told (CASCADES, rule 11).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from uuid import UUID

from domain.errors import Gone, Malformed
from domain.ids import UserId

_SIGNATURE_BYTES = 12
_CURSOR_BYTES = 16 + 8 + _SIGNATURE_BYTES
_CHARACTERS = _CURSOR_BYTES * 4 // 3


def event_cursor(installation: UUID, secret: bytes, user_id: UserId, seq: int) -> str:
    """Return the cursor behind event ``seq`` (0: before the first)."""
    body = installation.bytes + seq.to_bytes(8, "big")
    return base64.urlsafe_b64encode(body + _signature(secret, user_id, body)).decode()


def read_event_cursor(text: str, installation: UUID, secret: bytes, user_id: UserId) -> int:
    """Return the sequence behind which to go on.

    Raises Malformed ``invalid_cursor`` for one that is not ours or not this user's, Gone ``resync_required`` for
    one of another installation: the reader reads the present state and starts without a cursor.
    """
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True) if len(text) == _CHARACTERS else b""
    except ValueError:
        raw = b""
    if len(raw) != _CURSOR_BYTES:
        raise Malformed("The cursor is not one that a list of events gave.", code="invalid_cursor")
    body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
    if UUID(bytes=body[:16]) != installation:
        raise Gone("The cursor is of another installation of the database.", code="resync_required")
    if not hmac.compare_digest(signature, _signature(secret, user_id, body)):
        raise Malformed("The cursor was altered, or belongs to somebody else.", code="invalid_cursor")
    return int.from_bytes(body[16:], "big")


def _signature(secret: bytes, user_id: UserId, body: bytes) -> bytes:
    return hmac.digest(secret, b"events\0" + user_id.bytes + body, hashlib.sha256)[:_SIGNATURE_BYTES]
