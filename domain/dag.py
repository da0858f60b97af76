"""The graph below a blob as people see it: levels, states, what blocks what, and whether everything is settled."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.runs import derivation_state

BLOCKERS_SHOWN_MAX = 20
"""Blocking blobs that one node names."""
TITLE_CHARACTERS = 80

SOURCE = "source"
UNSETTLED_STATES = frozenset({"stale", "running"})
"""States in which something is still going to happen by itself."""


def level_of(root: str, edges: Iterable[Sequence[Any]], nodes: Iterable[str]) -> dict[str, int]:
    """Return for each node the length of the longest path to it from a node without parents; the root is 0."""
    children: dict[str, list[str]] = {}
    waiting = dict.fromkeys(nodes, 0)
    for edge in edges:
        children.setdefault(edge[0], []).append(edge[1])
        waiting[edge[1]] += 1
    levels = dict.fromkeys(waiting, 0)
    free = deque(node for node, count in waiting.items() if count == 0)
    while free:
        node = free.popleft()
        for child in children.get(node, ()):
            levels[child] = max(levels[child], levels[node] + 1)
            waiting[child] -= 1
            if waiting[child] == 0:
                free.append(child)
    if root in levels:
        levels[root] = 0
    return levels


def blockers(unsettled: Iterable[Sequence[Any]], waits: Iterable[Sequence[Any]]) -> dict[str, list[tuple[str, str]]]:
    """Return for each unsettled derivation the held ones above it as (blob id, label), at most 20.

    ``unsettled`` are (derivation, has a hold, its output blob, label), ``waits`` are (derivation, producer above it).
    """
    named = {row[0]: (row[2], row[3]) for row in unsettled if row[1]}
    above: dict[str, list[str]] = {row[0]: [] for row in unsettled}
    for derivation, producer in waits:
        above[derivation].append(producer)
    return {derivation: _held_above(derivation, above, named) for derivation in above}


def _held_above(
    start: str, above: Mapping[str, Sequence[str]], named: Mapping[str, tuple[str, str]]
) -> list[tuple[str, str]]:
    if not named:
        return []
    found: dict[str, tuple[str, str]] = {}
    seen = {start}
    pending = deque(above[start])
    while pending and len(found) < BLOCKERS_SHOWN_MAX:
        derivation = pending.popleft()
        if derivation in seen:
            continue
        seen.add(derivation)
        if derivation in named:
            found[derivation] = named[derivation]
        pending.extend(above[derivation])
    return list(found.values())


def dag(root: UUID, graph: Mapping[str, Any], *, nodes_max: int, read_max: int) -> dict[str, Any]:
    """Return the DAG's JSON (CONTRACT) of what ``storage.dag`` read, at most ``read_max`` + 1 nodes: see there.

    The first ``nodes_max`` nodes by level are shown. ``settled`` is said of all nodes: true when no cascade touching
    one is pending or running and none is stale or running; a graph beyond ``read_max`` is never called settled.
    """
    levels = level_of(str(root), graph["edges"], (row[0] for row in graph["nodes"]))
    blocked = blockers(graph["unsettled"], graph["waits"])
    nodes = [_node(row, levels[row[0]], blocked) for row in graph["nodes"]]
    nodes.sort(key=lambda node: node["level"])
    waiting = any(node["state"] in UNSETTLED_STATES for node in nodes)
    settled = not (waiting or graph["cascades"] or len(nodes) > read_max)
    shown = {node["blob_id"] for node in nodes[:nodes_max]}
    return {
        "root_id": root,
        "settled": settled,
        "truncated": len(nodes) > nodes_max,
        "cascades": graph["cascades"],
        "nodes": nodes[:nodes_max],
        "edges": [
            {"parent_id": parent, "child_id": child, "provider_id": provider, "kind": kind}
            for parent, child, provider, kind in graph["edges"]
            if parent in shown and child in shown
        ],
        "levels": _by_level(nodes[:nodes_max]),
    }


def _node(row: Sequence[Any], level: int, blocked: Mapping[str, list[tuple[str, str]]]) -> dict[str, Any]:
    blob_id, title, text, schema, version, provider, derivation, run, unsettled, hold, code, attempt, *waits = row
    pending, skipped, run_after = waits
    state, reason, blocked_by = SOURCE, "Written by a person.", []
    if derivation is not None:
        held = blocked.get(derivation, [])
        seen = derivation_state(
            hold=hold,
            unsettled=unsettled,
            run_id=run,
            attempt=attempt,
            pending_inputs=pending,
            hold_code=code,
            blocked_by=[UUID(blob) for blob, _ in held],
            blocked_by_label=held[0][1] if held else "",
            made=version > 0,
            skipped=skipped,
            run_after=None if run_after is None else datetime.fromisoformat(run_after),
        )
        state, reason, blocked_by = str(seen.state), seen.reason, [str(blob) for blob in seen.blocked_by]
    return {
        "blob_id": blob_id,
        "title": title or (text or "").partition("\n")[0][:TITLE_CHARACTERS],
        "schema_id": schema,
        "version": version,
        "level": level,
        "provider_id": provider,
        "derivation_id": derivation,
        "run_id": run,
        "state": state,
        "reason": reason,
        "blocked_by": blocked_by,
    }


def _by_level(nodes: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    levels: list[list[str]] = []
    for node in nodes:
        while len(levels) <= node["level"]:
            levels.append([])
        levels[node["level"]].append(node["blob_id"])
    return levels
