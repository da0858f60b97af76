"""Runs that are carried out as wholes: together where they come together, each by itself where one is in the way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from activities.wholes import MANY, Wholes
from domain.errors import Unavailable
from domain.works import ClaimedRun, RunWork, Settlement
from storage.schedule import PostgresSchedule
from tests.storage.engine import Engine, schedule_of

PURE = {"id": "mark", "type": "computation", "operations": [{"text": "$.data.text + '!'"}]}
KEEP = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": "out-v1",
        "data_map": {"text": "$.text"}}  # fmt: skip


class Watched(PostgresSchedule):
    """The real schedule, which notes how many runs each move took, and fails where it is told to."""

    loads: list[int]
    settles: list[int]
    broken: UUID | None = None
    away = 0

    async def load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        self.loads.append(len(run_ids))
        return await super().load(user_id, run_ids)

    async def settle(self, user_id: UUID, settlements: Sequence[Settlement], *, caller: UUID | None) -> dict[UUID, str]:
        self.settles.append(len(settlements))
        if self.away:
            self.away -= 1
            raise Unavailable("PostgreSQL does not answer.")
        if any(settled.run_id == self.broken for settled in settlements):
            raise ValueError("a fault of ours")
        return await super().settle(user_id, settlements, caller=caller)


def watched(engine: Engine) -> Watched:
    bounds: dict[str, Any] = {key: getattr(engine.schedule, f"_{key}") for key in ("lease",)}
    schedule = Watched(engine.database, engine.contents, depth_max=64, nodes_max=1000, **bounds)
    schedule.loads, schedule.settles = [], []
    return schedule


async def claimed(engine: Engine, count: int) -> list[ClaimedRun]:
    """So many claimed runs of one blob."""
    await engine.schemas("in-v1", "out-v1")
    for number in range(count):
        await engine.register(f"p{number}", [PURE, KEEP], input_schema_id="in-v1", execution="workflow")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    await engine.plan(cascade)
    return list((await engine.claim(cascade)).runs)


async def carried_out(wholes: Wholes, engine: Engine, runs: Sequence[ClaimedRun]) -> list[Any]:
    user_id = engine.user.user_id
    ends = await asyncio.gather(*(wholes.carry_out(user_id, run.run_id) for run in runs), return_exceptions=True)
    return [end if isinstance(end, BaseException) else end.ended for end in ends]


async def statuses(engine: Engine) -> list[tuple[str, int]]:
    """Status and recorded steps of each run, oldest first."""
    rows = await engine.rows(
        "select r.status, (select count(*) from run_steps s where s.user_id = $1 and s.run_id = r.id and"
        " s.status = 'done')::int as steps from runs r where r.user_id = $1 order by r.id"
    )
    return [(row["status"], row["steps"]) for row in rows]


async def test_runs_that_are_expected_are_loaded_before_and_those_that_come_together_settle_together(
    engine: Engine,
) -> None:
    runs = await claimed(engine, MANY)
    schedule = watched(engine)
    wholes = Wholes(schedule)
    wholes.expect(engine.user.user_id, [run.run_id for run in runs])
    # One comes first and waits for company, as there is so much of it.
    first = asyncio.create_task(carried_out(wholes, engine, runs[:1]))
    await asyncio.sleep(0)
    assert await carried_out(wholes, engine, runs[1:]) == ["settled"] * (MANY - 1)
    assert await first == ["settled"]
    assert (schedule.loads, schedule.settles) == ([MANY], [MANY])
    assert await statuses(engine) == [("settled", 2)] * MANY
    await engine.rest()


async def test_one_run_that_fails_by_a_fault_of_ours_keeps_no_others_from_their_end(engine: Engine) -> None:
    runs = await claimed(engine, 3)
    schedule = watched(engine)
    schedule.broken = runs[1].run_id
    ends = await carried_out(Wholes(schedule), engine, runs)
    assert [ends[0], ends[2]] == ["settled", "settled"]
    assert isinstance(ends[1], ValueError)
    assert sorted(await statuses(engine)) == [("running", 0), ("settled", 2), ("settled", 2)]


async def test_while_postgresql_is_away_nobody_has_ended_and_all_can_come_again(engine: Engine) -> None:
    runs = await claimed(engine, 2)
    schedule = watched(engine)
    schedule.away = 1
    wholes = Wholes(schedule)
    assert all(isinstance(end, Unavailable) for end in await carried_out(wholes, engine, runs))
    assert await statuses(engine) == [("running", 0)] * 2
    assert await carried_out(wholes, engine, runs) == ["settled"] * 2
    await engine.rest()


@pytest.mark.parametrize("edited", ["output", "input"])
async def test_what_was_loaded_before_and_is_out_of_date_is_loaded_again(engine: Engine, edited: str) -> None:
    [run] = await claimed(engine, 1)
    assert await carried_out(Wholes(schedule_of(engine.database, engine.contents)), engine, [run]) == ["settled"]
    [blob] = [row["id"] for row in await engine.rows("select id from blobs where user_id = $1 and provider_id is null")]
    output = await engine.output("p0")
    again = await engine.take(await engine.edit(blob, "b"))
    schedule = watched(engine)
    wholes = Wholes(schedule)
    wholes.expect(engine.user.user_id, [again.run_id])
    await asyncio.wait_for(wholes.loaded(engine.user.user_id), 10)
    if edited == "output":
        await engine.edit(output, title="Mine")
        assert await carried_out(wholes, engine, [again]) == ["settled"]
        assert (schedule.loads, schedule.settles) == ([1, 1], [1, 1])
        assert await engine.text(output) == "b!"
    else:
        await engine.plan(await engine.edit(blob, "c"))
        assert await carried_out(wholes, engine, [again]) == ["superseded"]
    await engine.rest()
    assert await engine.text(output) == ("b!" if edited == "output" else "c!")
