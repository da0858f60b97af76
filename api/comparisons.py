"""What differs between two versions of a blob, or between any two blobs, as spans."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Identity, allow
from api.bodies import answer, fault, path_id, query_int, whole
from api.deps import Ports, ports_of
from api.openapi import parameters, query
from api.shapes import Compared
from domain.blobs import BlobView
from domain.comparisons import compare
from domain.ids import parse_id
from domain.words import Unit

router = APIRouter(tags=["comparisons"])

VERSION_MAX = 2**31 - 1
UNIT = query("unit", "string", "How finely texts are compared: paragraph, sentence, or word (default).")


@router.get(
    "/blobs/{blob_id}/diff",
    operation_id="blobs_diff",
    responses={200: {"model": Compared}},
    openapi_extra=parameters(
        query("from", "integer", "The earlier version; without it the one before `to`."),
        query("to", "integer", "The later version; without it the newest."),
        UNIT,
    ),
)
async def diff(request: Request, blob_id: str) -> Response:
    """Say what changed between two versions of a blob: spans of its texts, and values by JSON Pointer."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    identifier = path_id(blob_id, "blob_id")
    unit = _unit(request)
    later = await ports.blobs.get(identity.user_id, identifier, query_int(request, "to", low=1, high=VERSION_MAX))
    before = query_int(request, "from", low=1, high=VERSION_MAX, default=max(1, later.version - 1))
    earlier = await ports.blobs.get(identity.user_id, identifier, before)
    return await _compared(earlier, later, unit)


@router.get(
    "/compare",
    operation_id="blobs_compare",
    responses={200: {"model": Compared}},
    openapi_extra=parameters(
        query("left", "string", "A blob's id; `{id}@3` is its version 3."),
        query("right", "string", "Another one, or the same at another version."),
        UNIT,
    ),
)
async def compare_blobs(request: Request) -> Response:
    """Say what differs between two blobs, each as it is or at a version: ``left={id}``, ``right={id}@3``."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    unit = _unit(request)
    left, right = await _named(request, ports, identity, "left"), await _named(request, ports, identity, "right")
    return await _compared(left, right, unit)


async def _named(request: Request, ports: Ports, identity: Identity, name: str) -> BlobView:
    value = request.query_params.get(name)
    if value is None:
        raise fault(f"/query/{name}", "missing_field", f"{name} names a blob: its id, or {{id}}@{{version}}.")
    blob_id, at, version = value.partition("@")
    identifier = parse_id(blob_id, f"/query/{name}")
    number = whole(version, high=VERSION_MAX) if at else None
    if at and number is None:
        raise fault(f"/query/{name}", "invalid_value", "A version is a whole number, as in {id}@3.")
    if number is None:
        return await ports.blobs.living(identity.user_id, identifier)
    return await ports.blobs.get(identity.user_id, identifier, number)


def _unit(request: Request) -> Unit:
    value = request.query_params.get("unit", Unit.WORD)
    if value not in set(Unit):
        raise fault("/query/unit", "invalid_value", f"unit is one of {', '.join(Unit)}.")
    return Unit(value)


async def _compared(left: BlobView, right: BlobView, unit: Unit) -> Response:
    found = await asyncio.to_thread(compare, left.document, right.document, unit)
    return answer({"left": _side(left), "right": _side(right), **found.to_json()})


def _side(blob: BlobView) -> dict[str, Any]:
    return {"blob_id": blob.id, "version": blob.version, "title": blob.document.title}
