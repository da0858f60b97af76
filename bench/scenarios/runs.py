"""Provider runs a second where each run is a workflow of its own: 100 of them below one root, side by side.

Raw is a bare workflow with as many child workflows, each with one local activity that commits a derived row.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

from bench.figures import Bound, Figure
from bench.raw.workflows import TASK_QUEUE, RawFan, raw_worker
from bench.scenario import Configurations, Scenario
from bench.scenarios.layered import layers
from bench.sizes import Sizes
from bench.stage import Stage

FIGURES = (
    Figure(
        key="runs-rate",
        title="provider runs as child workflows, 100 below one root",
        unit="/s",
        ours="edit.rate",
        raw="raw.rate",
        goal=Bound(at_least=0.7),
        number="5",
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """A user with the providers, and a raw worker in this process."""
    async with (
        layers(stage, levels=1, width=sizes.runs, execution="workflow") as ours,
        raw_worker(stage.temporal, stage.raw),
    ):
        root, _, _ = await ours.create()

        async def edit() -> dict[str, float]:
            _, took = await ours.edit(root)
            return {"edit.rate": ours.nodes / took.closed}

        async def raw() -> dict[str, float]:
            started = time.perf_counter()
            handle = await stage.temporal.start_workflow(
                RawFan.run, sizes.runs, id=f"raw:{uuid4()}", task_queue=TASK_QUEUE, request_eager_start=True
            )
            await handle.result()
            return {"raw.rate": sizes.runs / (time.perf_counter() - started)}

        yield {"raw": raw, "edit": edit}


SCENARIO = Scenario(name="runs", figures=FIGURES, setting=setting, worker=True)
