"""The relay: nothing that was committed is forgotten, whatever dies between two of its steps."""

from __future__ import annotations

import asyncio
import functools
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from domain.errors import Unavailable
from domain.ids import new_id
from storage.database import Database
from storage.relay import Doorbell, Relay
from tests.conftest import Person, new_person

POLL = timedelta(milliseconds=20)


class Killed(Exception):
    """What a failpoint does here instead of killing the process."""


@dataclass
class Outside:
    """Where events and doorbells go; it may refuse, or look into the database while it is at it."""

    published: list[tuple[UUID, int]] = field(default_factory=list)
    rung: list[tuple[UUID, int]] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    away: bool = False
    refuses: set[UUID] = field(default_factory=set)
    meanwhile: Callable[[Doorbell], Awaitable[None]] | None = None

    async def publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.away:
            raise Unavailable("NATS does not answer.")
        self.published += [(row["user_id"], row["seq"]) for row in rows]

    async def stop(self, workflow_id: str) -> None:
        if self.away:
            raise Unavailable("Temporal does not answer.")
        self.stopped.append(workflow_id)

    async def ring(self, doorbell: Doorbell) -> None:
        if self.away or doorbell.cascade_id in self.refuses:
            raise Unavailable("Temporal does not answer.")
        if self.meanwhile is not None:
            await self.meanwhile(doorbell)
        self.rung.append((doorbell.cascade_id, doorbell.seq))


@dataclass
class World:
    """The database, and what a relay reaches outside of it."""

    urls: Mapping[str, str]
    database: Database
    relays: Database
    admin: asyncpg.Connection
    outside: Outside = field(default_factory=Outside)

    def relay(self, outside: Outside | None = None, **more: Any) -> Relay:
        out = outside or self.outside
        return Relay(self.relays, out, out, **{"poll": POLL, "batch": 50, **more})

    async def emit(self, user: Person, count: int = 1) -> None:
        events = [{"type": "blob.created", "subject": "s", "key": "k", "data": {}}] * count
        async with self.database.transaction(user.user_id) as connection:
            await connection.execute("select studio_emit($1, $2)", user.user_id, events)

    async def cascade(self, user: Person, **columns: Any) -> UUID:
        cascade = new_id()
        async with self.database.transaction(user.user_id) as connection:
            await connection.execute(
                "insert into cascades (user_id, id, cause, actor) values ($1, $2, 'edit', 'user')",
                user.user_id, cascade,
            )  # fmt: skip
        return cascade

    async def bell(self, cascade: UUID) -> tuple[int, int]:
        row = await self.admin.fetchrow("select seq, sent_seq from cascades where id = $1", cascade)
        assert row is not None
        return row["seq"], row["sent_seq"]

    async def unpublished(self) -> int:
        found: int = await self.admin.fetchval("select coalesce(sum(last_seq - first_seq + 1), 0)::int from outbox")
        return found


@pytest_asyncio.fixture(scope="module")
async def opened(make_database: Callable[..., Awaitable[Mapping[str, str]]]) -> AsyncIterator[World]:
    """A database of these tests alone: the relay sees all of its users."""
    urls = await make_database()
    database = await Database.connect(urls["DATABASE_URL"], size_max=4)
    relays = await Database.connect(urls["DATABASE_RELAY_URL"], size_max=8)
    admin = await asyncpg.connect(urls["DATABASE_ADMIN_URL"])
    yield World(urls, database, relays, admin)
    await admin.close()
    await relays.close()
    await database.close()


@pytest_asyncio.fixture
async def world(opened: World) -> World:
    """Nothing is unpublished, nothing rung, and nobody has seen anything."""
    await opened.admin.execute("delete from outbox")
    await opened.admin.execute("update cascades set sent_seq = seq where sent_seq < seq")
    return replace(opened, outside=Outside())


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def drained(relay: Relay) -> None:
    while await relay.publish_events():
        pass


# --- events -----------------------------------------------------------------------------------------------------------


async def test_each_users_events_are_published_in_order_and_once(world: World) -> None:
    users = [await new_person(world.database) for _ in range(20)]
    for turn in range(5):
        for user in users[turn:] + users[:turn]:
            await world.emit(user, 3)
    await drained(world.relay(batch=7))
    sequences: dict[UUID, list[int]] = defaultdict(list)
    for user_id, seq in world.outside.published:
        sequences[user_id].append(seq)
    assert sequences == {user.user_id: list(range(1, 16)) for user in users}
    assert await world.unpublished() == 0


