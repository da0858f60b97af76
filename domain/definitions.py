"""Definitions: what a provider does, step by step, checked completely when registered and immutable from then on.

``parse_definition`` reads what a person wrote (seed 003's YAML is the model) and returns a ``Definition``: every
default filled in, every schema pinned to a version, every expression compiled once to see that it can be. Its
``digest`` names exactly what will run. ``steps.py`` says what each step means when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from domain.canonical import canonical
from domain.definition_ir import (
    AI_SERVICE,
    STEP_TYPES,
    Definition,
    Output,
    SchemaRef,
    Step,
    output_from_json,
    output_to_json,
)
from domain.definition_steps import Reading, read_step
from domain.errors import Fault, Invalid, StudioError
from domain.fields import Fields, refuse
from domain.schemas import Schema

__all__ = [
    "AI_SERVICE",
    "STEPS_MAX",
    "STEP_TYPES",
    "Definition",
    "Output",
    "SchemaRef",
    "Step",
    "output_from_json",
    "output_to_json",
    "parse_definition",
]

STEPS_MAX: Final = 200
DEFINITION_BYTES_MAX: Final = 256 * 1024
DEFINITION_DEPTH_MAX: Final = 32

_ID: Final = r"[a-z0-9][a-z0-9-]{0,62}"


def parse_definition(
    raw: Any, *, services: Collection[str], schemas: Callable[[str], Schema | None], pure: Collection[str] = ()
) -> Definition:
    """Check a definition (parsed YAML or JSON); raises ``Invalid`` (invalid_definition) with all faults at once.

    ``services`` are the names declared in the settings, ``pure`` those that answer equal requests equally; ``schemas``
    finds a schema by its slug (or id).
    """
    _check_bounds(raw)
    faults: list[Fault] = []
    reading = Reading(services, schemas, faults, pure=pure)
    fields = Fields(raw, "", faults, "A definition")
    definition_id = fields.text("id", required=True, pattern=_ID)
    name = fields.text("name", most=200) or definition_id
    description = fields.text("description", most=2000)
    steps = _steps(fields, reading)
    fields.finish()
    refuse(faults, "invalid_definition", "The definition")
    return Definition(
        id=definition_id,
        name=name,
        description=description,
        steps=tuple(steps),
        outputs=tuple(reading.outputs),
        reads=frozenset(reading.reads),
    )


def _check_bounds(raw: Any) -> None:
    """Size, depth and plain JSON first: nothing else looks at what is too large to look at."""
    try:
        canonical(raw, depth_max=DEFINITION_DEPTH_MAX, bytes_max=DEFINITION_BYTES_MAX)
    except StudioError as error:
        faults = error.faults or (Fault("", error.problem_code, error.detail),)
        raise Invalid(error.detail, code="invalid_definition", faults=faults) from None


def _steps(fields: Fields, reading: Reading) -> list[Step]:
    if not fields.has("steps"):
        fields.fault("steps", "missing_field", "A definition needs steps.")
        fields.raw("steps")
        return []
    before = len(reading.faults)
    entries = fields.items("steps", most=STEPS_MAX)
    steps = [step for pointer, raw in entries if (step := read_step(raw, pointer, reading)) is not None]
    unread = any(fault.code in ("unknown_step_type", "wrong_type", "too_many") for fault in reading.faults[before:])
    if not any(step.effect == "stage" for step in steps) and not unread:
        fields.fault("steps", "missing_field", "No step makes an output: add a state-update, operation create-blob.")
    return steps
