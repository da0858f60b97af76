"""A JSON Schema as a graph of subschemas, and how much work it can make of one value.

Validators spend time that is exponential in some schemas: ``{"anyOf": [A, A]}`` over ``A = {"anyOf": [B, B]}``
and so on doubles with every step, and a schema that reaches itself by two branches doubles with every level of
the value. Nothing can interrupt a validator (measured: 22 such steps run for more than a minute), so both are
refused at registration.
"""

from __future__ import annotations

import graphlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from domain.canonical import escaped
from domain.errors import Fault

#: ways through a schema from its root, references followed: the work for one level of a value
BRANCHES_MAX: Final = 5000

_LISTS: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS: Final = ("properties", "patternProperties", "dependentSchemas", "dependencies", "$defs", "definitions")
_SINGLE: Final = (
    "not", "if", "then", "else", "additionalProperties", "items", "additionalItems", "contains", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
_IN_PLACE: Final = (
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "dependencies",
)
#: keywords of one group never apply to the same member of a value; patternProperties overlap with anything
_GROUPS: Final = {
    "properties": "named members",
    "additionalProperties": "named members",
    "unevaluatedProperties": "named members",
    "items": "items",
    "prefixItems": "items",
    "additionalItems": "items",
}

Edge = tuple[str, str]  # keyword, pointer of the child


class SchemaGraph:
    """Subschemas by pointer, the definition itself at ""; an edge is a part or a local reference."""

    def __init__(self, definition: Any) -> None:
        self.nodes: dict[str, Any] = {}
        self._parts: dict[str, list[Edge]] = {}
        pending = [("", definition)]
        while pending:
            here, schema = pending.pop()
            children = list(_children(here, schema)) if isinstance(schema, dict) else []
            self.nodes[here] = schema
            self._parts[here] = [(keyword, place) for keyword, place, _ in children]
            pending.extend((place, child) for _, place, child in children)

    def target(self, reference: str) -> str | None:
        """The pointer of the subschema that a local ``$ref`` names, None if there is none."""
        fragment = unquote(reference[1:])
        if not fragment or fragment.startswith("/"):
            return fragment if fragment in self.nodes else None
        for place, schema in self.nodes.items():
            if isinstance(schema, dict) and fragment == schema.get("$anchor"):
                return place
        return None

    def work_faults(self) -> list[Fault]:
        """Why validating could take exponential time; empty if it cannot. References must have been checked."""
        edges = {here: self._edges(here) for here in self.nodes}
        component = _components(edges)
        faults = [
            Fault(here, "invalid_schema", "This refers to itself without going deeper into the value.")
            for here in _closed_in_place(edges)
        ]
        if not faults:
            faults = list(self._doubled(edges, component))
        if not faults and _branches(edges, component) > BRANCHES_MAX:
            detail = f"References multiply to more than {BRANCHES_MAX} branches."
            faults.append(Fault("", "invalid_schema", detail))
        return faults

    def _edges(self, here: str) -> list[Edge]:
        parts = [edge for edge in self._parts[here] if edge[0] not in ("$defs", "definitions")]
        schema = self.nodes[here]
        reference = schema.get("$ref") if isinstance(schema, dict) else None
        target = self.target(reference) if isinstance(reference, str) else None
        return parts if target is None else [*parts, ("$ref", target)]

    def _doubled(self, edges: Mapping[str, list[Edge]], component: Mapping[str, str]) -> Iterator[Fault]:
        sizes = Counter(component.values())
        for here, out in edges.items():
            recursive = [edge for edge in out if sizes[component[here]] > 1 and component[edge[1]] == component[here]]
            in_place = [place for keyword, place in recursive if keyword in _IN_PLACE]
            deeper = {_GROUPS.get(keyword, place) for keyword, place in recursive if keyword not in _IN_PLACE}
            ways = (1 if self._disjoint(in_place) else len(in_place)) if in_place else 0
            if ways + len(deeper) > 1:
                detail = "This reaches itself by more than one branch: the work would double with each level."
                yield Fault(here, "invalid_schema", detail)

    def _disjoint(self, places: list[str]) -> bool:
        """Whether no value can satisfy the ``type`` of two of these."""
        seen: set[str] = set()
        for place in places:
            schema = self.nodes[place]
            named = schema.get("type") if isinstance(schema, dict) else None
            types = {named} if isinstance(named, str) else set(named or ())
            if not types or types & seen:
                return False
            seen |= types
        return True


def _children(here: str, schema: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    for keyword, value in schema.items():
        place = f"{here}/{escaped(keyword)}"
        parts: Iterable[tuple[str, Any]] = ()
        if keyword in _MAPS and isinstance(value, dict):
            parts = ((f"{place}/{escaped(name)}", child) for name, child in value.items())
        elif keyword in _LISTS and isinstance(value, list):
            parts = ((f"{place}/{index}", child) for index, child in enumerate(value))
        elif keyword in _SINGLE:
            parts = ((place, value),)
        yield from ((keyword, part, child) for part, child in parts if isinstance(child, dict | bool))


def _closed_in_place(edges: Mapping[str, list[Edge]]) -> list[str]:
    sorter = graphlib.TopologicalSorter(
        {here: [place for keyword, place in out if keyword in _IN_PLACE] for here, out in edges.items()}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        return [min(error.args[1])]
    return []


def _finished_order(edges: Mapping[str, list[str]]) -> list[str]:
    """Depth-first, each node after everything it reaches first; iterative, because schemas may be long chains."""
    order: list[str] = []
    seen: set[str] = set()
    for start in edges:
        pending = [(start, iter(edges[start]))] if start not in seen else []
        seen.add(start)
        while pending:
            here, rest = pending[-1]
            following = next((place for place in rest if place not in seen), None)
            if following is None:
                order.append(here)
                pending.pop()
            else:
                seen.add(following)
                pending.append((following, iter(edges[following])))
    return order


def _components(edges: Mapping[str, list[Edge]]) -> dict[str, str]:
    """Kosaraju: each node's strongly connected component, named by one of its nodes."""
    forward = {here: [place for _, place in out] for here, out in edges.items()}
    backward: dict[str, list[str]] = {here: [] for here in edges}
    for here, places in forward.items():
        for place in places:
            backward[place].append(here)
    component: dict[str, str] = {}
    for start in reversed(_finished_order(forward)):
        pending = [] if start in component else [start]
        while pending:
            here = pending.pop()
            component[here] = start
            pending.extend(place for place in backward[here] if place not in component)
    return component


def _branches(edges: Mapping[str, list[Edge]], component: Mapping[str, str]) -> int:
    """Ways through the schema from its root; what is recursive counts once per level of the value."""
    outside: dict[str, list[str]] = {name: [] for name in component.values()}
    for here, out in edges.items():
        outside[component[here]] += [component[place] for _, place in out if component[place] != component[here]]
    sizes = Counter(component.values())
    ways: dict[str, int] = {}
    for name in graphlib.TopologicalSorter(outside).static_order():
        ways[name] = sizes[name] + sum(ways[other] for other in outside[name])
    return ways[component[""]]
