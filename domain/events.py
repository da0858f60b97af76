"""Events: what the world is told. A row of the outbox becomes a CloudEvent (1.0.2, JSON) on a NATS subject.

A row holds ``id, user_id, seq, type, subject, key, time, data``. ``type`` is the short name,
``blob.created``; the CloudEvents type is ``ai.memmie.studio.blob.created.v1`` and the NATS subject
``studio.blob.created.<user>.<key>``. Data names ids, versions, hashes and sizes, never content: events are
kept, copied and logged in places where nobody checks whose they are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from domain.canonical import canonical
from domain.errors import Fault, Invalid
from domain.ids import EventId, UserId

SPEC_VERSION = "1.0"
MEDIA_TYPE = "application/cloudevents+json"
TYPE_PREFIX = "ai.memmie.studio"
SUBJECT_PREFIX = "studio"
DATA_BYTES_MAX = 16 * 1024
TOKEN_CHARACTERS_MAX = 64
CONTENT_MEMBERS = frozenset({"content", "data", "patch", "inverse", "preview", "document"})
"""Members that would be content; events never have them."""

EVENT_TYPES: Mapping[str, str] = {
    "blob.created": "schema",
    "blob.updated": "schema",
    "blob.deleted": "schema",
    "blob.restored": "schema",
    "blob.derived": "schema",
    "blob.stale": "schema",
    "delta.applied": "blob",
    "delta.proposed": "blob",
    "delta.rejected": "blob",
    "run.started": "provider",
    "run.completed": "provider",
    "run.failed": "provider",
    "run.superseded": "provider",
    "run.parked": "provider",
    "run.approved": "provider",
    "run.cancelled": "provider",
    "run.dead_lettered": "provider",
    "provider.registered": "provider",
    "provider.activated": "provider",
    "provider.paused": "provider",
    "provider.configured": "provider",
    "provider.upgraded": "provider",
    "provider.deleted": "provider",
    "workflow.registered": "workflow",
    "schema.registered": "schema",
    "schema.deprecated": "schema",
    "cascade.started": "blob",
    "cascade.completed": "blob",
    "cascade.cancelled": "blob",
    "cascade.retried": "blob",
    "cascade.halted": "blob",
    "bucket.created": "bucket",
    "bucket.updated": "bucket",
    "bucket.deleted": "bucket",
    "bucket.blob_added": "bucket",
    "bucket.blob_removed": "bucket",
    "bucket.structure_changed": "bucket",
    "book.updated": "book",
    "book.compiled": "book",
    "quota.warning": "user",
    "run.blocked": "provider",
    "budget.warning": "user",
    "budget.exhausted": "user",
    "budget.topped_up": "user",
}
"""The published event types, each with what its key names."""

_TYPE = re.compile(r"([a-z]+)\.([a-z]+(?:_[a-z]+)*)")
_NOT_IN_TOKEN = re.compile(r"[^A-Za-z0-9_-]")
_TOPIC = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the outbox. ``seq`` orders a user's events without gaps; it is None until the row is written."""

    id: EventId
    user_id: UserId
    type: str
    subject: str
    """What it is about: ``blobs/{id}``."""
    key: str
    """What subscribers filter by: the slug of the schema or provider, or an id; see ``EVENT_TYPES``."""
    time: datetime
    data: Mapping[str, Any]
    seq: int | None = None


def event(
    type_name: str,
    *,
    id: UUID,  # noqa: A002 - the name that CloudEvents gives it
    user_id: UUID,
    subject: str,
    key: str,
    time: datetime,
    data: Mapping[str, Any],
    seq: int | None = None,
) -> Event:
    """Return a checked event.

    Raises Invalid if the type is not ``entity.verb``, the time has no zone, the subject is empty, or the data
    holds content, and TooLarge beyond 16 KiB of data.
    """
    faults = []
    if not _TYPE.fullmatch(type_name):
        faults.append(Fault("/type", "invalid_value", "An event's type is entity.verb, such as blob.created."))
    if not subject:
        faults.append(Fault("/subject", "missing_field", "subject names a resource, such as blobs/{id}."))
    if time.tzinfo is None:
        faults.append(Fault("/time", "invalid_value", "The time has a zone."))
    held = sorted(CONTENT_MEMBERS & data.keys())
    if held:
        faults.append(Fault(f"/data/{held[0]}", "invalid_value", "Events carry ids and sizes, never content."))
    if faults:
        raise Invalid(faults[0].detail, faults=faults)
    canonical(dict(data), bytes_max=DATA_BYTES_MAX)
    return Event(
        id=EventId(id),
        user_id=UserId(user_id),
        type=type_name,
        subject=subject,
        key=key,
        time=time,
        data=data,
        seq=seq,
    )


def cloud_event(event: Event, *, installation: str | None = None) -> dict[str, Any]:
    """Return the CloudEvents 1.0 JSON of an event.

    Extension attributes: ``userid``; ``sequence`` (a text, as the sequence extension has it), with which and the
    ``installationid`` a reader resumes; ``correlationid`` (the cascade) and ``causationid`` (the delta) if the
    data names them.
    """
    envelope: dict[str, Any] = {
        "specversion": SPEC_VERSION,
        "id": str(event.id),
        "source": f"/users/{event.user_id}/studio",
        "type": f"{TYPE_PREFIX}.{event.type}.v1",
        "subject": event.subject,
        "time": _rfc3339(event.time),
        "datacontenttype": "application/json",
        "userid": str(event.user_id),
        "data": dict(event.data),
    }
    extensions = {
        "sequence": event.seq,
        "correlationid": event.data.get("cascade_id"),
        "causationid": event.data.get("delta_id"),
        "installationid": installation,
    }
    envelope.update({name: str(value) for name, value in extensions.items() if value is not None})
    return envelope


def nats_subject(event: Event, topics: Mapping[str, str] | None = None) -> str:
    """Return ``studio.<entity>.<verb>.<user>.<key>``.

    ``topics`` is the seed's ``events.topics`` (``blob_created: studio.blob.created``): a prefix per event type.
    Raises Invalid if a topic is not a plain subject (wildcards and empty tokens would reach other people's).
    """
    topic = (topics or {}).get(event.type.replace(".", "_", 1))
    return f"{_prefix(event.type, topic)}.{subject_token(str(event.user_id))}.{subject_token(event.key)}"


@lru_cache(maxsize=256)
def _prefix(type_name: str, topic: str | None) -> str:
    entity, _, verb = type_name.partition(".")
    prefix = f"{SUBJECT_PREFIX}.{entity}.{verb}" if topic is None else topic
    if not _TOPIC.fullmatch(prefix):
        detail = "A topic is a NATS subject of letters, digits, - and _ between dots."
        raise Invalid(detail, faults=[Fault(f"/events/topics/{entity}_{verb}", "invalid_value", detail)])
    return prefix


@lru_cache(maxsize=4096)
def subject_token(text: str) -> str:
    """Return a text as one token of a NATS subject, ``[A-Za-z0-9_-]{1,64}``; other characters become ``-``.

    Too long a text keeps its beginning and ends in 16 digits of its hash, so that two of them stay apart.
    """
    token = _NOT_IN_TOKEN.sub("-", text) or "-"
    if len(token) <= TOKEN_CHARACTERS_MAX:
        return token
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{token[: TOKEN_CHARACTERS_MAX - 17]}-{digest}"


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
