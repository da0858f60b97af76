"""What the scenarios write: about 0.8 kB, different every time, and the schema that ours is checked against."""

from __future__ import annotations

import itertools
from typing import Any

SENTENCE = "The quick brown fox jumps over the lazy dog while nobody watches from the old stone wall. "
TEXT = SENTENCE * 8
SCHEMA_SLUG = "bench-note-v1"
SCHEMA: dict[str, Any] = {
    "slug": SCHEMA_SLUG,
    "version": "1.0.0",
    "definition": {
        "type": "object",
        "required": ["text", "number"],
        "properties": {"text": {"type": "string", "maxLength": 10_000}, "number": {"type": "integer"}},
        "additionalProperties": False,
    },
}
_numbers = itertools.count()


def fresh_number() -> int:
    """Return a number that no body of this run has."""
    return next(_numbers)


def fresh_text() -> str:
    """Return a text that no body of this run has."""
    return f"{fresh_number()} {TEXT}"


def note() -> dict[str, Any]:
    """Return data that satisfies the schema."""
    number = fresh_number()
    return {"text": f"{number} {TEXT}", "number": number}
