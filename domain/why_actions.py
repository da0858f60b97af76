"""What would change how a derivation stands: requests of the API with the reason for each. Pure.

``{action, method, url, reason, headers, body}``; nothing here is done by itself, and each may be refused when it is
sent. The body of an edit is the person's to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from domain.runs import REJECTED, Hold, State
from domain.why_causes import INPUTS_NAMED_MAX, Json, Row, name_of, path
from domain.why_states import BLOCKERS_EXPLAINED_MAX, blocker_name, outdated, state_of

NOT_WANTED = "Not wanted as it is."


def changes(standing: Row | None, row: Row | None) -> list[Json]:
    """Return what would change things, the nearest first."""
    if standing is None:
        return _of_source(row)
    return [*_ACTIONS[state_of(standing).state](standing), *_upgrade(standing)]


def action(name: str, method: str, url: str, reason: str, body: Any = None) -> Json:
    """Return one action; a PUT says that it knows no version (``If-Match``)."""
    headers = {"If-Match": "*"} if method == "PUT" and not url.endswith("/limits") else {}
    return {"action": name, "method": method, "url": url, "reason": reason, "headers": headers, "body": body}


def _of_source(row: Row | None) -> list[Json]:
    if row is None:
        return []
    blob_id = row["blob_id"]
    if row.get("deleted_at") is not None:
        return [action("restore", "POST", path("blobs", blob_id, "restore"), f"Bring {name_of(row)} back.")]
    return [action("edit", "PATCH", path("blobs", blob_id), f"Edit {name_of(row)}: what is made of it follows.")]


def _edits(standing: Row) -> Iterator[Json]:
    inputs = [one for one in standing.get("inputs") or [] if not one.get("deleted")]
    for one in inputs[:INPUTS_NAMED_MAX]:
        yield action("edit", "PATCH", path("blobs", one["blob_id"]), f"Edit {name_of(one)}, which it reads.")


def _reprocess(standing: Row, reason: str) -> Json:
    body = {"scope": "node", "force": False}
    return action("reprocess", "POST", path("derivations", standing["id"], "reprocess"), reason, body)


def _activate(standing: Row, reason: str) -> Json:
    url = path("providers", standing["provider_id"], "instance")
    return action("activate_provider", "PUT", url, reason, {"active": True})


def _wait(standing: Row) -> Iterator[Json]:
    if standing.get("owner_cascade_id"):
        url = path("cascades", standing["owner_cascade_id"])
        yield action("wait", "GET", url, "It goes on by itself: Prefer: wait=30 answers when it has.")


def _upgrade(standing: Row) -> Iterator[Json]:
    if outdated(standing):
        url = path("providers", standing["provider_id"], "upgrade")
        reason = "Make what this provider made by an older definition again, by its newest."
        yield action("upgrade", "POST", url, reason, {"dry_run": False})


def _fresh(standing: Row) -> Iterator[Json]:
    yield from _edits(standing)
    yield _reprocess(standing, "Make it again although nothing has changed.")


def _stale(standing: Row) -> Iterator[Json]:
    yield from _wait(standing)


def _running(standing: Row) -> Iterator[Json]:
    yield from _wait(standing)
    yield action("cancel_run", "POST", path("runs", standing["run_id"], "cancel"), "Stop the run that is under way.")


def _blocked(standing: Row) -> Iterator[Json]:
    for one in (standing.get("blockers") or [])[:BLOCKERS_EXPLAINED_MAX]:
        blocker = {"budget": standing.get("budget"), **one, "id": one["derivation_id"], "inputs": [], "outputs": []}
        for step in _ACTIONS[_OF_HOLD[Hold(one["hold"])]](blocker):
            yield {**step, "reason": f"{blocker_name(one)}: {step['reason']}"}


def _failed(standing: Row) -> Iterator[Json]:
    detail = standing.get("hold_detail") or {}
    letter = standing.get("dead_letter")
    if letter is not None:
        url = path("dead-letters", letter["id"], "redrive")
        yield action("redrive", "POST", url, "Let it run again, by the newest definition, once the cause is mended.")
    elif detail.get("run_id"):
        yield action("retry_run", "POST", path("runs", detail["run_id"], "retry"), "Run it again once that is mended.")
    yield from _edits(standing)
    yield _reprocess(standing, "Run it again as it is.")


def _approval(standing: Row) -> Iterator[Json]:
    detail = standing.get("hold_detail") or {}
    run_id, step = detail.get("run_id") or standing["run_id"], detail.get("step_id")
    if run_id:
        shown = {} if step is None else {"step_id": step}
        yield action("approve", "POST", path("runs", run_id, "approve"), "Let the run go on.", shown)
        rejected = {"comment": NOT_WANTED, **shown}
        yield action("reject", "POST", path("runs", run_id, "reject"), "End the run; comment says why.", rejected)


def _conflict(standing: Row) -> Iterator[Json]:
    for one in standing.get("proposals") or []:
        yield action("accept", "POST", path("deltas", one["delta_id"], "accept"), "Take what the machine proposes.")
        yield action("reject", "POST", path("deltas", one["delta_id"], "reject"), "Keep what people wrote.")
    yield _reprocess(standing, "Make it anew and merge again.")


def _budget(standing: Row) -> Iterator[Json]:
    """What is missing for it and for those before it in the line, for it is first come first served."""
    needed, budget = (standing.get("hold_detail") or {}).get("needed"), standing.get("budget") or {}
    limit = budget.get("limit") or 0
    left = limit - budget.get("spent", 0) - budget.get("reserved", 0)
    missing = max((standing.get("line") or needed or 0) - left, 1)
    if budget.get("managed"):
        url, reason = path("users", budget["user_id"], "limits"), "Ask an admin for more: only they change this budget."
        yield action("raise_budget", "PUT", url, reason, {"budget_limit": limit + missing})
        return
    reason = "Top up the budget: what waits for it goes on, first come first served."
    yield action("top_up", "POST", path("budget", "top-up"), reason, {"amount": missing})


def _cancelled(standing: Row) -> Iterator[Json]:
    run_id, cascade = (standing.get("hold_detail") or {}).get("run_id"), standing.get("owner_cascade_id")
    if run_id:
        rejected = (standing.get("hold_detail") or {}).get("code") == REJECTED
        reason = "Ask again, about what is made anew." if rejected else "Run again what was cancelled."
        yield action("retry_run", "POST", path("runs", run_id, "retry"), reason)
    elif cascade:
        reason = "Let everything of this cascade that failed or was cancelled run again."
        yield action("retry_cascade", "POST", path("cascades", cascade, "retry"), reason)
    else:
        yield _reprocess(standing, "Let it run after all.")


def _inactive(standing: Row) -> Iterator[Json]:
    yield _activate(standing, f"Switch {standing['provider_id']} on: what has changed since is taken up.")


def _retired(standing: Row) -> Iterator[Json]:
    found = [*(standing.get("inputs") or []), *(standing.get("outputs") or [])]
    for one in [one for one in found if one.get("deleted")][:INPUTS_NAMED_MAX]:
        yield action("restore", "POST", path("blobs", one["blob_id"], "restore"), f"Bring {name_of(one)} back.")


_ACTIONS: Mapping[State, Callable[[Row], Iterator[Json]]] = {
    State.FRESH: _fresh,
    State.STALE: _stale,
    State.RUNNING: _running,
    State.BLOCKED: _blocked,
    State.FAILED: _failed,
    State.AWAITING_APPROVAL: _approval,
    State.CONFLICT: _conflict,
    State.BLOCKED_BUDGET: _budget,
    State.CANCELLED: _cancelled,
    State.INACTIVE: _inactive,
    State.RETIRED: _retired,
}
_OF_HOLD = {
    Hold.APPROVAL: State.AWAITING_APPROVAL,
    Hold.CONFLICT: State.CONFLICT,
    Hold.BUDGET: State.BLOCKED_BUDGET,
    Hold.FAILED: State.FAILED,
    Hold.CANCELLED: State.CANCELLED,
    Hold.INACTIVE: State.INACTIVE,
    Hold.RETIRED: State.RETIRED,
}
