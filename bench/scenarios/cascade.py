"""One edit above 1000 trivial inline nodes in 10 levels, all written; and what it leaves in Temporal, counted.

Raw is a workflow that writes as many rows, level by level, in activities of 50 (performance.md, D2).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from temporalio.api.enums.v1 import EventType

from bench.figures import Bound, Figure
from bench.raw.database import CREATE
from bench.raw.workflows import TASK_QUEUE, USER, Levels, RawCascade, raw_worker
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import fresh_text
from bench.scenarios.layered import layers
from bench.sizes import Sizes
from bench.stage import Stage

BATCH = 50
FIGURES = (
    Figure(
        key="cascade-edit",
        title="edit above 1000 inline nodes in 10 levels, until its workflow has ended",
        unit="s",
        ours="edit.seconds",
        raw="raw.seconds",
        goal=Bound(at_most=3.0),
        number="3",
    ),
    Figure(
        key="cascade-heard",
        title="the same, until a subscriber has heard of all of it: 3000 events",
        unit="s",
        ours="edit.heard",
        raw="raw.seconds",
    ),
    Figure(
        key="cascade-create",
        title="the same for a new root: 1000 derivations are found and made",
        unit="s",
        ours="create.seconds",
        raw="raw.seconds",
    ),
    Figure(
        key="cascade-events",
        title="events in the cascade's history, a node",
        unit="events",
        ours="edit.events",
        goal=Bound(at_most=0.15),
    ),
    Figure(
        key="cascade-bytes",
        title="bytes of the cascade's history, a node",
        unit="B",
        ours="edit.bytes",
        goal=Bound(at_most=50.0),
    ),
    Figure(
        key="cascade-children",
        title="child workflows of the cascade",
        unit="",
        ours="edit.children",
        goal=Bound(at_most=0.0),
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """A user with the layers, and a raw worker in this process."""
    async with (
        layers(stage, levels=sizes.levels, width=sizes.width) as ours,
        raw_worker(stage.temporal, stage.raw),
    ):
        roots: list[str] = []

        async def create() -> dict[str, float]:
            root, _, took = await ours.create()
            roots.append(root)
            return {"create.seconds": took.closed}

        async def edit() -> dict[str, float]:
            cascade_id, took = await ours.edit(roots[-1])
            counted = await _counted(stage, f"cascade:{cascade_id}", ours.nodes)
            return {"edit.seconds": took.closed, "edit.heard": took.heard, **counted}

        async def raw() -> dict[str, float]:
            return {"raw.seconds": await _raw(stage, sizes)}

        yield {"create": create, "raw": raw, "edit": edit}


async def _counted(stage: Stage, workflow_id: str, nodes: int) -> dict[str, float]:
    """What one workflow left in Temporal."""
    handle = stage.temporal.get_workflow_handle(workflow_id)
    await handle.result()
    history = await handle.fetch_history()
    kinds = [event.event_type for event in history.events]
    size = sum(event.ByteSize() for event in history.events)
    started = kinds.count(EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED)
    return {"edit.events": len(kinds) / nodes, "edit.bytes": size / nodes, "edit.children": float(started)}


async def _raw(stage: Stage, sizes: Sizes) -> float:
    """Commit the edit, start the workflow, wait for its end."""
    root, text = uuid4(), fresh_text()
    started = time.perf_counter()
    digest = hashlib.sha256(text.encode()).hexdigest()
    await stage.raw.fetchval(CREATE, root, USER, "text/plain", text, digest, uuid4(), str(root))
    handle = await stage.temporal.start_workflow(
        RawCascade.run,
        Levels(str(root), sizes.levels, sizes.width, BATCH),
        id=f"raw:{root}",
        task_queue=TASK_QUEUE,
        request_eager_start=True,
    )
    await handle.result()
    return time.perf_counter() - started


SCENARIO = Scenario(name="cascade", figures=FIGURES, setting=setting, worker=True)
