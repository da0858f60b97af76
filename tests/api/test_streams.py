"""Large content over a real socket: in flat memory, and nothing left of who hangs up."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from storage.objects import Objects
from tests.api.memory import OCTETS, endless, through, watched
from tests.api.processes import api_process
from tests.conftest import BASE, Person, objects_of

MIB = 2**20
GROWTH_MAX = 64 * MIB
OPEN = "select count(*) from uploads where user_id = $1 and ended_at is null"
Served = tuple[str, "subprocess.Popen[bytes]"]


@pytest.fixture(scope="module")
def served(database_urls: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with api_process(database_urls, tmp_path_factory.mktemp("api") / "log") as running:
        yield running


@pytest_asyncio.fixture
async def objects(database_urls: Mapping[str, str]) -> AsyncIterator[Objects]:
    store = objects_of(database_urls)
    yield store
    await store.close()


async def all_ended(admin: Any, user: Person) -> None:
    """Wait until the server has noticed, and cleaned up."""
    async with asyncio.timeout(60):
        while True:
            if not await admin.fetchval(OPEN, user.user_id):
                return
            await asyncio.sleep(0.01)


async def test_memory_stays_flat_while_a_large_file_goes_through(served: Served, user: Person) -> None:
    url, process = served
    await through(url, user.headers, MIB)  # what every process needs once is not this file's
    async with watched(process.pid) as growth:
        await through(url, user.headers, 256 * MIB)
    assert growth.bytes < GROWTH_MAX


async def test_who_hangs_up_leaves_nothing_behind(served: Served, user: Person, admin: Any, objects: Objects) -> None:
    async def torn() -> AsyncIterator[bytes]:
        async for piece in endless(20 * MIB):
            yield piece
        assert await admin.fetchval("select count(*) from uploads where user_id = $1 and status = 'open'", user.user_id)
        raise ConnectionError

    async with httpx2.AsyncClient(base_url=served[0], headers=dict(user.headers), timeout=60) as client:
        with pytest.raises(ConnectionError):
            await client.post(
                f"{BASE}/blobs", content=torn(), headers={"content-type": OCTETS, "content-length": str(99 * MIB)}
            )
    await all_ended(admin, user)
    assert await objects.list(f"{user.user_id}/") == []
    state = await admin.fetchrow("select bytes_used, bytes_reserved from user_state where user_id = $1", user.user_id)
    assert tuple(state) == (0, 0)


async def test_a_download_that_meets_corruption_breaks_off(
    served: Served, user: Person, admin: Any, objects: Objects
) -> None:
    blob = await through(served[0], user.headers, 4 * MIB)
    location = await admin.fetchval(
        "select location from contents where user_id = $1 and location is not null", user.user_id
    )
    spoilt = bytearray(await objects.get(location))
    spoilt[-1] ^= 1
    await objects.put(location, bytes(spoilt))
    got = 0

    async def read() -> None:
        nonlocal got
        async with (
            httpx2.AsyncClient(base_url=served[0], headers=dict(user.headers)) as client,
            client.stream("GET", f"{BASE}/blobs/{blob}/content") as coming,
        ):
            async for piece in coming.aiter_bytes():
                got += len(piece)

    with pytest.raises(httpx2.TransportError):
        await read()
    assert got <= 3 * MIB
