"""The functions of PostgreSQL against the model of cascades: the same scenarios, compared after every transaction.

Seeds are fixed; a failure names its seed and step. ``STUDIO_SOAK_EXAMPLES`` plays more of each kind, from
``STUDIO_SOAK_SEED`` on.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.domain.soaks import SOAK_EXAMPLES, Tally
from tests.storage.schedule_lockstep import (
    Deciding,
    Limited,
    Lockstep,
    MakeDatabase,
    Paying,
    Repeating,
    compare,
    found_out,
    survive,
)
from tests.storage.schedule_world import (
    SqlDecidingWorld,
    SqlFrailWorld,
    SqlLimitedWorld,
    SqlPayingWorld,
    SqlWorld,
)

EXAMPLES = 4
SURVIVED = 5
LIMITED = 2
REPEATED = 2
DECIDED = 3
PAID = 3
MUTANT_SEEDS = 12
FOUND_BY = {
    "deactivation rings no owner": 14,
    "what is unsettled again is not counted": 10,
    "what waits for what waits for a failure is not failing": 17,
}
"""The seed to begin with, so that a mutant is found at once; others are tried where scenarios have changed."""
MUTANTS = {
    "deactivation rings no owner": (
        "20_schedule.sql", "where user_id = p_user and id = any(p_derivations) and unsettled;",
        "where user_id = p_user and id = any(p_derivations) and unsettled and false;",
    ),
    "what is unsettled again is not counted": (
        "20_schedule.sql", "where user_id = p_user and id = o.derivation_id and unsettled offset 0) p\n",
        "where user_id = p_user and id = o.derivation_id and unsettled and run_id is not null offset 0) p\n",
    ),
    "what waits for what waits for a failure is not failing": (
        "20_schedule.sql", "else d.hold is null and n.standing > 0 end as fails", "else false end as fails",
    ),
    "a parked run is kept when its input moves": (
        "20_schedule.sql", "and (hold = 'approval' or supersede", "and (false or supersede",
    ),
    "what a step did not cost is not given back": (
        "64_budgets.sql", "spent = spent + p_amount - v_over, reserved = reserved - v_back",
        "spent = spent + p_amount - v_over",
    ),
    "what stems from one root runs once too often": (
        "46_loops.sql", "filter (where c.nth <= p_root_max),", "filter (where c.nth <= p_root_max + 1),",
    ),
}  # fmt: skip
"""Rules taken out of the functions: file, what says the rule, and what stands there instead."""


WORLD_OF = {
    "a parked run is kept when its input moves": Deciding,
    "what a step did not cost is not given back": Paying,
    "what stems from one root runs once too often": Repeating,
}
"""Where a mutant is looked for, if not in the usual world."""
LOCKSTEPS = (Lockstep, Limited, Deciding, Paying, Repeating)
SURVIVALS = (SqlWorld, SqlFrailWorld, SqlDecidingWorld, SqlPayingWorld, SqlLimitedWorld)
FILE = "tests/storage/test_schedule_oracle.py"


@pytest.mark.parametrize("seed", range(EXAMPLES))
async def test_postgresql_does_what_the_model_does(oracle: Any, seed: int) -> None:
    assert await compare(oracle, seed, every=5)


@pytest.mark.parametrize("seed", range(LIMITED))
async def test_postgresql_keeps_the_limits_of_the_model(oracle: Any, seed: int) -> None:
    assert await compare(oracle, seed, every=10, world=Limited)


@pytest.mark.parametrize("seed", range(REPEATED))
async def test_postgresql_puts_off_what_the_model_puts_off(oracle: Any, seed: int) -> None:
    assert await compare(oracle, seed, every=10, world=Repeating)


@pytest.mark.parametrize("seed", range(DECIDED))
async def test_postgresql_takes_decisions_as_the_model_does(oracle: Any, seed: int) -> None:
    assert await compare(oracle, seed, every=10, world=Deciding)


@pytest.mark.parametrize("seed", range(PAID))
async def test_postgresql_spends_as_the_model_does(oracle: Any, seed: int) -> None:
    assert await compare(oracle, seed, every=10, world=Paying)


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_function_that_forgets_a_rule_is_found_out(make_database: MakeDatabase, name: str) -> None:
    first = FOUND_BY.get(name, 0)
    seeds = range(first, first + MUTANT_SEEDS)
    found = await found_out(make_database, MUTANTS[name], seeds, world=WORLD_OF.get(name, Lockstep))
    assert found is not None, f"Nothing was noticed in {MUTANT_SEEDS} scenarios."


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", LOCKSTEPS)
async def test_soak(oracle: Any, world: type[Lockstep]) -> None:
    name, moves = world.__name__, 0
    tally = Tally(f"PostgreSQL beside the model, {name}", f"'{FILE}::test_soak[{name}]'", share=len(LOCKSTEPS))
    for seed in tally.seeds():
        try:
            moves += len(await compare(oracle, seed, every=10, world=world))
        except Exception as error:  # noqa: BLE001 - whatever it raises is a counterexample
            tally.failed(seed, error)
    print(f"\n{moves} transactions compared")  # noqa: T201 - the soak's result
    tally.close()


@pytest.mark.parametrize("seed", range(SURVIVED))
async def test_postgresql_survives_what_the_model_survives(oracle: Any, seed: int) -> None:
    await survive(oracle, seed, world=SURVIVALS[seed % len(SURVIVALS)])


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", SURVIVALS)
async def test_survival_soak(oracle: Any, world: type[SqlWorld]) -> None:
    name = world.__name__
    tally = Tally(f"PostgreSQL by itself, {name}", f"'{FILE}::test_survival_soak[{name}]'", share=len(SURVIVALS))
    for seed in tally.seeds():
        try:
            await survive(oracle, seed, world=world)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a counterexample
            tally.failed(seed, error)
    tally.close()
