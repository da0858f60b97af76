"""The clock is put back by a day, as machines that wake up do: nothing waits for a day, nothing is done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import pytest_asyncio

from storage.database import Database
from storage.registry import Registry
from tests.storage.engine import Engine

SECOND = timedelta(seconds=1)
TIMES = """
select c.table_name, string_agg(format('%1$I = %1$I + interval ''1 day''', c.column_name), ', ') as moved
from information_schema.columns c join information_schema.columns u on u.table_schema = c.table_schema
  and u.table_name = c.table_name and u.column_name = 'user_id'
join information_schema.tables t on t.table_schema = c.table_schema and t.table_name = c.table_name
where c.table_schema = 'public' and c.data_type = 'timestamp with time zone' and t.table_type = 'BASE TABLE'
group by 1
"""


@pytest_asyncio.fixture
async def registry(database_urls: Mapping[str, str]) -> AsyncIterator[Registry]:
    opened = await Database.connect(database_urls["DATABASE_RELAY_URL"], size_max=2)
    yield Registry(opened)
    await opened.close()


async def put_back(engine: Engine) -> None:
    """Everything of this user happened tomorrow: the same as a clock that shows yesterday."""
    for row in await engine.admin.fetch(TIMES):
        await engine.admin.execute(
            f"update {row['table_name']} set {row['moved']} where user_id = $1",  # noqa: S608 - names of the catalogue
            engine.user.user_id,
        )


async def test_a_clock_that_was_put_back_delays_nothing_by_more_than_a_reconciliation(
    engine: Engine, registry: Registry
) -> None:
    await engine.provider("slow", "in-v1", "out-v1", debounce={"quiet": "10m", "max_wait": "20m"})
    await engine.provider("called", "in-v1", "other-v1", execution="workflow")
    await engine.rest()
    blob = await engine.create("in-v1")
    cascade = await engine.plan_all()
    run = await engine.take(cascade)
    await put_back(engine)
    due = (await engine.claim(cascade)).due_in_seconds
    assert due is not None
    assert due > timedelta(hours=24).total_seconds()

    assert engine.user.user_id in await registry.ahead(by=SECOND)
    assert await engine.schedule.correct_clock(engine.user.user_id) >= 3
    assert engine.user.user_id not in await registry.ahead(by=SECOND)
    assert (await engine.claim(cascade)).due_in_seconds is None, "the wait is over"
    lease = "select lease_until - now() as left from runs where user_id = $1 and id = $2"
    [row] = await engine.rows(lease, run.run_id)
    assert row["left"] <= timedelta(minutes=5)
    assert await engine.schedule.correct_clock(engine.user.user_id) == 0, "once is enough"
    await engine.check()

    # What is written now is still later than what was written tomorrow.
    await engine.edit(blob, "b")
    times = "select created_at, updated_at from blobs where user_id = $1 and id = $2"
    [row] = await engine.rows(times, blob)
    assert row["updated_at"] > row["created_at"]
