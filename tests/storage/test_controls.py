"""What becomes of a person's approval when the run that it was given to ends, as ``tests/domain/test_controls.py``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from tests.storage.engine import Engine


async def say(engine: Engine, call: str, *arguments: Any) -> Any:
    [row] = await engine.rows(f"select {call} as answer", *arguments)
    await engine.check()
    return row["answer"]


async def approve(engine: Engine, run: Any) -> Any:
    call = "approve_run($1, $2, 'ask', 'user', interval '1 hour', 'approved', 2, 2, 'identity', '{}'::bytea, null)"
    return await say(engine, call, run.run_id)


ENDS = {
    "lost": ["lose_run($1, $2, 5)"],
    "lost once too often": ["lose_run($1, $2, 1)", "retry_run($1, $2, 'user')"],
    "cancelled": ["cancel_run($1, $2, 'user')", "retry_run($1, $2, 'user')"],
    "failed": ["fail_run($1, $2, 'provider_failed', '', '{}')", "retry_run($1, $2, 'user')"],
    "lost, then failed": [],
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_person_is_asked_again_if_the_run_failed(engine: Engine, end: str) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    run = await engine.take(cascade)
    user = engine.user.user_id
    assert await engine.schedule.park(user, run.run_id, "ask", 0, "?") == "parked"
    assert await approve(engine, run) == "done"
    for ending in ["lost", "failed"] if end == "lost, then failed" else [end]:
        for call in ENDS[ending]:
            await say(engine, call, run.run_id)
        [run] = (await engine.claim(cascade)).runs
    asked = "failed" in end
    assert await engine.schedule.park(user, run.run_id, "ask", 0, "?") == ("parked" if asked else "running")
    assert await approve(engine, run) == ("done" if asked else "already")


async def test_a_run_keeps_who_decided_and_what_they_said_and_their_time_is_not_its_own(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    run = await engine.take(cascade)
    user = engine.user.user_id
    await engine.schedule.park(user, run.run_id, "ask", 0, "?")
    await engine.rows("update runs set started_at = now() - interval '2 hours' where user_id = $1")
    await engine.rows("update run_steps set started_at = now() - interval '1 hour' where user_id = $1")
    await engine.ask("POST", f"/runs/{run.run_id}/approve", {"comment": "Well said."})
    [row] = await engine.rows("select studio_waited($1, id, started_at, now()) as waited from runs where user_id = $1")
    assert 3600 <= row["waited"].total_seconds() < 3700
    await say(engine, "lose_run($1, $2, 5)", run.run_id)
    [again] = (await engine.claim(cascade)).runs
    taken = await engine.ask("GET", f"/runs/{again.run_id}")
    assert taken["waited_ms"] == 0  # nobody had to think again
    [step] = taken["steps"]
    assert step["reused_from"] == str(run.run_id)
    decision = {name: step["decision"][name] for name in ("decision", "actor", "comment")}
    assert decision == {"decision": "approved", "actor": f"user:{user}", "comment": "Well said."}
    lost = await engine.ask("GET", f"/runs/{run.run_id}")
    assert 3_600_000 <= lost["waited_ms"] < 3_700_000
    assert 3_600_000 <= lost["duration_ms"] < 3_700_000
    await engine.finish(again)
    why = await engine.ask("GET", f"/blobs/{await engine.output('one')}/why")
    assert "approved it (ask)" in why["words"]
    assert "“Well said.”" in why["words"]


async def test_estimates_count_what_a_run_took_and_not_what_a_person_did(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.create("in-v1")
    run = await engine.take(await engine.plan_all())
    user = engine.user.user_id
    await engine.schedule.park(user, run.run_id, "ask", 0, "?")
    await engine.rows("update runs set started_at = now() - interval '1 hour' where user_id = $1")
    await engine.rows("update run_steps set started_at = now() - interval '1 hour' where user_id = $1")
    await engine.ask("POST", f"/runs/{run.run_id}/approve", {})
    [work] = await engine.schedule.load(user, [run.run_id])
    assert (datetime.now(UTC) - work.started_at).total_seconds() < 60  # what `$.execution_time` counts from
    await engine.finish(run)
    [sample] = await engine.rows("select seconds from studio_run_history($1, '{one}', 10)")
    assert 0 <= sample["seconds"] < 60


async def test_a_rejection_is_kept_with_its_run(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.create("in-v1")
    run = await engine.take(await engine.plan_all())
    user = engine.user.user_id
    await engine.schedule.park(user, run.run_id, "ask", 0, "?")
    await engine.ask("POST", f"/runs/{run.run_id}/reject", {"comment": "Too long."})
    await engine.ask("POST", f"/runs/{run.run_id}/retry")  # lifts the hold, which had the actor
    [step] = (await engine.ask("GET", f"/runs/{run.run_id}"))["steps"]
    decision = {name: step["decision"][name] for name in ("decision", "actor", "comment")}
    assert decision == {"decision": "rejected", "actor": f"user:{user}", "comment": "Too long."}
