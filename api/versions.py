"""Going back: to an earlier version, to what the machine wrote, from deletion. Each makes a new version."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Identity, allow
from api.bodies import Wire, fault, path_id, read, request_body
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.preconditions import if_match
from api.shapes import Blob
from api.writing import Decide, change, changed, finished, state_of
from domain.blobs import BlobView
from domain.deltas import restore, revert
from domain.documents import Document
from domain.errors import Conflict, NotFound

router = APIRouter(prefix="/blobs", tags=["versions"])

Decided = Callable[[BlobView], Awaitable[Decide]]
"""Reads what a change needs, and returns how it is decided."""
VERSION_MAX = 2**31 - 1
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Blob, "description": "A new version, or the same one if nothing changes"}
}


class RevertBody(Wire):
    """Which version to go back to."""

    version: int = Field(ge=1, le=VERSION_MAX)


@router.post(
    "/{blob_id}/revert",
    operation_id="blobs_revert",
    responses=ANSWERS,
    openapi_extra=request_body(RevertBody, example={"version": 1}),
)
async def go_back(request: Request, blob_id: str) -> Response:
    """Make the document of an earlier version the current one: a new version, and what follows from it follows."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(blob_id, "blob_id")

    async def decided(blob: BlobView) -> Decide:
        wanted = await read(request, RevertBody)
        earlier = await _earlier(ports, identity, blob, wanted.version)
        return lambda current: revert(state_of(current), earlier)

    return await _written(request, ports, identity, identifier, decided)


@router.post("/{blob_id}/restore", operation_id="blobs_restore", responses=ANSWERS)
async def undelete(request: Request, blob_id: str) -> Response:
    """Bring a deleted blob back with its last document, and what was deleted with it."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(blob_id, "blob_id")

    async def decided(_blob: BlobView) -> Decide:
        return lambda current: restore(state_of(current))

    return await _written(request, ports, identity, identifier, decided, deleted_too=True)


@router.post("/{blob_id}/reset", operation_id="blobs_reset", responses=ANSWERS)
async def reset(request: Request, blob_id: str) -> Response:
    """Give up what people changed in a derived blob: it is again what its provider made of it last."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(blob_id, "blob_id")

    async def decided(blob: BlobView) -> Decide:
        head = await ports.deltas.machine_head(identity.user_id, blob.id)
        if head is None:
            raise Conflict("No provider makes this blob: there is nothing to reset it to.", code="no_machine_version")
        return lambda current: revert(state_of(current), head)

    return await _written(request, ports, identity, identifier, decided)


async def _earlier(ports: Ports, identity: Identity, blob: BlobView, version: int) -> Document:
    try:
        return (await ports.blobs.get(identity.user_id, blob.id, version)).document
    except NotFound:
        raise fault("/version", "unknown_version", f"The blob has versions 1 to {blob.version}.") from None


async def _written(
    request: Request, ports: Ports, identity: Identity, blob_id: UUID, decided: Decided, *, deleted_too: bool = False
) -> Response:
    async def work(attempt: Attempt) -> Response:
        if attempt.keyed and (done := await ports.deltas.outcome(identity.user_id, attempt.id("delta"))):
            return await changed(request, ports, identity, done.blob_id, done.version, status=200)
        reading = ports.blobs.get if deleted_too else ports.blobs.living
        blob = await reading(identity.user_id, blob_id)
        decide = await decided(blob)
        match = if_match(request)
        return await change(request, ports, identity, blob, attempt, decide=decide, match=match, merges=False)

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))
