"""The functions of PostgreSQL against the model of cascades: the same scenarios, compared after every transaction.

Seeds are fixed; a failure names its seed and step. ``STUDIO_SOAK_EXAMPLES`` plays more of each kind, from
``STUDIO_SOAK_SEED`` on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

import migrations
from domain.cascades import Schedule
from domain.derivations import Anchor, Instance, OnDelete
from domain.ids import new_id
from storage.database import prepare
from tests.domain.cascade_people import plain
from tests.domain.cascade_world import play
from tests.domain.cascade_worlds import DecidingWorld, FrailWorld, LimitedWorld, PayingWorld, RepeatingWorld
from tests.domain.soaks import SOAK_EXAMPLES, Tally
from tests.storage import invariants
from tests.storage.schedule_expected import closes, differences, expected
from tests.storage.schedule_player import CLOCK, SESSION, WINDOW, Player, name_runs, owner
from tests.storage.schedule_world import (
    SqlDecidingWorld,
    SqlFrailWorld,
    SqlLimitedWorld,
    SqlPayingWorld,
    SqlSchedule,
    SqlWorld,
)

EXAMPLES = 4
SURVIVED = 5
LIMITED = 2
REPEATED = 2
STEPS = 60
DECIDED = 3
PAID = 3
MUTANT_SEEDS = 12
FOUND_BY = {"deactivation rings no owner": 14, "what waits for what waits for a failure is not failing": 17}
"""The seed to begin with, so that a mutant is found at once; others are tried where scenarios have changed."""
FUNCTIONS = Path(migrations.__file__).parent.parent / "storage" / "functions"
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
CONTROLS = ("park", "approve", "reject", "cancel_run", "cancel_cascade", "retry_run", "retry_cascade")


class Lockstep(FrailWorld):
    """A world whose facts are planned at once, without deletions: what both sides agree on move by move."""

    window = WINDOW
    at_once = frozenset({
        "create", "add_member", "remove_member", "activate", "deactivate", "redefine", "reprocess", "set_policy",
        "upgrade", "redrive", "set_budget", "top_up",
    })  # fmt: skip

    def do(self, name: str, **args: Any) -> Any:
        answer = super().do(name, **args)
        if name in self.at_once and answer is not None:
            super().do("plan", cascade_id=answer, now=self.now)
        return answer

    def _catalogue(self) -> Iterator[Instance]:
        """No loops (where two could feed each other, order decides), joins of one schema, whose output stays."""
        for instance in super()._catalogue():
            reads = sorted(instance.input_schemas)[-1:] if instance.anchor == Anchor.BUCKET else instance.input_schemas
            deepest = max(reads)
            outputs = tuple((slot, max(made, f"s{int(deepest[1:]) + 1}")) for slot, made in instance.outputs)
            kept = OnDelete.KEEP if instance.anchor == Anchor.BUCKET else instance.on_delete
            yield replace(instance, input_schemas=frozenset(reads), outputs=outputs, on_delete=kept)

    def _delete(self) -> None:
        """Not in lockstep."""

    def _restore(self) -> None:
        """Not in lockstep."""


class Deciding(DecidingWorld, Lockstep):
    """The same where people decide as much as they write."""


class Paying(PayingWorld, Lockstep):
    """The same where nearly everything costs and money is short."""


class Limited(LimitedWorld, Lockstep):
    """The same where places are few."""


class Repeating(RepeatingWorld, Lockstep):
    """The same where little may run twice within a window."""


WORLD_OF = {
    "a parked run is kept when its input moves": Deciding,
    "what a step did not cost is not given back": Paying,
    "what stems from one root runs once too often": Repeating,
}
"""Where a mutant is looked for, if not in the usual world."""
LOCKSTEPS = (Lockstep, Limited, Deciding, Paying, Repeating)
SURVIVALS = (SqlWorld, SqlFrailWorld, SqlDecidingWorld, SqlPayingWorld, SqlLimitedWorld)
FILE = "tests/storage/test_schedule_oracle.py"

MakeDatabase = Callable[..., Awaitable[Mapping[str, str]]]


async def new_oracle(make_database: MakeDatabase, *mutations: str) -> str:
    """A database whose functions go by the scenario's clock."""
    url = (await make_database())["DATABASE_ADMIN_URL"]
    connection = await asyncpg.connect(url)
    for statements in (CLOCK, *mutations):
        await connection.execute(statements)
    await connection.close()
    return url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    found = await asyncpg.connect(url)
    await prepare(found)
    await found.execute(SESSION)
    yield found
    await found.close()


