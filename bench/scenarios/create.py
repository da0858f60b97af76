"""Create a blob over HTTP: key, schema, hashes, blob, delta, snapshot, events and cascade, against a bare ``/blob``.

Each client is a user of its own: one user's writes share the row that gives their events a gapless order. What that
costs is the second figure.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import orjson

from bench.figures import Bound, Figure
from bench.load import connections, medians_ms, rates, request
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import SCHEMA, SCHEMA_SLUG, fresh_text, note
from bench.sizes import Sizes
from bench.stage import PREFIX, Person, Stage

FIGURES = (
    Figure(
        key="create-rate",
        title="create over HTTP, 16 users at once",
        unit="requests/s",
        ours="ours.rate",
        raw="raw.rate",
        goal=Bound(at_least=0.5),
        number="6",
    ),
    Figure(
        key="create-one-user",
        title="create over HTTP, one user 16 times at once",
        unit="requests/s",
        ours="one.rate",
        raw="raw.rate",
    ),
    Figure(
        key="create-median",
        title="create over HTTP, one at a time, p50",
        unit="ms",
        ours="ours.p50",
        raw="raw.p50",
        goal=Bound(at_most=2.0),
        number="6",
    ),
)


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """One connection and one user a client."""
    people = [await stage.person() for _ in range(sizes.connections)]
    for person in people:
        await stage.post(person, "/schemas", SCHEMA)
    async with AsyncExitStack() as closing:
        ours = await connections(closing, stage.api, sizes.connections)
        bare = await connections(closing, stage.raw_api, sizes.connections)

        async def create(number: int) -> None:
            await ours[number].ask(_ours(people[number]), 201)

        async def create_as_one(number: int) -> None:
            await ours[number].ask(_ours(people[0]), 201)

        async def create_raw(number: int) -> None:
            await bare[number].ask(_raw(), 201)

        async def rate() -> dict[str, float]:
            turns = {"raw.rate": create_raw, "ours.rate": create, "one.rate": create_as_one}
            return await rates(turns, clients=sizes.connections, seconds=sizes.seconds)

        async def latency() -> dict[str, float]:
            return await medians_ms({"raw.p50": create_raw, "ours.p50": create}, times=sizes.singles)

        yield {"rate": rate, "latency": latency}


def _ours(person: Person) -> bytes:
    body = {"data": note(), "schema_id": SCHEMA_SLUG, "title": "A note", "metadata": {"source": "bench"}}
    return request("POST", f"{PREFIX}/blobs", orjson.dumps(body), person.headers)


def _raw() -> bytes:
    body = {"content": fresh_text(), "title": "A note", "metadata": {"source": "bench"}}
    return request("POST", "/blob", orjson.dumps(body))


SCENARIO = Scenario(name="create", figures=FIGURES, setting=setting)
