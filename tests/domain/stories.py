"""Builders of the seed's schemas, definition and registration, as the tests of definitions and providers use them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from domain.canonical import load
from domain.definitions import Definition, parse_definition
from domain.schemas import Schema, parse_schema
from domain.yaml_text import parse_yaml

SEED = Path(__file__).parents[1] / "providers" / "seed"
SERVICES = ("ai-service",)

SCHEMAS: dict[str, Schema] = {
    slug: parse_schema({"slug": slug, "definition": load((SEED / f"{slug}.json").read_text())})
    for slug in ("text-input-v1", "expanded-text-v1")
} | {"text-v1": parse_schema({"slug": "text-v1", "definition": {}})}


def seed_definition() -> dict[str, Any]:
    raw: dict[str, Any] = parse_yaml((SEED / "wf-text-expansion.yaml").read_text())
    return raw


def parsed(raw: Any, services: tuple[str, ...] = SERVICES) -> Definition:
    return parse_definition(raw, services=services, schemas=SCHEMAS.get)


def with_step(*steps: dict[str, Any]) -> dict[str, Any]:
    """A small valid definition around some steps."""
    last = {"id": "out", "type": "state-update", "operation": "create-blob", "schema_id": "text-v1", "data_map": {}}
    return {"id": "wf-small", "steps": [*copy.deepcopy(list(steps)), last]}


DEFINITIONS: dict[str, Definition] = {
    "wf-text-expansion": parsed(seed_definition()),
    "wf-pure": parsed(with_step({"id": "count", "type": "computation", "operations": {"n": "len($.data.content)"}})),
    "wf-titled": parsed(with_step({"id": "head", "type": "computation", "operations": {"head": "$.title || 'x'"}})),
}
