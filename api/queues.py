"""The queue: what of yours runs, could run and waits, in the order in which it is taken, and what holds it back."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Reader, require
from api.deps import Ports, Stores
from api.pages import PageRequest, page_request, page_response
from domain.ids import UserId

router = APIRouter(tags=["cascades"])


@router.get("/queue", operation_id="queue_list")
async def list_(request: Request, identity: Reader, ports: Stores, scope: Literal["mine", "all"] = "mine") -> Response:
    """List what runs, could run and waits of yours, by cascade and provider, in the order in which it is taken.

    ``position`` counts ready derivations before the first of a group; ``held_by`` names the limits that hold it back,
    and since when; ``estimated_start`` is told where it is known: when a debounce ends, or by how long the provider's
    last runs took. With ``scope=all`` an admin sees how much of each user's runs, could run, waits and is held.
    """
    if scope == "all":
        require(identity, "admin")
    user_id = UserId(identity.user_id)
    wanted = page_request(request, ports.cursors, identity.user_id, {"scope": scope})
    if scope == "all":
        return await _everybodys(request, ports, wanted)
    rows = await ports.queues.page(
        user_id, after=0 if wanted.after is None else int(wanted.after[0]), limit=wanted.limit + 1
    )
    totals = await ports.queues.totals(user_id)
    most = totals.runs_limit or ports.queues.runs_per_user
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (str(row["number"]), ""), show=lambda row: _shown(row, most),
        beside={"running": totals.running, "ready": totals.ready, "waiting": totals.waiting, "runs_limit": most},
    )  # fmt: skip


async def _everybodys(request: Request, ports: Ports, wanted: PageRequest) -> Response:
    rows = await ports.queues.everybodys_page(after=wanted.after, limit=wanted.limit + 1)
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row["running"], row["ready"], str(row["user_id"])),
        show=dict, beside=await ports.queues.everybodys_totals(),
    )  # fmt: skip


def _shown(row: Any, most: int | None) -> dict[str, Any]:
    return {
        "cascade_id": row["cascade_id"],
        "label": row["label"],
        "cause": row["cause"],
        "interactive": row["interactive"],
        "provider_id": row["slug"],
        "priority": row["priority"],
        "running": row["running"],
        "ready": row["ready"],
        "waiting": row["waiting"],
        "held": row["held"],
        "due_later": row["due_later"],
        "position": row["position"] if row["ready"] else None,
        "since": row["since"],
        "held_by": row["held_by"],
        "estimated_start": _estimated_start(row, most),
    }


def _estimated_start(row: Any, most: int | None) -> datetime | None:
    """When the first of a group may start: at its time, now, or once those before it have had their turns."""
    if not row["ready"]:
        found: datetime | None = row["due_at"]
        return found
    now = datetime.now(UTC)
    if not row["held_by"]:
        return now
    places = min([held["most"] for held in row["held_by"]] + ([most] if most else []))
    if row["seconds"] is None:
        return None
    return now + timedelta(seconds=math.ceil(row["position"] / places) * row["seconds"])
