"""Plans as people see them: nodes by level, what they take, what is at risk, and afterwards what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.budgets import UNIT
from domain.dag import level_of
from domain.estimates import Estimate, Measure, Range, Total, estimate, free, measure
from domain.plans import MAY_RUN, Forecast, Node, Outlook, Root, outlooks, reason_of, work_of
from domain.runs import derivation_state


def plan_json(
    forecast: Forecast, *, now: datetime, window: int, nodes_max: int, paid: Collection[str]
) -> dict[str, Any]:
    """Return everything that a plan says of what would happen; at most ``nodes_max`` nodes, the first by level.

    ``paid`` are the services that take money.
    """
    seen = outlooks(forecast.nodes)
    measures = {node.id: _measured(node, forecast, paid) for node in forecast.nodes}
    running = [node for node in forecast.nodes if seen[node.id] in MAY_RUN]
    works = [work_of(node, seen[node.id], measures[node.id], now) for node in running]
    levels, edges, level_by_blob = picture(forecast.roots, forecast.nodes)
    level = {node.id: max((level_by_blob[o["blob_id"]] for o in node.outputs), default=0) for node in forecast.nodes}
    ordered = sorted(
        forecast.nodes, key=lambda node: (level[node.id], list(Outlook).index(seen[node.id]), str(node.id))
    )
    shown = ordered[:nodes_max]
    drawn = {str(root.id) for root in forecast.roots}
    drawn |= {output["blob_id"] for node in shown for output in node.outputs}
    drawn |= {str(parent) for node in shown for parent in node.inputs}
    return {
        "etag": forecast.etag,
        "roots": [_without_print(root) for root in forecast.roots],
        "counts": counts_of(forecast.nodes, seen),
        "estimate": estimate_json(estimate(works, window=window), len(works)),
        "nodes": [node_json(node, seen[node.id], measures[node.id], level[node.id]) for node in shown],
        "levels": [[blob for blob in blobs if blob in drawn] for blobs in levels],
        "edges": [edge for edge in edges if edge["parent_id"] in drawn and edge["child_id"] in drawn],
        "truncated": len(forecast.nodes) > nodes_max or forecast.problem is not None,
        "bound": forecast.problem,
        "unplanned_causes": forecast.unplanned,
    }


def _measured(node: Node, forecast: Forecast, paid: Collection[str]) -> Measure:
    found = measure(forecast.history.get(node.provider_id, ()), node.definition_digest)
    known = found.cost is not None or any(service in paid for service in node.services)
    return found if known else free(found)


def _without_print(root: Root) -> dict[str, Any]:
    return {name: value for name, value in root.to_json().items() if name != "print"}


def counts_of(nodes: Sequence[Node], seen: Mapping[UUID, Outlook]) -> dict[str, int]:
    """Return how many nodes there are of each kind."""
    outlook = Counter(seen.values())
    running = [node for node in nodes if seen[node.id] in MAY_RUN]
    return {
        "total": len(nodes),
        **{str(kind): outlook[kind] for kind in Outlook},
        "new": sum(node.known is None for node in nodes),
        "reused": sum(node.spared is not None for node in running),
        "approvals": sum(node.approval for node in running),
        "at_risk": sum(bool(at_risk(node)) for node in running),
    }


def at_risk(node: Node) -> list[dict[str, Any]]:
    """Return the outputs that a person has edited, and what a conflict with their words would come to."""
    return [
        {"blob_id": output["blob_id"], "slot": output["slot"], "title": output["title"],
         "on_conflict": output["on_conflict"]}
        for output in node.outputs if output["edited"] and not output["deleted"]
    ]  # fmt: skip


def picture(
    roots: Sequence[Root], nodes: Sequence[Node]
) -> tuple[list[list[str]], list[dict[str, Any]], dict[str, int]]:
    """Return what is to be drawn: blob ids by level, edges as in a DAG, and the level of each blob."""
    edges = [
        {"parent_id": str(parent), "child_id": output["blob_id"], "provider_id": node.provider_id, "kind": "derived"}
        for node in nodes for parent in node.inputs for output in node.outputs
    ]  # fmt: skip
    blobs = dict.fromkeys(str(root.id) for root in roots if root.kind == "blob")
    blobs |= dict.fromkeys(str(parent) for node in nodes for parent in node.inputs)
    blobs |= dict.fromkeys(output["blob_id"] for node in nodes for output in node.outputs)
    by_blob = level_of("", [(edge["parent_id"], edge["child_id"]) for edge in edges], blobs)
    levels: list[list[str]] = [[] for _ in range(max(by_blob.values(), default=-1) + 1)]
    for blob, level in by_blob.items():
        levels[level].append(blob)
    return levels, edges, by_blob


def node_json(node: Node, outlook: Outlook, measure: Measure, level: int) -> dict[str, Any]:
    """Return a node as a plan shows it."""
    return {
        "derivation_id": str(node.id),
        "new": node.known is None,
        "provider_id": node.provider_id,
        "provider": node.provider,
        "definition_digest": node.definition_digest,
        "anchor": {"kind": node.anchor_kind, "id": str(node.anchor_id), "title": node.anchor},
        "level": level,
        "outlook": str(outlook),
        "reason": reason_of(node, outlook),
        "state": _state_before(node, outlook),
        "waits_for": [str(above) for above in node.waits],
        "outputs": [
            {name: output[name] for name in ("slot", "blob_id", "version", "title", "schema_id")}
            for output in node.outputs
        ],
        "reuses_run": None if node.spared is None else str(node.spared),
        "needs_approval": node.approval,
        "at_risk": at_risk(node),
        "run_after": None if node.run_after is None else node.run_after.isoformat(),
        "estimate": measure_json(measure),
    }


def _state_before(node: Node, outlook: Outlook) -> str:
    if node.known is None:
        return "new"
    state = derivation_state(**node.known).state
    return "blocked" if outlook == Outlook.BLOCKED and state == "stale" else str(state)


def measure_json(measure: Measure) -> dict[str, Any]:
    """Return what one run takes as JSON; null is what nobody has recorded."""
    ranges = {"tokens": measure.tokens, "cost": measure.cost, "seconds": measure.seconds}
    shown = {name: None if found is None else range_json(found) for name, found in ranges.items()}
    return {**shown, "basis": str(measure.basis), "runs": measure.runs}


def estimate_json(found: Estimate, count: int) -> dict[str, Any]:
    """Return what all of it takes as JSON; null is what nobody has recorded."""
    return {
        "runs": count,
        "tokens": _total_json(found.tokens),
        "cost": _total_json(found.cost),
        "unit": UNIT,
        "seconds": _total_json(found.seconds),
        "critical_path_seconds": None if found.critical is None else range_json(found.critical),
    }


def _total_json(total: Total | None) -> dict[str, Any] | None:
    return None if total is None else {**range_json(total.range), "unknown_nodes": total.unknown}


def range_json(found: Range) -> dict[str, float]:
    """Return a range as JSON, rounded to what anybody reads."""
    return {"low": round(found.low, 6), "high": round(found.high, 6)}


def actual_json(body: Mapping[str, Any], actual: Mapping[str, Any]) -> dict[str, Any]:
    """Return what became of a used plan, beside what it said; nodes that it does not list are not compared."""
    ran = {str(node) for node in actual["ran"]}
    listed = {node["derivation_id"]: node["outlook"] for node in body["nodes"]}
    began, ended = actual["created_at"], actual["ended_at"]
    return {
        "cascade_id": str(actual["id"]),
        "status": actual["status"],
        "runs": actual["runs"],
        "failed": actual["failed"],
        "cut_off": actual["cut_off"],
        "tokens": actual["tokens"],
        "cost": actual["cost"],
        "seconds": None if ended is None else (ended - began).total_seconds(),
        "certain_and_ran": sum(outlook == Outlook.CERTAIN and node in ran for node, outlook in listed.items()),
        "possible_and_ran": sum(outlook == Outlook.POSSIBLE and node in ran for node, outlook in listed.items()),
        "certain_not_run": sorted(n for n, outlook in listed.items() if outlook == Outlook.CERTAIN and n not in ran),
        "unforeseen": [] if body["truncated"] else sorted(ran - {n for n, o in listed.items() if o in MAY_RUN}),
    }
