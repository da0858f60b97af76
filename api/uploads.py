"""Uploads: large content part by part, resumed after any interruption, checked as a whole, then a blob."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Identity, allow
from api.bodies import Wire, answer, fault, path_id, read, request_body, whole
from api.concurrency import Wanted, overtaken
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.landing import awaited, document_bytes_max, fields_of, land_change, land_new, over
from api.making import BUCKETS_MAX, Wish, bucket_ids_of
from api.middleware import PREFIX
from api.preconditions import IfMatch, if_match
from api.shapes import Blob, UploadShape
from api.streams import bounded, declared_digest
from api.writing import changed, finished, respond, schema_of
from domain.documents import document_hash
from domain.errors import Conflict, Fault, Invalid, Malformed, NotFound, TooLarge
from domain.ids import BucketId, UserId, derived_id, parse_id
from domain.uploads import (
    PARTS_MAX,
    Arrived,
    NewUpload,
    Upload,
    ended,
    parse_digest,
    require_digest,
    require_number,
)

router = APIRouter(prefix="/uploads", tags=["uploads"])

BINARY = "application/octet-stream"
EXAMPLE = {"content_type": "video/mp4", "size": 314572800, "title": "The storm, filmed"}
OF_NEW_BLOBS = ("title", "tags", "metadata", "schema_id", "bucket_ids", "parent_id")
"""What only a blob that is to be made can be given."""


class NewUploadBody(Wire):
    """A large content to come: what it will be, and of which blob."""

    content_type: str
    size: int | None = Field(default=None, ge=0, description="Bytes of the whole; reserved at once if it is given.")
    digest: str | None = Field(default=None, description="sha256: and 64 hexadecimal digits, of the whole.")
    title: Any = ""
    tags: Any = Field(default_factory=list)
    metadata: Any = Field(default_factory=dict)
    schema_id: str | None = Field(default=None, max_length=100)
    bucket_ids: list[str] = Field(default_factory=list, max_length=BUCKETS_MAX)
    parent_id: str | None = None
    blob_id: str | None = Field(default=None, description="Replace the content of this blob; needs If-Match.")


class Completion(Attempt):
    """The one write that ends an upload: its ids follow from the upload's, so that repeating it changes nothing."""

    def __init__(self, upload: Upload) -> None:
        super().__init__()
        self._upload = upload

    @property
    def keyed(self) -> bool:
        """An earlier attempt may have written already."""
        return True

    @property
    def key(self) -> str:
        """What ``deltas.idempotency_key`` holds."""
        return f"upload {self._upload.id}"

    def id(self, kind: str) -> UUID:
        """Return the id for one thing that the upload makes."""
        return derived_id(f"upload:{self._upload.id}:{kind}")


@router.post(
    "",
    operation_id="uploads_begin",
    status_code=201,
    openapi_extra=request_body(NewUploadBody, example=EXAMPLE),
    responses={201: {"model": UploadShape, "description": "Begun"}},
)
async def begin(request: Request) -> Response:
    """Begin an upload: send its parts to ``parts_url``, in any order, then complete it."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")

    async def work(attempt: Attempt) -> Response:
        body = await read(request, NewUploadBody)
        new = NewUpload(
            user_id=identity.user_id,
            id=attempt.id("upload"),
            content_type=body.content_type,
            size=body.size,
            digest=None if body.digest is None else parse_digest(body.digest, "/digest"),
            blob_id=None if body.blob_id is None else parse_id(body.blob_id, "/blob_id"),
            fields=await _fields(request, ports, identity, body),
        )
        upload = await ports.uploads.begin(new)
        return answer(upload_json(upload), 201, {"Location": f"{PREFIX}/uploads/{upload.id}"})

    return await once(request, ports, identity.user_id, work)


async def _fields(request: Request, ports: Ports, identity: Identity, body: NewUploadBody) -> dict[str, Any]:
    """Return what the upload keeps for its blob; everything that can be refused now is."""
    if body.blob_id is None:
        await _require_known(ports, identity, body)
        document = awaited(body.content_type, {"title": body.title, "tags": body.tags, "metadata": body.metadata})
        given = {"schema_id": body.schema_id, "bucket_ids": body.bucket_ids, "parent_id": body.parent_id}
        return {**fields_of(document), **given}
    for name in OF_NEW_BLOBS:
        if name in body.model_fields_set:
            raise fault(f"/{name}", "invalid_value", f"{name} is for a new blob; this upload replaces a content.")
    blob = await ports.blobs.living(identity.user_id, parse_id(body.blob_id, "/blob_id"))
    match = if_match(request, required=True)
    if match is not None and not match.allows(blob.version):
        raise await overtaken(ports, identity.user_id, blob, Wanted(match=match))
    if blob.document.content_type != body.content_type:
        detail = f"The blob is {blob.document.content_type}; content_type does not change."
        raise Invalid(detail, code="immutable_field", faults=[Fault("/content_type", "immutable_field", detail)])
    return {"if_match": None if match is None or match.any else sorted(match.versions)}


async def _require_known(ports: Ports, identity: Identity, body: NewUploadBody) -> None:
    """Raise Invalid for a schema, parent or bucket that is not there: better now than after the last part."""
    await schema_of(ports, identity.user_id, body.schema_id or "blob-v1")
    if body.parent_id is not None:
        parent = parse_id(body.parent_id, "/parent_id")
        try:
            await ports.blobs.exists(identity.user_id, parent)
        except NotFound:
            raise fault("/parent_id", "not_found", f"There is no blob {parent}.") from None
    for index, bucket in enumerate(bucket_ids_of(body.bucket_ids)):
        try:
            await ports.buckets.get(UserId(identity.user_id), BucketId(bucket))
        except NotFound:
            raise fault(f"/bucket_ids/{index}", "not_found", f"There is no bucket {bucket}.") from None


@router.get("/{upload_id}", operation_id="uploads_get", responses={200: {"model": UploadShape}})
async def get(request: Request, upload_id: str) -> Response:
    """Read how far an upload is; the parts that it names need not be sent again."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    return answer(upload_json(await ports.uploads.get(identity.user_id, path_id(upload_id, "upload_id"))))


