"""Runs that are carried out as wholes: those that neither call nor ask anybody, each for its own child workflow.

Whoever comes while others are being carried out goes together with who comes then: a batch is loaded, recorded and
settled in as many round trips as one run. What a cascade is about to start is loaded meanwhile, and while much of it is
still on its way, those who are here wait a moment for company. All of this is only speed: another process, a crash, or
work that is out of date means to load again, and a settlement is fenced as ever.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from uuid import UUID

from domain.definitions import Step
from domain.errors import StudioError, Unavailable
from domain.execution import carry_out, context_of, declined, evaluate
from domain.ports import Schedule
from domain.works import RunWork, Settlement, StepRecord

TOGETHER_MAX = 25
"""Runs of one batch."""
MANY = 10
"""Runs on their way for which it pays to wait: a person's edit of a blob with a few providers waits for nobody."""
WAIT_SECONDS_MAX = 0.1
"""How long a run waits for company at most: Temporal starts a few dozen workflows a second."""
COMING_MAX = 100
"""Runs of a user that are loaded before their workflow asks."""
COMING_SECONDS_MAX = 15.0
"""How long what was loaded before stays good: an output may be edited, which settle notices, or its workflow be
another process's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """What became of a run: ``ended`` is its status, None if it is to be carried out step by step."""

    work: RunWork | None
    """None: it is not under way."""
    ended: str | None = None


@dataclass(frozen=True, slots=True)
class _Coming:
    """A run whose workflow is being started, and the load that it is part of."""

    loading: asyncio.Task[dict[UUID, RunWork]]
    until: float


@dataclass(slots=True)
class _Here:
    """One user's runs: those that wait to be carried out, and those on their way."""

    waiting: dict[UUID, asyncio.Future[Whole]] = field(default_factory=dict)
    coming: dict[UUID, _Coming] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    serving: asyncio.Task[None] | None = None


