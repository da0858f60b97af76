"""Trivial providers, registered over HTTP as a developer would: text in, the same text with a mark out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.stage import Person, Stage

OBJECT = {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}}


async def register_schemas(stage: Stage, person: Person, slugs: Sequence[str]) -> None:
    """Register schemas of one text."""
    for slug in slugs:
        await stage.post(person, "/schemas", {"slug": slug, "version": "1.0.0", "definition": OBJECT})


async def register(stage: Stage, person: Person, slug: str, source: str, target: str, **more: Any) -> None:
    """Register a definition without calls and its provider; ``more`` are further fields of the provider."""
    steps = [
        {"id": "mark", "type": "computation", "operations": [{"text": "$.data.text + '!'"}]},
        {
            "id": "keep",
            "type": "state-update",
            "operation": "create-blob",
            "schema_id": target,
            "data_map": {"text": "$.text"},
        },
    ]
    await stage.post(person, "/workflows", {"id": f"wf-{slug}", "name": slug, "steps": steps})
    provider = {"id": slug, "name": slug, "workflow_id": f"wf-{slug}", "input_schema_id": source}
    await stage.post(person, "/providers", {**provider, "output_schema_id": target, **more})
