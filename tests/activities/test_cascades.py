"""Advance: plan, claim, carry out what is cheap; one run that cannot be carried out keeps no other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import cascades
from activities.cascades import AdvanceResult, CascadeActivities, CascadeRef
from activities.errors import INTERNAL_DETAIL
from domain.errors import Unavailable
from domain.works import Claim
from storage.database import Database
from storage.schedule import PostgresSchedule
from tests.storage.engine import Engine, schedule_of


async def advance(
    environment: ActivityEnvironment,
    engine: Engine,
    cascade: UUID,
    *,
    budget: float = 5.0,
    batch: int = 50,
    **more: Any,
) -> AdvanceResult:
    activities = CascadeActivities(
        schedule_of(engine.database, engine.contents), window=100, batch=batch, budget=timedelta(seconds=budget), **more
    )
    ref = CascadeRef(user_id=str(engine.user.user_id), cascade_id=str(cascade))
    found: AdvanceResult = await environment.run(activities.advance, ref)
    await engine.check()
    return found


async def errors(engine: Engine) -> dict[str, Any]:
    """What the failed runs say, by the text they should have read."""
    rows = await engine.rows("select label, error from runs where user_id = $1 and status = 'failed'")
    return {row["label"]: orjson.loads(row["error"]) for row in rows}


async def test_one_advance_carries_out_everything_that_is_inline(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.rest()
    await engine.create("in-v1")
    found = await advance(environment, engine, await engine.latest())
    assert (found.closed, found.status, found.inline_runs, found.more) == (True, "completed", 2, False)
    assert await engine.text(await engine.output("two")) == "a!!"
    again = await advance(environment, engine, await engine.latest())
    assert (again.closed, again.inline_runs) == (True, 0)


async def test_runs_that_need_a_workflow_are_answered_until_they_end(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    found = await advance(environment, engine, cascade)
    [start] = found.runs
    assert (found.closed, start.provider_id, start.workflow_id) == (False, "one", f"run:one:{start.run_id}")
    assert start.label == "One 'T' v1"
    assert (await advance(environment, engine, cascade)).runs == [start]
    await engine.finish(UUID(start.run_id))
    assert (await advance(environment, engine, cascade)).closed


async def test_when_its_time_is_up_it_asks_to_be_called_again(engine: Engine, environment: ActivityEnvironment) -> None:
    for name in "abc":
        await engine.provider(name, "in-v1", "out-v1")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    found = await advance(environment, engine, cascade, budget=0.0)
    assert (found.more, found.inline_runs, found.closed) == (True, 0, False)
    found = await advance(environment, engine, cascade, batch=2)
    assert (found.more, found.inline_runs, found.closed) == (False, 3, True)


@pytest.mark.parametrize("fault", ["content", "expression", "definition"])
async def test_a_run_that_cannot_be_carried_out_fails_and_keeps_no_other(
    engine: Engine, environment: ActivityEnvironment, fault: str
) -> None:
    await engine.provider("bad", "in-v1", "bad-v1", "$.data.text + 1" if fault == "expression" else "'fine'")
    await engine.provider("below", "bad-v1", "below-v1", origin="any")
    await engine.provider("good", "in-v1", "out-v1")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    if fault == "definition":
        await engine.rows(
            "update definitions set ir = '{}' where owner_id = $1 and slug = 'wf-bad' and version >= 1 returning 1"
        )
    elif fault == "content":
        # The output's head is damaged: only this run reads it.
        await engine.claim(cascade)
        await engine.rest()
        await engine.rows(
            "update contents set body = 'x' where user_id = $1 and hash = (select o.machine_hash from"
            " derivation_outputs o join blobs b on b.user_id = o.user_id and b.id = o.blob_id"
            " where o.user_id = $1 and b.schema_id = 'bad-v1')"
        )
        [blob] = [row["id"] for row in await engine.rows(
            "select id from blobs where user_id = $1 and provider_id is null")]  # fmt: skip
        cascade = await engine.edit(blob, "b")
    found = await advance(environment, engine, cascade)
    assert (found.closed, found.status) == (True, "partial")
    [error] = (await errors(engine)).values()
    code = {"content": "integrity", "expression": "expression_failed", "definition": "internal"}[fault]
    assert error["code"] == code
    assert code != "internal" or error["detail"] == INTERNAL_DETAIL
    assert await engine.text(await engine.output("good")) == ("b!" if fault == "content" else "a!")
    assert (await engine.derivation("below"))["unsettled"]


async def test_a_database_that_does_not_answer_is_a_reason_to_try_again(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    await engine.create("in-v1")
    database = await Database.connect(engine.admin_url, size_max=1)
    await database.close()
    activities = CascadeActivities(
        schedule_of(database, engine.contents), window=100, batch=50, budget=timedelta(seconds=1)
    )
    ref = CascadeRef(user_id=str(engine.user.user_id), cascade_id=str(await engine.latest()))
    with pytest.raises(ApplicationError) as caught:
        await environment.run(activities.advance, ref)
    assert (caught.value.type, caught.value.non_retryable) == ("unavailable", False)
    await engine.rest()


class Slow(PostgresSchedule):
    """The real schedule, where to plan and claim takes longer than an advance has time."""

    async def plan_and_claim(self, *named: Any, **more: Any) -> Any:
        claim = await super().plan_and_claim(*named, **more)
        await asyncio.sleep(0.25)
        return claim


async def test_what_a_slow_claim_has_found_is_begun_all_the_same(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    slow = Slow(engine.database, engine.contents, lease=timedelta(minutes=5), depth_max=64, nodes_max=1000)
    activities = CascadeActivities(slow, window=100, batch=50, budget=timedelta(seconds=0.2))
    ref = CascadeRef(user_id=str(engine.user.user_id), cascade_id=str(cascade))
    found: AdvanceResult = await environment.run(activities.advance, ref)
    assert (found.inline_runs, found.status) == (1, "completed")
    await engine.rest()


# --- begun before it is asked for ------------------------------------------------------------------------------------


@dataclass
class Counted:
    """A schedule that counts how often an advance begins; the first ``fails`` times it does not answer."""

    schedule: PostgresSchedule
    fails: int = 0
    begun: int = 0
    planned: asyncio.Event = field(default_factory=asyncio.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.schedule, name)

    async def plan_and_claim(self, *args: Any, **more: Any) -> Claim:
        self.begun += 1
        try:
            if self.begun <= self.fails:
                raise Unavailable("The database does not answer.")
            return await self.schedule.plan_and_claim(*args, **more)
        finally:
            self.planned.set()


async def expected(
    engine: Engine, environment: ActivityEnvironment, *, fails: int = 0
) -> tuple[Counted, AdvanceResult, UUID]:
    """What an advance finds whose workflow was expected, once that has been planned."""
    await engine.provider("one", "in-v1", "out-v1")
    await engine.provider("two", "in-v1", "other-v1", execution="workflow")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    schedule = Counted(schedule_of(engine.database, engine.contents), fails)
    activities = CascadeActivities(schedule, window=100, batch=50, budget=timedelta(seconds=5))
    activities.expect(engine.user.user_id, cascade)
    await schedule.planned.wait()
    ref = CascadeRef(user_id=str(engine.user.user_id), cascade_id=str(cascade))
    found: AdvanceResult = await environment.run(activities.advance, ref)
    await engine.check()
    return schedule, found, cascade


async def recorded(engine: Engine) -> list[str]:
    rows = await engine.rows("select execution || ' ' || status as run from runs where user_id = $1 order by 1")
    return [row["run"] for row in rows]


async def test_an_expected_advance_goes_on_with_what_was_planned_meanwhile(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    schedule, found, _ = await expected(engine, environment)
    assert (schedule.begun, found.inline_runs, len(found.runs), found.closed) == (1, 1, 1, False)
    assert await recorded(engine) == ["inline settled", "workflow running"]


async def test_an_expected_advance_that_could_not_begin_begins_when_it_is_asked(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    schedule, found, _ = await expected(engine, environment, fails=1)
    assert (schedule.begun, found.inline_runs, len(found.runs)) == (2, 1, 1)


async def test_an_advance_that_was_begun_too_long_ago_or_elsewhere_begins_anew(
    engine: Engine, environment: ActivityEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cascades, "BEGUN_SECONDS_MAX", 0.0)
    schedule, found, cascade = await expected(engine, environment)
    assert (schedule.begun, found.inline_runs, len(found.runs)) == (2, 1, 1)
    assert await recorded(engine) == ["inline settled", "workflow running"]
    again = await advance(environment, engine, cascade)
    assert (again.runs, again.inline_runs) == (found.runs, 0)