@router.put(
    "/{upload_id}/parts/{number}",
    operation_id="uploads_put_part",
    status_code=204,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {BINARY: {"schema": {"type": "string", "format": "binary"}, "example": "8388608 bytes"}},
        }
    },
)
async def put_part(request: Request, upload_id: str, number: str) -> Response:
    """Send one part, from 1, of exactly ``part_size`` bytes but for the last; the same again replaces it."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(upload_id, "upload_id")

    async def work(_attempt: Attempt) -> Response:
        upload = await ports.uploads.get(identity.user_id, identifier)
        place = whole(number, high=PARTS_MAX) or 0
        require_number(place)
        _require_open(upload)
        wanted = declared_digest(request)
        async with ports.places.one():
            data = await bounded(request, upload.part_size)
            if wanted is not None:
                require_digest(wanted, await asyncio.to_thread(document_hash, bytes(data)))
            await ports.uploads.part(upload, place, data)
        return Response(status_code=204)

    return await once(request, ports, identity.user_id, work, streamed=True)


@router.post(
    "/{upload_id}/complete",
    operation_id="uploads_complete",
    status_code=201,
    responses={
        201: {"model": Blob, "description": "The blob that was made"},
        200: {"model": Blob, "description": "The blob whose content was replaced"},
    },
)
async def complete(request: Request, upload_id: str) -> Response:
    """Check the whole and make its blob, or replace the content of one; repeating it gives the same blob."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(upload_id, "upload_id")

    async def work(_attempt: Attempt) -> Response:
        upload = await ports.uploads.get(identity.user_id, identifier)
        if upload.status == "completed":
            return await _completed(request, ports, identity, upload)
        _require_open(upload)
        try:
            return await _completing(request, ports, identity, upload)
        except Conflict:  # the same request at the same time may have been faster
            upload = await ports.uploads.get(identity.user_id, identifier)
            if upload.status != "completed":
                raise
            return await _completed(request, ports, identity, upload)

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))


async def _completing(request: Request, ports: Ports, identity: Identity, upload: Upload) -> Response:
    kept = document_bytes_max(upload.content_type)
    try:
        # What is to become a document is in memory meanwhile.
        async with ports.places.one() if kept else nullcontext():
            arrived = await ports.uploads.assembled(upload, keep_max=kept)
            require_digest(upload.digest, arrived.hash)
            response = await _landed(request, ports, identity, upload, arrived)
    except (Invalid, Malformed, TooLarge):
        # What came is what came: no repetition makes it acceptable, so nothing of it stays.
        await asyncio.shield(ports.uploads.close(upload))
        raise
    await over(ports, arrived)
    return response


async def _landed(request: Request, ports: Ports, identity: Identity, upload: Upload, arrived: Arrived) -> Response:
    attempt, fields = Completion(upload), upload.fields
    if upload.blob_id is None:
        given = {name: fields[name] for name in ("title", "tags", "metadata")}
        wish = Wish(
            document=awaited(upload.content_type, given),
            schema_id=fields["schema_id"],
            parent_id=None if fields["parent_id"] is None else UUID(fields["parent_id"]),
            bucket_ids=bucket_ids_of(fields["bucket_ids"]),
        )
        return await land_new(request, ports, identity, attempt, arrived, wish)
    blob = await ports.blobs.living(identity.user_id, upload.blob_id)
    match = if_match(request) or _first_match(fields)
    return await land_change(request, ports, identity, attempt, arrived, blob=blob, match=match)


def _first_match(fields: Mapping[str, Any]) -> IfMatch:
    """Return the If-Match with which the upload was begun; completing it may name a newer one."""
    versions = fields["if_match"]
    return IfMatch(versions is None, frozenset(versions or ()))


async def _completed(request: Request, ports: Ports, identity: Identity, upload: Upload) -> Response:
    """Answer again what an upload became."""
    made = "if_match" not in upload.fields
    done = await ports.deltas.outcome(identity.user_id, Completion(upload).id("delta"))
    status = 201 if made else 200
    if done is not None:
        return await changed(request, ports, identity, done.blob_id, done.version, status=status)
    if upload.blob_id is None:  # pragma: no cover - a completed upload has a blob
        raise NotFound("There is no such blob.")
    return respond(request, await ports.blobs.living(identity.user_id, upload.blob_id), status)


@router.delete("/{upload_id}", operation_id="uploads_abort", status_code=204)
async def abort(request: Request, upload_id: str) -> Response:
    """Abort an upload; nothing of it stays."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(upload_id, "upload_id")

    async def work(_attempt: Attempt) -> Response:
        await ports.uploads.abort(identity.user_id, identifier)
        return Response(status_code=204)

    return await once(request, ports, identity.user_id, work)


def _require_open(upload: Upload) -> None:
    if upload.status != "open":
        raise ended(f"It is {upload.status}.")


def upload_json(upload: Upload) -> dict[str, Any]:
    """Return an upload as it stands."""
    return {
        "id": upload.id,
        "status": upload.status,
        "content_type": upload.content_type,
        "size": upload.size,
        "digest": upload.digest,
        "part_size": upload.part_size,
        "parts_url": f"{PREFIX}/uploads/{upload.id}/parts",
        "parts": [part.number for part in upload.parts],
        "received": upload.received,
        "blob_id": upload.blob_id,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
    }
