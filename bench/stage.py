"""The real servers that a run is measured on: the whole Studio, the raw counterparts beside it, users."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import nats
import orjson
from nats.aio.client import Client as Nats
from temporalio.client import Client as Temporal

from bench.load import Address, Connection, request
from bench.raw import database as raw_database
from devstack.apps import Api, Listening, Migrate, Worker
from devstack.ports import HOST, choose
from devstack.stack import DEFAULT_SERVERS, Stack
from devstack.state import StateFolder
from domain.ids import ApiKeyId, UserId, new_id
from domain.keys import KEY_SECRET_BYTES, USER_SCOPES, mint_key
from storage.contents import Contents
from storage.database import Database
from storage.objects import S3Objects
from storage.users import Users

PREFIX = "/api/v1/studio"
POOL_SIZE = 16
OTHERS = ("STUDIO_", "DATABASE_", "NATS_", "TEMPORAL_", "S3_", "AI_", "MODEL_")
"""Variables that would point us at servers that are not ours to load."""


class RawApi(Listening):
    """The bare FastAPI application that ours is measured against."""

    name = "raw-api"
    module = "bench.raw.app"
    needs = ("postgres",)
    port_names = ("raw-api",)


@dataclass(frozen=True, slots=True)
class Person:
    """A user and a key."""

    user_id: UUID
    key: str

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of this user's requests."""
        return {"authorization": f"Bearer {self.key}"}


class Stage:
    """Servers and connections to them; made by ``staged`` and ``connected``."""

    def __init__(
        self,
        stack: Stack,
        database: Database,
        contents: Contents,
        objects: S3Objects,
        raw: Any,
        bus: Nats,
        temporal: Temporal,
    ) -> None:
        self.stack = stack
        self.database = database
        self.contents = contents
        self.objects = objects
        self.raw = raw
        self.bus = bus
        self.temporal = temporal
        self.api = Address(HOST, stack.ports["api"])
        self.raw_api = Address(HOST, stack.ports["raw-api"])

    async def person(self) -> Person:
        """A new user with every scope that a user has."""
        user_id, key = UserId(new_id()), mint_key(secrets.token_bytes(KEY_SECRET_BYTES))
        await Users(self.database).create(
            user_id,
            f"bench-{user_id}",
            roles=["user"],
            scopes=list(USER_SCOPES),
            key_id=ApiKeyId(new_id()),
            key=key,
        )
        return Person(user_id, key)

    async def post(self, person: Person, path: str, body: Mapping[str, Any]) -> Any:
        """Make something over HTTP that is not measured; a refusal raises BadAnswer."""
        async with Connection(self.api) as http:
            answer = await http.ask(request("POST", PREFIX + path, orjson.dumps(body), person.headers), 201)
        return orjson.loads(answer.body)

    async def let_work(self) -> None:
        """Start the worker. What was written so far is past: it would fill the queues of what is measured next."""
        if "worker" in self.stack.processes:
            return
        await self.administer(
            "update cascades set sent_seq = seq, status = 'completed', ended_at = now()",
            "delete from outbox",
        )
        self.stack.restart("worker")

    async def analyze(self) -> None:
        """Let the planner know what a scenario has just written; autovacuum would, a minute later."""
        await self.administer("analyze")

    async def administer(self, *statements: str) -> None:
        """Carry out statements as the administrator."""
        admin = await asyncpg.connect(self.stack.endpoints["DATABASE_ADMIN_URL"])
        try:
            for statement in statements:
                await admin.execute(statement)
        finally:
            await admin.close()


@contextmanager
def staged(folder: Path) -> Iterator[Stack]:
    """Start everything but the worker on fresh data; stop it in the end."""
    StateFolder(folder).reset()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OTHERS)}
    environ["STUDIO_PORT"] = str(choose(set()))
    with Stack(folder, DEFAULT_SERVERS, apps=(Migrate(), Worker(), Api(), RawApi()), environ=environ) as stack:
        stack.kill("worker")
        yield stack


@asynccontextmanager
async def connected(stack: Stack) -> AsyncIterator[Stage]:
    """Connect to everything."""
    endpoints = stack.endpoints
    async with AsyncExitStack() as closing:
        database = await Database.connect(endpoints["DATABASE_URL"], size_min=POOL_SIZE, size_max=POOL_SIZE)
        closing.push_async_callback(database.close)
        objects = S3Objects(
            endpoints["S3_BUCKET"],
            endpoint=endpoints["S3_ENDPOINT"],
            access_key=endpoints["S3_ACCESS_KEY"],
            secret_key=endpoints["S3_SECRET_KEY"],
        )
        contents = Contents(database, objects, inline_max=100_000)
        closing.push_async_callback(contents.close)
        raw = await raw_database.connect(endpoints["DATABASE_ADMIN_URL"], size=POOL_SIZE)
        closing.push_async_callback(raw.close)
        bus = await nats.connect(endpoints["NATS_URL"])
        closing.push_async_callback(bus.close)
        temporal = await Temporal.connect(endpoints["TEMPORAL_HOST"], namespace=endpoints["TEMPORAL_NAMESPACE"])
        yield Stage(stack, database, contents, objects, raw, bus, temporal)
