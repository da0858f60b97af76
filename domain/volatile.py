"""Fields that say when or how long, not what: early cut-off compares documents without them (CASCADES, rule 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from domain.schema_graph import SchemaGraph
from domain.schema_places import graph_of, in_place, indexed, mentions, named

VOLATILE: Final = "x-volatile"

_GONE: Final = object()


def strip_volatile(definition: Any, value: Any, *, also: Iterable[str] = ()) -> Any:
    """``value`` without the fields that the schema ``definition`` marks ``x-volatile: true``.

    ``also`` are JSON Pointers of more such fields (those that a definition computes per run). The value itself is
    not changed; one that is volatile as a whole is None.
    """
    for pointer in also:
        value = _without(value, pointer.split("/")[1:])
    if not mentions(definition, VOLATILE):
        return value
    stripped = _strip(graph_of(definition), [""], value)
    return None if stripped is _GONE else stripped


def _strip(graph: SchemaGraph, places: list[str], value: Any) -> Any:
    schemas = list(in_place(graph, places))
    if any(schema.get(VOLATILE) is True for _, schema in schemas):
        return _GONE
    if isinstance(value, Mapping):
        made = {name: _strip(graph, list(named(schemas, name)), part) for name, part in value.items()}
        return {name: part for name, part in made.items() if part is not _GONE}
    if isinstance(value, list):
        parts = [_strip(graph, list(indexed(schemas, index)), part) for index, part in enumerate(value)]
        return [part for part in parts if part is not _GONE]
    return value


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
