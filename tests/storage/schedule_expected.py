"""The model of cascades in the shape in which ``schedule_player.py`` reads PostgreSQL, and where the two differ."""

from __future__ import annotations

from typing import Any

from domain.cascades import Schedule
from domain.derivations import Cascade, Run
from domain.runs import Hold


def expected(model: Schedule) -> dict[str, Any]:
    """The rows of the model as ``Player.observed`` gives those of PostgreSQL."""
    return {
        "blobs": {
            str(b.id): {"version": b.version, "planned": b.planned_version, "hash": b.hash, "deleted": b.deleted}
            for b in model.blobs.values()
        },
        "derivations": {str(found): _derivation(model, found) for found in model.derivations},
        "runs": {run_name(run): _run(run) for run in model.runs.values()},
        "budget": _budget(model),
        "charges": {
            f"{run_name(model.runs[c.run_id])}/{c.step_id}/{c.attempt}": [c.amount, c.overrun]
            for c in model.charges.values()
        },
        "reservations": {
            f"{run_name(model.runs[run])}/{step}/{attempt}": amount
            for (run, step, attempt), amount in model.reservations.items()
        },
        "members": {
            f"{bucket}/{blob.id}": [member.position, member.inherited_from is None]
            for blob in model.blobs.values() for bucket, member in blob.buckets.items()
        },
    }  # fmt: skip


def _budget(model: Schedule) -> dict[str, Any]:
    funds = model.funds()
    return {} if funds.limit is None else {"limit": funds.limit, "spent": funds.spent, "reserved": funds.reserved}


def run_name(run: Run) -> str:
    return f"{run.derivation_id}/{run.attempt}"


def _run(run: Run) -> dict[str, Any]:
    inputs = [[str(pinned.blob_id), pinned.version, pinned.hash, pinned.stale] for pinned in run.inputs]
    return {"status": run.status.value, "cascade": str(run.cascade_id), "resumed": run.resumed,
            "approved": run.approved, "inputs": inputs}  # fmt: skip


def _derivation(model: Schedule, found: Any) -> dict[str, Any]:
    row = model.derivations[found]
    hold = None if row.hold in (None, Hold.RETIRED) else row.hold.value
    return {
        "unsettled": row.unsettled, "hold": hold, "run": None if row.run_id is None else model.runs[row.run_id].attempt,
        "attempt": row.attempt, "owner": str(row.owner_cascade_id) if row.unsettled else None,
        "pending": row.pending_inputs, "force": row.force, "fresh": row.fresh_after,
        "place": row.budget_place, "needed": row.budget_needed,
        "losses": 0 if row.hold == Hold.INACTIVE else row.losses,
        "due": row.run_after, "dirty": row.dirty_since,
        "unchanged": model.unchanged(row), "failing": row.failing, "provisional": row.provisional,
        "policy": row.on_parent_failure, "definition": row.definition_digest,
        "inputs": [[str(i.blob_id), i.tracks, i.used_hash] for i in model.ordered_inputs(found)] or None,
        "outputs": {slot: [str(o.blob_id), o.machine_hash] for slot, o in model.outputs[found].items()},
    }  # fmt: skip


def closes(model: Schedule, cascade: Cascade) -> tuple[bool, bool]:
    """Whether the model lets a cascade end now, and whether it leaves something behind."""
    return not model._moving(cascade.id), bool(model.owned(cascade.id))


def differences(found: Any, wanted: Any, path: str = "") -> list[str]:
    """Every leaf in which PostgreSQL differs from the model."""
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = sorted(set(found) | set(wanted))
        return [
            text for name in names
            for text in differences(found.get(name, "missing"), wanted.get(name, "missing"), f"{path}/{name}")
        ]  # fmt: skip
    if isinstance(found, float | int) and isinstance(wanted, float) and abs(found - wanted) < 1e-3:
        return []
    return [] if found == wanted else [f"{path}: SQL {found}, model {wanted}"]
