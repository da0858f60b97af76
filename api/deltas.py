"""A blob's history: deltas, versions, and one delta by its id."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import allow
from api.bodies import answer, etag, fault, path_id, query_int, whole
from api.deps import ports_of
from api.openapi import CURSOR, LIMIT, parameters, query
from api.pages import page_request, page_response
from api.preconditions import not_modified
from api.shapes import Blob, Delta, HistoryEntry, Page
from api.wire import blob_json, delta_json, history_json
from domain.deltas import DeltaStatus

router = APIRouter(tags=["deltas"])

VERSION_MAX = 2**31 - 1
APPLIED = str(DeltaStatus.APPLIED)


FROM_VERSION = query("from_version", "integer", "Only what came after this version.")
STATUS = query("status", "string", "pending, proposed, applied, rejected, failed, or any; applied without it.")


@router.get(
    "/blobs/{blob_id}/history",
    operation_id="blobs_history",
    responses={200: {"model": Page[HistoryEntry]}},
    openapi_extra=parameters(LIMIT, CURSOR, FROM_VERSION),
)
async def history(request: Request, blob_id: str) -> Response:
    """List what happened to a blob, oldest first: who, when, because of what."""
    return await _page(request, blob_id, history_json, status=APPLIED)


@router.get(
    "/blobs/{blob_id}/versions",
    operation_id="blobs_versions",
    responses={200: {"model": Page[HistoryEntry]}},
    openapi_extra=parameters(LIMIT, CURSOR, FROM_VERSION),
)
async def versions(request: Request, blob_id: str) -> Response:
    """List a blob's versions, oldest first."""
    return await _page(request, blob_id, history_json, status=APPLIED)


@router.get(
    "/blobs/{blob_id}/deltas",
    operation_id="blobs_deltas",
    responses={200: {"model": Page[Delta]}},
    openapi_extra=parameters(LIMIT, CURSOR, FROM_VERSION, STATUS),
)
async def deltas(request: Request, blob_id: str) -> Response:
    """List a blob's deltas, oldest first, with their patches and inverses."""
    status = request.query_params.get("status", APPLIED)
    if status != "any" and status not in set(DeltaStatus):
        raise fault("/query/status", "invalid_value", f"status is any or one of {', '.join(DeltaStatus)}.")
    return await _page(request, blob_id, delta_json, status=None if status == "any" else status)


async def _page(request: Request, blob_id: str, show: Any, *, status: str | None) -> Response:
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    identifier = path_id(blob_id, "blob_id")
    await ports.blobs.exists(identity.user_id, identifier)
    from_version = query_int(request, "from_version", low=0, high=VERSION_MAX, default=0)
    filters = {"from_version": request.query_params.get("from_version")}
    if show is delta_json:
        filters["status"] = request.query_params.get("status")
    wanted = page_request(request, ports.cursors, identity.user_id, filters)
    after = None if wanted.after is None else (int(wanted.after[0]), UUID(wanted.after[1]))
    rows = await ports.deltas.page(
        identity.user_id,
        identifier,
        limit=wanted.limit + 1,
        after=after,
        from_version=from_version or 0,
        status=status,
    )
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row["to_version"], str(row["id"])), show=show
    )


@router.get("/blobs/{blob_id}/versions/{version}", operation_id="blobs_version", responses={200: {"model": Blob}})
async def version_of(request: Request, blob_id: str, version: str) -> Response:
    """Read a blob as it was at one version; deletion does not hide it."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    identifier = path_id(blob_id, "blob_id")
    number = whole(version, high=VERSION_MAX)
    if number is None:
        raise fault("/path/version", "invalid_value", "A version is a whole number.")
    blob = await ports.blobs.get(identity.user_id, identifier, number)
    tag = etag(blob.version)
    if not_modified(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return answer(blob_json(request, blob), headers={"ETag": tag})


@router.get("/deltas/{delta_id}", operation_id="deltas_get", responses={200: {"model": Delta}})
async def get(request: Request, delta_id: str) -> Response:
    """Read one delta with its patch and its inverse."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    return answer(delta_json(dict(await ports.deltas.get(identity.user_id, path_id(delta_id, "delta_id")))))
