"""Ten thousand nodes below one root: what a node costs there, what the worker remembers, what Temporal shows of it.

A tree of four levels whose providers are inline, against one a tenth of its size, node by node; and, once because it
takes minutes, the same tree with its last nine thousand nodes as child workflows, so that the cascade's history has to
continue as new. Every run of that is opened through the HTTP API of Temporal's UI, as the page of a run does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx2

from bench.figures import Bound, Figure
from bench.scenario import Configurations, Scenario
from bench.scenarios.layered import Layers, tree
from bench.sizes import Sizes
from bench.stage import Stage

PAGES_AT_ONCE = 8
HISTORY_EVENTS_MAX = 5000

FIGURES = (
    Figure(
        key="tenthousand-node",
        title="a node of an edit's cascade of 10,000, against one of 1,000",
        unit="ms",
        ours="large.node",
        raw="small.node",
        goal=Bound(at_most=1.5),
    ),
    Figure(
        key="tenthousand-memory",
        title="the worker's memory after a second cascade of 10,000, against after the first",
        unit="MB",
        ours="memory.after",
        raw="memory.before",
        goal=Bound(at_most=1.2),
    ),
    Figure(
        key="tenthousand-history",
        title="events of the longest history of a cascade of 10,000 with 9,000 child workflows",
        unit="events",
        ours="history.longest",
        goal=Bound(at_most=HISTORY_EVENTS_MAX),
    ),
    Figure(
        key="tenthousand-children-memory",
        title="the worker's memory after a second such cascade, against after the first",
        unit="MB",
        ours="children.after",
        raw="children.before",
        goal=Bound(at_most=1.2),
    ),
    Figure(
        key="tenthousand-continued",
        title="how often that cascade continued as new",
        unit="",
        ours="history.continued",
        goal=Bound(at_least=1.0),
    ),
    Figure(
        key="tenthousand-pages",
        title="of its runs, those whose page the Temporal UI does not open",
        unit="",
        ours="pages.closed",
        goal=Bound(at_most=0.0),
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """Three users: a tree, a tenth of it, and one whose last level is of child workflows."""
    async with (
        tree(stage, sizes.tree[:-1]) as tenth,
        tree(stage, sizes.tree) as whole,
        tree(stage, sizes.tree, last="workflow") as children,
    ):
        once: dict[str, float] = {}
        small_root, large_root = [(await made.create())[0] for made in (tenth, whole)]

        async def node(made: Layers, root: str) -> float:
            _, took = await made.edit(root)
            return took.closed / made.nodes * 1000

        async def inline() -> dict[str, float]:
            before = _resident(stage)
            return {
                "small.node": await node(tenth, small_root),
                "large.node": await node(whole, large_root),
                "memory.before": before,
                "memory.after": _resident(stage),
            }

        async def parents() -> dict[str, float]:
            if not once:
                root, cascade_id, _ = await children.create()
                before = _resident(stage)
                await children.edit(root)
                once.update({"children.before": before, "children.after": _resident(stage)})
                once.update(await _shown(stage, cascade_id))
            return once

        yield {"inline": inline, "parents": parents}


def _resident(stage: Stage) -> float:
    """What the worker's process keeps in memory, in MB."""
    pid = stage.stack.processes["worker"]
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


async def _shown(stage: Stage, cascade_id: str) -> dict[str, float]:
    """The histories of a cascade's workflow, and whether Temporal's UI opens every run of it and of its children."""
    parent = f"cascade:{cascade_id}"
    found = [one async for one in stage.temporal.list_workflows(f"StudioCascade = '{cascade_id}'")]
    lengths = [one.history_length for one in found if one.id == parent]
    api = f"{stage.stack.endpoints['TEMPORAL_UI_URL']}/api/v1/namespaces/{stage.temporal.namespace}/workflows"
    gate = asyncio.Semaphore(PAGES_AT_ONCE)

    async def opens(http: httpx2.AsyncClient, workflow_id: str, run_id: str) -> bool:
        page = f"{api}/{quote(workflow_id, safe='')}"
        async with gate:
            run = {"execution.runId": run_id}
            answers = [await http.get(page, params=run), await http.get(f"{page}/history", params=run)]
        return all(answer.status_code == 200 for answer in answers)

    async with httpx2.AsyncClient(timeout=60) as http:
        opened = await asyncio.gather(*(opens(http, one.id, one.run_id) for one in found))
    return {
        "history.longest": float(max(lengths)),
        "history.continued": float(len(lengths) - 1),
        "pages.closed": float(opened.count(False)),
    }


SCENARIO = Scenario(name="ten-thousand", figures=FIGURES, setting=setting, worker=True, warm_up=False)