@pytest_asyncio.fixture(scope="session")
async def oracle_database(make_database: MakeDatabase) -> str:
    return await new_oracle(make_database)


@pytest_asyncio.fixture
async def connection(oracle_database: str) -> AsyncIterator[Any]:
    async with opened(oracle_database) as found:
        yield found


async def new_user(connection: Any) -> UUID:
    user = new_id()
    await connection.execute("insert into users (user_id, name) values ($1, $2)", user, f"user-{user}")
    await connection.execute("insert into user_state (user_id) values ($1)", user)
    return user


async def compare(
    connection: Any, seed: int, *, steps: int = STEPS, every: int = 1, world: type[Lockstep] = Lockstep
) -> int:
    """Play one scenario on both sides; returns how many transactions that were."""
    played = play(world(Random(seed)), steps=steps, rests=1)
    trace = played.trace
    player, model = Player(connection, await new_user(connection)), Schedule()
    player.runs_per_user = model.runs_per_user = played.schedule.runs_per_user
    model.repeats = played.schedule.repeats
    player.repeats = model.repeats or player.repeats
    seqs: dict[str, int] = {}
    for number, step in enumerate(trace):
        told = {name: value for name, value in step.args.items() if name != "run_ids"}
        where = f"seed {seed}, step {number}: {step.move} {plain(told)}"
        rung = {str(c.id): c.seq for c in model.cascades.values()}
        answer = plain(getattr(model, step.move)(**step.fresh()))
        assert answer == step.result, where
        found = await player.play(step)
        rows = await player.observed()
        cascades = rows.pop("cascades")
        if step.move == "claim":
            names = {}
            for row in await connection.fetch(
                "select id, derivation_id || '/' || attempt as name from runs where user_id = $1", player.user
            ):
                names[row["name"]] = row["id"]
            name_runs(player, model, answer["runs"], names)
            wanted = {str(player.runs.get(UUID(run), run)) for run in answer["runs"]}
            assert set(found["runs"]) == wanted, f"{where}\nclaimed {found['runs']}, model {wanted}"
            closed, left = closes(model, model.cascades[owner(str(step.args["cascade_id"]))])
            assert found["closed"] == closed, f"{where}\n{found}, model closes: {closed}"
            assert not (closed and left) or found["status"] in ("partial", "cancelled"), (
                f"{where}\n{found}, model leaves something"
            )
        elif step.move in ("settle", "fail", "lose", "plan", "begin", "charge", "set_budget", "top_up", *CONTROLS):
            check_answer(step.move, found, answer, where)
        wanted_rows = expected(model)
        if step.move == "remove_member":  # its followers leave with the fact here, with the plan there
            del rows["members"], wanted_rows["members"]
        differ = differences(rows, wanted_rows)
        assert not differ, "\n".join([where, *differ[:20]])
        unrung = {
            c for c, seq in rung.items()
            if model.cascades[owner(c)].seq > seq and cascades[c]["seq"] <= seqs.get(c, 0)
        }  # fmt: skip
        assert not unrung, f"{where}\nnot rung: {unrung}"
        seqs = {c: row["seq"] for c, row in cascades.items()}
        if number % every == 0:
            await invariants.check(connection, player.user)
    return len(trace)


def check_answer(move: str, found: Any, answer: Any, where: str) -> None:
    """What a report came to, in the model's words; SQL says ``settled`` to a repeated settle as well."""
    if move == "plan":
        assert found["planned"] == answer["planned"], f"{where}\n{found}, model {answer}"
    elif move in ("begin", "charge", "set_budget", "top_up"):
        assert found == answer, f"{where}\n{found}, model {answer}"
    elif move == "settle":
        wanted = {"already": "settled"}.get(answer["status"], answer["status"])
        assert found == wanted, f"{where}\n{found}, model {answer}"
    elif move == "fail":
        wanted = {"already": "settled"}.get(answer, answer)
        assert found == wanted or wanted == "superseded" != found, f"{where}\n{found}, model {answer}"
    elif move in ("park", "lose"):  # what came too late is told by the run's own status
        news = ("parked", "running") if move == "park" else ("lost", "failed")
        told = {"already": "running"}.get(answer, answer) if move == "park" else answer
        wanted = told if told in news else None
        late = wanted is None and (move == "lose" or found not in news)
        assert found == wanted or late, f"{where}\n{found}, model {answer}"
    elif move == "retry_cascade" and "done" not in (found, answer):
        pass  # the model closes later: an open cascade says already, one that has ended refused
    else:
        assert found == answer, f"{where}\n{found}, model {answer}"


