"""What the moves cost, counted in rows that they look at: four times the graph is four times the work, never sixteen.

Rows and not time: a busy machine changes nothing about them, and a plan that visits every row of a user shows at once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest

from storage.schedule import PostgresSchedule
from tests.conftest import client_of
from tests.storage import shapes
from tests.storage.engine import Engine, decided, schedule_of
from tests.storage.shapes import Edges, grow

SMALL, LARGE = 100, 400
SLACK = 1.3
"""By how much a row's price may differ: an index has one level more, a page boundary falls elsewhere."""
WINDOW = 20
LOOKED_AT = "select coalesce(sum(seq_tup_read + idx_tup_fetch), 0)::int from pg_stat_xact_user_tables"
COPIES = """
insert into providers select (jsonb_populate_record(p, jsonb_build_object('id', gen_random_uuid(), 'slug', 'link-' || n,
    'input_schemas', array['link' || n || '-v1'],
    'outputs', jsonb_set(p.outputs, '{0,schema_id}', to_jsonb('link' || n + 1 || '-v1'))))).*
  from providers p, generate_series(1, $2) n where p.owner_id = $1 and p.slug = 'link'
"""
SWITCHED_ON = """
insert into instances (user_id, id, provider_id) select $1, studio_instance_id($1, id), id from providers
  where owner_id = $1 on conflict do nothing
"""
AS_USED = "update derivations d set used_digest = w.digest from studio_want($1, array(select id from derivations where"
AS_USED += " user_id = $1)) w where d.user_id = $1 and d.id = w.id"


