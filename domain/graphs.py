"""Directed acyclic graphs of ids: levels, reachability, cycles. Pure functions over edges ``(parent, child)``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from typing import TypeVar

from domain.errors import Conflict

Node = TypeVar("Node", bound=Hashable)


def children_by_parent(edges: Iterable[tuple[Node, Node]]) -> dict[Node, list[Node]]:
    """Return the children of every parent, in the order of the edges, each once."""
    children: dict[Node, dict[Node, None]] = {}
    for parent, child in edges:
        children.setdefault(parent, {})[child] = None
    return {parent: list(found) for parent, found in children.items()}


def levels(edges: Collection[tuple[Node, Node]], nodes: Iterable[Node] = ()) -> list[list[Node]]:
    """Return the nodes in levels: a node stands one level below its deepest parent, sources at level 0.

    ``nodes`` adds nodes that no edge names. Within a level nodes keep the order in which they were first named.
    Raises Conflict ``cycle`` if there is one; the detail names the nodes on or below it.
    """
    children = children_by_parent(edges)
    waiting: dict[Node, int] = {}
    for node in (*nodes, *(end for edge in edges for end in edge)):
        waiting.setdefault(node, 0)
    for found in children.values():
        for child in found:
            waiting[child] += 1
    order = list(waiting)
    result: list[list[Node]] = []
    level = [node for node in order if waiting[node] == 0]
    while level:
        result.append(level)
        freed: set[Node] = set()
        for node in level:
            del waiting[node]
            for child in children.get(node, ()):
                waiting[child] -= 1
                if waiting[child] == 0:
                    freed.add(child)
        level = [node for node in order if node in freed]
    if waiting:
        raise Conflict(f"These nodes are on a cycle or below one: {sorted(map(str, waiting))}.", code="cycle")
    return result


def level_of(edges: Collection[tuple[Node, Node]], nodes: Iterable[Node] = ()) -> dict[Node, int]:
    """Return the level of every node, as ``levels`` counts it; raises Conflict ``cycle``."""
    return {node: number for number, level in enumerate(levels(edges, nodes)) for node in level}


def reachable(starts: Iterable[Node], step: Callable[[Node], Iterable[Node]]) -> dict[Node, None]:
    """Return what ``step`` reaches from the starts, breadth first; a start only if something leads back."""
    found: dict[Node, None] = {}
    queue = deque(starts)
    while queue:
        for node in step(queue.popleft()):
            if node not in found:
                found[node] = None
                queue.append(node)
    return found


def closes_cycle(children: Mapping[Node, Collection[Node]], parent: Node, child: Node) -> bool:
    """Tell whether an edge from ``parent`` to ``child`` would close a cycle in an acyclic graph."""
    return parent == child or parent in reachable([child], lambda node: children.get(node, ()))
