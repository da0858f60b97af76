"""Events: what happened, as CloudEvents 1.0.2 in JSON, and the cursor that resumes any list of them.

An event is stored as its short name (``blob.created``), a subject (``blobs/{id}``), a key and data: ids, versions
and sizes, never content. Everything else of the CloudEvent follows from these, for the API and the relay alike.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from domain.errors import Gone, Malformed
from domain.ids import EventId, UserId

TYPE_PREFIX = "ai.memmie.studio."
TYPE_SUFFIX = ".v1"
CONTENT_TYPE = "application/cloudevents+json"

_SIGNATURE_BYTES = 12
_CURSOR_BYTES = 16 + 8 + _SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class EventKind:
    """When an event is emitted, and what its key (the last part of its NATS subject) is."""

    when: str
    key: str


KINDS: dict[str, EventKind] = {
    "blob.created": EventKind("A person created a blob.", "schema"),
    "blob.updated": EventKind("A person changed a blob, reverted or restored it.", "schema"),
    "blob.deleted": EventKind("A person deleted a blob.", "schema"),
    "blob.derived": EventKind("A run made a blob, or a new version of one.", "schema"),
    "delta.applied": EventKind("Any delta was applied, of a person or a run.", "blob"),
    "run.started": EventKind("A run was claimed.", "provider"),
    "run.completed": EventKind("A run settled.", "provider"),
    "run.failed": EventKind("A run failed for good.", "provider"),
    "run.superseded": EventKind("A run's inputs moved on before it settled.", "provider"),
    "cascade.started": EventKind("A cascade was planned.", "root blob, or the cascade"),
    "cascade.completed": EventKind("A cascade closed; its status says how.", "root blob, or the cascade"),
    "bucket.created": EventKind("A bucket was created.", "bucket"),
    "bucket.updated": EventKind("A bucket's name or metadata changed.", "bucket"),
    "bucket.deleted": EventKind("A bucket was deleted; its blobs stay.", "bucket"),
    "bucket.blob_added": EventKind("A blob joined a bucket.", "bucket"),
    "bucket.blob_removed": EventKind("A blob left a bucket.", "bucket"),
    "bucket.structure_changed": EventKind("A bucket moved, or its blobs changed their order.", "bucket"),
    "schema.registered": EventKind("A version of a schema was registered.", "schema"),
    "workflow.registered": EventKind("A version of a workflow was registered.", "workflow"),
    "provider.registered": EventKind("A provider, or a new version of it, was registered.", "provider"),
    "provider.deleted": EventKind("A provider was deleted; what it made stays.", "provider"),
    "instance.updated": EventKind("A provider was switched on or off, or its settings changed.", "provider"),
    "user.created": EventKind("A user was created.", "user"),
    "api_key.created": EventKind("An API key was made.", "API key"),
    "api_key.revoked": EventKind("An API key was revoked.", "API key"),
}
"""Every event there is; a test holds the documentation and what is emitted against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as it is stored; ``seq`` counts a user's events from 1 without gaps."""

    user_id: UserId
    seq: int
    id: EventId
    type: str
    subject: str
    key: str
    data: Mapping[str, Any] = field(hash=False)
    time: datetime


def source(user_id: UserId) -> str:
    """Return the CloudEvents source: one stream of events per user."""
    return f"/users/{user_id}/studio"


def full_type(name: str) -> str:
    """Return the CloudEvents type of a short name: ``ai.memmie.studio.blob.created.v1``."""
    return f"{TYPE_PREFIX}{name}{TYPE_SUFFIX}"


def short_type(name: str) -> str:
    """Return the short name of an event type, given either form."""
    return name.removeprefix(TYPE_PREFIX).removesuffix(TYPE_SUFFIX)


def cloud_event(event: Event) -> dict[str, Any]:
    """Return the event as a CloudEvent in structured JSON; ids that the data names become extensions."""
    extensions = {"correlationid": event.data.get("cascade_id"), "causationid": event.data.get("delta_id")}
    return {
        "specversion": "1.0",
        "id": str(event.id),
        "source": source(event.user_id),
        "type": full_type(event.type),
        "subject": event.subject,
        "time": event.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "userid": str(event.user_id),
        # As text of equal width, so that sequences compare as CloudEvents extensions do.
        "sequence": f"{event.seq:020d}",
        **{name: str(value) for name, value in extensions.items() if value is not None},
        "data": dict(event.data),
    }


def cursor(installation: UUID, secret: bytes, user_id: UserId, seq: int) -> str:
    """Return the cursor behind event ``seq``: installation and sequence, signed for this user."""
    body = installation.bytes + seq.to_bytes(8, "big")
    return base64.urlsafe_b64encode(body + _signature(secret, user_id, body)).decode().rstrip("=")


def read_cursor(text: str, installation: UUID, secret: bytes, user_id: UserId) -> int:
    """Return the sequence behind which a list goes on.

    Raises Malformed ``invalid_cursor`` for one that is not ours or not this user's, Gone ``resync_required`` for
    one of another installation (a restored database, CASCADES rule 11): the reader reads everything again.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    if len(raw) != _CURSOR_BYTES:
        raise Malformed("The cursor is not one that a list of events gave.", code="invalid_cursor")
    body, signature = raw[:-_SIGNATURE_BYTES], raw[-_SIGNATURE_BYTES:]
    if UUID(bytes=body[:16]) != installation:
        raise Gone(
            "The cursor belongs to another installation: read the current state, then start without a cursor.",
            code="resync_required",
        )
    if not hmac.compare_digest(signature, _signature(secret, user_id, body)):
        raise Malformed("The cursor was altered, or belongs to somebody else.", code="invalid_cursor")
    return int.from_bytes(body[16:], "big")


def _signature(secret: bytes, user_id: UserId, body: bytes) -> bytes:
    return hmac.digest(secret, b"events" + user_id.bytes + body, hashlib.sha256)[:_SIGNATURE_BYTES]
