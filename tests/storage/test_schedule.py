"""Claim, fail, lose and close: who runs what, when, and what a cascade says in the end (CASCADES rules 3 to 5)."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from domain.works import ClaimedRun, StepRecord
from storage.works import Kept
from tests.storage.engine import Engine, schedule_of


async def chain(engine: Engine, *slugs: str, **more: Any) -> None:
    """Providers one below the other: ``s0`` to ``s1`` to …"""
    for step, slug in enumerate(slugs):
        await engine.provider(slug, f"s{step}-v1", f"s{step + 1}-v1", origin="any", **more)


async def fail(engine: Engine, run: ClaimedRun, code: str = "provider_failed") -> str:
    done = await engine.schedule.fail(engine.user.user_id, run.run_id, code=code, detail="no", usage={"tokens": 3})
    await engine.check()
    return done


# --- claim ----------------------------------------------------------------------------------------------------------


async def test_claim_answers_every_unfinished_run_old_and_new(engine: Engine) -> None:
    await chain(engine, "one", execution="workflow")
    first = await engine.create("s0-v1")
    await engine.rest()
    await engine.ask("POST", "/blobs", {"schema_id": "s0-v1", "data": {"text": "b"}})
    cascade = await engine.plan_all()
    once = await engine.claim(cascade)
    assert [run.workflow_id for run in once.runs] == [f"run:one:{run.run_id}" for run in once.runs]
    assert (await engine.claim(cascade)).runs == once.runs
    other = schedule_of(engine.database, engine.contents)
    assert (await other.claim(engine.user.user_id, cascade, window=100)).runs == once.runs
    assert not once.closed
    await engine.finish(once.runs[0])
    assert (await engine.claim(cascade)).closed
    await engine.edit(first, "c")
    await engine.rest()


async def test_a_window_bounds_what_runs_at_once(engine: Engine) -> None:
    for name in "abcd":
        await engine.provider(name, "in-v1", "out-v1", execution="workflow")
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    await engine.ring(cascade)
    seen: set[UUID] = set()
    while not (found := await engine.claim(cascade, window=3)).closed:
        assert 1 <= len(found.runs) <= 3
        seen |= {run.run_id for run in found.runs}
        await engine.finish(found.runs[0])
        # Its end rings: there is room again.
        assert await engine.ring(cascade) == [cascade]
    assert len(seen) == 4
    assert (await engine.claim(cascade, window=0)).closed


async def test_what_is_unchanged_is_settled_without_a_run_to_the_bottom(engine: Engine) -> None:
    await engine.provider("flat", "s0-v1", "s1-v1", "'constant'")
    await chain(engine, "skip", "one", "two", "three")
    blob = await engine.create("s0-v1")
    await engine.rest()
    runs = len(await engine.runs())
    cascade = await engine.edit(blob, "b")
    await engine.plan(cascade)
    found = await engine.claim(cascade)
    assert found.cut_off == 0
    for run in found.runs:
        await engine.finish(run)
    await engine.rest()
    # flat ran and changed nothing: what is below it was settled at once; the branch of skip ran.
    assert len(await engine.runs()) == runs + 5
    assert (await engine.cascade(cascade))["cut_off"] == 3


async def test_what_is_due_later_is_answered_as_due_and_runs_then(engine: Engine) -> None:
    await engine.provider("slow", "in-v1", "out-v1", debounce={"quiet": "10m", "max_wait": "20m"})
    blob = await engine.create("in-v1")
    cascade = await engine.plan_all()
    found = await engine.claim(cascade)
    assert (found.runs, found.closed) == ((), False)
    assert found.due_in_seconds is not None
    wait = timedelta(seconds=found.due_in_seconds)
    assert timedelta(minutes=9) < wait < timedelta(minutes=10)
    advanced = await engine.advance(cascade)
    assert advanced.due_in_seconds is not None
    assert 540 < advanced.due_in_seconds < 600
    # Further edits put it off, no further than max_wait since the first.
    await engine.rows("update derivations set dirty_since = now() - interval '19 minutes' where user_id = $1")
    second = await engine.edit(blob, "b")
    await engine.plan(second)
    found = await engine.claim(second)
    assert found.due_in_seconds is not None
    assert found.due_in_seconds < 60
    await engine.rows("update derivations set run_after = now() where user_id = $1")
    await engine.rest()
    assert await engine.text(await engine.output("slow")) == "b!"
    assert (await engine.derivation("slow"))["run_after"] is None


async def test_steady_edits_cancel_no_run_for_longer_than_a_minute(engine: Engine) -> None:
    await chain(engine, "one")
    blob = await engine.create("s0-v1")
    first = await engine.take(await engine.plan_all())
    second = await engine.take(await engine.edit(blob, "b"))
    assert second.run_id != first.run_id
    await engine.rows("update derivations set dirty_since = now() - interval '61 seconds' where user_id = $1")
    await engine.plan(await engine.edit(blob, "c"))
    assert (await engine.derivation("one"))["run_id"] == second.run_id
    await engine.rest()
    assert await engine.runs() == ["superseded", "settled", "settled"]
    assert await engine.text(await engine.output("one")) == "c!"


async def test_a_claim_of_an_unknown_cascade_is_closed(engine: Engine) -> None:
    found = await engine.claim(UUID(int=7))
    assert (found.closed, found.status, found.runs) == (True, "unknown", ())
    assert not await engine.plan(UUID(int=7))


async def test_two_workers_claim_each_run_once(engine: Engine) -> None:
    for name in "abcdef":
        await engine.provider(name, "in-v1", "out-v1")
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    other = schedule_of(engine.database, engine.contents)
    user = engine.user.user_id
    answers = await asyncio.gather(
        *(schedule.claim(user, cascade, window=100) for schedule in (engine.schedule, other) * 3)
    )
    assert len({answer.runs for answer in answers}) == 1
    assert await engine.runs() == ["running"] * 6
    await engine.rest()


# --- the end of runs ------------------------------------------------------------------------------------------------


async def test_a_failure_holds_what_is_below_and_is_a_dead_letter_once(engine: Engine) -> None:
    await chain(engine, "one", "two")
    blob = await engine.create("s0-v1")
    run = await engine.take(await engine.plan_all())
    assert await fail(engine, run) == "failed"
    assert await fail(engine, run, "internal") == "failed"
    letters = await engine.rows("select * from dead_letters where user_id = $1")
    assert [(letter["run_id"], letter["code"], letter["detail"]) for letter in letters] == [
        (run.run_id, "provider_failed", "no")
    ]
    await engine.rest()
    [row] = await engine.rows("select usage, error from runs where user_id = $1")
    assert (orjson.loads(row["usage"]), orjson.loads(row["error"])["code"]) == ({"tokens": 3}, "provider_failed")
    derivation = await engine.derivation("two")
    assert (derivation["unsettled"], derivation["pending_inputs"], derivation["hold"]) == (True, 1, None)
    await engine.edit(blob, "b")
    await engine.rest()
    assert await engine.text(await engine.output("two")) == "b!!"


async def test_a_run_left_to_finish_that_fails_says_nothing_about_newer_inputs(engine: Engine) -> None:
    await chain(engine, "one", execution="workflow", supersede="finish")
    blob = await engine.create("s0-v1")
    run = await engine.take(await engine.plan_all())
    await engine.plan(await engine.edit(blob, "b"))
    assert await fail(engine, run) == "failed"
    assert (await engine.derivation("one"))["hold"] is None
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "b!"


async def test_a_cascade_that_waits_below_another_ones_failure_closes(engine: Engine) -> None:
    """A person edits an output while it is being made: what is below belongs to that edit, what is above does not."""
    await chain(engine, "one", "two", execution="workflow", supersede="finish")
    blob = await engine.create("s0-v1")
    await engine.rest()
    upper = await engine.edit(blob, "b")
    run = await engine.take(upper)
    lower = await engine.edit(await engine.output("one"), "mine")
    await engine.plan(lower)
    assert (await engine.derivation("two"))["owner_cascade_id"] == lower
    await engine.ring(upper, lower)
    assert not (await engine.claim(lower)).closed
    await fail(engine, run)
    assert set(await engine.ring(upper, lower)) == {upper, lower}
    for cascade in (upper, lower):
        assert (await engine.claim(cascade)).status == "partial"
    await engine.rest()


async def test_a_lost_run_is_claimed_again_and_its_late_answer_is_fenced(engine: Engine) -> None:
    await chain(engine, "one", execution="workflow")
    await engine.create("s0-v1")
    cascade = await engine.plan_all()
    [run] = (await engine.claim(cascade)).runs
    settlement = await engine.decide(run)
    assert await engine.schedule.lose(engine.user.user_id, run.run_id) == "lost"
    assert await engine.schedule.lose(engine.user.user_id, run.run_id) == "lost"
    assert await engine.settle(settlement) == ["superseded"]
    assert await engine.ring(cascade) == [cascade]
    [again] = (await engine.claim(cascade)).runs
    assert again.run_id != run.run_id
    assert await engine.finish(again) == "settled"
    await engine.rest()
    assert await engine.runs() == ["lost", "settled"]
    assert (await engine.derivation("one"))["attempt"] == 2


# --- cascades -------------------------------------------------------------------------------------------------------


async def test_a_cascade_ends_completed_partial_or_superseded_and_says_so_once(engine: Engine) -> None:
    await chain(engine, "one")
    blob = await engine.create("s0-v1")
    completed = await engine.plan_all()
    await engine.rest()
    partial = await engine.edit(blob, "b")
    await fail(engine, await engine.take(partial))
    await engine.rest()
    superseded = await engine.edit(blob, "c")
    await engine.take(superseded)
    last = await engine.edit(blob, "d")
    await engine.plan(last)
    await engine.rest()
    statuses = {name: (await engine.cascade(cascade))["status"] for name, cascade in
                {"completed": completed, "partial": partial, "superseded": superseded}.items()}  # fmt: skip
    assert statuses == {name: name for name in statuses}
    assert (await engine.cascade(superseded))["superseded_by"] == last
    ended = await engine.ask("GET", "/events?type=cascade.completed")
    told = [(event["data"]["cascade_id"], event["data"]["status"]) for event in ended["data"]]
    for status, cascade in (("completed", completed), ("partial", partial), ("superseded", superseded)):
        assert told.count((str(cascade), status)) == 1


async def test_a_doorbell_after_the_close_opens_the_cascade_again(engine: Engine) -> None:
    await chain(engine, "one", execution="workflow")
    await engine.create("s0-v1")
    cascade = await engine.plan_all()
    await engine.ring(cascade)
    [run] = (await engine.claim(cascade)).runs
    await fail(engine, run)
    assert await engine.ring(cascade) == [cascade]
    assert (await engine.claim(cascade)).status == "partial"
    assert await engine.ring(cascade) == []
    # Somebody lifts the hold and rings.
    await engine.rows("update derivations set hold = null where user_id = $1")
    await engine.rows("select studio_recount($1, array(select id from derivations where user_id = $1))")
    await engine.rows("select studio_ring($1, array[$2::uuid])", cascade)
    assert await engine.ring(cascade) == [cascade]
    found = await engine.claim(cascade)
    assert (found.closed, (await engine.cascade(cascade))["status"]) == (False, "running")
    assert (await engine.cascade(cascade))["ended_at"] is None
    await engine.finish(found.runs[0])
    await engine.rest()
    assert (await engine.cascade(cascade))["status"] == "completed"


async def test_a_doorbell_between_two_looks_stays_unsent(engine: Engine) -> None:
    await chain(engine, "one", execution="workflow")
    await engine.create("s0-v1")
    cascade = await engine.plan_all()
    [run] = (await engine.claim(cascade)).runs
    await engine.ring(cascade)
    await engine.finish(run)
    assert await engine.ring(cascade) == [cascade]
    assert (await engine.claim(cascade)).status == "completed"
    await engine.rest()


async def test_a_claimer_that_is_not_the_owner_hears_of_the_end(engine: Engine) -> None:
    """The first cascade claimed the run, the second took the derivation over: both are rung when it ends."""
    await chain(engine, "one", execution="workflow", supersede="finish")
    blob = await engine.create("s0-v1")
    first = await engine.plan_all()
    [run] = (await engine.claim(first)).runs
    second = await engine.edit(blob, "b")
    await engine.plan(second)
    found = await engine.claim(second)
    assert (found.runs, found.running, found.closed) == ((), 1, False)
    await engine.ring(first, second)
    await engine.finish(run)
    assert set(await engine.ring(first, second)) == {first, second}
    assert (await engine.claim(first)).closed
    [again] = (await engine.claim(second)).runs
    await engine.finish(again)
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "b!"


async def test_a_diamond_is_derived_once_from_one_consistent_set_of_inputs(engine: Engine) -> None:
    await engine.provider("left", "in-v1", "side-v1")
    await engine.provider("right", "in-v1", "side-v1", "$.data.text + '?'")
    await engine.join("book", "side-v1", "book-v1")
    bucket = await engine.bucket()
    blob = await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    assert await engine.runs("book") == ["settled"]
    for text in ("b", "c"):
        await engine.edit(blob, text)
        await engine.rest()
    made = await engine.text(await engine.output("book"))
    assert sorted(made.split()) == ["c!", "c?"]
    assert await engine.runs("book") == ["settled"] * 3


# --- steps ----------------------------------------------------------------------------------------------------------


async def test_steps_are_recorded_and_extend_the_lease(engine: Engine) -> None:
    engine.schedule = schedule_of(engine.database, engine.contents, lease=timedelta(seconds=60))
    await chain(engine, "one", execution="workflow")
    await engine.create("s0-v1")
    run = await engine.take(await engine.plan_all())
    user, schedule = engine.user.user_id, engine.schedule
    await engine.rows("update runs set lease_until = now() - interval '1 minute' where user_id = $1")
    assert await schedule.begin_step(user, run.run_id, "ask", 0, "api-call") == "running"
    lease = await engine.rows("select lease_until > now() + interval '50 seconds' from runs where user_id = $1")
    assert lease == [(True,)]
    await schedule.fail_step(user, run.run_id, "ask", "service_unavailable", "no answer")
    assert await step(engine) == ("failed", {"code": "service_unavailable", "detail": "no answer"})
    assert await schedule.begin_step(user, run.run_id, "ask", 0, "api-call") == "running"
    assert (await step(engine))[0] == "running"
    record = StepRecord(step_id="ask", entries={"text": "x"}, usage={"total_tokens": 3})
    await schedule.end_step(user, run.run_id, record)
    await schedule.end_step(user, run.run_id, StepRecord(step_id="ask", entries={"text": "late"}))
    await schedule.fail_step(user, run.run_id, "ask", "internal", "late")
    await schedule.begin_step(user, run.run_id, "ask", 0, "api-call")
    assert await schedule.steps(user, run.run_id) == [record]
    assert await step(engine) == ("done", None)
    await engine.finish(run)
    assert await schedule.begin_step(user, run.run_id, "late", 1, "api-call") == "settled"
    assert await schedule.begin_step(user, UUID(int=7), "late", 1, "api-call") == "superseded"
    await engine.rest()


async def step(engine: Engine) -> tuple[str, Any]:
    [row] = await engine.rows("select status, error from run_steps where user_id = $1")
    return row["status"], row["error"] and orjson.loads(row["error"])


async def test_the_answer_of_a_large_step_is_kept_outside(engine: Engine) -> None:
    await chain(engine, "one", execution="workflow")
    await engine.create("s0-v1")
    run = await engine.take(await engine.plan_all())
    record = StepRecord(step_id="ask", entries={"text": "x" * 100_000})
    await engine.schedule.begin_step(engine.user.user_id, run.run_id, "ask", 0, "api-call")
    await engine.schedule.end_step(engine.user.user_id, run.run_id, record)
    [stored] = await engine.rows("select body from contents where user_id = $1 and size > 70000")
    assert stored["body"] is None
    assert await engine.schedule.steps(engine.user.user_id, run.run_id) == [record]


def test_what_was_used_last_is_kept_longest() -> None:
    kept: Kept[str, int] = Kept(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.known(["a", "x"]) == {"a": 1}
    kept.put("c", 3)
    assert kept.known(["a", "b", "c"]) == {"a": 1, "c": 3}
