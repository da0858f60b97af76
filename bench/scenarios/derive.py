"""From an edit over HTTP to its derived blob at a NATS subscriber, against the shortest paths through Temporal.

Raw, as in performance.md D2: commit of the edit, a workflow started eagerly, a local activity that commits the derived
row and notifies, a listener; once directly, once through a child workflow.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

import orjson
from nats.aio.msg import Msg

from bench.figures import Bound, Figure, percentile
from bench.load import Connection, request
from bench.raw.database import CREATE
from bench.raw.workflows import TASK_QUEUE, USER, RawEdit, RawParent, listener, raw_worker
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import fresh_text
from bench.scenarios.catalogue import register, register_schemas
from bench.sizes import Sizes
from bench.stage import PREFIX, Person, Stage

SEEN_SECONDS_MAX = 30.0
SOURCE, TARGET = "bench-source-v1", "bench-derived-v1"

FIGURES = (
    Figure(
        key="derive-inline-median",
        title="edit to derived blob at a subscriber, inline provider, p50",
        unit="ms",
        ours="inline.p50",
        raw="local.p50",
        goal=Bound(at_most=2.0),
        number="1",
    ),
    Figure(
        key="derive-inline-tail",
        title="edit to derived blob at a subscriber, inline provider, p99",
        unit="ms",
        ours="inline.p99",
        raw="local.p99",
        goal=Bound(at_most=3.0),
        number="1",
    ),
    Figure(
        key="derive-child-median",
        title="the same, the run is a child workflow, p50",
        unit="ms",
        ours="child.p50",
        raw="raw-child.p50",
        goal=Bound(at_most=1.5),
        number="2",
    ),
    Figure(
        key="derive-child-tail",
        title="the same, the run is a child workflow, p99",
        unit="ms",
        ours="child.p99",
        raw="raw-child.p99",
    ),
)


class Subscriber:
    """Hears of derived blobs of one user, by the version that they reach."""

    def __init__(self) -> None:
        self._version = 0
        self._changed = asyncio.Event()

    async def hear(self, message: Msg) -> None:
        """Take one CloudEvent."""
        self._version = max(self._version, orjson.loads(message.data)["data"]["version"])
        self._changed.set()

    async def seen(self, version: int) -> None:
        """Wait until the derived blob has reached a version."""
        async with asyncio.timeout(SEEN_SECONDS_MAX):
            while self._version < version:
                self._changed.clear()
                await self._changed.wait()


Once = Callable[[], Awaitable[None]]
"""One edit, until its consequence was seen."""


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """A user with an inline provider, a user with a workflow provider, a raw worker in this process."""
    async with AsyncExitStack() as closing:
        kinds = {
            "inline": await closing.enter_async_context(edits(stage, execution="inline")),
            "child": await closing.enter_async_context(edits(stage, execution="workflow")),
        }
        await closing.enter_async_context(raw_worker(stage.temporal, stage.raw))
        for name, workflow in (("local", RawEdit), ("raw-child", RawParent)):
            kinds[name] = await closing.enter_async_context(_raw(stage, workflow.run))
        order = ("local", "inline", "raw-child", "child")

        async def latency() -> dict[str, float]:
            return await _followed({name: kinds[name] for name in order}, sizes)

        yield {"latency": latency}


async def _followed(edits: Mapping[str, Once], sizes: Sizes) -> dict[str, float]:
    """One edit of each kind, then the next of each."""
    taken: dict[str, list[float]] = {name: [] for name in edits}
    for _ in range(sizes.edits):
        for name, once in edits.items():
            await asyncio.sleep(sizes.pause_seconds)
            started = time.perf_counter()
            await once()
            taken[name].append((time.perf_counter() - started) * 1000)
    p50 = {f"{name}.p50": percentile(values, 0.5) for name, values in taken.items()}
    return p50 | {f"{name}.p99": percentile(values, 0.99) for name, values in taken.items()}


@asynccontextmanager
async def edits(stage: Stage, *, execution: str) -> AsyncIterator[Once]:
    """A user with one provider, whose blob is edited once and followed to what is derived from it."""
    person, subscriber = await stage.person(), Subscriber()
    subscription = await stage.bus.subscribe(f"studio.blob.derived.{person.user_id}.>", cb=subscriber.hear)
    await stage.bus.flush()
    await register_schemas(stage, person, (SOURCE, TARGET))
    await register(stage, person, "mark", SOURCE, TARGET, execution=execution)
    body = {"data": {"text": fresh_text()}, "schema_id": SOURCE}
    blob_id = (await stage.post(person, "/blobs", body))["id"]
    await subscriber.seen(1)
    version = 1
    async with Connection(stage.api) as http:

        async def once() -> None:
            nonlocal version
            await http.ask(_patch(person, blob_id), 200)
            version += 1
            await subscriber.seen(version)

        yield once
    await subscription.unsubscribe()


def _patch(person: Person, blob_id: str) -> bytes:
    headers = {**person.headers, "content-type": "application/merge-patch+json", "if-match": "*"}
    body = orjson.dumps({"data": {"text": fresh_text()}})
    return request("PATCH", f"{PREFIX}/blobs/{blob_id}", body, headers)


@asynccontextmanager
async def _raw(stage: Stage, workflow: Callable[..., Awaitable[None]]) -> AsyncIterator[Once]:
    heard: dict[str, asyncio.Event] = {}

    def hear(blob_id: str) -> None:
        if blob_id in heard:
            heard[blob_id].set()

    async with listener(stage.raw, hear):

        async def once() -> None:
            blob_id, text = uuid4(), fresh_text()
            name = str(blob_id)
            event = heard[name] = asyncio.Event()
            digest = hashlib.sha256(text.encode()).hexdigest()
            await stage.raw.fetchval(CREATE, blob_id, USER, "text/plain", text, digest, uuid4(), name)
            await stage.temporal.start_workflow(
                workflow, name, id=f"raw:{name}", task_queue=TASK_QUEUE, request_eager_start=True
            )
            await asyncio.wait_for(event.wait(), SEEN_SECONDS_MAX)
            del heard[name]

        yield once


SCENARIO = Scenario(name="derive", figures=FIGURES, setting=setting, worker=True)
