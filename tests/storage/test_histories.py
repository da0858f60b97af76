"""The property suite of the delta engine: random lives of blobs, held against oracles of their own.

``make soak`` plays 10,000 (``STUDIO_SOAK_HISTORIES``). A failure names its seed;
``SEED=… make soak`` plays that one again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
import pytest_asyncio
import structlog

from api.app import create_app
from settings import load_settings
from storage.blobs import Blobs
from tests.conftest import Person
from tests.storage.histories import Merging, Story, Studio

EXAMPLES = 100
SEED = 20261120
AT_ONCE = 4
"""Stories told at the same time, of one user."""
USER_STORIES = 50
"""Stories of one user, whose counters are then counted again."""
SOAK_EXAMPLES = int(os.environ.get("STUDIO_SOAK_HISTORIES", "0"))

NewUser = Callable[..., Awaitable[Person]]
Tell = Callable[[Sequence[int]], Awaitable[None]]
KINDS: Sequence[type[Story]] = (Story, Merging)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A hundred thousand lines of access log would say nothing."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**before)


SNAPSHOT_EVERY = 4
"""Small, so that short lives cross it."""
PAST = 150
TOUCHED = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'deltas'"
"""Rows of deltas that the transaction has looked at so far."""


@pytest_asyncio.fixture(scope="module")
async def studio_app(database_urls: Mapping[str, str]) -> AsyncIterator[Any]:
    """The application, keeping every fourth version whole at the latest."""
    settings = load_settings({**database_urls, "STUDIO__STORAGE__SNAPSHOT_EVERY": str(SNAPSHOT_EVERY)})
    application = create_app(settings)
    async with application.router.lifespan_context(application):
        yield application


@pytest.fixture
def tell(studio_app: Any, make_user: NewUser, database: Any, contents: Any, admin: Any) -> Tell:
    """Tells the stories of these seeds, a few at a time, user by user."""
    blobs = Blobs(database, contents)

    async def tell(seeds: Sequence[int]) -> None:
        for first in range(0, len(seeds), USER_STORIES):
            user = await make_user()
            studio = Studio(studio_app, user, blobs)
            of_user = seeds[first : first + USER_STORIES]
            for at in range(0, len(of_user), AT_ONCE):
                await asyncio.gather(*(one_told(studio, seed) for seed in of_user[at : at + AT_ONCE]))
            await counted(admin, user)

    return tell


async def one_told(studio: Studio, seed: int) -> None:
    kind = KINDS[seed % len(KINDS)]
    try:
        await kind(studio, seed).play()
    except Exception as error:
        error.add_note(f"{kind.__name__} of seed {seed}; again with SEED={seed} make soak")
        raise


async def counted(admin: Any, user: Person) -> None:
    """What is counted of a user is what a recount counts."""
    state = await admin.fetchrow("select blob_count, bytes_used from user_state where user_id = $1", user.user_id)
    count = "select count(*) filter (where deleted_at is null), coalesce(sum(size), 0) from blobs"
    recount = await admin.fetchrow(f"{count} where user_id = $1 and version > 0", user.user_id)
    assert tuple(state) == tuple(recount)


async def test_random_histories(tell: Tell) -> None:
    await tell(range(SEED, SEED + EXAMPLES))


async def test_a_read_touches_as_many_deltas_however_long_the_past_is(
    studio_app: Any, user: Person, database: Any, contents: Any, admin: Any, database_urls: Mapping[str, str]
) -> None:
    studio = Studio(studio_app, user, Blobs(database, contents))
    made = (await studio.create({"data": {"number": 0}})).json
    for number in range(1, PAST):
        patch = orjson.dumps({"delta": {"patch": {"data": {"number": number}}}})
        done = await studio.ask("PATCH", f"/blobs/{made['id']}", patch, content_type="application/json")
        assert done.version == number + 1
    await admin.execute("analyze deltas, blobs, snapshots, contents")
    # A few pages are read faster from end to end; that is not what is to be seen here.
    connection = await asyncpg.connect(database_urls["DATABASE_URL"], server_settings={"enable_seqscan": "off"})
    for version in (None, 1, PAST // 2, PAST):
        async with connection.transaction():
            before = await connection.fetchval(TOUCHED)
            await connection.fetchrow("select * from read_blob($1, $2, $3)", user.user_id, UUID(made["id"]), version)
            assert await connection.fetchval(TOUCHED) - before <= SNAPSHOT_EVERY + 1
    await connection.close()


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_HISTORIES")
async def test_soak_of_random_histories(tell: Tell) -> None:
    first = int(os.environ.get("STUDIO_SOAK_SEED") or secrets.randbelow(10**9))
    print(f"histories: seeds {first} to {first + SOAK_EXAMPLES - 1}", flush=True)  # noqa: T201
    started = time.monotonic()
    await tell(range(first, first + SOAK_EXAMPLES))
    print(f"histories: {SOAK_EXAMPLES} in {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