async def test_a_transaction_that_began_earlier_and_commits_later_keeps_its_place(world: World) -> None:
    """``time`` is when a transaction began: batches must not follow it."""
    user = await new_person(world.database)
    early = await asyncpg.connect(world.urls["DATABASE_ADMIN_URL"])
    transaction = early.transaction()
    await transaction.start()
    await early.execute("select now()")
    await world.emit(user, 4)
    await early.execute(
        "select studio_emit($1, $2::jsonb)", user.user_id,
        '[{"type": "blob.created", "subject": "s", "key": "k", "data": {}}]',
    )  # fmt: skip
    await transaction.commit()
    await early.close()
    relay = world.relay(batch=2)
    await drained(relay)
    assert [seq for _, seq in world.outside.published] == [1, 2, 3, 4, 5]


async def test_a_sequence_that_is_taken_and_committed_late_is_not_skipped(world: World) -> None:
    user = await new_person(world.database)
    late = await asyncpg.connect(world.urls["DATABASE_ADMIN_URL"])
    transaction = late.transaction()
    await transaction.start()
    await late.execute(
        "select studio_emit($1, $2::jsonb)", user.user_id,
        '[{"type": "blob.created", "subject": "s", "key": "k", "data": {}}]',
    )  # fmt: skip
    second = asyncio.create_task(world.emit(user))
    relay = world.relay()
    await drained(relay)
    assert world.outside.published == []
    await transaction.commit()
    await late.close()
    await second
    await drained(relay)
    assert [seq for _, seq in world.outside.published] == [1, 2]


async def test_a_busy_user_keeps_nobody_waiting(world: World) -> None:
    busy, patient = [await new_person(world.database) for _ in range(2)]
    await world.emit(busy, 200)
    await world.emit(patient)
    relay = world.relay(batch=10)
    await relay.publish_events()
    assert (patient.user_id, 1) in world.outside.published


async def test_more_users_than_fit_into_one_look_are_all_served(world: World) -> None:
    users = [await new_person(world.database) for _ in range(40)]
    for user in users:
        await world.emit(user)
    await drained(world.relay())
    assert {user_id for user_id, _ in world.outside.published} == {user.user_id for user in users}
    assert await world.unpublished() == 0


@pytest.mark.parametrize("point", ["relay.after_commit_before_publish", "relay.after_publish_before_mark"])
async def test_a_relay_that_dies_is_followed_by_one_that_publishes_again_under_the_same_id(
    world: World, point: str
) -> None:
    user = await new_person(world.database)
    await world.emit(user, 3)

    def failpoint(reached: str) -> None:
        if reached == point:
            raise Killed

    with pytest.raises(Killed):
        await world.relay(failpoint=failpoint).publish_events()
    assert await world.unpublished() == 3
    first = list(world.outside.published)
    await drained(world.relay())
    again = world.outside.published[len(first) :]
    assert again == [(user.user_id, 1), (user.user_id, 2), (user.user_id, 3)]
    assert first in ([], again)


# --- doorbells --------------------------------------------------------------------------------------------------------


async def test_a_doorbell_rung_while_its_workflow_starts_stays_unsent(world: World) -> None:
    user = await new_person(world.database)
    cascade = await world.cascade(user)

    async def ring_again(_: Doorbell) -> None:
        world.outside.meanwhile = None
        await world.admin.execute("select studio_ring($1, array[$2::uuid])", user.user_id, cascade)

    world.outside.meanwhile = ring_again
    relay = world.relay()
    await relay.ring_doorbells()
    assert await world.bell(cascade) == (2, 1)
    await relay.ring_doorbells()
    assert await world.bell(cascade) == (2, 2)
    assert not await relay.ring_doorbells()
    assert world.outside.rung == [(cascade, 1), (cascade, 2)]


async def test_a_relay_that_dies_after_starting_starts_again(world: World) -> None:
    user = await new_person(world.database)
    cascade = await world.cascade(user)

    def failpoint(reached: str) -> None:
        if reached == "relay.after_start_before_mark":
            raise Killed

    with pytest.raises(Killed):
        await world.relay(failpoint=failpoint).ring_doorbells()
    assert await world.bell(cascade) == (1, 0)
    await world.relay().ring_doorbells()
    assert world.outside.rung == [(cascade, 1), (cascade, 1)]
    assert await world.bell(cascade) == (1, 1)


