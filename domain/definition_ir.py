"""The canonical form of a definition: what is stored, named by its digest, and interpreted by ``steps.py``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from domain.canonical import canonical
from domain.memo import Cache
from domain.retries import Retry

IR_VERSION: Final = 1
CONTENT_TYPE: Final = "application/json"
AI_SERVICE: Final = "ai-service"
CACHE: Final = "cache"
"""Member of a call step's ``config``: there only if the step says it, which keeps old digests."""

APPROVAL: Final = "approval"

#: step type -> effect: "pure" is evaluated on the spot, "call" leaves the process, "ask" waits for a person, "stage"
#: makes an output document
STEP_TYPES: Final[dict[str, str]] = {
    "schema-validation": "pure",
    "computation": "pure",
    "api-call": "call",
    "ai-call": "call",
    APPROVAL: "ask",
    "state-update": "stage",
}


@dataclass(frozen=True, slots=True)
class SchemaRef:
    """A schema pinned to the version that it had when the definition was registered."""

    slug: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. ``config`` is canonical JSON whose members depend on ``type`` (``definition_steps.py``)."""

    id: str
    type: str
    name: str
    schema: SchemaRef | None = None
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    retry: Retry | None = None
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def effect(self) -> str:
        """``pure``, ``call``, ``ask`` or ``stage``."""
        return STEP_TYPES[self.type]

    @property
    def digest(self) -> str:
        """sha256 of what the step does; its id, name, timeout, retries and cache do not matter (for the memo)."""
        pinned = [self.schema.slug, self.schema.version] if self.schema else None
        config = {name: value for name, value in self.config.items() if name != CACHE}
        return hashlib.sha256(canonical([IR_VERSION, self.type, pinned, config])).hexdigest()

    def cache(self, provider: str | None = None) -> str:
        """``inputs`` if answers to equal requests may be reused, else ``none``: as the step says, else its provider.

        Where neither says anything, a step that asks the AI reuses answers, for they cost money; others do not.
        """
        default = Cache.INPUTS if self.config.get("service") == AI_SERVICE else Cache.NONE
        return str(self.config.get(CACHE) or provider or default)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A static output slot, named by its step; ``volatile`` points at the fields of ``data`` that each run changes."""

    slot: str
    schema: SchemaRef
    content_type: str = CONTENT_TYPE
    title: str | None = None
    tags: Any = field(default=None, hash=False)
    metadata: Any = field(default=None, hash=False)
    volatile: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """An immutable version of a provider's workflow, named by ``digest``.

    ``reads``: which of title, tags and metadata its expressions name.
    """

    id: str
    name: str
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    description: str = ""
    reads: frozenset[str] = frozenset()

    @property
    def pure(self) -> bool:
        """Whether no step leaves the process, or waits: such providers run inline, many to an activity."""
        return all(step.effect not in ("call", "ask") for step in self.steps)

    @property
    def services(self) -> tuple[str, ...]:
        """The services that its steps call, by name: what holds those back holds its runs back."""
        return tuple(sorted({str(step.config["service"]) for step in self.steps if step.config.get("service")}))

    @property
    def volatile(self) -> tuple[str, ...]:
        """The volatile pointers of all outputs."""
        return tuple(sorted({pointer for output in self.outputs for pointer in output.volatile}))

    @property
    def digest(self) -> str:
        """sha256 (hexadecimal) of the canonical form, schema versions included."""
        return hashlib.sha256(canonical(self.to_json())).hexdigest()

    def step(self, step_id: str) -> Step:
        """The step of this id; raises KeyError."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise KeyError(step_id)

    def output(self, slot: str) -> Output:
        """The output of this slot; raises KeyError."""
        for output in self.outputs:
            if output.slot == slot:
                return output
        raise KeyError(slot)

    def to_json(self) -> dict[str, Any]:
        """The canonical form; ``from_json`` is its inverse."""
        return {
            "ir_version": IR_VERSION,
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "reads": sorted(self.reads),
            "steps": [_step_json(step) for step in self.steps],
            "outputs": [output_to_json(output) for output in self.outputs],
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Definition:
        """The definition that ``to_json`` wrote; it is trusted, not checked again."""
        return cls(
            id=stored["id"],
            name=stored["name"],
            description=stored["description"],
            reads=frozenset(stored["reads"]),
            steps=tuple(_step_of(step) for step in stored["steps"]),
            outputs=tuple(output_from_json(output) for output in stored["outputs"]),
        )


def _ref_json(ref: SchemaRef) -> dict[str, str]:
    return {"slug": ref.slug, "version": ref.version}


def _step_json(step: Step) -> dict[str, Any]:
    return {
        "id": step.id,
        "type": step.type,
        "name": step.name,
        "schema": _ref_json(step.schema) if step.schema else None,
        "timeout_seconds": step.timeout_seconds,
        "max_attempts": step.max_attempts,
        **({"retry": step.retry.to_json()} if step.retry else {}),  # what says nothing has the digest of before
        "config": dict(step.config),
    }


def _step_of(stored: Mapping[str, Any]) -> Step:
    retry = Retry.from_json(stored["retry"]) if stored.get("retry") else None
    return Step(**{**stored, "schema": SchemaRef(**stored["schema"]) if stored["schema"] else None, "retry": retry})


def output_to_json(output: Output) -> dict[str, Any]:
    """One output slot; ``output_from_json`` is the inverse."""
    return {
        "slot": output.slot,
        "schema": _ref_json(output.schema),
        "content_type": output.content_type,
        "title": output.title,
        "tags": output.tags,
        "metadata": output.metadata,
        "volatile": list(output.volatile),
    }


def output_from_json(stored: Mapping[str, Any]) -> Output:
    """The output slot that ``output_to_json`` wrote."""
    return Output(**{**stored, "schema": SchemaRef(**stored["schema"]), "volatile": tuple(stored["volatile"])})
