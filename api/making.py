"""Making a blob: what every way of making one has in common, from a checked document to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from api.auth import Identity
from api.bodies import fault
from api.deps import Ports
from api.idempotency import Attempt
from api.quotas import require_room
from api.writing import (
    SCHEMA_OF_DATA,
    SCHEMA_OF_TEXT,
    changed,
    cutoff_of,
    require_schema,
    respond,
    schema_of,
)
from domain.blobs import BlobView, Made, NewBlob, unknown_content
from domain.documents import Document, content_hash, content_size, preview
from domain.errors import Fault, Invalid, StudioError
from domain.ids import parse_id
from domain.uploads import Landing

BUCKETS_MAX = 20
"""Buckets that one create may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A blob that somebody wants made, checked but for its schema and for what it refers to."""

    document: Document
    schema_id: str | None
    parent_id: UUID | None
    bucket_ids: Sequence[UUID]


async def made_of(
    request: Request, ports: Ports, identity: Identity, attempt: Attempt, wish: Wish, landing: Landing | None = None
) -> Response:
    """Make a blob and answer it; its content may have come by an upload, which ends with it (``landing``)."""
    document = wish.document
    schema = await schema_of(ports, identity.user_id, wish.schema_id or default_schema(document))
    require_schema(schema, document)
    await require_room(ports, identity.user_id, content_size(document) - (landing.reserved if landing else 0))
    new = NewBlob(
        user_id=identity.user_id,
        blob_id=attempt.id("blob"),
        delta_id=attempt.id("delta"),
        cascade_id=attempt.id("cascade"),
        schema_id=schema.slug,
        document=document,
        content_hash=content_hash(document),
        cutoff_hash=cutoff_of(schema, document),
        actor=identity.actor,
        parent_id=wish.parent_id,
        bucket_ids=wish.bucket_ids,
        idempotency_key=attempt.key,
        reserved=landing.reserved if landing else 0,
    )
    made = await ports.blobs.create(new, before=landing.before if landing else None)
    if made is None:
        return await changed(request, ports, identity, new.blob_id, 1, status=201)
    if made.problem is not None:
        raise _unknown(made, new)
    ports.bell.ring()
    return respond(request, _fresh(new, made), 201, cascade_id=new.cascade_id)


def default_schema(document: Document) -> str:
    """Return the schema of a blob that names none: it accepts anything, and wakes no built-in provider."""
    return SCHEMA_OF_TEXT if document.is_text else SCHEMA_OF_DATA


def bucket_ids_of(given: Sequence[str]) -> list[UUID]:
    """Return the buckets that a create names; raises Invalid ``invalid_id``, ``duplicate_id``."""
    ids = [parse_id(value, f"/bucket_ids/{index}") for index, value in enumerate(given)]
    for index, bucket_id in enumerate(ids):
        if bucket_id in ids[:index]:
            raise fault(f"/bucket_ids/{index}", "duplicate_id", "The bucket is named already.")
    return ids


def _unknown(made: Made, new: NewBlob) -> StudioError:
    if made.problem == "unknown_content":
        return unknown_content(new.document)
    if made.problem == "unknown_parent":
        pointer, detail = "/parent_id", f"There is no blob {new.parent_id}."
    else:
        pointer, detail = (
            f"/bucket_ids/{list(new.bucket_ids).index(made.root_id)}",
            f"There is no bucket {made.root_id}.",
        )
    return Invalid(detail, faults=[Fault(pointer, "not_found", detail)])


def _fresh(new: NewBlob, made: Made) -> BlobView:
    """Return what was just made, without reading it."""
    return BlobView(
        id=new.blob_id,
        version=1,
        current_version=1,
        document=new.document,
        schema_id=new.schema_id,
        created_by="user",
        provider_id=None,
        root_id=made.root_id,
        depth=made.depth,
        parent_ids=[] if new.parent_id is None else [new.parent_id],
        external=made.external,
        kept_version=1,
        patch_bytes=0,
        processing_meta={},
        content_hash=new.content_hash,
        size=content_size(new.document),
        preview=preview(new.document),
        cascade_id=new.cascade_id,
        created_at=made.created_at,
        updated_at=made.created_at,
        deleted=False,
    )
