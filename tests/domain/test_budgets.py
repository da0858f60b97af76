"""Prices and budgets: whole numbers, strict turns, nothing beyond the limit."""

from __future__ import annotations

from uuid import UUID

import pytest

from domain.budgets import Funds
from domain.cascades import Schedule
from domain.derivations import Execution, Instance
from domain.errors import Conflict
from domain.ids import BlobId, BudgetId, CascadeId, InstanceId, RunId
from domain.prices import Price, Tariff
from domain.runs import Hold, RunStatus
from tests.domain.cascade_checks import check_money

WINDOW = 10


def ident(number: int) -> UUID:
    return UUID(int=number)


def many(count: int, limit: int | None) -> tuple[Schedule, list[RunId]]:
    """A schedule with so many running runs of one paid provider, and a budget."""
    schedule = Schedule()
    paid = Instance(
        id=InstanceId(ident(1)), input_schemas=frozenset({"in"}), outputs=(("out", "made"),), definition_digest="d",
        execution=Execution.WORKFLOW, active=True,
    )  # fmt: skip
    schedule.register(paid)
    runs: list[RunId] = []
    for number in range(count):
        cascade = CascadeId(ident(100 + number))
        schedule.create(BlobId(ident(200 + number)), "in", "a", cascade)
        schedule.plan(cascade, 0.0)
        runs += schedule.claim(cascade, [RunId(ident(300 + number))], 0.0, WINDOW).runs
    schedule.set_budget(BudgetId(ident(9)), limit, CascadeId(ident(90)))
    return schedule, runs


def hold_of(schedule: Schedule, run: RunId) -> Hold | None:
    return schedule.derivations[schedule.runs[run].derivation_id].hold


def test_what_a_call_costs_is_whole_and_rounded_up_once() -> None:
    price = Price(prompt=150_000, completion=600_000)
    assert price.of(1, 0) == 1
    assert price.of(1_000_000, 1_000_000) == 750_000
    assert price.of(3, 7) == 5
    tariff = Tariff(
        prices={"default": price, "dear": Price(prompt=10**9)}, prompt_tokens_max=10, completion_tokens_max=10
    )
    assert tariff.worst() == 10_000
    assert tariff.cost({"model": "dear", "prompt_tokens": 2, "completion_tokens": 9}) == 2_000
    assert tariff.cost({"total_tokens": 10}) == 6
    assert tariff.cost({"model": "small"}) is None


def test_who_does_not_fit_is_held_and_the_rest_of_a_reservation_lets_them_go_on() -> None:
    schedule, (first, second) = many(2, 10)
    assert schedule.begin(first, "call", 7) == RunStatus.RUNNING
    assert schedule.begin(first, "call", 7) == RunStatus.RUNNING
    assert schedule.begin(second, "call", 4) == RunStatus.BLOCKED_BUDGET
    assert (hold_of(schedule, second), schedule.funds()) == (Hold.BUDGET, Funds(limit=10, spent=0, reserved=7))
    assert schedule.charge(first, "call", 5)
    assert not schedule.charge(first, "call", 5)
    assert (hold_of(schedule, second), schedule.funds()) == (None, Funds(limit=10, spent=5, reserved=0))


def test_a_large_need_is_not_passed_by_small_ones() -> None:
    schedule, (first, large, small) = many(3, 10)
    schedule.begin(first, "call", 6)
    assert schedule.begin(large, "call", 9) == RunStatus.BLOCKED_BUDGET
    assert schedule.begin(small, "call", 2) == RunStatus.BLOCKED_BUDGET
    schedule.charge(first, "call", 3)
    assert (hold_of(schedule, large), hold_of(schedule, small)) == (Hold.BUDGET, Hold.BUDGET)
    assert schedule.top_up(2, CascadeId(ident(91))) is not None
    assert (hold_of(schedule, large), hold_of(schedule, small)) == (None, Hold.BUDGET)
    # Called up, and not yet reserved: what it needs is not there for others.
    [again] = schedule.claim(CascadeId(ident(101)), [RunId(ident(400))], 0.0, WINDOW).runs
    assert schedule.top_up(1, CascadeId(ident(92))) is None
    assert schedule.begin(again, "call", 9) == RunStatus.RUNNING
    schedule.charge(again, "call", 1)
    assert hold_of(schedule, small) is None
    check_money(schedule)


def test_a_run_that_ends_holds_no_reservation_and_a_late_charge_stays_within_the_limit() -> None:
    schedule, (first,) = many(1, 10)
    schedule.begin(first, "call", 8)
    schedule.lose(first)
    assert schedule.funds() == Funds(limit=10, spent=0, reserved=0)
    assert schedule.charge(first, "call", 12)
    assert schedule.funds() == Funds(limit=10, spent=10, reserved=0)
    assert schedule.charges[first, "call", 1].overrun == 2


def test_a_limit_is_not_set_below_what_is_in_use_and_none_lets_everybody_go_on() -> None:
    schedule, (first, second) = many(2, 10)
    schedule.begin(first, "call", 7)
    schedule.begin(second, "call", 7)
    with pytest.raises(Conflict) as caught:
        schedule.set_budget(BudgetId(ident(9)), 6, CascadeId(ident(91)))
    assert (caught.value.problem_code, caught.value.members["minimum"]) == ("budget_in_use", 7)
    assert "0.000007 USD reserved" in caught.value.detail
    assert schedule.set_budget(BudgetId(ident(9)), None, CascadeId(ident(92))) is not None
    assert (hold_of(schedule, second), schedule.funds()) == (None, Funds(limit=None))
    with pytest.raises(Conflict):
        schedule.top_up(1, CascadeId(ident(93)))
    assert schedule.charge(first, "call", 5)
    with pytest.raises(Conflict) as caught:  # what was spent is spent, also while nothing was limited
        schedule.set_budget(BudgetId(ident(10)), 4, CascadeId(ident(94)))
    assert caught.value.members["minimum"] == 5
    schedule.set_budget(BudgetId(ident(10)), 9, CascadeId(ident(95)))
    assert schedule.funds() == Funds(limit=9, spent=5, reserved=0)
