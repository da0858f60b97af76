"""What the schedule hands to those who carry out runs, and what it takes back from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.definitions import Definition, Step
from domain.documents import Document
from domain.provider_ir import BY_SIZE, Placement
from domain.retries import UNSAID, Retry
from domain.schemas import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRun:
    """A run that a claim answers: enough to start it and to name it in the Temporal UI."""

    run_id: UUID
    derivation_id: UUID
    provider_id: str
    execution: str
    label: str
    workflow_id: str | None
    resumed: int = 0
    """How often a person's approval has set it going again: its workflow is started once more each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """An inline run that nothing has recorded yet: its settlement makes it a run that has ended already."""

    run_id: UUID
    derivation_id: UUID
    row: Mapping[str, Any]
    """As the claim answered it."""


class Sketching(StrEnum):
    """What a claim may sketch: nothing; what it finds, unless the advance before died over sketches; what it finds."""

    NONE = "none"
    BEGIN = "begin"
    MORE = "more"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a claim found: every unfinished run of the cascade, old and new, and whether anything is left to do."""

    runs: tuple[ClaimedRun, ...]
    running: int
    due_in_seconds: float | None
    """How long until something is due, by the clock that says when: PostgreSQL's."""
    closed: bool
    status: str
    cut_off: int
    more: bool = False
    """There was more to settle without a run than one claim does: claim again at once."""
    sketches: tuple[Sketch, ...] = ()
    sketching: bool = False
    """Whether the next claim of this advance may sketch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInput:
    """One pinned input: exactly this version of this blob, whatever has happened since."""

    blob_id: UUID
    version: int
    document: Document
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutput:
    """One output slot as it stands: the current document (None before the first) and the machine head."""

    slot: str
    blob_id: UUID
    version: int
    deleted: bool
    current: Document | None
    machine: Document | None
    schema: Schema
    on_conflict: str
    disputed: Sequence[Mapping[str, Any]] = ()
    """The conflicts of what the machine has offered here and nobody has decided about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWork:
    """Everything a run reads: nothing in it changes while the run is under way, except its outputs.

    ``max_input_size`` (bytes), ``timeout_seconds``, ``max_attempts``, ``retry`` and ``cache`` are the provider's;
    None: it has none.
    """

    user_id: UUID
    run_id: UUID
    label: str
    provider_id: str
    anchor_kind: str
    anchor_title: str
    definition: Definition
    trigger_patterns: tuple[str, ...]
    max_input_size: int | None = None
    timeout_seconds: float | None = None
    max_attempts: int | None = None
    retry: Retry = UNSAID
    cache: str | None = None
    reads: frozenset[str]
    settings: Mapping[str, Any]
    inputs: tuple[RunInput, ...]
    outputs: tuple[RunOutput, ...]
    schemas: Mapping[str, Schema]
    started_at: datetime
    storage: Placement = BY_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one finished step added to the context of its run, and what it used."""

    step_id: str
    entries: Mapping[str, Any]
    usage: Mapping[str, Any] = field(default_factory=dict)
    reused_from: UUID | None = None
    """The run whose paid answer this step took over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledOutput:
    """One slot of a settlement, decided against ``expected``, the version of the output that it was merged with.

    ``document`` is what readers will see; ``machine`` the pure machine document, the new machine head; ``base`` the
    head before. ``effect``: ``change`` stores a delta, ``head`` only moves the head because the human side won
    everywhere, ``offer`` proposes ``document``, which has the machine's side of the conflicts, and ``hold`` does so
    and lets the derivation wait for a person, head unmoved.
    """

    slot: str
    expected: int
    effect: str
    document: Document
    machine: Document
    base_hash: str | None
    patch: bytes | None
    inverse: bytes | None
    cutoff_hash: str
    conflicts: Sequence[Mapping[str, Any]]
    volatile: tuple[str, ...] = ()
    """Fields that the definition computes per run, as JSON Pointers into the data: ``cutoff_hash`` is without them."""


class SameBy(StrEnum):
    """What two documents of a slot are the same by, so that the newer one makes no version."""

    BYTES = "bytes"
    NORMAL_FORM = "normal_form"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnchangedOutput:
    """One slot that a run left as it was, because what it made is the machine head already."""

    slot: str
    reason: SameBy


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The end of one run: its outputs (none: it had nothing to say) and what it used."""

    run_id: UUID
    outputs: tuple[SettledOutput, ...]
    usage: Mapping[str, Any]
    storage: Placement = BY_SIZE
    steps: Sequence[tuple[Step, StepRecord]] = ()
    """The steps of a run that was carried out as a whole, first to last: recorded with its end."""
    unchanged: tuple[UnchangedOutput, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Settlements as the store writes them: what is large is stored, and what is left is one transaction."""

    settlements: tuple[Settlement, ...]
    columns: Sequence[Sequence[Any]]
    """The outputs of all of them, a column for each property."""
    usages: Mapping[str, Any]
    """By runs."""
    unchanged: Mapping[str, Any]
    """Slots that were left as they are, by runs."""