class Wholes:
    """Carries out runs as wholes. One per process; it belongs to one event loop."""

    def __init__(self, schedule: Schedule, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._schedule = schedule
        self._now = now
        self._users: dict[UUID, _Here] = {}

    def expect(self, user_id: UUID, run_ids: Iterable[UUID]) -> None:
        """Load runs whose workflows are about to be started, in the background."""
        self._forget()
        mine = self._users.setdefault(user_id, _Here())
        fresh = [run_id for run_id in run_ids if run_id not in mine.coming and run_id not in mine.waiting]
        fresh = fresh[: max(COMING_MAX - len(mine.coming), 0)]
        until = time.monotonic() + COMING_SECONDS_MAX
        for at in range(0, len(fresh), TOGETHER_MAX):
            some = fresh[at : at + TOGETHER_MAX]
            loading = asyncio.create_task(self._loaded(user_id, some), name="runs-on-their-way")
            mine.coming.update(dict.fromkeys(some, _Coming(loading, until)))

    async def carry_out(self, user_id: UUID, run_id: UUID) -> Whole:
        """Carry out a run from its first step to its end, if it is one of those; raises what stands in its way."""
        mine = self._users.setdefault(user_id, _Here())
        end = mine.waiting.setdefault(run_id, asyncio.get_running_loop().create_future())
        mine.arrived.set()
        if mine.serving is None or mine.serving.done():
            mine.serving = asyncio.create_task(self._serve(user_id, mine), name="runs-as-wholes")
        # Whoever is cancelled meanwhile leaves the others alone, and the run may end all the same.
        return await asyncio.shield(end)

    async def _serve(self, user_id: UUID, mine: _Here) -> None:
        while mine.waiting:
            await self._company(mine)
            some = {run_id: mine.waiting.pop(run_id) for run_id in list(mine.waiting)[:TOGETHER_MAX]}
            found = await self._ends(user_id, mine, list(some))
            for run_id, end in some.items():
                if isinstance(answer := found[run_id], Exception):
                    end.set_exception(answer)
                else:
                    end.set_result(answer)

    async def _company(self, mine: _Here) -> None:
        """Wait a moment while many others are on their way."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while len(mine.waiting) < TOGETHER_MAX and (left := deadline - time.monotonic()) > 0:
            now = time.monotonic()
            away = sum(1 for run_id, one in mine.coming.items() if run_id not in mine.waiting and one.until > now)
            if away < MANY:
                return
            mine.arrived.clear()
            try:
                async with asyncio.timeout(left):
                    await mine.arrived.wait()
            except TimeoutError:
                return

    async def _ends(self, user_id: UUID, mine: _Here, run_ids: Sequence[UUID]) -> dict[UUID, Whole | Exception]:
        """Carry out a batch; if that fails, each by itself, so that one keeps no others from their end."""
        try:
            return {**await self._carried_out(user_id, mine, run_ids)}
        except Exception as error:  # noqa: BLE001 - told to whoever waits for the run
            if len(run_ids) == 1 or isinstance(error, Unavailable):
                return dict.fromkeys(run_ids, error)
        found: dict[UUID, Whole | Exception] = {}
        for run_id in run_ids:
            found |= await self._ends(user_id, mine, [run_id])
        return found

    async def _carried_out(self, user_id: UUID, mine: _Here, run_ids: Sequence[UUID]) -> dict[UUID, Whole]:
        works = await self._works(user_id, mine, run_ids)
        verdicts = await self._settled(user_id, works)
        if moved := [run_id for run_id, verdict in verdicts.items() if verdict == "moved"]:
            fresh = await self._loaded(user_id, moved)
            works, verdicts = {**works, **fresh}, {**verdicts, **await self._settled(user_id, fresh)}
        return {
            run_id: Whole(work=works.get(run_id), ended=None if verdict == "moved" else verdict)
            for run_id in run_ids
            for verdict in [verdicts.get(run_id)]
        }

    async def _works(self, user_id: UUID, mine: _Here, run_ids: Sequence[UUID]) -> dict[UUID, RunWork]:
        """What was loaded before, as far as it can be relied upon, and the rest."""
        works: dict[UUID, RunWork] = {}
        for run_id in run_ids:
            coming = mine.coming.pop(run_id, None)
            if coming is not None and coming.until > time.monotonic():
                work = (await coming.loading).get(run_id)
                # What was offered and not decided may be decided meanwhile, which moves no version.
                if work is not None and not any(output.disputed for output in work.outputs):
                    works[run_id] = work
        if missing := [run_id for run_id in run_ids if run_id not in works]:
            works |= {work.run_id: work for work in await self._schedule.load(user_id, missing)}
        return works

    async def _settled(self, user_id: UUID, works: Mapping[UUID, RunWork]) -> dict[UUID, str]:
        """Evaluate what can be, settle it with its steps; the verdict of each of those."""
        settlements: list[Settlement] = []
        for work in works.values():
            if not work.definition.pure:
                continue
            try:
                settlements.append(self._decided(work))
            except StudioError:
                continue  # step by step, which tells the step that is at fault
            await asyncio.sleep(0)  # others are here as well
        return await self._schedule.settle(user_id, settlements, caller=None) if settlements else {}

    def _decided(self, work: RunWork) -> Settlement:
        steps = [] if declined(work) is not None else self._evaluated(work)
        settlement = carry_out(work, records=[record for _, record in steps], now=self._now())
        return replace(settlement, steps=steps)

    def _evaluated(self, work: RunWork) -> list[tuple[Step, StepRecord]]:
        context = context_of(work, (), now=self._now())
        ended: list[tuple[Step, StepRecord]] = []
        for step in work.definition.steps:
            entries = evaluate(work, step, context) if step.effect == "pure" else {}
            context.update(entries)
            ended.append((step, StepRecord(step_id=step.id, entries=entries)))
        return ended

    async def _loaded(self, user_id: UUID, run_ids: Sequence[UUID]) -> dict[UUID, RunWork]:
        """The work of runs; none where that fails, for who needs it loads again and is told."""
        try:
            return {work.run_id: work for work in await self._schedule.load(user_id, run_ids)}
        except Exception:  # noqa: BLE001 - as above
            return {}

    async def loaded(self, user_id: UUID) -> None:
        """Wait until whatever is expected has been loaded."""
        for one in list(self._users[user_id].coming.values()):
            await one.loading

    def _forget(self) -> None:
        """What nobody came for, and users who have nothing here."""
        now = time.monotonic()
        for user_id, mine in list(self._users.items()):
            mine.coming = {run_id: one for run_id, one in mine.coming.items() if one.until > now}
            if not (mine.coming or mine.waiting) and (mine.serving is None or mine.serving.done()):
                del self._users[user_id]
