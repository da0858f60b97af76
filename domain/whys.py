"""Why: what a version comes from, how its derivation stands, and what would change that; as data and in words.

Pure functions from what ``storage/whys.py`` read. ``why_causes`` looks back, ``why_states`` and ``why_actions`` at now.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.why_actions import changes
from domain.why_causes import Json, Row, Story, because, name_of, why_url
from domain.why_states import is_made, now, standing_words

ACTIONS_NAMED_MAX = 3
"""Actions that the sentences name; the data has them all."""


def blob_why(told: Sequence[Row], standing: Row | None, *, depth: int, truncated: bool) -> Json:
    """Explain a blob at a version: the first of ``told``; others are what it comes from, ``depth`` steps down."""
    asked = told[0]
    found = because(Story.of(told, depth), asked["blob_id"], asked["version"])
    return {
        "blob_id": asked["blob_id"],
        "name": name_of(asked),
        "schema_id": asked["schema_id"],
        "version": asked["version"],
        "current_version": asked["current_version"],
        "derivation_id": None if standing is None else standing["id"],
        "provider_id": None if standing is None else standing["provider_id"],
        "words": _paragraph(found, asked, standing),
        "because": found,
        "now": now(standing, asked),
        "changes": changes(standing, asked),
        "truncated": truncated,
    }


def derivation_why(told: Sequence[Row], standing: Row, *, depth: int, truncated: bool) -> Json:
    """Explain a derivation: its outputs as they are, and how it stands."""
    story = Story.of(told, depth)
    outputs = [_output(one, story) for one in standing["outputs"]]
    causes = [str(one["because"]["words"]) for one in outputs if one["because"]]
    parts = [*(causes or [_unmade(standing)]), standing_words(standing, None), _changes_words(standing, None)]
    return {
        **derivation_json(standing),
        "words": " ".join(part for part in parts if part),
        "outputs": outputs,
        "now": now(standing, None),
        "changes": changes(standing, None),
        "truncated": truncated,
    }


def derivation_json(standing: Row) -> Json:
    """Return a derivation as what it is: who makes it, of what, by which definition, in which state."""
    seen = now(standing, None)
    definition, _, settings = str(standing["want_digest"]).partition(":")
    inputs = ("blob_id", "provider_id", "role", "position", "required", "tracks", "planned_version", "used_version")
    return {
        "id": standing["id"],
        "provider_id": standing["provider_id"],
        "instance_id": standing["instance_id"],
        "anchor": {"kind": standing["anchor_kind"], "id": standing["anchor_id"], "name": standing["anchor_name"]},
        "state": seen["state"],
        "reason": seen["reason"],
        "execution": standing["execution"],
        "definition_digest": definition,
        "settings_digest": settings,
        "level": standing["level"],
        "attempt": standing["attempt"],
        "run_id": standing["run_id"],
        "cascade_id": standing["owner_cascade_id"],
        "inputs": [{**{name: one[name] for name in inputs}, "name": name_of(one)} for one in standing["inputs"]],
        "inputs_total": standing["inputs_total"],
        "outputs": [_output(one, None) for one in standing["outputs"]],
        "created_at": standing["created_at"],
        "settled_at": standing["settled_at"],
    }


def _output(one: Row, story: Story | None) -> Json:
    names = ("slot", "blob_id", "schema_id", "version", "deleted", "machine_run_id")
    shown = {**{name: one[name] for name in names}, "name": name_of(one), "why_url": why_url(one["blob_id"])}
    return shown if story is None else {**shown, "because": because(story, one["blob_id"], one["version"])}


def _paragraph(found: Json | None, asked: Row, standing: Row | None) -> str:
    first = str(found["words"]) if found else _unmade(standing)
    parts = (first, standing_words(standing, asked), _changes_words(standing, asked))
    return " ".join(part for part in parts if part)


def _unmade(standing: Row | None) -> str:
    if standing is None or is_made(standing):
        return ""
    return f"{standing['provider_name'] or standing['provider_id']} is to make it of “{standing['anchor_name']}”."


def _changes_words(standing: Row | None, row: Row | None) -> str:
    found = [str(one["reason"]).rstrip(".") for one in changes(standing, row)[:ACTIONS_NAMED_MAX]]
    return f"What would change that: {'; '.join(found)}." if found else ""
