"""A graph of blobs as a tree for a terminal: what is derived from what, in which state, since when."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from cli.output import clean, short

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAMES_PER_SECOND = 5
MARKS = {
    "source": ("◆", "bold"),
    "fresh": ("✓", "green"),
    "stale": ("○", "dim"),
    "running": ("●", "yellow"),
    "failed": ("✗", "red"),
    "blocked": ("⊘", "magenta"),
    "inactive": ("∅", "dim"),
    "retired": ("∅", "dim"),
}
OTHER_MARK = ("‖", "yellow")  # it waits for a person, or for money
EXPLAINED = frozenset(MARKS) - {"source", "fresh", "stale", "running"}

Node = Mapping[str, Any]


@dataclass(slots=True)
class Graph:
    """Nodes by blob id, and edges as (parent, child); made of one or more answers of ``/dag``."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    settled: bool = True
    truncated: bool = False

    @classmethod
    def of(cls, *bodies: Mapping[str, Any]) -> Graph:
        """Lay several graphs over each other; a blob that is in more than one is one node."""
        graph = cls()
        for body in bodies:
            graph.nodes |= {node["blob_id"]: node for node in body["nodes"]}
            found = ((edge["parent_id"], edge["child_id"]) for edge in body["edges"])
            graph.edges = list(dict.fromkeys([*graph.edges, *found]))
            graph.settled &= body["settled"]
            graph.truncated |= body["truncated"]
        return graph

    @property
    def parents(self) -> dict[str, list[str]]:
        """Return the parents of each node."""
        found: dict[str, list[str]] = {blob: [] for blob in self.nodes}
        for parent, child in self.edges:
            found[child].append(parent)
        return found

    def states(self) -> dict[str, tuple[str, int]]:
        """Return state and version of each node: what a watcher compares."""
        return {blob: (node["state"], node["version"]) for blob, node in self.nodes.items()}

    def name(self, blob: str) -> str:
        """Name a node: what a person wrote by its title, what was derived by its provider and its first parent."""
        node = self.nodes[blob]
        if node["provider_id"] is None:
            return short(node["title"] or blob)
        sources = [source for source in self.sources(blob) if source != blob]
        of = f" of {short(self.nodes[sources[0]]['title'])}" if len(sources) == 1 else ""
        return f"{node['provider_id']}{of}"

    def sources(self, blob: str) -> list[str]:
        """Return the nodes without parents that a node stems from."""
        parents = self.parents
        found, pending, seen = [], [blob], set()
        while pending:
            here = pending.pop()
            if here in seen:
                continue
            seen.add(here)
            if not parents[here]:
                found.append(here)
            pending.extend(parents[here])
        return found


def seconds_of(runs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return for each derivation how long its newest run took, or has taken until now."""
    newest: dict[str, Mapping[str, Any]] = {}
    for run in runs:
        known = newest.get(run["derivation_id"])
        if known is None or run["id"] > known["id"]:
            newest[run["derivation_id"]] = run
    return {derivation: _seconds(run) for derivation, run in newest.items()}


def _seconds(run: Mapping[str, Any]) -> float:
    started = datetime.fromisoformat(run["started_at"])
    ended = datetime.fromisoformat(run["ended_at"]) if run["ended_at"] else datetime.now(UTC)
    waited = (run.get("waited_ms") or 0) / 1000  # for a person: no time of its own
    return max(0.0, (ended - started).total_seconds() - waited)


def tree(
    graph: Graph,
    *,
    heading: RenderableType | None = None,
    seconds: Mapping[str, float] | None = None,
    ids: bool = False,
) -> RenderableType:
    """Draw a graph; below ``heading`` if there is one. What has several parents stands after them, once."""
    seconds = seconds or {}
    parents = graph.parents
    children: dict[str, list[str]] = {blob: [] for blob in graph.nodes}
    tops: list[str] = []
    for blob, above in parents.items():
        if len(above) == 1:
            children[above[0]].append(blob)
        else:
            tops.append(blob)
    tops.sort(key=lambda blob: (len(parents[blob]) > 1, graph.nodes[blob]["level"]))
    trunk = Tree(heading or "", guide_style="dim", hide_root=heading is None)
    for top in tops:
        _grow(trunk, top, graph, children, seconds, len(parents[top]), ids=ids)
    cut = [Text("… and more than can be shown", style="dim")] if graph.truncated else []
    return Group(trunk, *cut)


def _grow(
    branch: Tree,
    top: str,
    graph: Graph,
    children: Mapping[str, list[str]],
    seconds: Mapping[str, float],
    joined: int,
    *,
    ids: bool,
) -> None:
    pending = [(branch, top, joined)]
    while pending:
        below, blob, joins = pending.pop()
        grown = below.add(row(graph.nodes[blob], seconds, joins=joins, ids=ids))
        pending.extend((grown, child, 0) for child in reversed(children[blob]))


def row(node: Node, seconds: Mapping[str, float], *, joins: int = 0, ids: bool = False) -> Text:
    """Draw one node: its mark, who it is, its version, how long it took or takes, and why it does not go on."""
    state = node["state"]
    mark, style = MARKS.get(state, OTHER_MARK)
    if state == "running":
        mark = SPINNER[int(time.monotonic() * FRAMES_PER_SECOND) % len(SPINNER)]
    title = short(node["title"]) or node["blob_id"]
    line = Text.assemble((f"{mark} ", style), title if node["provider_id"] is None else node["provider_id"])
    if joins > 1:
        line.append(f" (joins {joins})", "dim")
    if node["version"]:
        line.append(f"  v{node['version']}", "dim")
    if state not in {"source", "fresh"}:
        line.append(f"  {state}", style)
    if state != "source" and node["derivation_id"] in seconds:
        line.append(f"  {seconds[node['derivation_id']]:.1f} s", "yellow" if state == "running" else "dim")
    if state in EXPLAINED or state not in MARKS:
        line.append(f"  {short(node['reason'], 100)}", "dim")
    if ids:
        line.append(f"  {clean(node['blob_id'])}", "dim")
    return line
