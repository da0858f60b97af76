"""Budgets under many hands: fifty at once never spend more than there is, and what is killed gives back."""

from __future__ import annotations

import asyncio
from typing import Any

from domain.prices import Quote, StepCharge
from domain.works import StepRecord
from tests.conftest import BASE
from tests.storage.engine import Engine

RUNS = 50
WORST = 10


def charge(amount: int, attempt: int = 1) -> StepCharge:
    tokens = {"prompt_tokens": amount, "completion_tokens": 0}
    return StepCharge(attempt=attempt, amount=amount, service="test", model=None, **tokens)


async def budget(engine: Engine, limit: int) -> None:
    await engine.ask("PUT", "/budget", {"limit": limit}, **{"if-match": "*"})


async def many(engine: Engine, count: int) -> list[Any]:
    """So many running workflow runs."""
    await engine.provider("paid", "in-v1", "out-v1", execution="workflow")
    runs: list[Any] = []
    for number in range(count):
        await engine.create("in-v1", f"text {number}")
        claimed = await engine.claim(await engine.plan_all())
        runs += claimed.runs
    return runs


async def begin(engine: Engine, run: Any) -> str:
    quote = Quote(worst=WORST, used={})
    begun = await engine.schedule.begin_call(engine.user.user_id, run.run_id, "ask", 0, "api-call", None, quote)
    return begun.status


async def test_fifty_at_once_never_overspend_and_all_come_through_one_after_the_other(engine: Engine) -> None:
    runs = await many(engine, RUNS)
    await budget(engine, 3 * WORST)
    statuses = await asyncio.gather(*(begin(engine, run) for run in runs))
    assert sorted(statuses) == ["blocked_budget"] * (RUNS - 3) + ["running"] * 3
    await engine.check()
    for run, status in zip(runs, statuses, strict=True):
        if status == "running":
            record = StepRecord(step_id="ask", entries={}, usage={})
            ended = [engine.schedule.end_step(engine.user.user_id, run.run_id, record, charge(4)) for _ in range(3)]
            await asyncio.gather(*ended)
    await engine.check()
    [(spent, reserved)] = await engine.rows("select spent, reserved from budgets where user_id = $1")
    assert (spent, reserved) == (12, 0)
    freed = await engine.rows(
        "select hold from derivations where user_id = $1 and budget_place is not null and hold is null"
    )
    assert len(freed) == 1
    found = await engine.ask("POST", "/budget/top-up", {"amount": RUNS * WORST})
    assert (found["resumed"], found["blocked"]["derivations"]) == (RUNS - 4, 0)
    assert (
        len(found["resumed_cascades"]) == RUNS - 4
    )  # the cascades that were blocked go on; that of the top-up is empty
    again = await engine.ask("POST", "/budget/top-up", {"amount": 1})
    assert (again["resumed"], again["cascade_id"], again["resumed_cascades"]) == (0, None, [])
    lifted = await engine.ask("PUT", "/budget", {"limit": None}, **{"if-match": "*"})
    assert (lifted["resumed"], lifted["cascade_id"]) == (0, None)  # called up before: nobody was held
    await engine.check()


async def test_a_run_killed_between_reserve_and_charge_gives_back_when_it_is_lost(engine: Engine) -> None:
    [run] = await many(engine, 1)
    await budget(engine, WORST)
    assert await begin(engine, run) == "running"
    assert (await engine.ask("GET", "/budget"))["reserved"] == WORST
    await engine.schedule.lose(engine.user.user_id, run.run_id)
    await engine.check()
    assert (await engine.ask("GET", "/budget"))["reserved"] == 0
    # The call had been made all the same, and is charged once, as far as there is money.
    late = StepRecord(step_id="ask", entries={"text": "x"}, usage={"cost": 12})
    await engine.schedule.end_step(engine.user.user_id, run.run_id, late, charge(WORST + 2))
    found = await engine.ask("GET", "/budget")
    assert (found["spent"], found["remaining"]) == (WORST, 0)
    [row] = (await engine.ask("GET", "/budget/charges"))["data"]
    assert (row["amount"], row["overrun"]) == (WORST + 2, 2)
    await engine.check()
    # The next run of the derivation takes over what was paid.
    [again] = (await engine.claim(await engine.latest())).runs
    assert [record.step_id for record in await engine.schedule.steps(engine.user.user_id, again.run_id)] == ["ask"]


async def test_why_asks_for_what_is_missing_in_the_line_and_that_is_enough(engine: Engine) -> None:
    runs = await many(engine, 2)
    await budget(engine, 0)
    assert [await begin(engine, run) for run in runs] == ["blocked_budget"] * 2
    rows = await engine.rows("select id from derivations where user_id = $1 and budget_place > 0 order by budget_place")
    for row, missing in zip(rows, (WORST, 2 * WORST), strict=True):
        [change] = (await engine.ask("GET", f"/derivations/{row['id']}/why"))["changes"]
        assert (change["url"].removeprefix(BASE), change["body"]) == ("/budget/top-up", {"amount": missing})
    assert (await engine.ask(change["method"], change["url"].removeprefix(BASE), change["body"]))["resumed"] == 2


async def test_what_was_spent_stays_spent_over_a_time_without_a_limit(engine: Engine) -> None:
    runs = await many(engine, 3)

    async def spend(run: Any, amount: int) -> Any:
        assert await begin(engine, run) == "running"
        record = StepRecord(step_id="ask", entries={}, usage={})
        await engine.schedule.end_step(engine.user.user_id, run.run_id, record, charge(amount))
        await engine.check()
        return await engine.ask("GET", "/budget")

    assert (await spend(runs[0], 1))["spent"] == 0  # a budget counts from when it was first set
    await budget(engine, 5 * WORST)
    assert (await spend(runs[1], 2))["spent"] == 2
    await engine.ask("PUT", "/budget", {"limit": None}, **{"if-match": "*"})
    assert (await spend(runs[2], 3))["spent"] == 5
    refused = await engine.http.put(f"{BASE}/budget", json={"limit": 4}, headers={"if-match": "*"})
    assert (refused.status_code, refused.json()["minimum"]) == (409, 5)
    await budget(engine, 7)
    found = await engine.ask("GET", "/budget")
    assert (found["spent"], found["remaining"]) == (5, 2)