async def test_one_cascade_that_cannot_be_rung_delays_no_other(world: World) -> None:
    user = await new_person(world.database)
    stuck, fine = await world.cascade(user), await world.cascade(user)
    world.outside.refuses = {stuck}
    relay = world.relay()
    with pytest.raises(Unavailable):
        await relay.ring_doorbells()
    assert (await world.bell(stuck), await world.bell(fine)) == ((1, 0), (1, 1))
    world.outside.refuses = set()
    await relay.ring_doorbells()
    assert (await world.bell(stuck), world.outside.rung) == ((1, 1), [(fine, 1), (stuck, 1)])


async def test_marking_waits_for_no_cascade_while_it_holds_another(world: World) -> None:
    """A move of the schedule has the later one and wants the earlier one: a deadlock, if marking held that."""
    user = await new_person(world.database)
    first, second = sorted([await world.cascade(user), await world.cascade(user)])
    move = await asyncpg.connect(world.urls["DATABASE_ADMIN_URL"])
    transaction = move.transaction()
    await transaction.start()
    await move.execute("select from cascades where id = $1 for update", second)
    ringing = asyncio.create_task(world.relay().ring_doorbells())

    async def waiting() -> bool:
        return bool(
            await world.admin.fetchval(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
        )

    await until(waiting)
    await move.execute("update cascades set seq = seq + 1 where id = $1", first)
    await transaction.commit()
    await move.close()
    await ringing
    assert (await world.bell(first), await world.bell(second)) == ((2, 1), (1, 1))


# --- leading ----------------------------------------------------------------------------------------------------------


async def test_of_two_relays_one_leads_and_the_other_takes_over(world: World) -> None:
    user = await new_person(world.database)
    outsides = [Outside(), Outside()]
    tasks = [asyncio.create_task(world.relay(outside).run()) for outside in outsides]
    try:
        for turn in range(1, 6):
            await world.emit(user)
            await world.cascade(user)
            await until(functools.partial(all_seen, outsides, turn))
        leading = [outside for outside in outsides if outside.published]
        assert len(leading) == 1
        assert [seq for _, seq in leading[0].published] == [1, 2, 3, 4, 5]
        # Its connection dies, and the lock with it.
        await world.admin.execute(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and classid = 0"
        )
        await world.emit(user)

        async def told() -> bool:
            return await world.unpublished() == 0

        await until(told)
        assert sorted({seq for outside in outsides for _, seq in outside.published}) == [1, 2, 3, 4, 5, 6]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def all_seen(outsides: Sequence[Outside], count: int) -> bool:
    published = sum(len(outside.published) for outside in outsides)
    return published == sum(len(outside.rung) for outside in outsides) == count


async def test_what_is_away_is_asked_again_until_it_answers(world: World) -> None:
    user = await new_person(world.database)
    world.outside.away = True
    await world.emit(user)
    cascade = await world.cascade(user)
    task = asyncio.create_task(world.relay().run())
    try:
        await asyncio.sleep(3 * POLL.total_seconds())
        assert (world.outside.published, world.outside.rung) == ([], [])
        world.outside.away = False
        await until(lambda: bool(world.outside.published and world.outside.rung))

        async def marked() -> bool:
            return await world.bell(cascade) == (1, 1) and await world.unpublished() == 0

        await until(marked)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_bug_in_a_publisher_does_not_end_the_relay(world: World) -> None:
    user = await new_person(world.database)
    broken = Outside()
    publish = broken.publish
    failures: list[int] = []

    async def fails_once(rows: Sequence[Mapping[str, Any]]) -> None:
        if not failures:
            failures.append(1)
            raise KeyError("type")
        await publish(rows)

    broken.publish = fails_once  # type: ignore[method-assign]
    await world.emit(user)
    task = asyncio.create_task(world.relay(broken).run())
    try:
        await until(lambda: bool(broken.published))
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_notification_wakes_the_relay_before_it_polls(world: World) -> None:
    user = await new_person(world.database)
    task = asyncio.create_task(world.relay(poll=timedelta(seconds=30)).run())
    try:

        async def leads() -> bool:
            return bool(
                await world.admin.fetchval("select count(*) from pg_locks where locktype = 'advisory' and granted")
            )

        await until(leads)
        await world.emit(user)

        async def heard() -> bool:
            await world.database.notify()
            return bool(world.outside.published)

        await until(heard)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
