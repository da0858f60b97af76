"""Nothing is paid for twice: equal requests of whatever run share one call, and its answer outlives everything else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.runs import WAITING, RunActivities, RunFailure
from domain.errors import ProviderFailed, Unavailable
from domain.memo import ServiceTerms
from domain.works import ClaimedRun
from tests.activities.test_runs import ASK, Answers, activities_of, claimed, recorded, ref, step
from tests.storage.engine import Engine

PAID = {"text": "x", "usage": {"model": "m", "prompt_tokens": 2, "total_tokens": 5}}


async def again(engine: Engine, text: str = "a") -> ClaimedRun:
    """Another blob of the same content, and the run that it asks for."""
    await engine.create("in-v1", text)
    return await engine.take(await engine.latest())


async def usage(engine: Engine, run: ClaimedRun) -> Mapping[str, Any]:
    [row] = await engine.rows("select usage from runs where user_id = $1 and id = $2", run.run_id)
    found: Mapping[str, Any] = orjson.loads(row["usage"])
    return found


async def memo(engine: Engine) -> list[Any]:
    return await engine.rows("select * from memo where user_id = $1 order by created_at")


async def test_an_equal_request_of_another_run_takes_over_the_answer_and_says_so(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first = await claimed(engine)
    service = Answers(PAID, {"text": "never"})
    activities = activities_of(engine.schedule, service)
    assert not (await step(environment, activities, engine, first)).reused
    assert await environment.run(activities.settle, ref(engine, first)) == "settled"
    second = await again(engine)
    done = await step(environment, activities, engine, second)
    assert (done.status, done.reused, done.model, done.tokens) == ("done", True, "m", 0)
    assert await environment.run(activities.settle, ref(engine, second)) == "settled"
    assert len(service.asked) == 1
    one, two = await usage(engine, first), await usage(engine, second)
    assert (one["total_tokens"], one["reused_steps"], one["saved_tokens"]) == (5, 0, 0)
    assert (two["total_tokens"], two["reused_steps"], two["saved_tokens"], two["model"]) == (0, 1, 5, "m")
    rows = {row["run_id"]: row for row in await recorded(engine)}
    assert rows[second.run_id]["reused_from"] == first.run_id
    assert rows[second.run_id]["memo_key"] == rows[first.run_id]["memo_key"]
    texts = [await engine.text(output) for output in await engine.outputs("one")]
    assert texts == ["x", "x"]
    third = await again(engine, "b")
    assert not (await step(environment, activities, engine, third)).reused


@pytest.mark.parametrize("how", [{"cache": "none"}, {"service": "plain"}])
async def test_a_step_that_does_not_want_it_and_a_service_that_is_not_pure_are_called_each_time(
    engine: Engine, environment: ActivityEnvironment, how: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await claimed(engine, {**ASK, **how} if "cache" in how else ASK)
    service = Answers(PAID)
    activities = activities_of(engine.schedule, service)
    if "service" in how:  # cached when it was registered, and not pure any more
        monkeypatch.setattr(RunActivities, "_reuses", lambda *_: False)
    for run in (first, await again(engine)):
        assert not (await step(environment, activities, engine, run)).reused
    assert len(service.asked) == 2
    assert await memo(engine) == []


async def test_what_the_operator_calls_another_revision_is_asked_again(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    service = Answers(PAID)
    for revision, run in (("one", await claimed(engine)), ("two", await again(engine)), ("one", await again(engine))):
        terms = {"ai-service": ServiceTerms(pure=True, revision=revision)}
        activities = RunActivities(
            engine.schedule, service, step_timeout=timedelta(seconds=30), step_attempts=3, terms=terms
        )
        await step(environment, activities, engine, run)
    assert len(service.asked) == 2


async def test_who_finds_another_calling_waits_without_a_slot_and_takes_over_its_answer(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first, second = await claimed(engine), await again(engine)
    service, called, goes_on = Answers(PAID), asyncio.Event(), asyncio.Event()

    async def during() -> None:
        called.set()
        await goes_on.wait()

    service.during = during
    activities = activities_of(engine.schedule, service)
    calling = asyncio.create_task(step(environment, activities, engine, first))
    await called.wait()
    assert (await step(ActivityEnvironment(), activities, engine, second)).status == WAITING
    goes_on.set()
    assert (await calling).status == "done"
    assert (await step(ActivityEnvironment(), activities, engine, second)).reused
    assert len(service.asked) == 1


async def test_the_lease_of_who_died_while_calling_runs_out_and_a_retry_of_itself_need_not_wait(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first, second = await claimed(engine), await again(engine)
    service = Answers(Unavailable("died", code="service_unavailable"), PAID)
    activities = activities_of(engine.schedule, service)
    with pytest.raises(ApplicationError):
        await step(environment, activities, engine, first)
    assert (await step(environment, activities, engine, second)).status == WAITING
    await engine.rows("update memo set lease_until = now() - interval '1 second' where user_id = $1")
    assert (await step(environment, activities, engine, second)).status == "done"
    assert (await step(environment, activities, engine, first)).reused
    assert len(service.asked) == 2


async def test_a_run_that_failed_leaves_its_place_at_once(engine: Engine, environment: ActivityEnvironment) -> None:
    first, second = await claimed(engine), await again(engine)
    activities = activities_of(engine.schedule, Answers(ProviderFailed("no", code="service_rejected"), PAID))
    with pytest.raises(ApplicationError):
        await step(environment, activities, engine, first)
    assert (await step(environment, activities, engine, second)).status == WAITING
    failure = RunFailure(
        user_id=str(engine.user.user_id), run_id=str(first.run_id), code="service_rejected", detail="no"
    )
    await environment.run(activities.fail, failure)
    assert (await step(environment, activities, engine, second)).status == "done"


async def test_a_finished_step_whose_content_is_gone_is_not_taken_over_but_done_again(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first = await claimed(engine, {**ASK, "cache": "none"})
    activities = activities_of(engine.schedule, Answers({"text": "x"}, {"text": "y"}))
    assert (await step(environment, activities, engine, first)).status == "done"
    [old] = await recorded(engine)
    await engine.rows("update run_steps set output_hash = null where user_id = $1 returning 1")
    await engine.rows("delete from contents where user_id = $1 and hash = $2 returning 1", old["output_hash"])
    await engine.rows("update run_steps set output_hash = $2 where user_id = $1 returning 1", old["output_hash"])
    await engine.schedule.lose(engine.user.user_id, first.run_id)
    [second] = (await engine.schedule.claim(engine.user.user_id, await engine.latest(), window=1)).runs
    assert await engine.rows("select from run_steps where user_id = $1 and run_id = $2", second.run_id) == []
    assert (await step(environment, activities, engine, second)).status == "done"
    assert await environment.run(activities.settle, ref(engine, second)) == "settled"


@pytest.mark.parametrize("dropped", ["superseded", "lost"])
async def test_a_run_that_was_dropped_while_it_called_keeps_what_it_paid_for(
    engine: Engine, environment: ActivityEnvironment, dropped: str
) -> None:
    """A to B while A is being asked, then back to A: A is answered from what the first run has paid for."""
    first = await claimed(engine, supersede="cancel")
    [blob] = await engine.rows("select id from blobs where user_id = $1 and provider_id is null")
    service = Answers(PAID, {"text": "y"})

    async def during() -> None:
        service.during = None
        if dropped == "lost":
            assert await engine.schedule.lose(engine.user.user_id, first.run_id)
        await engine.plan(await engine.edit(blob["id"], "b"))

    service.during = during
    activities = activities_of(engine.schedule, service)
    assert (await step(environment, activities, engine, first)).status == "done"
    assert await environment.run(activities.settle, ref(engine, first)) == "superseded"
    back = await engine.take(await engine.edit(blob["id"], "a"))
    done = await step(environment, activities, engine, back)
    assert (done.reused, len(service.asked)) == (True, 1)
    assert (await recorded(engine))[-1]["reused_from"] == first.run_id
    assert await environment.run(activities.settle, ref(engine, back)) == "settled"
    assert await engine.text(await engine.output("one")) == "x"
    await engine.rest()


async def test_a_step_that_is_cancelled_while_it_calls_keeps_what_it_paid_for(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first, second = await claimed(engine), await again(engine)
    service, called, goes_on = Answers(PAID, {"text": "never"}), asyncio.Event(), asyncio.Event()

    async def during() -> None:
        called.set()
        await goes_on.wait()

    service.during = during
    activities = activities_of(engine.schedule, service)
    calling = asyncio.create_task(step(environment, activities, engine, first))
    await called.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    [paying] = activities._paying
    goes_on.set()
    await paying
    assert (await step(ActivityEnvironment(), activities, engine, second)).reused
    assert (await step(ActivityEnvironment(), activities, engine, first)).tokens == 5
    assert len(service.asked) == 1


async def test_an_answer_that_breaks_a_schema_further_on_is_not_given_to_anybody_again(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    await engine.schemas("out-v1", properties={"text": {"type": "string"}})
    first = await claimed(engine)
    service = Answers({"text": 1}, PAID)
    activities = activities_of(engine.schedule, service)
    await step(environment, activities, engine, first)
    assert len(await memo(engine)) == 1
    with pytest.raises(ApplicationError) as caught:
        await environment.run(activities.settle, ref(engine, first))
    assert caught.value.type == "invalid_output"
    assert await memo(engine) == []
    second = await again(engine)
    assert not (await step(environment, activities, engine, second)).reused
    assert await environment.run(activities.settle, ref(engine, second)) == "settled"


async def test_who_wants_fresh_answers_pays_once_even_if_its_run_is_lost(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first = await claimed(engine)
    service = Answers(PAID, {"text": "fresh"}, {"text": "never"})
    activities = activities_of(engine.schedule, service)
    await step(environment, activities, engine, first)
    await environment.run(activities.settle, ref(engine, first))
    cascade = await fresh(engine)
    [second] = (await engine.claim(cascade)).runs
    assert not (await step(environment, activities, engine, second)).reused
    assert await engine.schedule.lose(engine.user.user_id, second.run_id)
    [third] = (await engine.claim(cascade)).runs
    assert (await step(environment, activities, engine, third)).reused
    assert await environment.run(activities.settle, ref(engine, third)) == "settled"
    assert await engine.text(await engine.output("one")) == "fresh"
    assert len(service.asked) == 2
    [row] = await engine.rows("select force, fresh_after from derivations where user_id = $1")
    assert (row["force"], row["fresh_after"]) == (False, None)
    await engine.rest()


async def test_who_cannot_get_a_fresh_answer_leaves_the_one_that_is_there(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first = await claimed(engine)
    service = Answers(PAID, ProviderFailed("no", code="service_rejected"), {"text": "never"})
    activities = activities_of(engine.schedule, service)
    await step(environment, activities, engine, first)
    await environment.run(activities.settle, ref(engine, first))
    [second] = (await engine.claim(await fresh(engine))).runs
    with pytest.raises(ApplicationError):
        await step(environment, activities, engine, second)
    await engine.schedule.fail(engine.user.user_id, second.run_id, code="service_rejected", detail="", usage={})
    third = await again(engine)
    assert (await step(environment, activities, engine, third)).reused


async def test_a_step_of_the_same_meaning_in_another_definition_hits(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    first = await claimed(engine)
    service = Answers(PAID)
    activities = activities_of(engine.schedule, service)
    await step(environment, activities, engine, first)
    await environment.run(activities.settle, ref(engine, first))
    other = {**ASK, "id": "other", "name": "Another", "timeout": "9s"}
    keep = {"id": "kept", "type": "state-update", "operation": "create-blob", "schema_id": "out-v1",
            "data_map": {"said": "$.text"}}  # fmt: skip
    await engine.register("two", [other, keep], input_schema_id="in-v1")
    cascade = await engine.plan_all()
    second = next(run for run in (await engine.claim(cascade)).runs if run.provider_id == "two")
    assert (await step(environment, activities, engine, second, "other")).reused


async def test_answers_are_kept_by_the_collector_and_dropped_when_nobody_asks(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    activities = activities_of(engine.schedule, Answers(PAID, {"text": "y"}, {"text": "z"}))
    run = await claimed(engine)
    for text in "bcd":
        await step(environment, activities, engine, run)
        run = await again(engine, text)
    user = engine.user.user_id
    assert len(await memo(engine)) == 3
    assert await dropped(engine, user, "1 hour", 3) == 0
    assert await dropped(engine, user, "1 hour", 2) == 1
    needed = "select count(*) as n from content_references where user_id = $1 and reason = 'memo'"
    assert (await engine.rows(needed))[0]["n"] == 2
    assert await dropped(engine, user, "0", 2) == 2
    assert await memo(engine) == []


async def fresh(engine: Engine) -> UUID:
    """Ask for the only blob of a person to be reprocessed on fresh answers; the cascade that does, planned."""
    [blob] = await engine.rows("select id from blobs where user_id = $1 and provider_id is null")
    answer = await engine.ask("POST", f"/blobs/{blob['id']}/reprocess", {"force": True})
    cascade = UUID(answer["cascade_id"])
    await engine.plan(cascade)
    return cascade


async def dropped(engine: Engine, user: UUID, kept: str, most: int) -> int:
    row = await engine.database.call(f"select drop_memo($1, interval '{kept}', $2, 100)", user, most)
    assert row is not None
    return int(row[0])


async def test_whoever_forgets_several_answers_locks_them_in_one_order(engine: Engine) -> None:
    run = await claimed(engine)
    user_id = engine.user.user_id
    for position, key in enumerate("ba"):  # stored in the other order
        await engine.admin.execute(
            "insert into run_steps (user_id, run_id, step_id, position, type, status, memo_key)"
            " values ($1, $2, $3, $4, 'api-call', 'done', $3)", user_id, run.run_id, key, position,
        )  # fmt: skip
        await engine.admin.execute(
            "insert into memo (user_id, key, state, run_id, step_id, provider_id)"
            " values ($1, $2, 'done', $3, $2, 'one')", user_id, key, run.run_id,
        )  # fmt: skip
    hold = "select from memo where user_id = $1 and key = $2 for update nowait"
    # As a plan may have it that reads the table as it lies.
    for name, value in (("enable_indexscan", "off"), ("enable_bitmapscan", "off"), ("enable_seqscan", "on")):
        await engine.admin.execute(f"alter function studio_distrust set {name} = {value}")
    try:
        async with asyncio.TaskGroup() as group, engine.locked(hold, user_id, "a"):
            group.create_task(engine.schedule.distrust(user_id, run.run_id))
            await engine.blocked(1)
            async with engine.locked(hold, user_id, "b"):  # it waits for the first, and has not taken the other
                pass
    finally:
        await engine.admin.execute("alter function studio_distrust reset all")
    assert await engine.rows("select key from memo where user_id = $1") == []
