"""Blobs: create, read, change, delete, list."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import AliasChoices, Field
from starlette.responses import Response

from api.auth import Identity, allow
from api.bodies import (
    Wire,
    answer,
    etag,
    fault,
    parsed,
    path_id,
    query_int,
    read,
    read_body,
    request_body,
    require_media,
)
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.making import BUCKETS_MAX, Wish, bucket_ids_of, made_of
from api.openapi import AT, CURSOR, LIMIT, ON_CONFLICT, VERSION, parameters, query
from api.pages import page_request, page_response
from api.preconditions import if_match, not_modified, query_instant
from api.queries import require_known
from api.raw import PARAMETERS, create_raw, is_raw
from api.shapes import Blob, Page
from api.wire import blob_json, timestamp
from api.writing import (
    change,
    changed,
    finished,
    require_schema,
    schema_of,
    state_of,
)
from domain.blobs import BlobView
from domain.deltas import DeltaDraft, delete, update
from domain.documents import Document
from domain.errors import Fault, Invalid
from domain.ids import parse_id
from domain.patches import ENVELOPE, JSON_PATCH, MERGE_PATCH, MergePatch, Patch, parse_patch
from domain.schemas import canonical_slug

router = APIRouter(prefix="/blobs", tags=["blobs"])

VERSION_MAX = 2**31 - 1
TEXT_EXAMPLE = {"content": "The quick brown fox", "content_type": "text/plain", "metadata": {}}
PATCH_EXAMPLE = {"delta": {"operation": "update", "patch": {"content": "The quick brown fox jumps"}}}


class NewBlobBody(Wire):
    """A blob to be made: ``content`` (a text) or ``data`` (any JSON), and what is to be known about it."""

    content: Any = None
    data: Any = Field(default=None, validation_alias=AliasChoices("data", "inline_data"))
    binary: Any = Field(default=None, description="Bytes that were sent before (POST /uploads), by hash and size.")
    content_type: str | None = Field(default=None, validation_alias=AliasChoices("content_type", "type"))
    schema_id: str | None = Field(default=None, max_length=100)
    title: Any = ""
    tags: Any = Field(default_factory=list)
    metadata: Any = Field(default_factory=dict)
    bucket_ids: list[str] = Field(default_factory=list, max_length=BUCKETS_MAX)
    parent_id: str | None = Field(default=None, validation_alias=AliasChoices("parent_id", "parent_blob_id"))
    provider_id: str | None = Field(
        default=None,
        max_length=100,
        validation_alias=AliasChoices("provider_id", "processor_id"),
        description="Who says this, in the client's words; what derives a blob is recorded by the system.",
    )
    storage_type: str | None = Field(
        default=None,
        pattern="^(inline|url|reference)$",
        description="A wish: small content stays in the database, large content does not.",
    )

    @property
    def document(self) -> dict[str, Any]:
        """The document as ``domain.documents`` parses it: only what was given."""
        given = self.model_fields_set & {"content", "data", "binary", "content_type", "title", "tags", "metadata"}
        values = {name: getattr(self, name) for name in given}
        if values.get("content_type", "") is None:
            del values["content_type"]
        return values


@router.post(
    "",
    operation_id="blobs_create",
    status_code=201,
    openapi_extra=request_body(NewBlobBody, example=TEXT_EXAMPLE) | parameters(*PARAMETERS),
    responses={201: {"model": Blob, "description": "Made"}},
)
async def create(request: Request) -> Response:
    """Make a blob; what reacts to it starts by itself. A body of another type than JSON is the content itself."""
    if is_raw(request):
        return await create_raw(request)
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    require_known(request, ())  # the documented ones are for a body that is the content: here the body says it

    async def work(attempt: Attempt) -> Response:
        return await _create(request, ports, identity, attempt, await read(request, NewBlobBody))

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))


async def _create(request: Request, ports: Ports, identity: Identity, attempt: Attempt, body: NewBlobBody) -> Response:
    wish = Wish(
        document=Document.parse(body.document),
        schema_id=body.schema_id,
        parent_id=None if body.parent_id is None else parse_id(body.parent_id, "/parent_id"),
        bucket_ids=bucket_ids_of(body.bucket_ids),
    )
    return await made_of(request, ports, identity, attempt, wish)


@router.get(
    "",
    operation_id="blobs_list",
    responses={200: {"model": Page[Blob]}},
    openapi_extra=parameters(
        LIMIT,
        CURSOR,
        query("schema_id", "string", "Only blobs of this schema."),
        query("provider_id", "string", "Only what this provider made."),
        query("tag", "string", "Only blobs with this tag."),
        query("bucket_id", "string", "Only blobs in this bucket."),
    ),
)
async def page(request: Request) -> Response:
    """List blobs, newest first; deleted ones are left out."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    query = request.query_params
    bucket = query.get("bucket_id")
    schema = query.get("schema_id")
    schema_id = None if schema is None else canonical_slug(schema)
    provider_id = query.get("provider_id", query.get("processor_id"))
    tag = query.get("tag")
    bucket_id = None if bucket is None else parse_id(bucket, "/query/bucket_id")
    filters = {"schema_id": schema_id, "provider_id": provider_id, "tag": tag, "bucket_id": bucket_id}
    wanted = page_request(request, ports.cursors, identity.user_id, {**filters, "processor_id": None})
    before = None if wanted.after is None else (datetime.fromisoformat(wanted.after[0]), UUID(wanted.after[1]))
    blobs, more = await ports.blobs.page(
        identity.user_id,
        limit=wanted.limit,
        before=before,
        schema_id=schema_id,
        provider_id=provider_id,
        tag=tag,
        bucket_id=bucket_id,
    )
    return page_response(
        request,
        ports.cursors,
        wanted,
        blobs,
        lambda blob: (timestamp(blob.created_at), str(blob.id)),
        show=lambda blob: blob_json(request, blob),
        more=more,
    )


