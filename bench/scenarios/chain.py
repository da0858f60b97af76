"""One edit above a chain of 100 inline nodes, each derived from the one before: nothing of it can be done at once.

Raw is a workflow with as many local activities one after the other, each of which commits a derived row.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from bench.figures import Bound, Figure
from bench.raw.workflows import TASK_QUEUE, RawChain, raw_worker
from bench.scenario import Configurations, Scenario
from bench.scenarios.layered import layers
from bench.sizes import Sizes
from bench.stage import Stage

FIGURES = (
    Figure(
        key="chain-edit",
        title="edit above a chain of 100 inline nodes, until its workflow has ended",
        unit="s",
        ours="edit.seconds",
        raw="raw.seconds",
        goal=Bound(at_most=2.0),
        number="4",
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """A user with the chain, and a raw worker in this process."""
    async with layers(stage, levels=sizes.chain, width=1) as ours, raw_worker(stage.temporal, stage.raw):
        root, _, _ = await ours.create()

        async def edit() -> dict[str, float]:
            _, took = await ours.edit(root)
            return {"edit.seconds": took.closed}

        async def raw() -> dict[str, float]:
            started = time.perf_counter()
            handle = await stage.temporal.start_workflow(
                RawChain.run, sizes.chain, id=f"raw:{uuid4()}", task_queue=TASK_QUEUE, request_eager_start=True
            )
            await handle.result()
            return {"raw.seconds": time.perf_counter() - started}

        yield {"raw": raw, "edit": edit}


SCENARIO = Scenario(name="chain", figures=FIGURES, setting=setting, worker=True)
