"""Plans against what really happens: on random graphs, each lone cause is first planned, undone, and then comes."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from domain.errors import Unavailable
from domain.ids import DerivationId, new_id
from domain.plans import MAY_RUN, Node, Outlook, outlooks
from domain.runs import Hold
from storage.database import Database
from storage.plans import Bounds, Plans, node_of
from tests.conftest import Person
from tests.domain.cascade_people import Step
from tests.domain.cascade_world import play
from tests.storage.schedule_lockstep import new_user
from tests.storage.schedule_player import DEPTH_MAX, NODES_MAX, Player
from tests.storage.schedule_world import SqlSchedule, SqlWorld

SOAK_EXAMPLES = int(os.environ.get("STUDIO_SOAK_EXAMPLES", "0"))
SOAK_SEED = int(os.environ.get("STUDIO_SOAK_SEED", "0"))
SEEDS = 2
STEPS = 25
UNPLANNED = frozenset({
    "register", "plan", "claim", "settle", "fail", "lose", "begin", "charge", "sent", "set_budget", "top_up",
})  # fmt: skip
"""Moves of the schedule itself, and money, which frees what others own. All else is a person's, and may be a cause."""
RESTS = 3


class Foresighted(SqlSchedule):
    """A schedule that plans the next cause before it happens, when it is told to."""

    def __init__(self, player: Player, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(player, loop)
        self.planned: dict[DerivationId, Outlook] = {}
        self.asked = False

    def _do(self, move: str, **args: Any) -> Any:
        if self.asked and move not in UNPLANNED:
            found = self.wait(self._foreseen(Step(move, args, None)))
            if found is not None:
                self.asked, self.planned = False, found
        return super()._do(move, **args)

    async def _foreseen(self, step: Step) -> dict[DerivationId, Outlook] | None:
        player, plan = self.player, new_id()
        await player.at(self.seconds)
        before = await _rows(player)
        transaction = player.connection.transaction()
        await transaction.start()
        try:
            await player.connection.execute("select studio_stage($1, $2, '{}', 60000)", player.user, plan)
            await player.play(step)
            nodes = await _planned(player, plan)
        finally:
            await transaction.rollback()
            player.seconds = -1.0  # the clock was undone as well
            await player.at(self.seconds)
        assert await _rows(player) == before, "a plan left something behind"
        if nodes is None:  # no cause
            return None
        return {DerivationId(found): outlook for found, outlook in outlooks(nodes).items()}


async def _planned(player: Player, plan: Any) -> list[Node] | None:
    connection, user = player.connection, player.user
    cascades = await connection.fetchval(
        "select cascades from studio_plan_staged($1, $2, $3, $4)", user, plan, DEPTH_MAX, NODES_MAX
    )
    if cascades is None:
        return None
    prints = await connection.fetch("select id from studio_prints($1, $2)", user, cascades)
    await connection.execute("select studio_cut_staged($1, $2)", user, cascades)
    rows = await connection.fetch("select * from studio_outlook($1, $2)", user, [row["id"] for row in prints])
    return [node_of(row, approvals=frozenset(), known=None) for row in rows]


async def _rows(player: Player) -> str:
    tables = ("blobs", "deltas", "derivations", "derivation_inputs", "derivation_outputs", "cascades", "runs", "events",
              "bucket_blobs", "instances", "user_state", "cut_offs", "contents", "snapshots")  # fmt: skip
    sums = ", ".join(
        f"(select md5(coalesce(string_agg(t::text, ' ' order by t::text), '')) from {name} t where user_id = $1)"  # noqa: S608
        for name in tables
    )
    found: str = await player.connection.fetchval(f"select concat_ws(' ', {sums})", player.user)
    return found


class PlannedWorld(SqlWorld):
    """A world in which each lone cause is planned; afterwards, what ran is held against the plan."""

    certain = possible = ran = 0

    def alone(self) -> None:
        schedule = self.schedule
        assert isinstance(schedule, Foresighted)
        before, schedule.asked, schedule.planned = set(schedule.runs), True, {}
        # Who waits for money is called up when somebody before it in the queue leaves: no plan is about that.
        waiting = [d.id for d in schedule.derivations.values() if d.hold == Hold.BUDGET]
        waited = {*waiting, *schedule.descendants(waiting)}
        super().alone()
        started = {run.derivation_id for run in schedule.runs.values() if run.id not in before}
        if not schedule.asked:
            self._compare(schedule.planned, started, waited)

    def _compare(self, planned: dict[DerivationId, Outlook], ran: set[DerivationId], waited: set[DerivationId]) -> None:
        may_run = {found for found, outlook in planned.items() if outlook in MAY_RUN} | waited
        assert ran <= may_run, f"ran unforeseen: {[(found, planned.get(found)) for found in ran - may_run]}"
        missed = {found for found, outlook in planned.items() if outlook == Outlook.CERTAIN} - ran
        for found in missed:  # only because something above it failed
            derivation = self.schedule.derivations[found]
            blocked = derivation.unsettled and (derivation.hold == Hold.FAILED or self.schedule.blocked_by(derivation))
            assert blocked or derivation.provisional, f"certain, but did not run: {derivation}"
        self.certain += sum(outlook == Outlook.CERTAIN for outlook in planned.values())
        self.possible += sum(outlook == Outlook.POSSIBLE for outlook in planned.values())
        self.ran += len(ran)


async def foresee(oracle: Any, seed: int, *, steps: int = STEPS, rests: int = RESTS) -> PlannedWorld:
    """Play a world with several lone causes; returns it with its counts."""
    schedule = Foresighted(Player(oracle, await new_user(oracle)), asyncio.get_running_loop())

    def played() -> PlannedWorld:
        world = PlannedWorld(Random(seed), schedule)
        play(world, steps=steps, rests=rests)
        return world

    try:
        return await asyncio.to_thread(played)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error


async def test_what_is_certain_runs_and_what_runs_was_foreseen(oracle: Any) -> None:
    worlds = [await foresee(oracle, seed) for seed in range(SEEDS)]
    assert sum(world.certain for world in worlds) > 0
    assert sum(world.possible for world in worlds) > 0
    assert sum(world.ran for world in worlds) > 0


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
async def test_plans_soak(oracle: Any) -> None:
    for seed in range(SOAK_SEED, SOAK_SEED + SOAK_EXAMPLES):
        await foresee(oracle, seed, steps=60, rests=6)


BOUNDS = Bounds(
    depth_max=10, nodes_max=10, window=10, timeout=timedelta(seconds=0.3), expires=timedelta(hours=1), history_runs=1,
    nodes_shown=1,
)  # fmt: skip


@pytest.mark.parametrize(("statements", "seconds"), [(500, 0.01), (1, 5)])
async def test_a_plan_is_bounded_as_a_whole_and_then_holds_nothing_any_more(
    database: Database, user: Person, statements: int, seconds: float
) -> None:
    """Whether many short statements take too long, or a single one."""
    plans, owner = Plans(database, BOUNDS), user.user_id

    async def slow() -> None:
        async with plans.rehearsed(owner), database.transaction(owner) as connection:
            for _ in range(statements):
                await connection.execute("select pg_sleep($1)", seconds)

    with pytest.raises(Unavailable) as caught:
        await slow()
    assert caught.value.problem_code == "plan_too_slow"
    async with database.transaction(owner) as connection:
        assert await connection.fetchval("select pg_try_advisory_xact_lock(hashtextextended($1, 0))", str(owner))
