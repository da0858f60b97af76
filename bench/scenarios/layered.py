"""Layers of derived blobs: so many providers read the root, one provider each leads from every layer to the next.

One edit of the root then sets ``levels * width`` derivations in motion, each a provider run with real writes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import orjson
from nats.aio.msg import Msg

from bench.load import Connection, request
from bench.scenarios.bodies import fresh_text
from bench.scenarios.catalogue import register, register_schemas
from bench.stage import PREFIX, Person, Stage

CLOSED_SECONDS_MAX = 120.0
POLL_SECONDS = 0.05

_MADE = """
select count(*) from deltas d where d.user_id = $1 and d.cascade_id = $2 and d.run_id is not null
  and d.status = 'applied'
"""
_OPEN = "select count(*) from cascades where user_id = $1 and status in ('pending', 'running')"


@dataclass(slots=True)
class Layers:
    """A user whose blobs of the first schema grow layers; ``async with layers(...)`` makes it."""

    stage: Stage
    person: Person
    http: Connection
    levels: int
    width: int
    _closed: dict[str, asyncio.Event] = field(default_factory=dict)

    @property
    def nodes(self) -> int:
        """Derivations below one root."""
        return self.levels * self.width

    async def hear(self, message: Msg) -> None:
        """Note that a cascade has closed."""
        self._event(orjson.loads(message.data)["data"]["cascade_id"]).set()

    async def create(self) -> tuple[str, str, float]:
        """Make a root; return its id, its cascade's, and the seconds until that had closed."""
        body = orjson.dumps({"data": {"text": fresh_text()}, "schema_id": _schema(0)})
        started = time.perf_counter()
        answer = await self.http.ask(request("POST", f"{PREFIX}/blobs", body, self.person.headers), 201)
        blob = orjson.loads(answer.body)
        return blob["id"], blob["cascade_id"], await self._done(blob["cascade_id"], started)

    async def edit(self, root: str) -> tuple[str, float]:
        """Give a root another text; return its cascade's id and the seconds until that had closed."""
        body = orjson.dumps({"data": {"text": fresh_text()}})
        headers = {**self.person.headers, "content-type": "application/merge-patch+json", "if-match": "*"}
        started = time.perf_counter()
        answer = await self.http.ask(request("PATCH", f"{PREFIX}/blobs/{root}", body, headers), 200)
        cascade_id = orjson.loads(answer.body)["cascade_id"]
        return cascade_id, await self._done(cascade_id, started)

    async def _done(self, cascade_id: str, started: float) -> float:
        """The clock stops at the event; that every node was derived is checked afterwards."""
        await asyncio.wait_for(self._event(cascade_id).wait(), CLOSED_SECONDS_MAX)
        seconds = time.perf_counter() - started
        user_id = self.person.user_id
        (row,) = await self.stage.database.rows(user_id, _MADE, user_id, UUID(cascade_id))
        assert row["count"] == self.nodes, f"{row['count']} of {self.nodes} derived"
        return seconds

    def _event(self, cascade_id: str) -> asyncio.Event:
        return self._closed.setdefault(cascade_id, asyncio.Event())

    async def rest(self) -> None:
        """Wait until no cascade of this user is open."""
        async with asyncio.timeout(CLOSED_SECONDS_MAX):
            user_id = self.person.user_id
            while (await self.stage.database.rows(user_id, _OPEN, user_id))[0]["count"]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def layers(stage: Stage, *, levels: int, width: int) -> AsyncIterator[Layers]:
    """Register what makes the layers, over HTTP, and wait until it is active."""
    person = await stage.person()
    async with Connection(stage.api) as http:
        made = Layers(stage, person, http, levels, width)
        subscription = await stage.bus.subscribe(f"studio.cascade.completed.{person.user_id}.>", cb=made.hear)
        await stage.bus.flush()
        await register_schemas(stage, person, [_schema(level) for level in range(levels + 1)])
        for number in range(width):
            await register(stage, person, f"fan-{number}", _schema(0), _schema(1))
        for level in range(1, levels):
            await register(stage, person, f"level-{level}", _schema(level), _schema(level + 1))
        await made.rest()
        yield made
        await subscription.unsubscribe()


def _schema(level: int) -> str:
    return f"bench-layer{level}-v1"
