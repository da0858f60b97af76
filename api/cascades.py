"""Cascades: everything that one cause set in motion, and how far it has come."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Reader
from api.bodies import answer, fault, path_id
from api.deps import Ports, Stores
from api.idempotency import Attempt, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from api.plans import with_actual
from api.waiting import waited
from api.wire import cascade_link
from domain.bounds import explained
from domain.errors import NotFound
from domain.ids import BlobId, CascadeId, UserId, parse_id

router = APIRouter(prefix="/cascades", tags=["cascades"])

STATUSES = ("pending", "running", "completed", "partial", "cancelled", "superseded")


@router.get("", operation_id="cascades_list")
async def list_(
    request: Request, identity: Reader, ports: Stores, status: str | None = None, blob_id: str | None = None
) -> Response:
    """List your cascades, newest first."""
    filters = {"status": status, "blob_id": blob_id}
    wanted = page_request(request, ports.cursors, identity.user_id, filters)
    if status is not None and status not in STATUSES:
        raise fault("/query/status", "invalid_value", f"status is one of {', '.join(STATUSES)}.")
    rows = await ports.cascades.page(
        UserId(identity.user_id),
        limit=wanted.limit + 1,
        before=None if wanted.after is None else (datetime.fromisoformat(wanted.after[0]), UUID(wanted.after[1])),
        status=status,
        blob_id=None if blob_id is None else BlobId(parse_id(blob_id, "/query/blob_id")),
    )
    return page_response(
        request,
        ports.cursors,
        wanted,
        rows,
        lambda row: (row["created_at"].isoformat(), row["id"]),
        show=lambda row: shown(ports, row),
    )


@router.get("/{cascade_id}", operation_id="cascades_get")
async def get(request: Request, cascade_id: str, identity: Reader, ports: Stores) -> Response:
    """Read one cascade with its runs, the deltas folded into it and the cascades whose work it took over.

    ``edits`` counts the deltas of all of them. ``Prefer: wait`` holds on until it closes.
    """
    user_id, wanted = UserId(identity.user_id), CascadeId(path_id(cascade_id, "cascade_id"))
    await ports.cascades.get(user_id, wanted)
    headers = await waited(request, ports, user_id, wanted)
    return answer(await detailed(ports, user_id, wanted), headers=headers)


async def ask_once(
    request: Request,
    ports: Ports,
    user_id: UserId,
    ask: Callable[[Attempt], Awaitable[Mapping[str, Any]]],
    *,
    show: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Response:
    """Ask once per Idempotency-Key for what a cascade does, wait as the request prefers, and answer the cascade then.

    ``ask`` tells at least ``cascade_id``, and ``instance_id`` if its run alone is waited for; ``show`` what of it the
    answer says. Waiting comes after the effect: who takes over then finds what was asked, and waits in its turn.
    """

    async def work(attempt: Attempt) -> Response:
        asked = dict(attempt.outcome or await ask(attempt))
        ports.bell.ring()
        cascade, instance = CascadeId(UUID(asked["cascade_id"])), asked.pop("instance_id", None)
        headers = await waited(request, ports, user_id, cascade, instance_id=instance and UUID(instance))
        headers |= {"Location": f"{PREFIX}/cascades/{cascade}", "Link": cascade_link(cascade)}
        return answer({**await detailed(ports, user_id, cascade), **show(asked)}, 202, headers)

    return await once(request, ports, user_id, work)


async def detailed(ports: Ports, user_id: UserId, cascade_id: CascadeId) -> dict[str, Any]:
    """Return one cascade as JSON with its deltas and runs, and whose work it took over."""
    row = await ports.cascades.get(user_id, cascade_id)
    found = await ports.cascades.details(user_id, cascade_id)
    body = shown(ports, row) | {
        "edits": found.edits + sum(older["edits"] for older in found.supersedes),
        "deltas": [dict(delta) for delta in found.deltas],
        "supersedes": [dict(older) for older in found.supersedes],
        "runs": [dict(run) for run in found.runs],
    }
    if row["plan_id"] is not None:  # what was said of it before, and what came of it
        try:
            plan = await with_actual(ports, user_id, await ports.plans.get(user_id, row["plan_id"]))
        except NotFound:  # long ago: it is not kept for ever (housekeeping.plans_kept)
            return body
        body["plan"] = {name: plan[name] for name in ("id", "counts", "estimate", "actual")}
    return body


def shown(ports: Ports, row: Any) -> dict[str, Any]:
    """Return a row of cascades as JSON."""
    workflow_id = f"cascade:{row['id']}"
    return {
        "id": row["id"],
        "cause": row["cause"],
        "label": row["label"],
        "actor": row["actor"],
        "target_id": row["target_id"],
        "provider_id": row["provider_id"],
        "roots": _roots(row["target_id"] if row["cause"] != "bucket" else None, row["roots"]),
        "status": row["status"],
        "counts": _counts(row),
        "cost": row["cost"],
        "superseded_by": row["superseded_by"],
        "error": explained(row["error"]),
        "plan_id": row["plan_id"],
        "created_at": row["created_at"],
        "planned_at": row["planned_at"],
        "ended_at": row["ended_at"],
        "temporal": temporal_link(ports, workflow_id),
        "runs_url": f"{PREFIX}/runs?cascade_id={row['id']}",
    }


def temporal_link(ports: Ports, workflow_id: str) -> dict[str, str | None]:
    """Name a workflow, and where people can look at it."""
    if ports.temporal_ui_url is None:
        return {"workflow_id": workflow_id, "ui_url": None}
    base = f"{ports.temporal_ui_url.rstrip('/')}/namespaces/{ports.temporal_namespace}"
    return {"workflow_id": workflow_id, "ui_url": f"{base}/workflows/{workflow_id}"}


def _roots(target: UUID | None, folded: Iterable[UUID]) -> list[str]:
    first = [] if target is None else [target]
    return [str(root) for root in dict.fromkeys([*first, *folded])]


def _counts(row: Any) -> dict[str, int]:
    total = max(row["touched"], row["unsettled"] + row["taken"])
    return {
        "total": total,
        "settled": total - row["unsettled"] - row["taken"],
        "running": row["running"],
        "pending": row["unsettled"] - row["running"] - row["failed"] - row["blocked"],
        "failed": row["failed"],
        "blocked": row["blocked"],
        "taken_over": row["taken"],
        "cut_off": row["cut_off"],
    }