@router.get(
    "/{blob_id}",
    operation_id="blobs_get",
    responses={200: {"model": Blob}, 304: {"description": "As If-None-Match names it"}},
    openapi_extra=parameters(VERSION, AT),
)
async def get(request: Request, blob_id: str) -> Response:
    """Read a blob as it is, or as it was: ``?version=3``, ``?at=2026-11-20T17:36:07Z``."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    blob = await wanted_version(request, ports, identity, blob_id)
    if not_modified(request, etag(blob.version)):
        return Response(status_code=304, headers={"ETag": etag(blob.version)})
    return answer(blob_json(request, blob), headers={"ETag": etag(blob.version)})


async def wanted_version(request: Request, ports: Ports, identity: Identity, blob_id: str) -> BlobView:
    """Return the blob of the path at the version or the instant of the query, or as it is; 404, 410, 422."""
    identifier = path_id(blob_id, "blob_id")
    version = query_int(request, "version", low=0, high=VERSION_MAX)
    at = query_instant(request, "at")
    if version is not None and at is not None:
        raise fault("/query/at", "invalid_value", "Give version or at, one of them.")
    if version is None and at is None:
        return await ports.blobs.living(identity.user_id, identifier)
    return await ports.blobs.get(identity.user_id, identifier, version, at=at)


@router.patch(
    "/{blob_id}",
    operation_id="blobs_update",
    responses={200: {"model": Blob, "description": "Changed, or the same version if nothing changed"}},
    openapi_extra=parameters(ON_CONFLICT)
    | {
        "requestBody": {
            "required": True,
            "content": {
                JSON_PATCH: {"schema": {"type": "array", "items": {"type": "object"}}},
                MERGE_PATCH: {"schema": {"type": "object"}},
                ENVELOPE: {"schema": {"type": "object"}, "example": PATCH_EXAMPLE},
            },
        }
    },
)
async def patch(request: Request, blob_id: str) -> Response:
    """Change a blob by RFC 6902, RFC 7396, or ``{"delta": {"operation": "update", "patch": {…}}}``."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(blob_id, "blob_id")

    async def work(attempt: Attempt) -> Response:
        if attempt.keyed and (done := await ports.deltas.outcome(identity.user_id, attempt.id("delta"))):
            return await changed(request, ports, identity, done.blob_id, done.version, status=200)
        blob = await ports.blobs.living(identity.user_id, identifier)
        media = require_media(request, (ENVELOPE, JSON_PATCH, MERGE_PATCH))
        wanted = parse_patch(media, parsed(await read_body(request), unique=True))
        match = if_match(request, required=media != ENVELOPE)
        schema = await schema_of(ports, identity.user_id, blob.schema_id)

        def decide(current: BlobView) -> DeltaDraft | None:
            draft = update(state_of(current), wanted)
            if draft is not None:
                require_schema(schema, draft.document, relocate=relocation(wanted))
            return draft

        return await change(
            request, ports, identity, blob, attempt,
            decide=decide, match=match, pinned=wanted.from_version, stated=wanted.on_conflict,
        )  # fmt: skip

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))


def relocation(wanted: Patch) -> Callable[[str], str]:
    """Return what moves a pointer into the document to the place of the patch that wrote there."""
    base = wanted.base if isinstance(wanted, MergePatch) else ""

    def relocate(pointer: str) -> str:
        moved = wanted.relocated(Invalid("", faults=[Fault(pointer, "schema_violation", "")])).faults[0].pointer
        return moved or base + pointer

    return relocate


@router.delete("/{blob_id}", operation_id="blobs_delete", status_code=204)
async def remove(request: Request, blob_id: str) -> Response:
    """Delete a blob: a delta like any other; every version stays readable."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(blob_id, "blob_id")

    async def work(attempt: Attempt) -> Response:
        if attempt.keyed and (done := await ports.deltas.outcome(identity.user_id, attempt.id("delta"))):
            return await changed(request, ports, identity, done.blob_id, done.version, status=204)
        blob = await ports.blobs.living(identity.user_id, identifier)
        match = if_match(request)

        def decide(current: BlobView) -> DeltaDraft:
            return delete(state_of(current))

        return await change(
            request, ports, identity, blob, attempt, decide=decide, match=match, merges=False, status=204
        )

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))
