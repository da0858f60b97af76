"""Layers of derived blobs: so many providers read the root, one provider each leads from every layer to the next.

One edit of the root then sets ``levels * width`` derivations in motion, each a provider run with real writes. In a
*tree* every layer has several providers that each read all of the layer above: the product of its widths.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul
from uuid import UUID

import orjson
from nats.aio.msg import Msg
from temporalio.service import RPCError, RPCStatusCode

from bench.load import Connection, request
from bench.scenarios.bodies import fresh_text
from bench.scenarios.catalogue import register, register_schemas
from bench.stage import PREFIX, Person, Stage

CLOSED_SECONDS_MAX = 900.0
START_SECONDS = 0.002
POLL_SECONDS = 0.05

_MADE = """
select count(*) from deltas d where d.user_id = $1 and d.cascade_id = $2 and d.run_id is not null
  and d.status = 'applied'
"""
_OPEN = "select count(*) from cascades where user_id = $1 and status in ('pending', 'running')"


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds until a cascade's workflow had ended, and until a subscriber had heard of all that it did."""

    closed: float
    heard: float


@dataclass(slots=True)
class Layers:
    """A user whose blobs of the first schema grow layers; ``async with layers(...)`` makes it."""

    stage: Stage
    person: Person
    http: Connection
    nodes: int
    """Derivations below one root."""
    _closed: dict[str, asyncio.Event] = field(default_factory=dict)

    async def hear(self, message: Msg) -> None:
        """Note that a cascade has closed."""
        self._event(orjson.loads(message.data)["data"]["cascade_id"]).set()

    async def create(self) -> tuple[str, str, Took]:
        """Make a root; return its id, its cascade's, and what that took."""
        body = orjson.dumps({"data": {"text": fresh_text()}, "schema_id": _schema(0)})
        started = time.perf_counter()
        answer = await self.http.ask(request("POST", f"{PREFIX}/blobs", body, self.person.headers), 201)
        blob = orjson.loads(answer.body)
        return blob["id"], blob["cascade_id"], await self._done(blob["cascade_id"], started)

    async def edit(self, root: str) -> tuple[str, Took]:
        """Give a root another text; return its cascade's id and what that took."""
        body = orjson.dumps({"data": {"text": fresh_text()}})
        headers = {**self.person.headers, "content-type": "application/merge-patch+json", "if-match": "*"}
        started = time.perf_counter()
        answer = await self.http.ask(request("PATCH", f"{PREFIX}/blobs/{root}", body, headers), 200)
        cascade_id = orjson.loads(answer.body)["cascade_id"]
        return cascade_id, await self._done(cascade_id, started)

    async def _done(self, cascade_id: str, started: float) -> Took:
        """The clock stops at the workflow's end, then at the event; that all was derived is checked afterwards."""
        async with asyncio.timeout(CLOSED_SECONDS_MAX):
            await self._ended(f"cascade:{cascade_id}")
            closed = time.perf_counter() - started
            await self._event(cascade_id).wait()
        took = Took(closed, time.perf_counter() - started)
        user_id = self.person.user_id
        (row,) = await self.stage.database.rows(user_id, _MADE, user_id, UUID(cascade_id))
        assert row["count"] == self.nodes, f"{row['count']} of {self.nodes} derived"
        return took

    async def _ended(self, workflow_id: str) -> None:
        """Wait for a workflow's end; the relay may still have to start it."""
        while True:
            try:
                await self.stage.temporal.get_workflow_handle(workflow_id).result()
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(START_SECONDS)
            else:
                return

    def _event(self, cascade_id: str) -> asyncio.Event:
        return self._closed.setdefault(cascade_id, asyncio.Event())

    async def rest(self) -> None:
        """Wait until no cascade of this user is open."""
        async with asyncio.timeout(CLOSED_SECONDS_MAX):
            user_id = self.person.user_id
            while (await self.stage.database.rows(user_id, _OPEN, user_id))[0]["count"]:  # noqa: ASYNC110 - no event
                await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def layers(stage: Stage, *, levels: int, width: int, execution: str = "inline") -> AsyncIterator[Layers]:
    """Layers of one width: so many providers read the root, one leads from each layer to the next."""
    async with _grown(stage, [width] + [1] * (levels - 1), levels * width, [execution] * levels) as made:
        yield made


@asynccontextmanager
async def tree(stage: Stage, widths: Sequence[int], *, last: str = "inline") -> AsyncIterator[Layers]:
    """A tree: so many providers read each layer. ``last`` is the execution of the last layer's."""
    nodes = sum(accumulate(widths, mul))
    async with _grown(stage, widths, nodes, ["inline"] * (len(widths) - 1) + [last]) as made:
        yield made


@asynccontextmanager
async def _grown(stage: Stage, widths: Sequence[int], nodes: int, executions: Sequence[str]) -> AsyncIterator[Layers]:
    """Register what makes the layers, over HTTP, and wait until it is active."""
    person = await stage.person()
    async with Connection(stage.api) as http:
        made = Layers(stage, person, http, nodes)
        subscription = await stage.bus.subscribe(f"studio.cascade.completed.{person.user_id}.>", cb=made.hear)
        await stage.bus.flush()
        await register_schemas(stage, person, [_schema(level) for level in range(len(widths) + 1)])
        for level, (width, execution) in enumerate(zip(widths, executions, strict=True)):
            for number in range(width):
                slug, source, target = f"level-{level}-{number}", _schema(level), _schema(level + 1)
                await register(stage, person, slug, source, target, execution=execution)
        await made.rest()
        yield made
        await subscription.unsubscribe()


def _schema(level: int) -> str:
    return f"bench-layer{level}-v1"
