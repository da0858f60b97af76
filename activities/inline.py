"""Inline runs of one cascade for the length of one advance: batches that are evaluated here and settled together.

As sketches (``Sketch``), unless the advance before died over some: then each is on record while it is carried out, and
whoever dies over one again and again is counted (CASCADES, lost).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from temporalio import activity

from activities.errors import INTERNAL_DETAIL
from activities.turns import Turns
from domain.errors import StudioError, Unavailable
from domain.execution import carry_out
from domain.ports import Schedule
from domain.works import Claim, Prepared, RunWork, Settlement, Sketch, Sketching

MERGE_ATTEMPTS_MAX = 8
"""How often a settlement is decided again because a person edited its output meanwhile, before the run is retried."""

AT_A_STRETCH = 5
"""Runs evaluated before others have the event loop: a settlement that has been answered is followed by the next."""

Item = TypeVar("Item")


class Inline:
    """Batches under way, no run in two of them; each claims as it settles, and what it finds is evaluated meanwhile."""

    def __init__(
        self,
        schedule: Schedule,
        turns: Turns,
        user_id: UUID,
        cascade_id: UUID,
        *,
        window: int,
        now: Callable[[], datetime],
    ) -> None:
        self._schedule, self._turns = schedule, turns
        self._user_id, self._cascade_id = user_id, cascade_id
        self._window = window
        self._now = now
        self._one = asyncio.Lock()
        self._tasks: dict[asyncio.Task[None], frozenset[UUID]] = {}
        self._sketches: dict[UUID, Sketch] = {}
        """In hand and not settled, by derivation."""
        self._fresh: list[Sketch] = []
        """Those of them that are in no batch yet."""
        self._sketching = Sketching.BEGIN
        self._stopping = False
        self.newest: Claim | None = None
        """What the newest claim has found."""
        self.done = 0

    def __bool__(self) -> bool:
        """Whether any batch is under way."""
        return bool(self._tasks)

    @property
    def left(self) -> bool:
        """Whether there is inline work that nobody has begun."""
        recorded = self.newest is not None and any(run.execution == "inline" for run in self.newest.runs)
        return bool(self._stopping or self._fresh or recorded)

    def stop(self) -> None:
        """Begin nothing more: time is up. What is sketched and not begun is as if it had not been."""
        self._stopping = True
        for sketch in self._fresh:
            del self._sketches[sketch.derivation_id]
        self._fresh.clear()

    async def begin(self) -> Claim:
        """Plan if that is still to do, and claim."""
        return self._claimed(
            await self._schedule.plan_and_claim(
                self._user_id, self._cascade_id, window=self._window, sketching=self._sketching
            )
        )

    async def claim(self) -> Claim:
        """Claim as much as the window has room for."""
        async with self._one:
            return self._claimed(
                await self._schedule.claim(
                    self._user_id,
                    self._cascade_id,
                    window=self._room,
                    busy=list(self._sketches),
                    sketching=self._sketching,
                )
            )

    def start(self, size: int) -> None:
        """Start, in batches, what is in none: sketches, and those on record; a claim answers all of these again."""
        fresh, self._fresh = self._fresh, []
        for batch in _batches(fresh, size):
            self._begin(self._settle_sketches(batch), [sketch.run_id for sketch in batch])
        busy = frozenset[UUID]().union(*self._tasks.values())
        runs = self.newest.runs if self.newest else ()
        recorded = [run.run_id for run in runs if run.execution == "inline" and run.run_id not in busy]
        for ids in _batches(recorded, size):
            self._begin(self._settle_recorded(ids), ids)

    async def next(self) -> None:
        """Wait until a batch that is under way has finished; raises what it raised."""
        await self._collect(asyncio.FIRST_COMPLETED)

    async def finished(self) -> None:
        """Wait until all have finished; raises what the first of those that failed raised."""
        if self._tasks:
            await self._collect(asyncio.ALL_COMPLETED)

    @property
    def _room(self) -> int:
        return 0 if self._stopping else self._window

    def _begin(self, work: Coroutine[Any, Any, None], run_ids: Sequence[UUID]) -> None:
        self._tasks[asyncio.create_task(work)] = frozenset(run_ids)

    async def _collect(self, until: str) -> None:
        finished, _ = await asyncio.wait(self._tasks, return_when=until)
        for task in finished:
            del self._tasks[task]
        for task in finished:
            task.result()

    def _claimed(self, claim: Claim) -> Claim:
        """Note what a claim has found. Claims are one after the other, so the last one to come is the newest."""
        self._sketching = Sketching.MORE if claim.sketching else Sketching.NONE
        self._sketches |= {sketch.derivation_id: sketch for sketch in claim.sketches}
        self._fresh += claim.sketches
        self.newest = claim
        return claim

    # --- sketches -------------------------------------------------------------------------------------------------

    async def _settle_sketches(self, batch: Sequence[Sketch]) -> None:
        """Evaluate sketches in their turn, settle them and claim; what fails is recorded and failed by itself.

        What moved or stands no more is not looked after: the claim in the same transaction finds what became of it.
        """
        async with self._turns.turn(self._user_id, len(batch)):
            works = await self._schedule.read_sketches(self._user_id, batch)
            settlements: dict[UUID, Settlement] = {}
            for number, (sketch, work) in enumerate(zip(batch, works, strict=True)):
                if number % AT_A_STRETCH == AT_A_STRETCH - 1:
                    await asyncio.sleep(0)
                if work is None:
                    continue
                try:
                    settlements[sketch.run_id] = self._decided(work)
                except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others go on
                    await self._fail_sketch(sketch, error)
            decided = [sketch for sketch in batch if sketch.run_id in settlements]
            try:
                prepared = await self._prepared(decided, settlements)
                await self._settle_and_claim(batch, decided, prepared)
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 - as above
                await self._settle_alone(decided, settlements)
                await self._settle_and_claim(batch, [], await self._prepared([], {}))

    def _decided(self, work: RunWork | Exception) -> Settlement:
        if isinstance(work, Exception):
            raise work
        return carry_out(work, now=self._now())

    async def _prepared(self, sketches: Sequence[Sketch], settlements: Mapping[UUID, Settlement]) -> Prepared:
        return await self._schedule.prepare(self._user_id, [settlements[sketch.run_id] for sketch in sketches])

    async def _settle_and_claim(self, batch: Sequence[Sketch], decided: Sequence[Sketch], prepared: Prepared) -> None:
        """One after the other, and nothing in between that PostgreSQL would have to wait for."""
        async with self._one:
            mine = {sketch.derivation_id for sketch in batch}
            verdicts, claim = await self._schedule.settle_and_claim(
                self._user_id,
                self._cascade_id,
                prepared,
                decided,
                window=self._room,
                busy=[derivation_id for derivation_id in self._sketches if derivation_id not in mine],
                sketching=self._sketching,
            )
            for derivation_id in mine:
                self._sketches.pop(derivation_id, None)
            self.done += list(verdicts.values()).count("settled")
            self._claimed(claim)

    async def _settle_alone(self, sketches: Sequence[Sketch], settlements: Mapping[UUID, Settlement]) -> None:
        """Settle those of a batch that can be settled; the others fail."""
        for sketch in sketches:
            try:
                prepared = await self._prepared([sketch], settlements)
                verdicts, _ = await self._schedule.settle_and_claim(
                    self._user_id, self._cascade_id, prepared, [sketch], window=0
                )
                self.done += list(verdicts.values()).count("settled")
            except Unavailable:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                await self._fail_sketch(sketch, error)

    async def _fail_sketch(self, sketch: Sketch, error: Exception) -> None:
        code, detail = _reason(error, sketch.run_id)
        await self._schedule.fail_sketch(self._user_id, self._cascade_id, sketch, code=code, detail=detail)

    # --- on record ----------------------------------------------------------------------------------------------

    async def _settle_recorded(self, run_ids: Sequence[UUID]) -> None:
        """Evaluate runs in their turn, settle them in one transaction, then claim; what fails is failed by itself."""
        async with self._turns.turn(self._user_id, len(run_ids)):
            pending = list(run_ids)
            for _ in range(MERGE_ATTEMPTS_MAX):
                settlements = await self._decide(await self._load(pending))
                if not settlements:
                    break
                verdicts = await self._settle(settlements)
                self.done += list(verdicts.values()).count("settled")
                pending = [run_id for run_id, verdict in verdicts.items() if verdict == "moved"]
                if not pending:
                    break
        await self.claim()

    async def _load(self, run_ids: Sequence[UUID]) -> list[RunWork]:
        """Load a batch; where it cannot be loaded, those of it that can, and the others fail."""
        try:
            return await self._schedule.load(self._user_id, run_ids)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one run, the others go on
            if len(run_ids) == 1:
                await self._fail(run_ids[0], error)
                return []
            return [work for run_id in run_ids for work in await self._load([run_id])]

    async def _decide(self, works: Sequence[RunWork]) -> list[Settlement]:
        settlements = []
        for work in works:
            try:
                settlements.append(carry_out(work, now=self._now()))
            except Exception as error:  # noqa: BLE001 - as above; it is pure, so it would fail again
                await self._fail(work.run_id, error)
        return settlements

    async def _settle(self, settlements: Sequence[Settlement]) -> dict[UUID, str]:
        """Settle a batch; where it cannot be settled, those of it that can, and the others fail."""
        try:
            return await self._schedule.settle(self._user_id, settlements, caller=self._cascade_id)
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            if len(settlements) == 1:
                await self._fail(settlements[0].run_id, error)
                return {}
            verdicts: dict[UUID, str] = {}
            for settlement in settlements:
                verdicts |= await self._settle([settlement])
            return verdicts

    async def _fail(self, run_id: UUID, error: Exception) -> None:
        code, detail = _reason(error, run_id)
        await self._schedule.fail(self._user_id, run_id, code=code, detail=detail, usage={})


def _reason(error: Exception, run_id: UUID) -> tuple[str, str]:
    """What is told of a run's failure: what we say ourselves, else only that it is ours, with the rest in the log."""
    if isinstance(error, StudioError):
        return error.problem_code, error.detail
    activity.logger.error("a run failed by a fault of ours", exc_info=error, extra={"run_id": str(run_id)})
    return "internal", INTERNAL_DETAIL


def _batches(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
