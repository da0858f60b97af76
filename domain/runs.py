"""Runs and the states of derivations: what people are told, computed from the facts of the schedule.

The state of a derivation is never stored (CASCADES.md, Facts): ``derivation_state`` takes the row's facts and
answers the first that applies, with a sentence that says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID


class Hold(StrEnum):
    """Why a derivation does not run although it may be unsettled; at most one at a time."""

    APPROVAL = "approval"
    CONFLICT = "conflict"
    BUDGET = "budget"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INACTIVE = "inactive"
    RETIRED = "retired"


ASLEEP = frozenset({Hold.INACTIVE, Hold.RETIRED})
"""Holds of a derivation that is settled as it is: its dependants go on with its last outputs (or without)."""


class RunStatus(StrEnum):
    """What became of a run; only ``running`` and ``parked`` are unfinished."""

    RUNNING = "running"
    PARKED = "parked"
    SETTLED = "settled"
    SUPERSEDED = "superseded"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"
    BLOCKED_BUDGET = "blocked_budget"


UNFINISHED = frozenset({RunStatus.RUNNING, RunStatus.PARKED})


class State(StrEnum):
    """The states that people see, in the order in which they are tried (CASCADES.md)."""

    INACTIVE = "inactive"
    RETIRED = "retired"
    AWAITING_APPROVAL = "awaiting_approval"
    CONFLICT = "conflict"
    BLOCKED_BUDGET = "blocked_budget"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RUNNING = "running"
    BLOCKED = "blocked"
    STALE = "stale"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivationState:
    """A state, the sentence that explains it, and the ancestors that block it (derivation ids)."""

    state: State
    reason: str
    blocked_by: tuple[UUID, ...] = ()


_OF_HOLD = {
    Hold.INACTIVE: (State.INACTIVE, "The provider is switched off; the last output stays as it is."),
    Hold.RETIRED: (State.RETIRED, "Its source or its output was deleted; restoring it brings this back."),
    Hold.APPROVAL: (State.AWAITING_APPROVAL, "A person has to approve this run before it goes on."),
    Hold.CONFLICT: (State.CONFLICT, "New machine output conflicts with a person's words; choose what to keep."),
    Hold.BUDGET: (State.BLOCKED_BUDGET, "The budget is used up; a top-up resumes this."),
    Hold.FAILED: (State.FAILED, "The last run failed; mend what caused it and retry, or change its input."),
    Hold.CANCELLED: (State.CANCELLED, "A person cancelled this; retry it to go on."),
}
REJECTED = "rejected"
"""The code of a cancelled hold, and of its run's error, where a person turned down what a run showed."""
_REJECTED = "A person rejected what this was to become; retry it to be asked again."


SKIPPED = {
    "no_input": "there was nothing to read",
    "parent_failed": "what it reads could not be made, and it skips that",
}
"""Why a derivation settled without a run, as ``cut_offs.reason`` has it; ``unchanged`` is no news."""

STAYS = "the last output stays as it is"
NOTHING_YET = "nothing has been made yet"


LAST_GOOD = "last_good"
"""How ``derivations.provisional`` says that something was made with what a maker had left before it failed."""
_PROVISIONAL = "Made with the last good output of something that has failed since; once that is made, so is this again."


def derivation_state(
    *,
    hold: Hold | str | None,
    unsettled: bool,
    run_id: UUID | None = None,
    attempt: int = 0,
    pending_inputs: int = 0,
    hold_code: str | None = None,
    blocked_by: Sequence[UUID] = (),
    blocked_by_label: str = "",
    made: bool = True,
    skipped: str | None = None,
    run_after: datetime | None = None,
) -> DerivationState:
    """Return what people see of one derivation.

    ``blocked_by`` are its unsettled ancestors that have a hold, ``blocked_by_label`` names the first for people,
    ``hold_code`` is the catalogue code of a failure. ``made`` says whether there is a last output, ``skipped`` why it
    settled without a new one: a reason of ``cut_offs``, the words of a provider that declined, or LAST_GOOD.
    ``run_after`` is the time it is put off to. Raises ValueError for an unknown hold.
    """
    if hold is not None:
        state, reason = _OF_HOLD[Hold(hold)]
        if hold_code == REJECTED:
            return DerivationState(state=state, reason=_REJECTED)
        return DerivationState(state=state, reason=f"{reason} ({hold_code})" if hold_code else reason)
    if run_id is not None:
        return DerivationState(state=State.RUNNING, reason=f"Run {attempt} is under way.")
    last = STAYS if made else NOTHING_YET
    if not unsettled:
        return DerivationState(state=State.FRESH, reason=_settled(skipped, last))
    if blocked_by:
        name = blocked_by_label or str(blocked_by[0])
        more = f" and {len(blocked_by) - 1} more" if len(blocked_by) > 1 else ""
        reason = f"Waits for {name}{more}, which cannot go on; {last}."
        return DerivationState(state=State.BLOCKED, reason=reason, blocked_by=tuple(blocked_by))
    return DerivationState(state=State.STALE, reason=_waits(pending_inputs, run_after))


def _settled(skipped: str | None, last: str) -> str:
    if skipped == LAST_GOOD:
        return _PROVISIONAL
    return f"Nothing new was made: {SKIPPED.get(skipped, skipped)}; {last}." if skipped else _UP_TO_DATE


_UP_TO_DATE = "Up to date with its inputs."


def _waits(pending_inputs: int, run_after: datetime | None) -> str:
    if pending_inputs:
        inputs = "input" if pending_inputs == 1 else "inputs"
        return f"Waits for {pending_inputs} {inputs} in the making."
    if run_after:
        return f"Its inputs have changed; it is put off until {run_after.astimezone(UTC):%Y-%m-%d %H:%M:%S %Z}."
    return "Its inputs have changed; it runs next."


PROVIDER_STATE = {
    State.STALE: "pending", State.BLOCKED: "pending",
    State.RUNNING: "processing", State.AWAITING_APPROVAL: "processing",
    State.FRESH: "completed",
}  # fmt: skip
"""The seeds' words for the ``provider_state`` view (CONTRACT.md); every other state is ``failed``."""


def provider_state(state: State) -> str:
    """Return the seeds' word for a state."""
    return PROVIDER_STATE.get(state, "failed")


def want_digest(definition_digest: str, settings_digest: str, inputs: Iterable[tuple[str, UUID]]) -> str:
    """Return what a derivation wants apart from the content of its inputs, as SHA-256 in hex.

    ``inputs`` are ``(role, blob id)`` in the order in which the provider reads them: an input that came, went or
    changed its place is thereby a change like any other. The hashed text is
    ``definition:settings:role=blob,role=blob``, so that SQL computes the same.
    """
    shape = ",".join(f"{role}={blob_id}" for role, blob_id in inputs)
    return hashlib.sha256(f"{definition_digest}:{settings_digest}:{shape}".encode()).hexdigest()
