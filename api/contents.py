"""A blob's content by itself, of any size: the text as it is, data as canonical JSON."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import allow
from api.blobs import wanted_version
from api.bodies import JSON, etag, parsed, path_id, read_body, require_media
from api.deps import ports_of
from api.idempotency import Attempt, once
from api.openapi import VERSION, parameters
from api.preconditions import if_match, not_modified
from api.shapes import Blob
from api.writing import change, changed, finished, require_schema, schema_of, state_of
from domain.blobs import BlobView
from domain.deltas import DeltaDraft, DeltaOperation, rewrite
from domain.documents import Document, body_bytes
from domain.errors import Malformed

router = APIRouter(prefix="/blobs", tags=["contents"])


@router.get(
    "/{blob_id}/content",
    operation_id="contents_get",
    responses={200: {"description": "The bytes", "content": {"text/plain": {}, "application/json": {}}}},
    openapi_extra=parameters(VERSION),
)
async def get(request: Request, blob_id: str) -> Response:
    """Read the bytes of a blob's content; never shown inline by a browser."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    blob = await wanted_version(request, ports, identity, blob_id)
    headers = {"ETag": etag(blob.version), "Content-Disposition": "attachment"}
    if not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers={"ETag": headers["ETag"]})
    headers["Content-Type"] = _content_type(blob.document)
    return Response(body_bytes(blob.document), headers=headers)


def _content_type(document: Document) -> str:
    if document.is_text and "charset" not in document.content_type.lower():
        return f"{document.content_type}; charset=utf-8"
    return document.content_type


@router.put(
    "/{blob_id}/content",
    operation_id="contents_put",
    responses={200: {"model": Blob, "description": "Replaced"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": "The quick brown fox jumps"},
                "application/json": {"schema": {}, "example": {"content": "The quick brown fox jumps"}},
            },
        }
    },
)
async def put(request: Request, blob_id: str) -> Response:
    """Replace a blob's content; title, tags and metadata stay. Needs ``If-Match``."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(blob_id, "blob_id")

    async def work(attempt: Attempt) -> Response:
        if attempt.keyed and (done := await ports.deltas.outcome(identity.user_id, attempt.id("delta"))):
            return await changed(request, ports, identity, done.blob_id, done.version, status=200)
        blob = await ports.blobs.living(identity.user_id, identifier)
        own = blob.document.content_type.partition(";")[0].strip().lower()
        require_media(request, (own, "text/plain" if blob.document.is_text else JSON))
        raw = await read_body(request)
        body = _text(raw) if blob.document.is_text else parsed(raw)
        match = if_match(request, required=True)
        schema = await schema_of(ports, identity.user_id, blob.schema_id)

        def decide(current: BlobView) -> DeltaDraft | None:
            after = Document.parse(replace(current.document, body=body).to_json())
            require_schema(schema, after)
            return rewrite(state_of(current), after, operation=DeltaOperation.UPDATE)

        return await change(request, ports, identity, blob, attempt, decide=decide, match=match, pinned=False)

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8, at offset {error.start}.") from None
