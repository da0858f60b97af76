"""One user has thousands of nodes queued, another edits one blob: how much longer the second waits than alone.

Both are measured in the same round, alone first: raw is the same edit while nobody else has anything to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson

from bench.figures import Bound, Figure, percentile
from bench.load import Connection, request
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import fresh_text
from bench.scenarios.catalogue import register, register_schemas
from bench.scenarios.derive import edits
from bench.sizes import Sizes
from bench.stage import PREFIX, Person, Stage

LEVELS = 10
ITEMS_MAX = 1000
"""Blobs of one import, so that every round's queue is one cascade or a few."""
DONE_SECONDS_MAX = 300.0
POLL_SECONDS = 0.1
_OPEN = "select count(*) from cascades where user_id = $1 and status in ('pending', 'running')"
_PLANNED = "select count(*) from derivations where user_id = $1"

FIGURES = (
    Figure(
        key="fairness-tail",
        title="edit to derived blob while another user has 10,000 nodes queued, p95",
        unit="ms",
        ours="loaded.p95",
        raw="idle.p95",
        goal=Bound(at_most=2.0),
    ),
    Figure(
        key="fairness-median",
        title="the same, p50",
        unit="ms",
        ours="loaded.p50",
        raw="idle.p50",
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """A user with one inline provider who edits, and one with a chain of them who imports."""
    async with edits(stage, execution="inline") as once:

        async def idle() -> dict[str, float]:
            return _summary("idle", await _taken(once, sizes))

        async def loaded() -> dict[str, float]:
            async with _queued(stage, sizes.queued):
                return _summary("loaded", await _taken(once, sizes))

        yield {"idle": idle, "loaded": loaded}


@asynccontextmanager
async def _queued(stage: Stage, nodes: int) -> AsyncIterator[None]:
    """Another user, busy with so many nodes; afterwards what is left of them is given up."""
    busy = await stage.person()
    await register_schemas(stage, busy, [_schema(level) for level in range(LEVELS + 1)])
    for level in range(LEVELS):
        await register(stage, busy, f"queue-{level}", _schema(level), _schema(level + 1), origin="any")
    await _count(stage, busy, _OPEN, 0)
    await _queue(stage, busy, nodes)
    yield
    async with Connection(stage.api) as http:
        for level in reversed(range(LEVELS)):
            headers = {**busy.headers, "if-match": "*"}
            path = f"{PREFIX}/providers/queue-{level}/instance"
            await http.ask(request("PUT", path, orjson.dumps({"active": False}), headers), 200)
    await _count(stage, busy, _OPEN, 0)


async def _queue(stage: Stage, person: Person, nodes: int) -> None:
    """Import blobs with so many nodes below them, and see the first of them planned."""
    roots = max(1, nodes // LEVELS)
    async with Connection(stage.api) as http:
        for start in range(0, roots, ITEMS_MAX):
            items = [
                {"op": "create", "schema_id": _schema(0), "data": {"text": fresh_text()}}
                for _ in range(min(ITEMS_MAX, roots - start))
            ]
            await http.ask(
                request("POST", f"{PREFIX}/blobs/batch", orjson.dumps({"items": items}), person.headers), 200
            )
    async with asyncio.timeout(DONE_SECONDS_MAX):
        while not (await stage.database.rows(person.user_id, _PLANNED, person.user_id))[0]["count"]:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)


async def _count(stage: Stage, person: Person, query: str, wanted: int) -> None:
    """Wait until a count is what it should be."""
    async with asyncio.timeout(DONE_SECONDS_MAX):
        while (await stage.database.rows(person.user_id, query, person.user_id))[0]["count"] != wanted:  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)


async def _taken(once: Callable[[], Awaitable[None]], sizes: Sizes) -> list[float]:
    """Milliseconds of edits, one after the other, as a person makes them."""
    taken = []
    for _ in range(sizes.edits):
        await asyncio.sleep(sizes.pause_seconds)
        started = time.perf_counter()
        await once()
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def _summary(name: str, taken: list[float]) -> dict[str, float]:
    return {f"{name}.p95": percentile(taken, 0.95), f"{name}.p50": percentile(taken, 0.5)}


def _schema(level: int) -> str:
    return f"bench-queue{level}-v1"


SCENARIO = Scenario(name="fairness", figures=FIGURES, setting=setting, worker=True)
