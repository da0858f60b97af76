"""The activities of a run: steps once each, recorded; failures told; nothing of it twice, whatever Temporal repeats."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from temporalio.common import RawValue
from temporalio.converter import default
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.inline import MERGE_ATTEMPTS_MAX
from activities.runs import RunActivities, RunFailure, RunRef, StepOutcome, StepRequest
from domain.errors import ProviderFailed, Unavailable, Unusable
from domain.prices import MILLION, Price, Prices, Tariff
from domain.steps import ServiceCall
from domain.works import ClaimedRun, RunWork
from storage.schedule import PostgresSchedule
from tests.storage.engine import Engine, schedule_of

ASK = {
    "id": "ask", "type": "api-call", "service": "ai-service", "endpoint": "/ask",
    "input_map": {"text": "$.data.text"}, "output_map": {"text": "$.text"},
}  # fmt: skip
KEEP = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": "out-v1",
        "data_map": {"text": "$.text"}}  # fmt: skip


class Answers:
    """A service of the test's own: answers in turn, or raises; the last answer stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers or ({"text": "answer"},))
        self.asked: list[tuple[str, Any, timedelta]] = []
        self.during: Callable[[], Any] | None = None

    async def call(self, call: ServiceCall, *, key: str, patience: timedelta) -> Any:
        self.asked.append((key, call.body, patience))
        if self.during is not None:
            await self.during()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def activities_of(schedule: PostgresSchedule, services: Answers) -> RunActivities:
    return RunActivities(schedule, services, step_timeout=timedelta(seconds=30), step_attempts=3)


async def claimed(engine: Engine, *steps: dict[str, Any], **more: Any) -> ClaimedRun:
    """A claimed run of a provider with these steps."""
    await engine.schemas("in-v1", "out-v1")
    await engine.register("one", [*(steps or (ASK,)), KEEP], input_schema_id="in-v1", **more)
    await engine.rest()
    await engine.create("in-v1")
    return await engine.take(await engine.latest())


def ref(engine: Engine, run: ClaimedRun) -> RunRef:
    return RunRef(user_id=str(engine.user.user_id), run_id=str(run.run_id))


async def step(
    environment: ActivityEnvironment, activities: RunActivities, engine: Engine, run: ClaimedRun, name: str = "ask"
) -> StepOutcome:
    """Carry out the first step as Temporal does: a dynamic activity with one raw argument."""
    request = StepRequest(user_id=str(engine.user.user_id), run_id=str(run.run_id), step_id=name, position=0)
    payload = default().payload_converter.to_payload(request)
    outcome: StepOutcome = await environment.run(activities.step, [RawValue(payload)])
    return outcome


async def recorded(engine: Engine) -> list[Any]:
    return await engine.rows("select * from run_steps where user_id = $1 order by position, run_id")


async def test_a_step_that_finished_is_not_called_again(engine: Engine, environment: ActivityEnvironment) -> None:
    run = await claimed(engine)
    service = Answers({"text": "x", "usage": {"model": "m", "prompt_tokens": 2, "total_tokens": 5}})
    activities = activities_of(engine.schedule, service)
    first = await step(environment, activities, engine, run)
    assert (first.status, first.model, first.tokens) == ("done", "m", 5)
    again = await step(environment, activities_of(schedule_of(engine.database, engine.contents), service), engine, run)
    assert again == first
    assert [key for key, _, _ in service.asked] == [f"{run.run_id}:ask"]
    assert await environment.run(activities.settle, ref(engine, run)) == "settled"
    assert await environment.run(activities.settle, ref(engine, run)) == "settled"
    assert await engine.text(await engine.output("one")) == "x"
    [row] = await engine.rows("select usage from runs where user_id = $1")
    usage = orjson.loads(row["usage"])
    assert (usage["model"], usage["total_tokens"], usage["prompt_tokens"]) == ("m", 5, 2)
    await engine.rest()


@pytest.mark.parametrize("next_is", ["settle", "a step"])
async def test_a_run_whose_steps_a_backup_has_forgotten_is_lost_and_done_again(
    engine: Engine, environment: ActivityEnvironment, next_is: str
) -> None:
    run = await claimed(engine, ASK, {**ASK, "id": "ask-again"})
    activities = activities_of(engine.schedule, Answers({"text": "x"}))
    await step(environment, activities, engine, run)
    await engine.rows("delete from run_steps where user_id = $1 returning 1")
    if next_is == "settle":
        assert await environment.run(activities.settle, ref(engine, run)) == "lost"
    else:
        request = StepRequest(user_id=str(engine.user.user_id), run_id=str(run.run_id), step_id="ask-again", position=1)
        payload = default().payload_converter.to_payload(request)
        assert (await environment.run(activities.step, [RawValue(payload)])).status == "superseded"
    assert await engine.runs() == ["lost"]
    assert len((await engine.claim(await engine.latest())).runs) == 1


