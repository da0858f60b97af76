"""Fields that say when or how long, not what: early cut-off compares documents without them (CASCADES, rule 5)."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from domain.canonical import canonical, escaped, load
from domain.schema_graph import SchemaGraph

VOLATILE: Final = "x-volatile"
GRAPHS_CACHED: Final = 256

_GONE: Final = object()


def strip_volatile(definition: Any, value: Any, *, also: Iterable[str] = ()) -> Any:
    """``value`` without the fields that the schema ``definition`` marks ``x-volatile: true``.

    ``also`` are JSON Pointers of more such fields (those that a definition computes per run). The value itself is
    not changed; one that is volatile as a whole is None.
    """
    for pointer in also:
        value = _without(value, pointer.split("/")[1:])
    if not _mentions(definition):
        return value
    stripped = _strip(_graph(canonical(definition)), [""], value)
    return None if stripped is _GONE else stripped


@functools.lru_cache(maxsize=GRAPHS_CACHED)
def _graph(canonical_definition: bytes) -> SchemaGraph:
    return SchemaGraph(load(canonical_definition))


def _mentions(schema: Any) -> bool:
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, dict):
            if VOLATILE in part:
                return True
            pending.extend(part.values())
        elif isinstance(part, list):
            pending.extend(part)
    return False


def _strip(graph: SchemaGraph, places: list[str], value: Any) -> Any:
    schemas = list(_in_place(graph, places))
    if any(schema.get(VOLATILE) is True for _, schema in schemas):
        return _GONE
    if isinstance(value, Mapping):
        made = {name: _strip(graph, list(_named(schemas, name)), part) for name, part in value.items()}
        return {name: part for name, part in made.items() if part is not _GONE}
    if isinstance(value, list):
        parts = [_strip(graph, list(_indexed(schemas, index)), part) for index, part in enumerate(value)]
        return [part for part in parts if part is not _GONE]
    return value


def _in_place(graph: SchemaGraph, places: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The subschemas at ``places`` and all that apply to the same value, references followed."""
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


def _named(schemas: list[tuple[str, dict[str, Any]]], name: str) -> Iterator[str]:
    token = escaped(name)
    for here, schema in schemas:
        if name in schema.get("properties", {}):
            yield f"{here}/properties/{token}"
        else:
            yield f"{here}/additionalProperties"


def _indexed(schemas: list[tuple[str, dict[str, Any]]], index: int) -> Iterator[str]:
    for here, schema in schemas:
        first = "prefixItems" if "prefixItems" in schema else "items"
        if isinstance(schema.get(first), list):
            yield f"{here}/{first}/{index}"
        yield f"{here}/items"
        yield f"{here}/additionalItems"


def _without(value: Any, tokens: list[str]) -> Any:
    if not tokens:
        return None
    name = tokens[0].replace("~1", "/").replace("~0", "~")
    if isinstance(value, Mapping) and name in value:
        if len(tokens) == 1:
            return {key: part for key, part in value.items() if key != name}
        return {**value, name: _without(value[name], tokens[1:])}
    if isinstance(value, list) and name.isdigit() and int(name) < len(value):
        index = int(name)
        if len(tokens) == 1:
            return [*value[:index], *value[index + 1 :]]
        return [*value[:index], _without(value[index], tokens[1:]), *value[index + 1 :]]
    return value
