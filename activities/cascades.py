"""Advance a cascade: plan it, claim what is ready, carry out inline runs, answer the runs that need a workflow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from temporalio import activity

from activities.errors import INTERNAL_DETAIL, as_failures
from activities.turns import Turns
from activities.wholes import Wholes
from domain.errors import StudioError, Unavailable
from domain.execution import carry_out
from domain.ports import Schedule
from domain.works import Claim, ClaimedRun, RunWork, Settlement

OPERATOR = "operator:temporal"
"""Who cancels a workflow in Temporal: Temporal does not say."""
MERGE_ATTEMPTS_MAX = 8
"""How often a settlement is decided again because a person edited its output meanwhile, before the run is retried."""


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


class CascadeActivities:
    """The moves of one cascade, bounded by ``batch`` runs a settlement and ``budget`` a call."""

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
        self.turns = Turns()

    @activity.defn(name="Cascade.advance")
    async def advance(self, cause: CascadeRef) -> AdvanceResult:
        """Plan if that is still to do, then claim and carry out inline runs until none is left or time is up.

        Safe to repeat at any point (CASCADES rule 3): what was claimed and not settled is claimed again.
        """
        with as_failures():
            user_id, cascade_id = UUID(cause.user_id), UUID(cause.cascade_id)
            with self.turns.here(user_id):
                await self._schedule.plan(user_id, cascade_id)
                batches = _Batches(self, user_id, cascade_id)
                try:
                    claim = await self._carry_out_all(user_id, cascade_id, batches)
                finally:
                    await batches.finished()
            found = self._result(cause, claim, batches.done)
            if self._wholes is not None:
                self._wholes.expect(user_id, [UUID(run.run_id) for run in found.runs])
            return found

    async def _carry_out_all(self, user_id: UUID, cascade_id: UUID, batches: _Batches) -> Claim:
        """Claim and carry out while anything inline is there and time is not up; return the last claim.

        Each batch claims once it is settled, before another settles: what it finds is evaluated here meanwhile.
        """
        deadline = time.monotonic() + self._budget_seconds
        claim = await self.claim(user_id, cascade_id)
        while True:
            in_time = time.monotonic() <= deadline
            if in_time:
                size = self.turns.size(user_id, self._batch)
                batches.start([run for run in claim.runs if run.execution == "inline"], size=size)
            if batches:
                claim = await batches.next_claim(claim)
            elif in_time and claim.more:
                claim = await self.claim(user_id, cascade_id)
            else:
                return claim

    async def claim(self, user_id: UUID, cascade_id: UUID) -> Claim:
        """Claim as much as the window has room for."""
        return await self._schedule.claim(user_id, cascade_id, window=self._window)

    async def carry_out(self, user_id: UUID, cascade_id: UUID, runs: Sequence[ClaimedRun]) -> int:
        """Evaluate a batch in its turn and settle it in one transaction; what fails is failed by itself."""
        async with self.turns.turn(user_id, len(runs)):
            pending = [run.run_id for run in runs]
            for _ in range(MERGE_ATTEMPTS_MAX):
                settlements = await self._decide(user_id, await self._load(user_id, pending))
                if not settlements:
                    break
                verdicts = await self._settle(user_id, cascade_id, settlements)
                pending = [run_id for run_id, verdict in verdicts.items() if verdict == "moved"]
                if not pending:
                    break
        return len(runs)

    @activity.defn(name="Cascade.cancel")
    async def cancel(self, ref: CascadeRef) -> str:
        """Record that somebody cancelled the cascade's workflow in Temporal: so the cascade is cancelled."""
        with as_failures():
            return await self._schedule.cancel_cascade(UUID(ref.user_id), UUID(ref.cascade_id), actor=OPERATOR)

    async def _load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        """Load a batch; where it cannot be loaded, those of it that can, and the others fail."""
        try:
            return await self._schedule.load(user_id, run_ids)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others go on
            if len(run_ids) == 1:
                await self._fail(user_id, run_ids[0], error)
                return []
            return [work for run_id in run_ids for work in await self._load(user_id, [run_id])]

    async def _decide(self, user_id: UUID, works: Sequence[RunWork]) -> list[Settlement]:
        settlements = []
        for work in works:
            try:
                settlements.append(carry_out(work, now=self._now()))
            except Exception as error:  # noqa: BLE001 - as above; it is pure, so it would fail again
                await self._fail(user_id, work.run_id, error)
        return settlements

    async def _settle(self, user_id: UUID, cascade_id: UUID, settlements: Sequence[Settlement]) -> dict[UUID, str]:
        """Settle a batch; where it cannot be settled, those of it that can, and the others fail."""
        try:
            return await self._schedule.settle(user_id, settlements, caller=cascade_id)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            if len(settlements) == 1:
                await self._fail(user_id, settlements[0].run_id, error)
                return {}
            verdicts: dict[UUID, str] = {}
            for settlement in settlements:
                verdicts |= await self._settle(user_id, cascade_id, [settlement])
            return verdicts

    async def _fail(self, user_id: UUID, run_id: UUID, error: Exception) -> None:
        code, detail = "internal", INTERNAL_DETAIL
        if isinstance(error, StudioError):
            code, detail = error.problem_code, error.detail
        else:
            activity.logger.exception("a run failed by a fault of ours", extra={"run_id": str(run_id)})
        await self._schedule.fail(user_id, run_id, code=code, detail=detail, usage={})

    def _result(self, cause: CascadeRef, claim: Claim, done: int) -> AdvanceResult:
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
            more=claim.more or any(run.execution == "inline" for run in claim.runs),
            inline_runs=done,
            due_in_seconds=None if claim.due_in_seconds is None else max(claim.due_in_seconds, 0.01),
            ended=[run_id for run_id in cause.elsewhere if run_id not in running],
            history_max=self._history_max,
            rings=True,
        )


