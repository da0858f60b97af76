"""Names, ids, inputs and results of the workflows: their public face.

Payloads carry ids, small scalars and labels, never content (DESIGN section 2). Everything is a plain dataclass of
strings and numbers, so that histories read well and old ones keep decoding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from temporalio.common import SearchAttributeKey

CASCADE = "Cascade"
PROVIDER_RUN = "ProviderRun"
RECONCILE = "Reconcile"
RING = "ring"

RECONCILE_SCHEDULE_ID = "reconcile"

USER = SearchAttributeKey.for_keyword("StudioUser")
BLOB = SearchAttributeKey.for_keyword("StudioBlob")
PROVIDER = SearchAttributeKey.for_keyword("StudioProvider")
CASCADE_ID = SearchAttributeKey.for_keyword("StudioCascade")
OUTCOME = SearchAttributeKey.for_keyword("StudioOutcome")
SEARCH_ATTRIBUTES = (USER, BLOB, PROVIDER, CASCADE_ID, OUTCOME)
"""Keyword search attributes that the namespace must know; the worker registers them when it starts."""


def cascade_workflow_id(cascade_id: UUID | str) -> str:
    """The workflow of a cascade: one per cascade, started again by a later doorbell."""
    return f"cascade:{cascade_id}"


@dataclass(frozen=True, kw_only=True)
class CascadeInput:
    """Which cascade to carry out. ``label`` and ``blob_id`` are for people and for search."""

    user_id: str
    cascade_id: str


@dataclass(frozen=True, kw_only=True)
class CascadeOutcome:
    """How a cascade stands when its workflow ends: completed, partial, superseded or cancelled."""

    status: str
    settled_runs: int


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """One run of one derivation; the run's row has everything else."""

    user_id: str
    cascade_id: str
    run_id: str
    provider_id: str
    label: str


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One step of the pinned definition, as far as the workflow needs to know it."""

    id: str
    effect: str
    position: int
    timeout_seconds: float
    attempts_max: int


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run consists of, recorded in history: the workflow branches on nothing else."""

    status: str
    blob_id: str
    steps: list[StepPlan] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class StepRequest:
    """One step of one run."""

    user_id: str
    run_id: str
    step_id: str
    position: int


@dataclass(frozen=True, kw_only=True)
class StepOutcome:
    """What a step answers to the workflow: its effects are in PostgreSQL."""

    status: str
    model: str | None = None
    tokens: int = 0
    duration_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class RunFailure:
    """Why a run failed for good: a problem code and a sentence."""

    user_id: str
    run_id: str
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """How a run ended: settled, superseded, skipped or failed."""

    status: str
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class AdvanceResult:
    """What one advance of a cascade found: workflow runs to start, and whether anything is left.

    ``due_in_seconds`` is the time until the next derivation is due, None if none is.
    """

    runs: list[RunToStart]
    closed: bool
    status: str
    more: bool
    inline_runs: int
    due_in_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunToStart:
    """A claimed run that is a child workflow of its own."""

    run_id: str
    provider_id: str
    workflow_id: str
    label: str


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """What one reconciliation found nobody looking after."""

    cascades_rung: int
    runs_lost: int