class OneConnection:
    """A database of one connection, whose transaction stays open: what its statements look at can be counted."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        yield self._connection

    async def call(self, query: str, *arguments: object) -> Any:
        return await self._connection.fetchrow(query, *arguments)

    rehearsing = True
    """Nobody is told of what is not committed."""


async def looked_at(engine: Engine, move: Callable[[PostgresSchedule], Awaitable[Any]]) -> tuple[int, Any]:
    """How many rows a move looks at, and what it answers; the planner knows the tables, as it does before long."""
    await engine.admin.execute("analyze")
    async with engine.database.transaction(engine.user.user_id) as connection:
        schedule = schedule_of(OneConnection(connection), engine.contents, nodes_max=5000, depth_max=5000)  # type: ignore[arg-type]
        before = await connection.fetchval(LOOKED_AT)
        answer = await move(schedule)
        return await connection.fetchval(LOOKED_AT) - before, answer


async def planned(engine: Engine, edges: Edges) -> tuple[UUID, int]:
    """A new graph, its root edited and planned; how many rows plan has looked at."""
    root = await grow(engine, edges)
    cascade = await engine.edit(root, "b")
    seen, done = await looked_at(engine, lambda schedule: schedule.plan(engine.user.user_id, cascade))
    assert done
    return cascade, seen


async def claimed(engine: Engine, cascade: UUID) -> tuple[int, Any]:
    return await looked_at(engine, lambda it: it.claim(engine.user.user_id, cascade, window=WINDOW))


Two = tuple[Engine, Engine]


@pytest.fixture
async def two(engine: Engine, make_user: Any, app: Any) -> AsyncIterator[Two]:
    """Two people, one for each size."""
    user = await make_user()
    async with client_of(app, user.headers) as http:
        yield (
            engine,
            Engine(http, user, engine.schedule, engine.database, engine.contents, engine.admin, engine.admin_url),
        )


@pytest.mark.parametrize("shape", [shapes.fan, shapes.chain, shapes.join])
async def test_a_plan_costs_what_it_touches(two: Two, shape: Callable[[int], Edges]) -> None:
    small, large = [(await planned(engine, shape(size)))[1] for engine, size in zip(two, (SMALL, LARGE), strict=True)]
    assert large / LARGE <= small / SMALL * SLACK


async def test_a_claim_of_a_wide_fan_costs_what_it_takes(two: Two) -> None:
    seen = []
    for engine, size in zip(two, (SMALL, LARGE), strict=True):
        cascade, _ = await planned(engine, shapes.fan(size))
        rows, found = await claimed(engine, cascade)
        assert len(found.runs) == WINDOW
        seen.append(rows)
    # However many wait, a claim looks at a page of them.
    assert seen[1] <= seen[0] * SLACK


@pytest.mark.parametrize("shape", [shapes.fan, shapes.chain])
async def test_what_is_unchanged_is_settled_at_the_same_price_each(two: Two, shape: Callable[[int], Edges]) -> None:
    prices = []
    for engine, size in zip(two, (SMALL, LARGE), strict=True):
        cascade, _ = await planned(engine, shape(size))
        await engine.admin.execute(AS_USED, engine.user.user_id)
        rows, found = await claimed(engine, cascade)
        assert (found.cut_off, found.closed) == (size, True)
        prices.append(rows / size)
    assert prices[1] <= prices[0] * SLACK


async def test_one_claim_settles_a_bounded_number_without_a_run_and_asks_to_go_on(engine: Engine) -> None:
    cascade, _ = await planned(engine, shapes.fan(1050))
    await engine.admin.execute(AS_USED, engine.user.user_id)
    first = await engine.claim(cascade)
    assert (first.cut_off, first.more, first.closed, first.status) == (1000, True, False, "running")
    last = await engine.claim(cascade)
    assert (last.cut_off, last.more, last.closed, last.status) == (50, False, True, "completed")
    assert (await engine.cascade(cascade))["cut_off"] == 1050


async def test_that_a_long_chain_waits_for_its_top_is_seen_at_the_same_price_each(two: Two) -> None:
    prices = []
    for engine, size in zip(two, (SMALL, LARGE), strict=True):
        cascade, _ = await planned(engine, shapes.chain(size))
        [run] = (await engine.claim(cascade)).runs
        await engine.schedule.fail(engine.user.user_id, run.run_id, code="internal", detail="no", usage={})
        rows, found = await claimed(engine, cascade)
        assert (found.closed, found.status) == (True, "partial")
        prices.append(rows / size)
    assert prices[1] <= prices[0] * SLACK


async def test_a_settlement_looks_at_a_join_once_for_all_its_runs(two: Two) -> None:
    """A join of 400 costs a settlement of twenty a recount of 400, not twenty of them."""
    seen = []
    for engine, size in zip(two, (SMALL, LARGE), strict=True):
        cascade, _ = await planned(engine, shapes.join(size))
        runs = (await engine.claim(cascade, window=WINDOW)).runs
        works = await engine.schedule.load(engine.user.user_id, [run.run_id for run in runs])
        settlements = [decided(work) for work in works]

        async def settle(schedule: PostgresSchedule, done: Any = settlements, engine: Engine = engine) -> Any:
            return await schedule.settle(engine.user.user_id, done, caller=None)

        rows, verdicts = await looked_at(engine, settle)
        assert set(verdicts.values()) == {"settled"}
        seen.append(rows)
    # Of each of the join's inputs: the row, who makes it, whether that is unsettled, and what that waits for.
    assert seen[1] - seen[0] <= 6 * (LARGE - SMALL)


async def test_discovery_of_a_long_chain_costs_the_same_for_each_link(two: Two) -> None:
    prices = []
    for engine, size in zip(two, (SMALL // 4, LARGE // 4), strict=True):
        await engine.provider("link", "link0-v1", "link1-v1", origin="any")
        await engine.rest()
        await engine.admin.execute(COPIES, engine.user.user_id, size - 1)
        await engine.admin.execute(SWITCHED_ON, engine.user.user_id)
        await engine.create("link0-v1")
        cascade = await engine.latest()

        async def plan(schedule: PostgresSchedule, cascade: UUID = cascade, engine: Engine = engine) -> Any:
            return await schedule.plan(engine.user.user_id, cascade)

        rows, _ = await looked_at(engine, plan)
        assert (await engine.cascade(cascade))["touched"] == size
        prices.append(rows / size)
    assert prices[1] <= prices[0] * SLACK
