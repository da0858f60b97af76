"""A blob's content by itself, of any size: a text as it is, data as canonical JSON, binary as the bytes that came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from uuid import UUID

import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from api.addresses import NAMES
from api.auth import Identity, allow
from api.blobs import wanted_version
from api.bodies import JSON, etag, media_type_of, parsed, path_id, read_body, require_media
from api.concurrency import Wanted, overtaken
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.landing import text_of
from api.openapi import AT, ON_CONFLICT, VERSION, parameters, query
from api.preconditions import if_match, not_modified
from api.problems import problem_response
from api.ranges import NotSatisfiable, wanted_range
from api.raw import replace_raw
from api.shapes import Blob
from api.streams import declared_size
from api.writing import change, changed, finished, require_schema, schema_of, state_of
from domain.blobs import BlobView
from domain.deltas import DeltaDraft, DeltaOperation, rewrite
from domain.documents import Document, body_bytes
from domain.errors import StudioError
from domain.media import base_type, is_json, is_text
from domain.uploads import content_digest

router = APIRouter(prefix="/blobs", tags=["contents"])

_log = structlog.get_logger("api.contents")

_SIGNED = tuple(query(name, "string", "Of a signed address.") for name in NAMES if name != "version")


class BrokenOff(Exception):
    """An answer that had begun could not be ended: no error of the API any more, its connection is closed."""


@dataclass(frozen=True, slots=True)
class _Source:
    """The bytes of a content, wherever they are."""

    size: int
    pieces: Callable[[int, int], AsyncIterator[bytes]]


@router.get(
    "/{blob_id}/content",
    operation_id="contents_get",
    responses={
        200: {"description": "The bytes", "content": {"text/plain": {}, "application/json": {}, "*/*": {}}},
        206: {"description": "The bytes of one range"},
    },
    openapi_extra=parameters(VERSION, AT, *_SIGNED),
)
async def get(request: Request, blob_id: str) -> Response:
    """Read the bytes of a blob's content, or one range of them; never shown inline by a browser."""
    ports = ports_of(request)
    user_id, blob = await _readable(request, ports, blob_id)
    tag = etag(blob.version)
    if not_modified(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    source = await _source(ports, user_id, blob)
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": "attachment",
        "Content-Type": _content_type(blob.document),
        "Repr-Digest": content_digest(blob.content_hash),
    }
    try:
        part = wanted_range(request.headers.get("range"), source.size) if _range_counts(request, tag) else None
    except NotSatisfiable as error:
        return problem_response(request, error, {"Content-Range": f"bytes */{source.size}"})
    if part is None:
        return await _sent(request, source, (0, source.size), 200, headers | {"Content-Digest": headers["Repr-Digest"]})
    start, end = part
    return await _sent(
        request, source, part, 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{source.size}"}
    )


async def _readable(request: Request, ports: Ports, blob_id: str) -> tuple[UUID, BlobView]:
    """Return whose blob is asked for, and it: by a signed address, or by a key."""
    if "signature" not in request.query_params:
        identity = await allow(request, "blobs:read")
        return identity.user_id, await wanted_version(request, ports, identity, blob_id)
    identifier = path_id(blob_id, "blob_id")
    grant = ports.addresses.granted(request, identifier)
    request.scope["state"]["user_id"] = str(grant.user_id)
    return grant.user_id, await ports.blobs.get(grant.user_id, identifier, grant.version)


async def _source(ports: Ports, user_id: UUID, blob: BlobView) -> _Source:
    if blob.document.binary:
        found = await ports.downloads.find(user_id, blob.content_hash)
        return _Source(found.size, lambda start, end: ports.downloads.pieces(found, start, end))
    body = body_bytes(blob.document)

    async def pieces(start: int, end: int) -> AsyncIterator[bytes]:
        yield body[start:end]

    return _Source(len(body), pieces)


def _range_counts(request: Request, tag: str) -> bool:
    """Whether ``Range`` is to be looked at: ``If-Range`` must name this very version (never a date: we have none)."""
    return request.headers.get("if-range", tag).strip() == tag


async def _sent(
    request: Request, source: _Source, part: tuple[int, int], status: int, headers: dict[str, str]
) -> Response:
    start, end = part
    headers["Content-Length"] = str(end - start)
    if request.scope["state"]["method"] == "HEAD":
        return Response(status_code=status, headers=headers)
    pieces = source.pieces(start, end)
    # The first piece is verified before the answer begins: what is corrupt there is a problem, not a broken stream.
    first = await anext(pieces, b"")
    if len(first) == end - start:
        return Response(first, status, headers)
    return StreamingResponse(_all(first, pieces), status, headers)


async def _all(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    try:
        async for piece in rest:
            yield piece
    except StudioError as error:
        # The answer has begun: all that is left is to break it off, so that nobody takes it for the whole.
        _log.exception("content broken off", code=error.problem_code)
        raise BrokenOff from error


def _content_type(document: Document) -> str:
    if document.is_text and "charset" not in document.content_type.lower():
        return f"{document.content_type}; charset=utf-8"
    return document.content_type


@router.put(
    "/{blob_id}/content",
    operation_id="contents_put",
    responses={200: {"model": Blob, "description": "Replaced"}},
    openapi_extra=parameters(ON_CONFLICT)
    | {
        "requestBody": {
            "required": True,
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": "The quick brown fox jumps"},
                "application/json": {"schema": {}, "example": {"content": "The quick brown fox jumps"}},
                "*/*": {"schema": {"type": "string", "format": "binary"}},
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
        if blob.document.binary:
            return await _replace_binary(request, ports, identity, attempt, blob)
        require_media(request, (base_type(blob.document.content_type), "text/plain" if blob.document.is_text else JSON))
        raw = await read_body(request)
        body = text_of(raw) if blob.document.is_text else parsed(raw)
        match = if_match(request, required=True)
        schema = await schema_of(ports, identity.user_id, blob.schema_id)

        def decide(current: BlobView) -> DeltaDraft | None:
            after = Document.parse(replace(current.document, body=body).to_json())
            require_schema(schema, after)
            return rewrite(state_of(current), after, operation=DeltaOperation.UPDATE)

        return await change(request, ports, identity, blob, attempt, decide=decide, match=match)

    answered = await once(request, ports, identity.user_id, work, streamed=_is_streamed(request))
    return await finished(request, ports, identity, answered)


async def _replace_binary(
    request: Request, ports: Ports, identity: Identity, attempt: Attempt, blob: BlobView
) -> Response:
    require_media(request, (base_type(blob.document.content_type),))
    match = if_match(request, required=True)
    if match is None or not match.allows(blob.version):  # before gigabytes are taken for nothing
        raise await overtaken(ports, identity.user_id, blob, Wanted(match=match))
    return await replace_raw(request, ports, identity, attempt, blob, match)


def _is_streamed(request: Request) -> bool:
    """Whether the body is not one to be held in memory, as what replaces a text or data is."""
    given = media_type_of(request)
    body_max: int = request.app.state.body_max
    return not (is_text(given) or is_json(given) or not given) or (declared_size(request) or 0) > body_max
