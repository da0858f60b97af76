"""Descendants, with their distance, of a tree and of a chain of 1000 blobs, against one recursive query on plain edges.

An obvious recursive query is 60 times slower on the chain, because each level hashes every edge again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from bench.figures import Bound, Figure
from bench.load import Turn, medians_ms
from bench.raw.database import DESCENDANTS, insert_graph
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import fresh_text
from bench.sizes import Sizes
from bench.stage import Stage
from domain.blobs import NewBlob
from domain.documents import Document, content_hash, cutoff_hash
from domain.ids import new_id
from storage.blobs import Blobs
from storage.dag import Dags

BRANCHES = 10
DEPTH_MAX = 10_000
READS_SHARE = 20
"""A read of all of them stands for so many single requests."""
Edges = list[tuple[UUID, UUID]]

FIGURES = (
    Figure(
        key="lineage-tree",
        title="descendants of a tree of 1000, p50",
        unit="ms",
        ours="tree",
        raw="raw.tree",
        goal=Bound(at_most=2.0),
        number="9",
    ),
    Figure(
        key="lineage-chain",
        title="descendants of a chain of 1000, p50",
        unit="ms",
        ours="chain",
        raw="raw.chain",
    ),
    Figure(
        key="lineage-chain-to-tree",
        title="descendants of a chain of 1000 against our tree of 1000",
        unit="ms",
        ours="chain",
        raw="tree",
        goal=Bound(at_most=5.0),
        number="9",
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """The same two graphs in both databases."""
    person = await stage.person()
    shapes = {"tree": _tree(sizes.nodes), "chain": _chain(sizes.nodes)}
    for edges in shapes.values():
        await insert_graph(stage.raw, person.user_id, edges, fresh_text())
        await _make(stage, person.user_id, edges)
    await stage.analyze()
    dags, times = Dags(stage.database), max(sizes.singles // READS_SHARE, 1)

    async def latency() -> dict[str, float]:
        turns = {}
        for shape, edges in shapes.items():
            turns[f"raw.{shape}"] = _reading_raw(stage, edges)
            turns[shape] = _reading(dags, person.user_id, edges)
        return await medians_ms(turns, times=times)

    yield {"latency": latency}


def _reading(dags: Dags, user_id: UUID, edges: Edges) -> Turn:
    async def read(_number: int) -> None:
        found = await dags.descendants(user_id, edges[0][0], depth=DEPTH_MAX, limit=len(edges) + 1)
        assert len(found) == len(edges)

    return read


def _reading_raw(stage: Stage, edges: Edges) -> Turn:
    async def read(_number: int) -> None:
        rows = await stage.raw.fetch(DESCENDANTS, edges[0][0])
        assert len(rows) == len(edges)

    return read


def _tree(nodes: int) -> Edges:
    ids = [new_id() for _ in range(nodes)]
    return [(ids[(at - 1) // BRANCHES], ids[at]) for at in range(1, nodes)]


def _chain(nodes: int) -> Edges:
    ids = [new_id() for _ in range(nodes)]
    return [(ids[at - 1], ids[at]) for at in range(1, nodes)]


async def _make(stage: Stage, user_id: UUID, edges: Edges) -> None:
    blobs = Blobs(stage.database, stage.contents)
    await blobs.create(_new(user_id, edges[0][0], None))
    for parent, child in edges:
        made = await blobs.create(_new(user_id, child, parent))
        assert made is not None
        assert made.problem is None


def _new(user_id: UUID, blob_id: UUID, parent_id: UUID | None) -> NewBlob:
    document = Document.parse({"content": fresh_text()})
    return NewBlob(
        user_id=user_id,
        blob_id=blob_id,
        delta_id=new_id(),
        cascade_id=new_id(),
        schema_id="text-v1",
        document=document,
        content_hash=content_hash(document),
        cutoff_hash=cutoff_hash(document),
        actor=f"user:{user_id}",
        parent_id=parent_id,
    )


SCENARIO = Scenario(name="lineage", figures=FIGURES, setting=setting)