@pytest.mark.parametrize("seed", range(EXAMPLES))
async def test_postgresql_does_what_the_model_does(connection: Any, seed: int) -> None:
    assert await compare(connection, seed, every=5) > 0


@pytest.mark.parametrize("seed", range(LIMITED))
async def test_postgresql_keeps_the_limits_of_the_model(connection: Any, seed: int) -> None:
    assert await compare(connection, seed, every=10, world=Limited) > 0


@pytest.mark.parametrize("seed", range(REPEATED))
async def test_postgresql_puts_off_what_the_model_puts_off(connection: Any, seed: int) -> None:
    assert await compare(connection, seed, every=10, world=Repeating) > 0


@pytest.mark.parametrize("seed", range(DECIDED))
async def test_postgresql_takes_decisions_as_the_model_does(connection: Any, seed: int) -> None:
    assert await compare(connection, seed, every=10, world=Deciding) > 0


@pytest.mark.parametrize("seed", range(PAID))
async def test_postgresql_spends_as_the_model_does(connection: Any, seed: int) -> None:
    assert await compare(connection, seed, every=10, world=Paying) > 0


@pytest.mark.parametrize("name", MUTANTS)
async def test_a_function_that_forgets_a_rule_is_found_out(make_database: MakeDatabase, name: str) -> None:
    file, rule, without = MUTANTS[name]
    text = (FUNCTIONS / file).read_text()
    assert rule in text, f"{file} says it in other words by now"
    async with opened(await new_oracle(make_database, text.replace(rule, without))) as connection:
        first = FOUND_BY.get(name, 0)
        for seed in range(first, first + MUTANT_SEEDS):
            try:
                await compare(connection, seed, every=1000, world=WORLD_OF.get(name, Lockstep))
            except AssertionError:
                print(f"found by seed {seed}")  # noqa: T201 - for FOUND_BY
                return
    pytest.fail(f"Nothing was noticed in {MUTANT_SEEDS} scenarios.")


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", LOCKSTEPS)
async def test_soak(connection: Any, world: type[Lockstep]) -> None:
    name, moves = world.__name__, 0
    tally = Tally(f"PostgreSQL beside the model, {name}", f"'{FILE}::test_soak[{name}]'", share=len(LOCKSTEPS))
    for seed in tally.seeds():
        try:
            moves += await compare(connection, seed, every=10, world=world)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a counterexample
            tally.failed(seed, error)
    print(f"\n{moves} transactions compared")  # noqa: T201 - the soak's result
    tally.close()


async def survive(connection: Any, seed: int, *, steps: int = STEPS, world: type[SqlWorld] | None = None) -> None:
    """Play the model's world on PostgreSQL; what it says of itself is checked after every move."""
    schedule = SqlSchedule(Player(connection, await new_user(connection)), asyncio.get_running_loop())
    kind = world or SURVIVALS[seed % len(SURVIVALS)]
    try:
        await asyncio.to_thread(lambda: play(kind(Random(seed), schedule), steps=steps, rests=1))
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, {kind.__name__}: {error}") from error


@pytest.mark.parametrize("seed", range(SURVIVED))
async def test_postgresql_survives_what_the_model_survives(connection: Any, seed: int) -> None:
    await survive(connection, seed)


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("world", SURVIVALS)
async def test_survival_soak(connection: Any, world: type[SqlWorld]) -> None:
    name = world.__name__
    tally = Tally(f"PostgreSQL by itself, {name}", f"'{FILE}::test_survival_soak[{name}]'", share=len(SURVIVALS))
    for seed in tally.seeds():
        try:
            await survive(connection, seed, world=world)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a counterexample
            tally.failed(seed, error)
    tally.close()
