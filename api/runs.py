"""Runs: every execution of a provider, with its steps, its cost and its error."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Reader
from api.bodies import answer, fault, path_id
from api.cascades import temporal_link
from api.deps import Ports, Stores
from api.middleware import PREFIX
from api.pages import page_request, page_response
from domain.ids import BlobId, CascadeId, RunId, UserId, parse_id
from domain.runs import RunStatus

router = APIRouter()

STATUSES = tuple(status.value for status in RunStatus)


@router.get("/runs", operation_id="runs_list", tags=["runs"])
async def list_(
    request: Request,
    identity: Reader,
    ports: Stores,
    blob_id: str | None = None,
    provider_id: str | None = None,
    status: str | None = None,
    cascade_id: str | None = None,
) -> Response:
    """List your runs, newest first; ``blob_id`` is one that they read or make."""
    filters = {"blob_id": blob_id, "provider_id": provider_id, "status": status, "cascade_id": cascade_id}
    wanted = page_request(request, ports.cursors, identity.user_id, filters)
    if status is not None and status not in STATUSES:
        raise fault("/query/status", "invalid_value", f"status is one of {', '.join(STATUSES)}.")
    rows = await ports.runs.page(
        UserId(identity.user_id),
        limit=wanted.limit + 1,
        before=None if wanted.after is None else UUID(wanted.after[0]),
        provider_id=provider_id,
        status=status,
        cascade_id=None if cascade_id is None else CascadeId(parse_id(cascade_id, "/query/cascade_id")),
        blob_id=None if blob_id is None else BlobId(parse_id(blob_id, "/query/blob_id")),
    )
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row["id"],), show=lambda row: shown(ports, row)
    )


@router.get("/runs/{run_id}", operation_id="runs_get", tags=["runs"])
async def get(run_id: str, identity: Reader, ports: Stores) -> Response:
    """Read one run with its steps, and where to look at it in the Temporal UI."""
    return answer(await detailed_run(ports, UserId(identity.user_id), RunId(path_id(run_id, "run_id"))))


async def detailed_run(ports: Ports, user_id: UserId, run_id: RunId) -> dict[str, Any]:
    """Return one run as JSON with its steps. Raises NotFound."""
    row, steps = await ports.runs.get(user_id, run_id)
    return shown(ports, row) | {"steps": [dict(step) for step in steps]}


def shown(ports: Ports, row: Any) -> dict[str, Any]:
    """Return a row of runs as JSON. An inline run has no workflow of its own: the link leads to its cascade's."""
    ended, started = row["ended_at"], row["started_at"]
    return {
        "id": row["id"],
        "provider_id": row["provider_id"],
        "derivation_id": row["derivation_id"],
        "cascade_id": row["cascade_id"],
        "anchor": {"kind": row["anchor_kind"], "id": row["anchor_id"]},
        "label": row["label"],
        "status": row["status"],
        "attempt": row["attempt"],
        "execution": row["execution"],
        "definition_digest": row["definition_digest"],
        "inputs": [_input(item) for item in row["inputs"]],
        "outputs": row["outputs"],
        "effects": row["effects"],
        "reused": bool(row["usage"].get("reused_steps")),
        "usage": row["usage"],
        "error": row["error"],
        "started_at": started,
        "ended_at": ended,
        "duration_ms": None if ended is None else _ms(ended - started - row["waited"]),
        "waited_ms": _ms(row["waited"]),
        "cascade_url": f"{PREFIX}/cascades/{row['cascade_id']}",
        "temporal": temporal_link(ports, row["workflow_id"] or f"cascade:{row['cascade_id']}"),
    }


def _ms(length: timedelta) -> int:
    return round(length.total_seconds() * 1000)


def _input(item: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: item.get(name) for name in ("blob_id", "version", "hash", "role", "position")}
    return plain | {"stale": bool(item.get("stale", False))}
