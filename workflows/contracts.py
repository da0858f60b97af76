"""Names, ids, inputs and results of the workflows: their public face. Those of activities stand beside them.

Payloads carry ids, small scalars and labels, never content (DESIGN section 2). Everything is a plain dataclass of
strings and numbers, so that histories read well and old ones keep decoding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from temporalio.common import SearchAttributeKey

from domain.housekeeping import Tidied

CASCADE = "Cascade"
PROVIDER_RUN = "ProviderRun"
RECONCILE = "Reconcile"
HOUSEKEEPING = "Housekeeping"
RING = "ring"

PROGRESS = "progress"

RECONCILE_SCHEDULE_ID = "reconcile"
HOUSEKEEPING_SCHEDULE_ID = "housekeeping"
HOUSEKEEPING_NOW_ID = "housekeeping-now"
"""The workflow of a pass that somebody asked for; a second one who asks joins it."""

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
    """Which cascade to carry out, and whose.

    The rest is what one run of the workflow hands to the next when its history is long: children that go on without
    it (never more than a window), and how many runs have settled.
    """

    user_id: str
    cascade_id: str
    elsewhere: list[str] = field(default_factory=list)
    settled_runs: int = 0


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
class RunOutcome:
    """How a run ended: settled, superseded, skipped, blocked_budget or failed."""

    status: str
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass of housekeeping: where it goes on, and what was done so far."""

    after: str | None = None
    done: Tidied = field(default_factory=Tidied)
    chore: str | None = None
    """What is being done now, for the page of users after ``after``."""
