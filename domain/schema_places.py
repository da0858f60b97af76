"""Which subschemas of a JSON Schema say something about one place of a value."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Final

from domain.canonical import canonical, escaped, load
from domain.schema_graph import SchemaGraph

GRAPHS_CACHED: Final = 256

Place = tuple[str, dict[str, Any]]
"""A subschema and its pointer in the definition."""


def graph_of(definition: Any) -> SchemaGraph:
    """Return the graph of a definition that was registered; made once per content."""
    return _graph(canonical(definition))


@functools.lru_cache(maxsize=GRAPHS_CACHED)
def _graph(canonical_definition: bytes) -> SchemaGraph:
    return SchemaGraph(load(canonical_definition))


def mentions(definition: Any, keyword: str) -> bool:
    """Tell whether a keyword occurs anywhere in a definition: most definitions need no walk at all."""
    pending = [definition]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if keyword in part:
                return True
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return False


def in_place(graph: SchemaGraph, places: list[str]) -> Iterator[Place]:
    """Yield the subschemas at ``places`` and all that apply to the same value, references followed."""
    pending, seen = list(places), set(places)
    while pending:
        here = pending.pop()
        schema = graph.nodes.get(here)
        if not isinstance(schema, dict):
            continue
        yield here, schema
        following = [
            f"{here}/{key}/{index}" for key in ("allOf", "anyOf", "oneOf") for index in range(len(schema.get(key, ())))
        ]
        following += [f"{here}/{key}" for key in ("then", "else")]
        target = graph.target(schema["$ref"]) if "$ref" in schema else None
        following += [] if target is None else [target]
        pending += [place for place in following if place not in seen]
        seen.update(following)


def named(schemas: list[Place], name: str) -> Iterator[str]:
    """Yield the pointers of what the subschemas of an object say about its member ``name``."""
    token = escaped(name)
    for here, schema in schemas:
        if name in schema.get("properties", {}):
            yield f"{here}/properties/{token}"
        else:
            yield f"{here}/additionalProperties"


def indexed(schemas: list[Place], index: int) -> Iterator[str]:
    """Yield the pointers of what the subschemas of an array say about one item."""
    for here, schema in schemas:
        first = "prefixItems" if "prefixItems" in schema else "items"
        if isinstance(schema.get(first), list):
            yield f"{here}/{first}/{index}"
        yield f"{here}/items"
        yield f"{here}/additionalItems"
