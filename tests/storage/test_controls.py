"""What becomes of a person's approval when the run that it was given to ends, as ``tests/domain/test_controls.py``."""

from __future__ import annotations

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
