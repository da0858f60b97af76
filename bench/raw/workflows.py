"""The shortest Temporal paths from a committed edit to a derived row that somebody hears of (performance.md, D2).

No schedule, no merge, no versions, no second writer: what is left is what Temporal and PostgreSQL themselves take.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import PollerBehaviorAutoscaling, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from bench.raw import database

TASK_QUEUE = "bench-raw"
CHANNEL = "raw_derived"
TIMEOUT = timedelta(seconds=30)
USER = UUID(int=1)


@dataclass(frozen=True)
class Levels:
    """A cascade: so many levels of so many nodes, written in batches."""

    root: str
    count: int
    width: int
    batch: int


@dataclass(frozen=True)
class Batch:
    """One batch: the parents of its nodes."""

    parents: list[str]


class RawActivities:
    """Writes derived rows."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    @activity.defn
    async def derive(self, blob_id: str) -> None:
        """Write one derived blob with its delta and outbox row, and say so."""
        derived, content = uuid4(), f"derived from {blob_id}"
        async with self._pool.acquire() as connection, connection.transaction():
            digest = hashlib.sha256(content.encode()).hexdigest()
            await connection.execute(
                database.CREATE, derived, USER, "text/plain", content, digest, uuid4(), str(derived)
            )
            await connection.execute("select pg_notify($1, $2)", CHANNEL, blob_id)

    @activity.defn
    async def derive_batch(self, batch: Batch) -> list[str]:
        """Write one derived blob for each parent, in one statement, and say so once."""
        ids = [uuid4() for _ in batch.parents]
        contents = [f"derived from {parent}" for parent in batch.parents]
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                database.CREATE_MANY,
                ids,
                contents,
                [hashlib.sha256(content.encode()).hexdigest() for content in contents],
                [uuid4() for _ in ids],
                [UUID(parent) for parent in batch.parents],
                USER,
            )
            await connection.execute("select pg_notify($1, $2)", CHANNEL, str(ids[0]))
        return [str(made) for made in ids]


@workflow.defn
class RawEdit:
    """One local activity."""

    @workflow.run
    async def run(self, blob_id: str) -> None:
        """Derive."""
        await workflow.execute_local_activity_method(RawActivities.derive, blob_id, start_to_close_timeout=TIMEOUT)


@workflow.defn
class RawParent:
    """One child workflow with one local activity."""

    @workflow.run
    async def run(self, blob_id: str) -> None:
        """Let a child derive."""
        await workflow.execute_child_workflow(RawEdit.run, blob_id, id=f"{workflow.info().workflow_id}:child")


@workflow.defn
class RawCascade:
    """Level by level, each in batches, each batch one activity."""

    @workflow.run
    async def run(self, levels: Levels) -> None:
        """Derive every level from the one before."""
        above = [levels.root] * levels.width
        for _ in range(levels.count):
            batches = [Batch(above[at : at + levels.batch]) for at in range(0, levels.width, levels.batch)]
            made = await asyncio.gather(
                *(
                    workflow.execute_activity_method(RawActivities.derive_batch, batch, start_to_close_timeout=TIMEOUT)
                    for batch in batches
                )
            )
            above = [blob_id for ids in made for blob_id in ids]


@workflow.defn
class RawChain:
    """One local activity after the other, each of what the one before has made."""

    @workflow.run
    async def run(self, length: int) -> None:
        """Derive so often."""
        for _ in range(length):
            await workflow.execute_local_activity_method(
                RawActivities.derive, str(workflow.uuid4()), start_to_close_timeout=TIMEOUT
            )


@workflow.defn
class RawFan:
    """So many child workflows at once, each with one local activity."""

    @workflow.run
    async def run(self, width: int) -> None:
        """Let each child derive."""
        own = workflow.info().workflow_id
        await asyncio.gather(
            *(
                workflow.execute_child_workflow(RawEdit.run, str(workflow.uuid4()), id=f"{own}:{number}")
                for number in range(width)
            )
        )


@asynccontextmanager
async def raw_worker(client: Client, pool: Any) -> AsyncIterator[Worker]:
    """A worker as ours is set, in the driver's process: an eager start needs the client that starts."""
    activities = RawActivities(pool)
    worker = Worker(
        client,
        task_queue=TASK_QUEUE,
        workflows=[RawEdit, RawParent, RawCascade, RawChain, RawFan],
        activities=[activities.derive, activities.derive_batch],
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_all_modules()
        ),
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
    )
    async with worker:
        yield worker


@asynccontextmanager
async def listener(pool: Any, heard: Callable[[str], None]) -> AsyncIterator[None]:
    """Call ``heard`` with the payload of each notification."""

    def notified(_connection: object, _pid: int, _channel: str, payload: str) -> None:
        heard(payload)

    async with pool.acquire() as connection:
        await connection.add_listener(CHANNEL, notified)
        try:
            yield
        finally:
            await connection.remove_listener(CHANNEL, notified)
