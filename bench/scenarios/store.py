"""The store's create without HTTP against one asyncpg statement that inserts blob, delta and outbox row (cte3)."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

from bench.figures import Bound, Figure
from bench.load import medians_ms, rates
from bench.raw.database import CREATE
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import fresh_text
from bench.sizes import Sizes
from bench.stage import Stage
from domain.blobs import NewBlob
from domain.documents import Document, content_hash, cutoff_hash
from domain.ids import new_id
from storage.blobs import Blobs

FIGURES = (
    Figure(
        key="store-rate",
        title="store's create, 16 users at once",
        unit="creates/s",
        ours="ours.rate",
        raw="raw.rate",
        goal=Bound(at_least=0.6),
        number="7",
    ),
    Figure(
        key="store-one-user",
        title="store's create, one user 16 times at once",
        unit="creates/s",
        ours="one.rate",
        raw="raw.rate",
    ),
    Figure(
        key="store-median",
        title="store's create, one at a time, p50",
        unit="ms",
        ours="ours.p50",
        raw="raw.p50",
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """As many users as clients, as many connections to PostgreSQL."""
    users = [(await stage.person()).user_id for _ in range(sizes.connections)]
    blobs = Blobs(stage.database, stage.contents)

    async def create(number: int) -> None:
        await blobs.create(_new(users[number]))

    async def create_as_one(_number: int) -> None:
        await blobs.create(_new(users[0]))

    async def create_raw(number: int) -> None:
        blob_id, text = uuid4(), fresh_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        await stage.raw.fetchval(CREATE, blob_id, users[number], "text/plain", text, digest, uuid4(), str(blob_id))

    async def rate() -> dict[str, float]:
        turns = {"raw.rate": create_raw, "ours.rate": create, "one.rate": create_as_one}
        return await rates(turns, clients=sizes.connections, seconds=sizes.seconds)

    async def latency() -> dict[str, float]:
        return await medians_ms({"raw.p50": create_raw, "ours.p50": create}, times=sizes.singles)

    yield {"rate": rate, "latency": latency}


def _new(user_id: UUID) -> NewBlob:
    return new_blob(
        user_id, Document.parse({"content": fresh_text(), "title": "A note", "metadata": {"source": "bench"}})
    )


def new_blob(user_id: UUID, document: Document) -> NewBlob:
    """Return what the store is told of a new blob."""
    return NewBlob(
        user_id=user_id,
        blob_id=new_id(),
        delta_id=new_id(),
        cascade_id=new_id(),
        schema_id="text-v1" if document.is_text else "blob-v1",
        document=document,
        content_hash=content_hash(document),
        cutoff_hash=cutoff_hash(document),
        actor=f"user:{user_id}",
    )


SCENARIO = Scenario(name="store", figures=FIGURES, setting=setting)
