"""What work takes: ranges over recorded runs, and how long it lasts whatever order it is done in."""

from __future__ import annotations

import heapq
from random import Random
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from domain.estimates import (
    Basis,
    Measure,
    Range,
    Sample,
    Work,
    estimate,
    longest,
    measure,
    percentile,
    range_of,
    sample_of,
)

VALUES = st.lists(st.floats(0, 1e6), min_size=1, max_size=50)


def sample(digest: str, tokens: float = 0, cost: float | None = None, seconds: float = 1) -> Sample:
    return Sample(definition_digest=digest, tokens=tokens, cost=cost, seconds=seconds)


@given(VALUES, st.floats(0, 1), st.floats(0, 1))
def test_percentiles_lie_between_the_ends_and_never_cross(values: list[float], one: float, other: float) -> None:
    low, high = percentile(values, min(one, other)), percentile(values, max(one, other))
    assert min(values) <= low <= max(values)
    assert low <= high or abs(low - high) <= 1e-9 * max(values)


@given(VALUES)
def test_most_values_lie_within_their_range(values: list[float]) -> None:
    found = range_of(values)
    assert found is not None
    inside = sum(found.low - 1e-6 <= value <= found.high + 1e-6 for value in values)
    assert inside >= 0.8 * len(values) - 2


def test_the_definition_is_measured_by_itself_once_it_has_run_three_times() -> None:
    old = [sample("old", tokens=10) for _ in range(5)]
    few = measure([*old, sample("new", tokens=100)], "new")
    assert (few.basis, few.runs) == (Basis.PROVIDER, 6)
    enough = measure([*old, *[sample("new", tokens=100)] * 3], "new")
    assert (enough.basis, enough.runs, enough.tokens) == (Basis.DEFINITION, 3, Range(100, 100))
    assert measure([sample("new", tokens=7)], "new").basis == Basis.DEFINITION  # all that there is


def test_nothing_recorded_is_unknown_and_said_to_be() -> None:
    assert measure([], "new") == Measure()
    unknown, known = UUID(int=1), UUID(int=2)
    found = estimate([Work(id=unknown, measure=Measure())], window=10)
    assert (found.tokens, found.cost, found.seconds, found.critical) == (None, None, None, None)
    mixed = [Work(id=unknown, measure=Measure()), Work(id=known, measure=measure([sample("x", tokens=5)], "x"))]
    tokens = estimate(mixed, window=10).tokens
    assert tokens is not None
    assert (tokens.range, tokens.unknown) == (Range(5, 5), 1)


def test_what_is_possible_costs_nothing_at_least_and_what_is_spared_nothing_at_all() -> None:
    taken = measure([sample("x", tokens=5, cost=0.5, seconds=2)], "x")
    possible = estimate([Work(id=UUID(int=1), measure=taken, certain=False)], window=1)
    assert possible.tokens is not None
    assert possible.tokens.range == Range(0, 5)
    spared = estimate([Work(id=UUID(int=1), measure=taken, spared=True)], window=1)
    assert spared.cost is not None
    assert spared.cost.range == Range(0, 0)
    assert spared.seconds is not None
    assert spared.seconds.range == Range(0, 2)


def test_runs_without_usage_count_as_free_and_without_money_as_unpriced() -> None:
    found = sample_of({"definition_digest": "x", "usage": {"skipped": "no match"}, "seconds": None, "cost": None})
    assert (found.tokens, found.cost, found.seconds) == (0, None, 0)


def test_the_longest_way_of_a_long_chain_is_found_without_recursion() -> None:
    chain = {UUID(int=n): (1.0, [UUID(int=n - 1)] if n else []) for n in range(5_000)}
    assert longest(chain) == 5_000


@st.composite
def schedules(draw: st.DrawFn) -> list[tuple[float, bool, list[int]]]:
    """Pieces of work in an order that has no cycles: seconds, whether it is sure, what it waits for."""
    count = draw(st.integers(1, 12))
    return [
        (draw(st.floats(0, 10)), draw(st.booleans()), draw(st.lists(st.integers(0, max(n - 1, 0)), max_size=3)))
        for n in range(count)
    ]


@given(schedules(), st.integers(1, 4), st.integers())
def test_whatever_is_done_in_whatever_order_takes_a_time_within_the_range(
    drawn: list[tuple[float, bool, list[int]]], window: int, seed: int
) -> None:
    random = Random(seed)
    works = [
        Work(
            id=UUID(int=number), certain=sure, waits=[UUID(int=above) for above in waits if above != number],
            measure=Measure(seconds=Range(seconds, seconds), runs=1),
        )
        for number, (seconds, sure, waits) in enumerate(drawn)
    ]  # fmt: skip
    took = {work.id: 0.0 if not work.certain and random.random() < 0.5 else drawn[work.id.int][0] for work in works}
    found = estimate(works, window=window).seconds
    assert found is not None
    lasted = simulated(works, took, window, random)
    assert found.range.low - 1e-6 <= lasted <= found.range.high + 1e-6


def simulated(works: list[Work], took: dict[UUID, float], window: int, random: Random) -> float:
    """Do the work: whenever a place is free, anything that is ready takes it."""
    now, running, done, left = 0.0, list[tuple[float, int]](), set[UUID](), {work.id: work for work in works}
    while left or running:
        ready = [work for work in left.values() if set(work.waits) <= done]
        random.shuffle(ready)
        for work in ready[: window - len(running)]:
            del left[work.id]
            heapq.heappush(running, (now + took[work.id], work.id.int))
        now, ended = heapq.heappop(running)
        done.add(UUID(int=ended))
    return now
