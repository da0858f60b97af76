"""The graph around a blob: states and levels below it, its children, ancestors and descendants."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Identity, allow
from api.bodies import answer, path_id, query_int
from api.deps import Ports, ports_of
from api.openapi import CURSOR, LIMIT, parameters, query
from api.pages import page_request, page_response
from api.shapes import Blob, Dag, Page
from api.wire import blob_json
from domain.dag import dag

router = APIRouter(prefix="/blobs", tags=["dag"])

NODES_MAX = 10_000
"""Nodes that one answer shows, and reads: as many as one cascade may touch."""
DEPTH_MAX = 1_000

Step = Callable[..., Awaitable[list[tuple[UUID, int]]]]


LINEAGE = parameters(LIMIT, CURSOR, query("depth", "integer", "Largest distance."))


@router.get(
    "/{blob_id}/dag",
    operation_id="blobs_dag",
    responses={200: {"model": Dag}},
    openapi_extra=parameters(
        query("depth", "integer", "Steps from the root at most."),
        query("nodes", "integer", "Nodes to show at most, nearest first."),
    ),
)
async def graph(request: Request, blob_id: str) -> Response:
    """Show everything below a blob: nodes with their states and why, edges, levels."""
    ports, identity, root = await _asked(request, blob_id)
    depth = query_int(request, "depth", low=0, high=DEPTH_MAX)
    shown_max = query_int(request, "nodes", low=1, high=NODES_MAX) or NODES_MAX
    await ports.blobs.exists(identity.user_id, root)
    found = await ports.dags.graph(identity.user_id, root, nodes_max=NODES_MAX, depth=depth)
    return answer(dag(root, found, nodes_max=shown_max, read_max=NODES_MAX))


@router.get(
    "/{blob_id}/children",
    operation_id="blobs_children",
    responses={200: {"model": Page[Blob]}},
    openapi_extra=LINEAGE,
)
async def children(request: Request, blob_id: str) -> Response:
    """List the blobs made directly of this one."""
    ports, identity, root = await _asked(request, blob_id)
    return await _lineage(request, ports, identity, root, ports.dags.descendants, depth_max=1)


@router.get(
    "/{blob_id}/descendants",
    operation_id="blobs_descendants",
    responses={200: {"model": Page[Blob]}},
    openapi_extra=LINEAGE,
)
async def descendants(request: Request, blob_id: str) -> Response:
    """List the blobs made of this one, however indirectly, nearest first."""
    ports, identity, root = await _asked(request, blob_id)
    return await _lineage(request, ports, identity, root, ports.dags.descendants, depth_max=DEPTH_MAX)


@router.get(
    "/{blob_id}/ancestors",
    operation_id="blobs_ancestors",
    responses={200: {"model": Page[Blob]}},
    openapi_extra=LINEAGE,
)
async def ancestors(request: Request, blob_id: str) -> Response:
    """List the blobs that this one is made of, nearest first."""
    ports, identity, root = await _asked(request, blob_id)
    return await _lineage(request, ports, identity, root, ports.dags.ancestors, depth_max=DEPTH_MAX)


async def _asked(request: Request, blob_id: str) -> tuple[Ports, Identity, UUID]:
    identity = await allow(request, "blobs:read")
    return ports_of(request), identity, path_id(blob_id, "blob_id")


async def _lineage(
    request: Request, ports: Ports, identity: Identity, root: UUID, step: Step, *, depth_max: int
) -> Response:
    depth = query_int(request, "depth", low=1, high=depth_max, default=depth_max)
    await ports.blobs.exists(identity.user_id, root)
    wanted = page_request(request, ports.cursors, identity.user_id, {"depth": request.query_params.get("depth")})
    after = None if wanted.after is None else (int(wanted.after[0]), UUID(wanted.after[1]))
    found = await step(identity.user_id, root, depth=depth, limit=wanted.limit + 1, after=after)
    distances = dict(found[: wanted.limit])
    blobs, cut = await ports.blobs.many(identity.user_id, list(distances))

    def show(blob: Any) -> dict[str, Any]:
        return {**blob_json(request, blob), "distance": distances[blob.id]}

    return page_response(
        request,
        ports.cursors,
        wanted,
        blobs,
        lambda blob: (distances[blob.id], str(blob.id)),
        show=show,
        more=cut or len(found) > wanted.limit,
    )
