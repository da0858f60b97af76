"""Read a graph of 100 derived blobs over HTTP, with states and why, against one recursive query over bare HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import orjson

from bench.figures import Figure
from bench.load import connections, medians_ms, request
from bench.raw.database import insert_graph
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import fresh_text
from bench.scenarios.layered import layers
from bench.sizes import Sizes
from bench.stage import PREFIX, Stage
from domain.ids import new_id

READS_SHARE = 5
FIGURES = (
    Figure(
        key="graph-median",
        title="read a graph of 100 derived blobs over HTTP, p50",
        unit="ms",
        ours="ours.p50",
        raw="raw.p50",
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """A tenth of the cascade's nodes: as many levels of a tenth of the width."""
    width = max(sizes.width // sizes.levels, 1)
    async with layers(stage, levels=sizes.levels, width=width) as shape, AsyncExitStack() as closing:
        root, _, _ = await shape.create()
        await stage.analyze()
        raw_root = new_id()
        above = [raw_root] * width
        edges = []
        for _ in range(sizes.levels):
            below = [new_id() for _ in above]
            edges += list(zip(above, below, strict=True))
            above = below
        await insert_graph(stage.raw, shape.person.user_id, edges, fresh_text())
        (ours,) = await connections(closing, stage.api, 1)
        (bare,) = await connections(closing, stage.raw_api, 1)
        asked = request("GET", f"{PREFIX}/blobs/{root}/dag", headers=shape.person.headers)

        async def read(_number: int) -> None:
            answer = await ours.ask(asked, 200)
            assert answer.body.count(b'"blob_id"') > shape.nodes

        async def read_raw(_number: int) -> None:
            answer = await bare.ask(request("GET", f"/graph/{raw_root}"), 200)
            assert len(orjson.loads(answer.body)) == shape.nodes + 1

        times = max(sizes.singles // READS_SHARE, 1)

        async def latency() -> dict[str, float]:
            return await medians_ms({"raw.p50": read_raw, "ours.p50": read}, times=times)

        yield {"latency": latency}


SCENARIO = Scenario(name="graph", figures=FIGURES, setting=setting, worker=True)
