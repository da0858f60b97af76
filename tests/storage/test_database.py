"""The pool: transactions that know their user, and failures in our words."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import select

from domain.errors import NotFound, Unavailable
from storage.database import Database, compiled
from storage.tables import users
from tests.conftest import Person, renamed


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await Database.connect("postgresql://nobody@127.0.0.1:1/nothing")


@pytest.mark.parametrize(
    ("away", "back"),
    [
        ('alter database "{0}" with allow_connections false', 'alter database "{0}" with allow_connections true'),
        ('alter database "{0}" rename to "{0}_old"', 'alter database "{0}_old" rename to "{0}"'),
    ],
)
async def test_a_database_that_is_being_restored_is_unavailable_and_not_a_fault(
    make_database: Any, away: str, back: str
) -> None:
    urls = await make_database()
    name = urlsplit(urls["DATABASE_URL"]).path.lstrip("/")
    admin = await asyncpg.connect(renamed(urls["DATABASE_ADMIN_URL"], "postgres"))
    own = await Database.connect(urls["DATABASE_URL"])
    await own.close()
    await admin.execute(away.format(name))
    try:
        with pytest.raises(Unavailable):
            await Database.connect(urls["DATABASE_URL"])
    finally:
        await admin.execute(back.format(name))
        await admin.close()


async def test_who_waits_for_a_users_lock_leaves_the_pool_to_others(
    database_urls: Any, user: Person, other: Person
) -> None:
    own = await Database.connect(database_urls["DATABASE_URL"], size_max=3)
    order: list[int] = []
    begun = asyncio.Semaphore(0)

    async def moved(number: int) -> None:
        begun.release()
        async with own.locked(user.user_id):
            order.append(number)

    async with own.locked(user.user_id):
        waiting = [asyncio.create_task(moved(number)) for number in range(5)]
        for _ in waiting:
            await begun.acquire()
        async with asyncio.timeout(5):
            assert await own.rows(other.user_id, "select 1")
        assert order == []
    await asyncio.gather(*waiting)
    assert order == list(range(5))
    await own.close()


async def test_a_connection_that_is_cut_is_unavailable_at_most_and_the_pool_recovers(
    database_urls: Any, admin: Any
) -> None:
    own = await Database.connect(database_urls["DATABASE_URL"], size_max=1)

    async def answers() -> bool:
        try:
            return await own.call("select 1") is not None
        except Unavailable:
            return False

    try:
        async with own.connection() as connection:
            pid = connection.get_server_pid()
        await admin.execute("select pg_terminate_backend($1)", pid)
        assert any([await answers() for _ in range(3)])
    finally:
        await own.close()


async def test_a_transaction_is_undone_when_its_block_raises(database: Any, user: Any) -> None:
    class Interrupted(Exception):
        pass

    async def write_and_fail() -> None:
        async with database.transaction(user.user_id) as connection:
            await connection.execute(
                "insert into buckets (user_id, id, name) values ($1, $2, 'x')", user.user_id, uuid4()
            )
            raise Interrupted

    with pytest.raises(Interrupted):
        await write_and_fail()
    assert await database.rows(user.user_id, "select 1 from buckets") == []


async def test_errors_of_ours_pass_through_unchanged(database: Any, user: Any) -> None:
    async def find_nothing() -> None:
        async with database.transaction(user.user_id):
            raise NotFound("x")

    with pytest.raises(NotFound):
        await find_nothing()


async def test_a_core_statement_and_a_text_read_the_same(database: Any, user: Any) -> None:
    statement = select(users.c.name).where(users.c.user_id == user.user_id)
    text, values = compiled(statement)
    assert "$1" in text
    assert values == [user.user_id]
    by_core = await database.row(user.user_id, statement)
    by_text = await database.row(user.user_id, "select name from users where user_id = $1", user.user_id)
    assert by_core == by_text


async def test_json_columns_come_and_go_as_values(database: Any) -> None:
    row = await database.call("select $1::jsonb as b, $2::json as j", {"a": [1, None]}, ["x"])
    assert (row["b"], row["j"]) == ({"a": [1, None]}, ["x"])


async def test_ids_made_by_the_database_are_ordered_version_7(database: Any) -> None:
    rows = [await database.call("select studio_uuid7() as id") for _ in range(3)]
    ids = [row["id"] for row in rows]
    assert all(found.version == 7 for found in ids)
    assert len(set(ids)) == 3
    assert ids[0].bytes[:6] <= ids[-1].bytes[:6]


async def test_an_id_of_an_old_server_has_the_shape_of_rfc_9562(admin: Any, database_urls: Any) -> None:
    """PostgreSQL before 18 has no uuidv7(): the expression of the function we then make is checked here."""
    found = await admin.fetchval(
        "select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing substring(int8send("
        "(extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid"
    )
    assert found.version == 7
    assert found.variant == "specified in RFC 4122"
