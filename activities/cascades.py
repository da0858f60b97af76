"""Advance a cascade: plan it, claim what is ready, carry out inline runs, answer the runs that need a workflow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from temporalio import activity

from activities.errors import as_failures
from activities.inline import Inline
from activities.turns import Turns
from activities.wholes import Wholes
from domain.ports import Schedule
from domain.works import Claim

BEGUN_MAX = 100
"""Advances that are begun before their workflows ask for them."""
BEGUN_SECONDS_MAX = 5.0
"""How long such a one waits for its workflow."""
OPERATOR = "operator:temporal"
"""Who cancels a workflow in Temporal: Temporal does not say."""


@dataclass(frozen=True, kw_only=True)
class CascadeRef:
    """Which cascade, and whose."""

    user_id: str
    cascade_id: str
    known: list[str] = field(default_factory=list)
    """Runs that need not be answered again: whoever asks has them in hand. At most a window of them."""
    elsewhere: list[str] = field(default_factory=list)
    """Those of them whose end nobody reports to whoever asks: ``ended`` names those that have."""


@dataclass(frozen=True, kw_only=True)
class RunToStart:
    """A claimed run that is a child workflow of its own."""

    run_id: str
    provider_id: str
    workflow_id: str
    label: str
    resumed: int = 0
    """How often a person's approval has set it going again: each time its workflow is started once more."""


@dataclass(frozen=True, kw_only=True)
class AdvanceResult:
    """What one advance found: workflow runs that are not finished and not ``known``, and whether anything is left.

    ``more`` asks to be called again at once; ``due_in_seconds`` is the time until a derivation is due, if any is.
    ``history_max`` bounds the history of whoever asks: it is recorded with the answer, so that all replays agree. None
    in answers that were recorded before there was one. ``rings``: a run that settles rings the doorbell of whoever
    asks, who need not look again when its workflow ends; False in answers that were recorded when both were heeded.
    """

    runs: list[RunToStart]
    closed: bool
    status: str
    more: bool
    inline_runs: int
    due_in_seconds: float | None = None
    ended: list[str] = field(default_factory=list)
    history_max: int | None = None
    rings: bool = False


@dataclass(frozen=True, slots=True)
class _Begun:
    """An advance that was begun before its workflow asked for it."""

    inline: Inline
    claim: asyncio.Task[Claim]
    until: float


class CascadeActivities:
    """The moves of one cascade, bounded by ``batch`` runs a settlement and ``budget`` a call. One per process."""

    def __init__(
        self,
        schedule: Schedule,
        *,
        window: int,
        batch: int,
        budget: timedelta,
        history_max: int | None = None,
        wholes: Wholes | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._schedule = schedule
        self._window = window
        self._batch = batch
        self._budget_seconds = budget.total_seconds()
        self._history_max = history_max
        self._now = now
        self._wholes = wholes
        self._begun: dict[UUID, _Begun] = {}
        self.turns = Turns()

    def expect(self, user_id: UUID, cascade_id: UUID) -> None:
        """Begin the first advance of a cascade whose workflow is on its way to this process: plan and claim meanwhile.

        Only speed. What is claimed is on record or, sketched, nowhere: if nobody comes for it, the next to advance
        finds it as after a crash.
        """
        now = time.monotonic()
        self._begun = {cascade: one for cascade, one in self._begun.items() if one.until > now}
        if len(self._begun) < BEGUN_MAX:
            inline = self._inline(user_id, cascade_id)
            claim = asyncio.create_task(inline.begin(), name="advance-begun")
            # Whoever comes for it is told why it failed; if nobody comes, nobody need be.
            claim.add_done_callback(lambda done: done.cancelled() or done.exception())
            self._begun[cascade_id] = _Begun(inline, claim, now + BEGUN_SECONDS_MAX)

    async def _begin(self, user_id: UUID, cascade_id: UUID) -> tuple[Inline, Claim]:
        begun = self._begun.pop(cascade_id, None)
        if begun is not None and begun.until > time.monotonic():
            try:
                return begun.inline, await asyncio.shield(begun.claim)
            except Exception as error:  # noqa: BLE001 - it is tried again, and whoever asks is told
                activity.logger.debug("begun in vain", exc_info=error)
        inline = self._inline(user_id, cascade_id)
        return inline, await inline.begin()

    def _inline(self, user_id: UUID, cascade_id: UUID) -> Inline:
        return Inline(self._schedule, self.turns, user_id, cascade_id, window=self._window, now=self._now)

    @activity.defn(name="Cascade.advance")
    async def advance(self, cause: CascadeRef) -> AdvanceResult:
        """Plan if that is still to do, then claim and carry out inline runs until none is left or time is up.

        Safe to repeat at any point (CASCADES rule 3): what was claimed and not settled is claimed again.
        """
        with as_failures():
            user_id, cascade_id = UUID(cause.user_id), UUID(cause.cascade_id)
            with self.turns.here(user_id):
                inline, claim = await self._begin(user_id, cascade_id)
                try:
                    claim = await self._carry_out_all(user_id, inline, claim)
                finally:
                    await inline.finished()
            found = self._result(cause, claim, inline)
            if self._wholes is not None:
                self._wholes.expect(user_id, [UUID(run.run_id) for run in found.runs])
            return found

    async def _carry_out_all(self, user_id: UUID, inline: Inline, claim: Claim) -> Claim:
        """Carry out and claim while anything inline is there and time is not up; return the last claim."""
        # From here on: however long it took to plan, what it found is begun, else the next would end as this one did.
        deadline = time.monotonic() + self._budget_seconds
        while True:
            in_time = time.monotonic() <= deadline
            if in_time:
                inline.start(self.turns.size(user_id, self._batch))
            else:
                inline.stop()
            if inline:
                await inline.next()
            elif in_time and claim.more:
                await inline.claim()
            else:
                return claim
            claim = inline.newest or claim

    @activity.defn(name="Cascade.cancel")
    async def cancel(self, ref: CascadeRef) -> str:
        """Record that somebody cancelled the cascade's workflow in Temporal: so the cascade is cancelled."""
        with as_failures():
            return await self._schedule.cancel_cascade(UUID(ref.user_id), UUID(ref.cascade_id), actor=OPERATOR)

    def _result(self, cause: CascadeRef, claim: Claim, inline: Inline) -> AdvanceResult:
        known = {*cause.known, *cause.elsewhere}
        running = {str(run.run_id) for run in claim.runs}
        return AdvanceResult(
            runs=[
                RunToStart(
                    run_id=str(run.run_id),
                    provider_id=run.provider_id,
                    workflow_id=run.workflow_id or "",
                    label=run.label,
                    resumed=run.resumed,
                )
                for run in claim.runs
                if run.execution == "workflow" and str(run.run_id) not in known
            ],
            closed=claim.closed,
            status=claim.status,
            more=claim.more or inline.left,
            inline_runs=inline.done,
            due_in_seconds=None if claim.due_in_seconds is None else max(claim.due_in_seconds, 0.01),
            ended=[run_id for run_id in cause.elsewhere if run_id not in running],
            history_max=self._history_max,
            rings=True,
        )
