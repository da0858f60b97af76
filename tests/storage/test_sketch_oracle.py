"""Sketches of PostgreSQL against the model, which claims and settles in one step what settles here after a while.

As in ``test_schedule_oracle.py``: seeds are fixed, and ``STUDIO_SOAK_EXAMPLES`` plays more of each kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.domain.cascade_people import Step
from tests.domain.soaks import SOAK_EXAMPLES, Tally
from tests.storage.schedule_lockstep import Lockstep, MakeDatabase, compare, found_out, survive
from tests.storage.schedule_sketches import SKETCHING_LOCKSTEPS, SKETCHING_SURVIVALS, Sketching, SqlSketching

EXAMPLES = 2
SURVIVED = 2
STEPS = 120
FILE = "tests/storage/test_sketch_oracle.py"
MUTANT_SEEDS = 120
FOUND_BY = {
    "a sketch stands although what it has read has moved": 6,
    "a sketch stands although its derivation has had another run": 15,
    "a sketch stands although its derivation has settled without a run": 41,
}
"""The seed to begin with, so that a mutant is found at once; others are tried where scenarios have changed."""
MUTANTS = {
    "a sketch stands although what it has read has moved": (
        "42_sketches.sql", "d.pending_inputs = 0 and w.digest = x.used_digest", "d.pending_inputs = 0",
    ),
    "a sketch stands although its derivation has had another run": (
        "42_sketches.sql", "and d.attempt = x.attempt - 1", "",
    ),
    "a sketch stands although its derivation has settled without a run": (
        "42_sketches.sql", "and d.settled_at is not distinct from x.settled_at", "",
    ),
    "a sketch that has settled is not recorded": (
        "50_settle.sql", "s.verdict = 'ok' and s.sketch;", "s.verdict = 'ok' and s.sketch and not s.current;",
    ),
    "who has sketches in hand is given them again": (
        "40_claim.sql", "and d.id <> all(p_busy) and", "and",
    ),
}  # fmt: skip
"""Rules taken out of the functions: file, what says the rule, and what stands there instead."""


def ends(trace: Sequence[Step]) -> Iterator[str]:
    """What became of the sketches of a scenario, one after the other."""
    for step in trace:
        if step.move == "settle_sketches":
            yield from step.result["verdicts"].values()
        elif step.move == "fail_sketch":
            yield f"fail {step.result}"


@pytest.mark.parametrize("seed", range(EXAMPLES))
async def test_postgresql_sketches_as_the_model_does(oracle: Any, seed: int) -> None:
    assert await compare(oracle, seed, steps=STEPS, every=10, world=Sketching)


@pytest.mark.parametrize("seed", range(SURVIVED))
async def test_postgresql_survives_sketches(oracle: Any, seed: int) -> None:
    await survive(oracle, seed, steps=STEPS, world=SKETCHING_SURVIVALS[seed % len(SKETCHING_SURVIVALS)])


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_function_that_forgets_a_rule_of_sketches_is_found_out(make_database: MakeDatabase, name: str) -> None:
    first = FOUND_BY.get(name, 0)
    seeds = range(first, first + MUTANT_SEEDS)
    found = await found_out(make_database, MUTANTS[name], seeds, steps=STEPS, world=Sketching)
    assert found is not None, f"Nothing was noticed in {MUTANT_SEEDS} scenarios."


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", SKETCHING_LOCKSTEPS)
async def test_soak(oracle: Any, world: type[Lockstep]) -> None:
    name, moves, became = world.__name__, 0, Counter[str]()
    tally = Tally(
        f"PostgreSQL beside the model, {name}", f"'{FILE}::test_soak[{name}]'", share=len(SKETCHING_LOCKSTEPS)
    )
    for seed in tally.seeds():
        try:
            trace = await compare(oracle, seed, steps=STEPS, every=10, world=world)
            moves += len(trace)
            became.update(ends(trace))
        except Exception as error:  # noqa: BLE001 - whatever it raises is a counterexample
            tally.failed(seed, error)
    print(f"\n{moves} transactions compared; sketches: {dict(became)}")  # noqa: T201 - the soak's result
    tally.close()


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", SKETCHING_SURVIVALS)
async def test_survival_soak(oracle: Any, world: type[SqlSketching]) -> None:
    name, became = world.__name__, Counter[str]()
    tally = Tally(
        f"PostgreSQL by itself, {name}", f"'{FILE}::test_survival_soak[{name}]'", share=len(SKETCHING_SURVIVALS)
    )
    for seed in tally.seeds():
        try:
            became.update((await survive(oracle, seed, steps=STEPS, world=world)).verdicts)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a counterexample
            tally.failed(seed, error)
    print(f"\nsketches: {dict(became)}")  # noqa: T201 - the soak's result
    tally.close()