class _Batches:
    """Batches of inline runs under way, no run in two of them."""

    def __init__(self, activities: CascadeActivities, user_id: UUID, cascade_id: UUID) -> None:
        self._activities, self._user_id, self._cascade_id = activities, user_id, cascade_id
        self._tasks: dict[asyncio.Task[int], frozenset[UUID]] = {}
        self._claim: Claim | None = None
        self.done = 0

    def __bool__(self) -> bool:
        """Whether any is under way."""
        return bool(self._tasks)

    def start(self, runs: Sequence[ClaimedRun], *, size: int) -> None:
        """Start those of the runs that are not under way: a claim answers all that are unfinished."""
        busy = frozenset[UUID]().union(*self._tasks.values())
        fresh = [run for run in runs if run.run_id not in busy]
        for at in range(0, len(fresh), size):
            batch = fresh[at : at + size]
            task = asyncio.create_task(self._carry_out(batch))
            self._tasks[task] = frozenset(run.run_id for run in batch)

    async def _carry_out(self, batch: Sequence[ClaimedRun]) -> int:
        """Carry out a batch, then claim; claims are one after the other, so the last one to come is the newest."""
        count = await self._activities.carry_out(self._user_id, self._cascade_id, batch)
        self._claim = await self._activities.claim(self._user_id, self._cascade_id)
        return count

    async def next_claim(self, before: Claim) -> Claim:
        """Wait until one that is under way has finished, and return the newest claim; raises what a batch raised."""
        await self._collect(asyncio.FIRST_COMPLETED)
        return self._claim or before

    async def finished(self) -> None:
        """Wait until all have finished; raises what the first of those that failed raised."""
        if self._tasks:
            await self._collect(asyncio.ALL_COMPLETED)

    async def _collect(self, until: str) -> None:
        finished, _ = await asyncio.wait(self._tasks, return_when=until)
        for task in finished:
            del self._tasks[task]
        self.done += sum([task.result() for task in finished])