async def test_attempts_that_failed_are_recorded_and_the_lease_is_extended(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    run = await claimed(engine)
    members = {"retry_after": 7.0}
    service = Answers(Unavailable("no answer", code="service_unavailable", members=members), {"text": "x"})
    activities = activities_of(engine.schedule, service)
    await engine.rows("update runs set lease_until = now() where user_id = $1")
    with pytest.raises(ApplicationError) as caught:
        await step(environment, activities, engine, run)
    assert (caught.value.type, caught.value.non_retryable) == ("service_unavailable", False)
    assert caught.value.next_retry_delay == timedelta(seconds=7)
    [row] = await recorded(engine)
    assert (row["status"], orjson.loads(row["error"])["code"]) == ("failed", "service_unavailable")
    leases = await engine.rows("select lease_until > now() + interval '4 minutes' from runs where user_id = $1")
    assert leases == [(True,)]
    assert (await step(environment, activities, engine, run)).status == "done"
    [row] = await recorded(engine)
    assert (row["status"], row["error"]) == ("done", None)
    [shown] = (await engine.ask("GET", f"/runs/{run.run_id}"))["steps"]
    assert (shown["attempts"], [(error["attempt"], error["code"]) for error in shown["errors"]]) == (
        2, [(1, "service_unavailable")],
    )  # fmt: skip
    assert len({key for key, _, _ in service.asked}) == 1


@pytest.mark.parametrize(
    "answer", [None, "garbage", ["text"], {}, {"text": None}, {"text": 7}], ids=str
)  # fmt: skip
async def test_an_answer_that_is_none_or_garbage_fails_the_run_for_good(
    engine: Engine, environment: ActivityEnvironment, answer: Any
) -> None:
    await engine.schemas("out-v1", properties={"text": {"type": "string"}}, required=["text"])
    run = await claimed(engine)
    activities = activities_of(engine.schedule, Answers(answer))

    async def carried_out() -> None:
        await step(environment, activities, engine, run)
        await environment.run(activities.settle, ref(engine, run))

    with pytest.raises(ApplicationError) as caught:
        await carried_out()
    assert (caught.value.type, caught.value.non_retryable) == ("invalid_output", True)
    assert await engine.version(await engine.output("one")) == 0


async def test_a_provider_that_answers_otherwise_each_time_runs_once_a_cause(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    run = await claimed(engine)
    blob = (await engine.rows("select id from blobs where user_id = $1 and created_by <> 'one'"))[0]["id"]
    for said in ("one", "two", "two"):
        activities = activities_of(engine.schedule, Answers({"text": said}))
        await step(environment, activities, engine, run)
        assert await environment.run(activities.settle, ref(engine, run)) == "settled"
        await engine.rest()
        assert await engine.text(await engine.output("one")) == said
        run = await engine.take(await engine.edit(blob, f"after {run.run_id}"))
    assert await engine.version(await engine.output("one")) == 2, "the same answer makes no version"
    assert await engine.runs("one") == ["settled"] * 3 + ["running"], "each edit ran it once, whatever it answered"


async def test_a_final_failure_is_not_to_be_retried(engine: Engine, environment: ActivityEnvironment) -> None:
    run = await claimed(engine)
    service = Answers(ProviderFailed("said \0 no", code="service_rejected"))
    activities = activities_of(engine.schedule, service)
    with pytest.raises(ApplicationError) as caught:
        await step(environment, activities, engine, run)
    assert (caught.value.type, caught.value.non_retryable) == ("service_rejected", True)
    failure = RunFailure(
        user_id=str(engine.user.user_id), run_id=str(run.run_id), code="service_rejected", detail=caught.value.message
    )
    assert await environment.run(activities.fail, failure) == "failed"
    assert await environment.run(activities.fail, failure) == "failed"
    assert await environment.run(activities.settle, ref(engine, run)) == "superseded"
    [row] = await engine.rows("select error from runs where user_id = $1")
    assert orjson.loads(row["error"]) == {"code": "service_rejected", "detail": "said \ufffd no"}
    await engine.rest()


async def test_a_run_whose_input_moved_calls_nobody(engine: Engine, environment: ActivityEnvironment) -> None:
    run = await claimed(engine, supersede="cancel")
    service = Answers()
    activities = activities_of(engine.schedule, service)
    [blob] = [row["id"] for row in await engine.rows("select id from blobs where user_id = $1 and provider_id is null")]
    await engine.plan(await engine.edit(blob, "b"))
    assert (await environment.run(activities.load, ref(engine, run))).status == "superseded"
    assert (await step(environment, activities, engine, run)).status == "superseded"
    assert await environment.run(activities.settle, ref(engine, run)) == "superseded"
    assert service.asked == []


async def test_a_call_heartbeats_while_it_waits(engine: Engine, environment: ActivityEnvironment) -> None:
    run = await claimed(engine)
    beats: list[tuple[Any, ...]] = []
    environment.on_heartbeat = lambda *details: beats.append(details)
    service = Answers()

    async def until_it_beats() -> None:
        async with asyncio.timeout(5):
            while not beats:  # noqa: ASYNC110 - the beat comes from Temporal's side
                await asyncio.sleep(0)

    service.during = until_it_beats
    assert (await step(environment, activities_of(engine.schedule, service), engine, run)).status == "done"
    assert beats


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ({"model": "m\0" + "x" * 500, "total_tokens": 3}, {"model": "m" + "x" * 199, "total_tokens": 3}),
        ({"total_tokens": "many", "prompt_tokens": -1, "completion_tokens": 1.5}, {}),
        ({"total_tokens": True, "prompt_tokens": 10**20, "other": {"deep": []}}, {}),
        ("none", {}),
        ({"model": 7, "completion_tokens": 0}, {"completion_tokens": 0}),
    ],
)
async def test_of_what_a_service_says_it_used_only_counts_and_a_name_are_believed(
    engine: Engine, environment: ActivityEnvironment, said: Any, believed: dict[str, Any]
) -> None:
    run = await claimed(engine)
    activities = activities_of(engine.schedule, Answers({"text": "x", "usage": said}))
    assert (await step(environment, activities, engine, run)).tokens == believed.get("total_tokens", 0)
    [row] = await recorded(engine)
    usage = orjson.loads(row["usage"])
    del usage["duration_ms"]
    assert usage == believed
    assert await environment.run(activities.settle, ref(engine, run)) == "settled"


