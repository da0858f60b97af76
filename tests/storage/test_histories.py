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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import structlog

from storage.blobs import Blobs
from storage.deltas import Deltas
from tests.conftest import Person
from tests.storage.histories import Story, Studio

EXAMPLES = 100
SEED = 20261120
AT_ONCE = 4
"""Stories told at the same time, of one user."""
USER_STORIES = 50
"""Stories of one user, whose counters are then counted again."""
SOAK_EXAMPLES = int(os.environ.get("STUDIO_SOAK_HISTORIES", "0"))
SNAPSHOT_EVERY = 4
"""Small, so that short lives cross it."""

NewUser = Callable[..., Awaitable[Person]]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """A hundred thousand lines of access log would say nothing."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    yield
    structlog.configure(**before)


async def told(
    kind: Any, seeds: Sequence[int], app: Any, make_user: NewUser, database: Any, contents: Any, admin: Any
) -> None:
    """Tell the stories of these seeds, a few at a time, user by user."""
    for first in range(0, len(seeds), USER_STORIES):
        user = await make_user()
        deltas = Deltas(database, contents, snapshot_every=SNAPSHOT_EVERY)
        studio = Studio(app, user, Blobs(database, contents), deltas)
        for at in range(first, min(first + USER_STORIES, len(seeds)), AT_ONCE):
            batch = seeds[at : min(at + AT_ONCE, first + USER_STORIES)]
            await asyncio.gather(*(one_told(kind, studio, seed) for seed in batch))
        await counted(admin, user)


async def one_told(kind: Any, studio: Studio, seed: int) -> None:
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


async def test_random_histories(app: Any, make_user: NewUser, database: Any, contents: Any, admin: Any) -> None:
    seeds = range(SEED, SEED + EXAMPLES)
    await told(Story, seeds, app, make_user, database, contents, admin)


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_HISTORIES")
async def test_soak_of_random_histories(app: Any, make_user: NewUser, database: Any, contents: Any, admin: Any) -> None:
    first = int(os.environ.get("STUDIO_SOAK_SEED") or secrets.randbelow(10**9))
    print(f"histories: seeds {first} to {first + SOAK_EXAMPLES - 1}", flush=True)  # noqa: T201
    started = time.monotonic()
    await told(Story, range(first, first + SOAK_EXAMPLES), app, make_user, database, contents, admin)
    print(f"histories: {SOAK_EXAMPLES} in {time.monotonic() - started:.0f} s", flush=True)  # noqa: T201
