"""The event log: sequences without gaps for readers, whoever commits late."""

import asyncio
from uuid import UUID

import pytest

from domain.cursors import event_cursor, read_event_cursor
from domain.errors import Gone, Malformed
from domain.ids import UserId, new_id
from storage.causes import emit, event
from storage.database import Database
from storage.events import Events
from tests.conftest import Person

SECRET = bytes(range(32))


def told(name: str) -> dict[str, object]:
    return event("bucket.updated", f"buckets/{name}", name, {"name": name})


@pytest.fixture
def events(database: Database) -> Events:
    return Events(database)


async def test_a_reader_never_skips_a_late_commit(events: Events, database: Database, user: Person) -> None:
    """An early sequence whose transaction commits late must not be jumped over by a reader in between."""
    emitted, commit = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        async with database.transaction(user.user_id) as connection:
            await emit(connection, user.user_id, told("slow"))
            emitted.set()
            await commit.wait()

    async def fast() -> None:
        async with database.transaction(user.user_id) as connection:
            await emit(connection, user.user_id, told("fast"))

    first = asyncio.create_task(slow())
    await emitted.wait()
    second = asyncio.create_task(fast())
    assert await events.page(user.user_id, after=0, limit=10) == []
    commit.set()
    await asyncio.gather(first, second)
    seen = await events.page(user.user_id, after=0, limit=10)
    assert [(row.seq, row.key) for row in seen] == [(1, "slow"), (2, "fast")]


async def test_readers_that_poll_beside_many_writers_see_each_event_once(
    events: Events, database: Database, user: Person
) -> None:
    writers, each = 6, 10

    async def write(name: str) -> None:
        for number in range(each):
            async with database.transaction(user.user_id) as connection:
                await emit(connection, user.user_id, told(f"{name}-{number}"), told(f"{name}-{number}-more"))

    async def read() -> list[str]:
        seen: list[str] = []
        after = 0
        while len(seen) < writers * each * 2:
            for row in await events.page(user.user_id, after=after, limit=7):
                assert row.seq == after + 1
                seen.append(row.key)
                after = row.seq or 0
        return seen

    reading = asyncio.create_task(read())
    await asyncio.gather(*(write(str(n)) for n in range(writers)))
    assert len(set(await reading)) == writers * each * 2


async def test_what_is_rolled_back_was_never_told(events: Events, database: Database, user: Person) -> None:
    async def undone() -> None:
        async with database.transaction(user.user_id) as connection:
            await emit(connection, user.user_id, told("undone"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await undone()
    async with database.transaction(user.user_id) as connection:
        await emit(connection, user.user_id, told("done"))
    assert [(row.seq, row.key) for row in await events.page(user.user_id, after=0, limit=9)] == [(1, "done")]
    assert await events.last(user.user_id) == 1


def test_a_cursor_reads_back_for_its_user_and_installation_alone() -> None:
    here, elsewhere = new_id(), new_id()
    user, other = UserId(new_id()), UserId(new_id())
    for seq in (0, 1, 2**40):
        assert read_event_cursor(event_cursor(here, SECRET, user, seq), here, SECRET, user) == seq
    text = event_cursor(here, SECRET, user, 7)
    with pytest.raises(Gone):
        read_event_cursor(text, elsewhere, SECRET, user)
    with pytest.raises(Malformed):
        read_event_cursor(text, here, SECRET, other)
    with pytest.raises(Malformed):
        read_event_cursor(text, here, bytes(32), user)
    assert isinstance(here, UUID)
