"""How a derivation stands, why, and what would change that. Pure, over what ``storage.whys`` read of it.

The state is the one of ``domain/runs.py``, which the DAG shows as well; what is added names the facts behind it, and
requests that would change them: ``{action, method, url, reason, body}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from domain.bounds import explained
from domain.prices import money
from domain.runs import LAST_GOOD, REJECTED, DerivationState, State, derivation_state
from domain.why_causes import INPUTS_NAMED_MAX, Json, Row, actor_of, clock, name_of, path, quoted, why_url

BLOCKERS_EXPLAINED_MAX = 3
"""Blockers whose own way out is given as well."""

SOURCE = "source"


def state_of(standing: Row) -> DerivationState:
    """Return the state that people see, as the DAG shows it."""
    blockers = standing.get("blockers") or []
    return derivation_state(
        hold=standing["hold"],
        unsettled=standing["unsettled"],
        run_id=standing["run_id"],
        attempt=standing["attempt"],
        pending_inputs=standing["pending_inputs"],
        hold_code=(standing.get("hold_detail") or {}).get("code"),
        blocked_by=[UUID(str(one["blob_id"])) for one in blockers if one.get("blob_id")],
        blocked_by_label=blocker_name(blockers[0]) if blockers else "",
        made=is_made(standing),
        skipped=skipped(standing),
        run_after=standing.get("run_after"),
    )


def is_made(standing: Row) -> bool:
    """Tell whether there is a last output."""
    return any(one["version"] > 0 for one in standing.get("outputs") or [])


def skipped(standing: Row) -> str | None:
    """Return why it settled without a new output: a reason of ``cut_offs``, or the words of who declined."""
    if standing["unsettled"] or standing["hold"] is not None:
        return None
    if standing.get("provisional") == LAST_GOOD:
        return LAST_GOOD
    settled = next((run for run in standing.get("runs") or [] if run["status"] == "settled"), None)
    cut = standing.get("cut_off")
    after = cut is not None and (settled is None or str(cut["at"]) >= str(settled["ended_at"]))
    if cut is not None and after and cut["reason"] != "unchanged":
        return str(cut["reason"])
    declined = None if settled is None else (settled.get("usage") or {}).get("skipped")
    return None if declined is None else str(declined)


def outdated(standing: Row) -> bool:
    """Tell whether the provider has another definition by now than the one that is wanted here."""
    newest = standing.get("definition_digest")
    return newest is not None and newest != str(standing["want_digest"]).partition(":")[0]


def blocker_name(one: Row) -> str:
    """Name what blocks: by its title, else by its provider."""
    return str(one.get("title") or one.get("provider_id") or one["derivation_id"])


def now(standing: Row | None, row: Row | None) -> Json:
    """Return how things stand: the state, the sentence for it, and the facts that it follows from."""
    if standing is None:
        deleted = row is not None and row.get("deleted_at") is not None
        reason = "Deleted by a person; every version stays readable." if deleted else "Written by a person."
        return {"state": SOURCE, "reason": reason, "blocked_by": []}
    seen = state_of(standing)
    inputs: Sequence[Row] = standing.get("inputs") or []
    cascade = standing.get("cascade")
    return {
        "state": str(seen.state),
        "reason": seen.reason,
        "last_good": is_made(standing) and seen.state is not State.FRESH,
        "skipped": skipped(standing),
        "hold": standing["hold"],
        "hold_detail": standing.get("hold_detail"),
        "blocked_by": [_blocker(one) for one in standing.get("blockers") or []],
        "moved_inputs": [_input(one) for one in inputs if one.get("moved")],
        "pending_inputs": [_input(one) for one in inputs if one.get("pending")],
        "unplanned_inputs": [_input(one) for one in inputs if one["version"] > one["planned_version"]],
        "deleted": [_input(one) for one in [*inputs, *(standing.get("outputs") or [])] if one.get("deleted")],
        "run_id": standing["run_id"],
        "run_after": standing.get("run_after"),
        "attempt": standing["attempt"],
        "settled_at": standing.get("settled_at"),
        "cut_off": standing.get("cut_off"),
        "dead_letter": standing.get("dead_letter"),
        "proposals": standing.get("proposals") or [],
        "outdated": outdated(standing),
        "places": standing.get("places") or [],
        "cascade": None if cascade is None else {**cascade, "error": explained(cascade.get("error"))},
    }


def _blocker(one: Row) -> Json:
    seen = derivation_state(
        hold=one["hold"], unsettled=True, hold_code=(one.get("hold_detail") or {}).get("code"), attempt=one["attempt"]
    )
    names = ("derivation_id", "blob_id", "provider_id")
    return {
        **{name: one.get(name) for name in names},
        "name": blocker_name(one),
        "state": str(seen.state),
        "code": (one.get("hold_detail") or {}).get("code"),
        "reason": seen.reason,
        "detail": (one.get("hold_detail") or {}).get("detail"),
        "why_url": path("derivations", one["derivation_id"], "why"),
    }


def _input(one: Row) -> Json:
    names = ("blob_id", "version", "planned_version", "used_version")
    shown = {name: one[name] for name in names if name in one}
    return {**shown, "name": name_of(one), "why_url": why_url(one["blob_id"])}


# --- in words -------------------------------------------------------------------------------------------------------


def standing_words(standing: Row | None, row: Row | None) -> str:
    """Say how things stand and what is behind it, in one or more sentences."""
    said = now(standing, row)
    if standing is None:
        return str(said["reason"])
    extra = _MORE.get(State(said["state"]))
    parts = [f"Now it is {said['state'].replace('_', ' ')}: {said['reason']}"]
    parts += extra(said, standing) if extra else []
    if said["unplanned_inputs"]:
        parts.append(f"{_listed(said['unplanned_inputs'])} has changed since, which is about to be taken up.")
    if said["outdated"]:
        parts.append("Its provider has a newer definition, which is used here once somebody asks for the upgrade.")
    error = (said["cascade"] or {}).get("error")
    if error is not None and standing["unsettled"]:
        parts.append(str(error["detail"]))
    return " ".join(parts)


def _listed(inputs: Sequence[Row]) -> str:
    names = ", ".join(str(one["name"]) for one in inputs[:INPUTS_NAMED_MAX])
    more = len(inputs) - INPUTS_NAMED_MAX
    return f"{names} and {more} more" if more > 0 else names


def _more_blocked(said: Row, _: Row) -> list[str]:
    return [f"{one['name']} is {one['state'].replace('_', ' ')}: {one['detail'] or one['reason']}"
            for one in said["blocked_by"][:BLOCKERS_EXPLAINED_MAX]]  # fmt: skip


def _more_failed(said: Row, _: Row) -> list[str]:
    detail = (said["hold_detail"] or {}).get("detail")
    return [f"It said: {detail}"] if detail else []


def _more_stale(said: Row, _: Row) -> list[str]:
    parts = []
    if said["moved_inputs"]:
        told = [f"{one['name']} (read: {one['used_version'] or 'never'}, now: {one['planned_version']})"
                for one in said["moved_inputs"][:INPUTS_NAMED_MAX]]  # fmt: skip
        parts.append(f"What it reads has moved: {', '.join(told)}.")
    for place in said["places"]:
        of = "yours" if place["kind"] == "user" else f"{place['kind']} {place['name']}"
        parts.append(f"It waits for a place: of {of}, at most {place['cap']} may run at a time.")
    if said["pending_inputs"]:
        parts.append(f"In the making: {_listed(said['pending_inputs'])}.")
    return parts


def _more_cancelled(said: Row, standing: Row) -> list[str]:
    detail = said["hold_detail"] or {}
    who = actor_of(detail["actor"], standing)["name"] if detail.get("actor") else None
    words = quoted(detail.get("detail") if detail.get("code") == REJECTED else None)
    return [f"{who} did so at {clock(detail['at'])}{words}"] if who else []


def _more_approval(said: Row, _: Row) -> list[str]:
    prompt = (said["hold_detail"] or {}).get("prompt")
    return [f"It asks: {prompt}"] if prompt else []


def _more_budget(said: Row, standing: Row) -> list[str]:
    needed, budget = (said["hold_detail"] or {}).get("needed"), standing.get("budget") or {}
    if not needed:
        return []
    left = (budget.get("limit") or 0) - budget.get("spent", 0) - budget.get("reserved", 0)
    return [f"It needs up to {money(needed)}; {money(left)} are left."]


def _more_fresh(said: Row, standing: Row) -> list[str]:
    """Why a look, or a run, brought no new version."""
    run = next(iter(standing.get("runs") or []), None)
    cut = said["cut_off"]
    if cut is not None and cut["reason"] == "unchanged" and (run is None or str(cut["at"]) >= str(run["ended_at"])):
        return ["The last cascade that looked found everything that it reads as it was, so nothing ran."]
    reasons = {str(one.get("reason")) for one in (run or {}).get("effects") or [] if one["effect"] == "unchanged"}
    if not reasons or any(one["effect"] == "changed" for one in (run or {}).get("effects") or []):
        return []
    how = "byte for byte" if reasons == {"bytes"} else "but for what does not count, such as white space"
    return [f"Its last run made what was there already, {how}, so there is no newer version."]


def _more_retired(said: Row, _: Row) -> list[str]:
    return [f"Deleted: {_listed(said['deleted'])}."] if said["deleted"] else []


_MORE: Mapping[State, Callable[[Row, Row], list[str]]] = {
    State.BLOCKED: _more_blocked,
    State.FAILED: _more_failed,
    State.STALE: _more_stale,
    State.CANCELLED: _more_cancelled,
    State.AWAITING_APPROVAL: _more_approval,
    State.BLOCKED_BUDGET: _more_budget,
    State.FRESH: _more_fresh,
    State.RETIRED: _more_retired,
}
