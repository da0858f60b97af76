"""Writing the built-in catalogue into a database, again and again: what is there stays, what changed gets a version.

Versions of schemas are immutable, and definitions pin them. So a built-in schema whose text has changed since the
last migration becomes the next version, and what refers to it is pinned to that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from domain.definitions import Definition, Output, SchemaRef
from domain.errors import Conflict
from domain.ids import SYSTEM_USER
from domain.providers import Provider
from domain.schemas import Schema
from storage.catalog import Catalogue
from storage.definitions import add_definition
from storage.providers import add_provider
from storage.schemas import add_schema, newest_version

Pin = Callable[[SchemaRef], SchemaRef]


async def write_catalogue(connection: Any, catalogue: Catalogue) -> None:
    """Store schemas, definitions and providers as published rows of the system user, whom the transaction is."""
    versions = {slug: await _add_schema(connection, schema) for slug, schema in catalogue.schemas.items()}
    definitions: dict[str, Definition] = {}
    for definition in catalogue.definitions.values():
        pinned = _pinned_definition(definition, versions)
        definitions[pinned.id] = pinned
        source = catalogue.sources[definition.id]
        await add_definition(connection, SYSTEM_USER, pinned, source, published=True)
    for provider in catalogue.providers.values():
        pinned_provider = _pinned_provider(provider, definitions[provider.workflow_id])
        await add_provider(connection, SYSTEM_USER, pinned_provider, published=True)


async def _add_schema(connection: Any, schema: Schema) -> str:
    """Store a schema unless its newest version is the same; returns that version."""
    newest = await newest_version(connection, SYSTEM_USER, schema.slug)
    candidate = schema if newest is None else replace(schema, version=newest)
    try:
        await add_schema(connection, SYSTEM_USER, candidate, published=True)
    except Conflict:
        major, minor, patch = candidate.version.split(".")
        candidate = replace(schema, version=f"{major}.{minor}.{int(patch) + 1}")
        await add_schema(connection, SYSTEM_USER, candidate, published=True)
    return candidate.version


def _pinned_definition(definition: Definition, versions: Mapping[str, str]) -> Definition:
    def pin(ref: SchemaRef) -> SchemaRef:
        return SchemaRef(ref.slug, versions[ref.slug])

    return replace(
        definition,
        steps=tuple(replace(step, schema=pin(step.schema)) if step.schema else step for step in definition.steps),
        outputs=tuple(_pinned_output(output, pin) for output in definition.outputs),
    )


def _pinned_output(output: Output, pin: Pin) -> Output:
    return replace(output, schema=pin(output.schema))


def _pinned_provider(provider: Provider, definition: Definition) -> Provider:
    return replace(provider, definition_digest=definition.digest, outputs=definition.outputs)