async def test_the_plan_of_a_run_says_how_long_and_how_often(engine: Engine, environment: ActivityEnvironment) -> None:
    pure = {"id": "pure", "type": "computation", "operations": [{"n": "1"}]}
    slow = {**ASK, "id": "slow", "timeout": "2s", "retry": {"max_attempts": 9}}
    service = Answers()
    run = await claimed(engine, ASK, slow, pure, timeout="12s", retry={"max_attempts": 7})
    activities = activities_of(engine.schedule, service)
    plan = await environment.run(activities.load, ref(engine, run))
    [blob] = [row["id"] for row in await engine.rows("select id from blobs where user_id = $1 and provider_id is null")]
    assert (plan.status, plan.blob_id) == ("running", str(blob))
    shown = {one.id: (one.effect, one.position, one.timeout_seconds, one.attempts_max) for one in plan.steps}
    assert shown["ask"] == ("call", 0, 12.0, 7)
    assert shown["slow"] == ("call", 1, 2.0, 9)
    assert shown["pure"][:2] == ("pure", 2)
    await step(environment, activities, engine, run)
    assert service.asked[0][2] == timedelta(seconds=12)


async def test_the_pauses_are_the_steps_else_the_providers_else_those_of_the_settings(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    own = {**ASK, "id": "own", "retry": {"first_pause": "90s"}}
    run = await claimed(engine, ASK, own, retry={"max_attempts": 7, "factor": 3, "longest_pause": "30s"})
    plan = await environment.run(activities_of(engine.schedule, Answers()).load, ref(engine, run))
    pauses = {found.id: (found.first_pause, found.factor, found.longest_pause) for found in plan.steps}
    assert (pauses["ask"], pauses["own"]) == ((1.0, 3, 30.0), (90.0, 3, 90.0))


async def test_an_answer_that_the_definition_calls_final_is_not_asked_for_again(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    run = await claimed(engine, {**ASK, "retry": {"not_retried": [501]}})
    away, final = (
        Unavailable(f"It answered {status}.", code="service_unavailable", members={"status": status})
        for status in (503, 501)
    )
    activities = activities_of(engine.schedule, Answers(away, final))
    for code, ends in (("service_unavailable", False), ("service_rejected", True)):
        with pytest.raises(ApplicationError) as caught:
            await step(environment, activities, engine, run)
        assert (caught.value.type, caught.value.non_retryable) == (code, ends)


@pytest.mark.parametrize("why", [{"trigger_patterns": ["chapter"]}, {"max_input_size": 3}])
async def test_a_run_that_its_provider_declines_has_no_steps(
    engine: Engine, environment: ActivityEnvironment, why: dict[str, Any]
) -> None:
    run = await claimed(engine, **why)
    activities = activities_of(engine.schedule, Answers())
    plan = await environment.run(activities.load, ref(engine, run))
    assert (plan.status, plan.steps) == ("running", [])
    assert await environment.run(activities.settle, ref(engine, run)) == "settled"
    assert await engine.version(await engine.output("one")) == 0
    await engine.rest()


async def test_a_pure_step_of_a_run_is_recorded_and_fails_for_good(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    bad = {"id": "bad", "type": "computation", "operations": [{"text": "$.data.text + 1"}]}
    run = await claimed(engine, bad, ASK)
    activities = activities_of(engine.schedule, Answers())
    with pytest.raises(ApplicationError) as caught:
        await step(environment, activities, engine, run, "bad")
    assert (caught.value.type, caught.value.non_retryable) == ("expression_failed", True)
    [row] = await recorded(engine)
    assert (row["step_id"], row["status"], row["type"]) == ("bad", "failed", "computation")


PURE = {"id": "mark", "type": "computation", "operations": [{"text": "$.data.text + '!'"}]}


async def test_a_run_that_calls_nobody_is_carried_out_as_a_whole_and_its_steps_are_recorded(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    run = await claimed(engine, PURE, execution="workflow")
    activities = activities_of(engine.schedule, Answers())
    plan = await environment.run(activities.load, ref(engine, run))
    [blob] = [row["id"] for row in await engine.rows("select id from blobs where user_id = $1 and provider_id is null")]
    assert (plan.status, plan.blob_id, plan.steps) == ("settled", str(blob), [])
    rows = [(row["step_id"], row["position"], row["type"], row["status"]) for row in await recorded(engine)]
    assert rows == [("mark", 0, "computation", "done"), ("keep", 1, "state-update", "done")]
    assert await engine.text(await engine.output("one")) == "a!"
    # An acknowledgement that was lost: nothing happens again.
    assert (await environment.run(activities.load, ref(engine, run))).status == "settled"
    assert await engine.version(await engine.output("one")) == 1
    await engine.rest()


async def test_a_whole_that_cannot_be_carried_out_goes_step_by_step_and_tells_which_step_it_was(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    bad = {"id": "bad", "type": "computation", "operations": [{"text": "$.data.text + 1"}]}
    run = await claimed(engine, bad, execution="workflow")
    activities = activities_of(engine.schedule, Answers())
    plan = await environment.run(activities.load, ref(engine, run))
    assert (plan.status, [one.id for one in plan.steps]) == ("running", ["bad", "keep"])
    assert await recorded(engine) == []
    with pytest.raises(ApplicationError) as caught:
        await step(environment, activities, engine, run, "bad")
    assert (caught.value.type, caught.value.non_retryable) == ("expression_failed", True)


class Meddled(PostgresSchedule):
    """The real schedule, while somebody edits the output each time that a run has been loaded."""

    meddle: Callable[[], Any]
    times = 0

    async def load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        works = await super().load(user_id, run_ids)
        if works and self.times > 0:
            self.times -= 1
            await self.meddle()
        return works


@pytest.mark.parametrize("times", [2, MERGE_ATTEMPTS_MAX])
async def test_settle_merges_again_while_people_edit_its_output(
    engine: Engine, environment: ActivityEnvironment, times: int
) -> None:
    run = await claimed(engine)
    await step(environment, activities_of(engine.schedule, Answers()), engine, run)
    assert await environment.run(activities_of(engine.schedule, Answers()).settle, ref(engine, run)) == "settled"
    output = await engine.output("one")
    [blob] = [row["id"] for row in await engine.rows("select id from blobs where user_id = $1 and provider_id is null")]
    again = await engine.take(await engine.edit(blob, "b"))
    meddled = Meddled(engine.database, engine.contents, lease=timedelta(minutes=1), depth_max=9, nodes_max=9)
    activities = activities_of(meddled, Answers({"text": "newer"}))
    await step(environment, activities, engine, again)
    texts = iter(f"mine {turn}" for turn in range(20))
    meddled.times = times

    async def meddle() -> None:
        await engine.edit(output, data={"text": next(texts), "more": 1})

    meddled.meddle = meddle
    if times < MERGE_ATTEMPTS_MAX:
        assert await environment.run(activities.settle, ref(engine, again)) == "settled"
        assert await engine.text(output) == f"mine {times - 1}"
    else:
        with pytest.raises(ApplicationError) as caught:
            await environment.run(activities.settle, ref(engine, again))
        assert (caught.value.type, caught.value.non_retryable) == ("unavailable", False)
        assert await environment.run(activities.settle, ref(engine, again)) == "settled"
    await engine.rest()


async def test_a_lost_run_is_lost_once(engine: Engine, environment: ActivityEnvironment) -> None:
    run = await claimed(engine)
    activities = activities_of(engine.schedule, Answers())
    gone = RunFailure(user_id=str(engine.user.user_id), run_id=str(run.run_id), code="", detail="")
    assert await environment.run(activities.lose, gone) == "lost"
    assert await environment.run(activities.lose, gone) == "lost"
    assert await engine.runs() == ["lost"]


async def test_a_fault_of_ours_is_tried_again_and_then_internal(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    run = await claimed(engine)
    activities = activities_of(engine.schedule, Answers(KeyError("secret")))
    with pytest.raises(KeyError):
        await step(environment, activities, engine, run)
    environment.info = with_attempt(environment, 5)
    with pytest.raises(ApplicationError) as caught:
        await step(environment, activities, engine, run)
    assert (caught.value.type, caught.value.non_retryable) == ("internal", True)
    assert "secret" not in str(caught.value)


def with_attempt(environment: ActivityEnvironment, attempt: int) -> Any:
    return replace(environment.info, attempt=attempt)


@pytest.mark.parametrize(
    ("answer", "amount"),
    [
        (["not a map"], 20),
        (Unusable("text answered more than 5 bytes.", code="service_rejected"), 20),
        (Unusable("No such text.", code="invalid_output", usage={"prompt_tokens": 3, "completion_tokens": 4}), 7),
        (ProviderFailed("No.", code="service_rejected"), None),
    ],
)
async def test_an_answer_that_is_of_no_use_is_charged_all_the_same(
    engine: Engine, environment: ActivityEnvironment, answer: Any, amount: int | None
) -> None:
    run = await claimed(engine)
    with pytest.raises(ApplicationError):
        await step(environment, paid(engine.schedule, Answers(answer)), engine, run)
    charges = await engine.rows("select run_id, amount from charges where user_id = $1")
    assert [(row["run_id"], row["amount"]) for row in charges] == ([] if amount is None else [(run.run_id, amount)])
    [recorded_step] = await recorded(engine)
    assert recorded_step["status"] == "failed"


async def test_each_attempt_that_was_paid_is_charged_once_and_nothing_is_paid_for_twice(
    engine: Engine, environment: ActivityEnvironment
) -> None:
    run = await claimed(engine)
    await engine.ask("PUT", "/budget", {"limit": 40}, **{"if-match": "*"})
    used = {"prompt_tokens": 2, "completion_tokens": 3}
    service = Answers(["not a map"], Unavailable("away", code="service_unavailable"), {"text": "x", "usage": used})
    activities = paid(engine.schedule, service)
    for failure in ("invalid_output", "service_unavailable"):
        with pytest.raises(ApplicationError) as caught:
            await step(environment, activities, engine, run)
        assert caught.value.type == failure
        await engine.check()
    assert [(await step(environment, activities, engine, run)).status for _ in range(2)] == ["done"] * 2
    assert len(service.asked) == 3
    charges = (await engine.ask("GET", "/budget/charges"))["data"]
    assert [(charge["attempt"], charge["amount"]) for charge in charges] == [(3, 5), (1, 20)]
    found = await engine.ask("GET", "/budget")
    assert (found["spent"], found["reserved"], found["remaining"]) == (25, 0, 15)
    await engine.check()


def paid(schedule: PostgresSchedule, services: Answers) -> RunActivities:
    """Each token costs a micro-dollar, and a call 20 at most."""
    tariff = Tariff(prices={"default": Price(prompt=MILLION, completion=MILLION)}, prompt_tokens_max=10,
                    completion_tokens_max=10)  # fmt: skip
    prices = Prices({"ai-service": tariff})
    return RunActivities(schedule, services, step_timeout=timedelta(seconds=30), step_attempts=3, prices=prices)
