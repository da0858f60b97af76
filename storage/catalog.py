"""The built-in schemas, definitions and providers, read from the package ``providers`` and checked like any others.

``providers/schemas/*.json`` are plain JSON Schemas named by their slug; ``providers/*.yaml`` are definitions (they have
``steps``) and registrations of providers. Nothing else in the program reads these files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from domain.canonical import load
from domain.definitions import Definition, parse_definition
from domain.providers import Provider, parse_provider
from domain.schemas import Schema, parse_schema
from domain.yaml_text import parse_yaml


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What every installation begins with, each by its slug; ``sources`` has the YAML of each definition."""

    schemas: Mapping[str, Schema]
    definitions: Mapping[str, Definition]
    providers: Mapping[str, Provider]
    sources: Mapping[str, str]


def builtin_catalogue(services: Collection[str]) -> Catalogue:
    """Read and check the packaged catalogue.

    Raises ``Invalid`` with every fault if a file is wrong, or if ``services`` lacks one that a definition calls.
    """
    schemas = {schema.slug: schema for schema in map(_schema, _files("schemas", ".json"))}
    documents = [(text, parse_yaml(text)) for _, text in _files("", ".yaml")]
    workflows = [(text, raw) for text, raw in documents if "steps" in raw]
    sources: dict[str, str] = {}
    definitions: dict[str, Definition] = {}
    for text, raw in workflows:
        definition = parse_definition(raw, services=services, schemas=schemas.get)
        definitions[definition.id], sources[definition.id] = definition, text
    registered = [
        parse_provider(raw, workflows=definitions.get, schemas=schemas.get)
        for _, raw in documents
        if "steps" not in raw
    ]
    return Catalogue(schemas, definitions, {provider.id: provider for provider in registered}, sources)


def _files(folder: str, suffix: str) -> list[tuple[str, str]]:
    """(name without suffix, text) of the packaged files, in the order of their names."""
    root = resources.files("providers") / folder if folder else resources.files("providers")
    names = sorted(entry.name for entry in root.iterdir() if entry.name.endswith(suffix))
    return [(name.removesuffix(suffix), (root / name).read_text(encoding="utf-8")) for name in names]


def _schema(file: tuple[str, str]) -> Schema:
    slug, text = file
    definition: Any = load(text)
    return parse_schema(
        {
            "slug": slug,
            "definition": definition,
            "description": definition.get("description", ""),
            "examples": definition.get("examples", []),
        }
    )
