"""What the rules need from the world, as Protocols. ``storage`` and ``activities/adapters`` implement them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from domain.definitions import Definition
from domain.documents import Document
from domain.schemas import Schema
from domain.steps import ServiceCall


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedRun:
    """A run that a claim answers: enough to start it and to name it in the Temporal UI."""

    run_id: UUID
    derivation_id: UUID
    provider_id: str
    execution: str
    label: str
    workflow_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a claim found: every unfinished run of the cascade, old and new, and whether anything is left to do."""

    runs: tuple[ClaimedRun, ...]
    running: int
    next_run_after: datetime | None
    closed: bool
    status: str
    cut_off: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWork:
    """Everything a run reads: nothing in it changes while the run is under way, except its outputs."""

    run_id: UUID
    status: str
    label: str
    provider_id: str
    anchor_kind: str
    definition: Definition
    trigger_patterns: tuple[str, ...]
    settings: Mapping[str, Any]
    inputs: tuple[RunInput, ...]
    outputs: tuple[RunOutput, ...]
    schemas: Mapping[str, Schema]
    started_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """What one finished step added to the context of its run, and what it used."""

    step_id: str
    entries: Mapping[str, Any]
    usage: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledOutput:
    """One slot of a settlement, decided against ``expected``, the version of the output that it was merged with.

    ``document`` is what readers will see; ``machine`` the pure machine document, the new machine head; ``base`` the
    head before. Without ``changed`` no delta is stored and only the head moves.
    """

    slot: str
    expected: int
    changed: bool
    document: Document
    machine: Document
    base_hash: str | None
    patch: bytes | None
    inverse: bytes | None
    cutoff_hash: str
    conflicts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """The end of one run: its outputs (none: it had nothing to say) and what it used."""

    run_id: UUID
    outputs: tuple[SettledOutput, ...]
    usage: Mapping[str, Any]


class Schedule(Protocol):
    """The moves of CASCADES.md, each one transaction under the user lock."""

    async def plan(self, user_id: UUID, cascade_id: UUID) -> bool:
        """Decide what the cascade touches; False when that was done before."""
        ...

    async def claim(self, user_id: UUID, cascade_id: UUID, *, window: int) -> Claim:
        """Take what is ready, settle what is unchanged, answer every unfinished run."""
        ...

    async def load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        """What these runs read; runs that have ended are left out."""
        ...

    async def settle(
        self, user_id: UUID, settlements: Sequence[Settlement], *, caller: UUID | None
    ) -> dict[UUID, str]:
        """End runs: ``settled``, ``superseded``, or ``moved`` when an output changed since the merge."""
        ...

    async def fail(
        self, user_id: UUID, run_id: UUID, *, code: str, detail: str, usage: Mapping[str, Any]
    ) -> str:
        """End a run for good as failed; its descendants are blocked by it."""
        ...

    async def begin_step(self, user_id: UUID, run_id: UUID, step_id: str, position: int, kind: str) -> None:
        """Record that a step is under way, and extend the run's lease."""
        ...

    async def end_step(self, user_id: UUID, run_id: UUID, record: StepRecord) -> None:
        """Record what a step added; the first record of a step stays."""
        ...

    async def steps(self, user_id: UUID, run_id: UUID) -> list[StepRecord]:
        """The finished steps of a run, in order."""
        ...


class Services(Protocol):
    """The services that definitions may call by name."""

    async def call(self, call: ServiceCall, *, key: str, timeout: timedelta) -> Any:
        """Call and return the answer's JSON. ``key`` makes a repeated call recognisable to the service.

        Raises ProviderFailed (``service_rejected``, ``egress_denied``) for good, Unavailable
        (``service_unavailable``, members ``retry_after``) where a retry may help.
        """
        ...
