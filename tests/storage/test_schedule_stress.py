"""Many people's hands and two workers on one user's graph: no deadlock, no broken invariant, and it converges.

The moves, the API and the relay are the real ones, on a database of this test's own; what is random is who does what
when, and what happens twice. ``STUDIO_STRESS_SECONDS`` makes it longer, ``STUDIO_STRESS_SEED`` repeats a choice.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import orjson
import pytest_asyncio

from activities.cascades import CascadeActivities, CascadeRef
from api.app import create_app
from domain.documents import Document
from domain.errors import Invalid
from settings import load_settings
from storage.contents import Contents
from storage.database import Database
from storage.relay import Doorbell, Relay
from storage.schedule import PostgresSchedule
from storage.states import States
from tests.conftest import BASE, Person, client_of, new_person, objects_of
from tests.storage import invariants
from tests.storage.engine import Engine, decided, schedule_of

SECONDS = float(os.environ.get("STUDIO_STRESS_SECONDS", "4"))
HANDS = 12
WORKERS = 4
ROOTS_MAX = 10
EXPECTED_REFUSALS = {404, 409, 410, 412, 422}
"""What a hand may run into because another was faster."""


@dataclass
class Doorbells:
    """Where the relay rings; workers take from here, and now and then one bell is answered twice at once."""

    chance: random.Random
    queue: asyncio.Queue[UUID] = field(default_factory=asyncio.Queue)
    open: int = 0

    async def ring(self, doorbell: Doorbell) -> None:
        for _ in range(2 if self.chance.random() < 0.1 else 1):
            self.open += 1
            self.queue.put_nowait(doorbell.cascade_id)

    async def stop(self, workflow_id: str) -> None:
        del workflow_id

    async def publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        del rows


@dataclass
class World:
    """One user, two schedules as of two processes, one relay."""

    engine: Engine
    schedules: list[PostgresSchedule]
    bells: Doorbells
    relay: Relay
    chance: random.Random
    bucket: str = ""
    roots: list[UUID] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    stopped: bool = False

    # --- hands ----------------------------------------------------------------------------------------------------

    async def hand(self) -> None:
        """Do one thing after the other, whatever it is."""
        moves = {self.edit: 50, self.edit_output: 12, self.create: 5, self.place: 8, self.remove: 4, self.delete: 4,
                 self.restore: 6, self.switch: 4, self.configure: 2, self.process: 4, self.redefine: 1}  # fmt: skip
        while not self.stopped:
            move = self.chance.choices(list(moves), list(moves.values()))[0]
            await move()
            self.done[move.__name__] += 1

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = await self.engine.http.request(method, f"{BASE}{path}", json=body, headers=headers)
        assert answer.is_success or answer.status_code in EXPECTED_REFUSALS, answer.text
        return answer

    def root(self) -> UUID:
        return self.chance.choice(self.roots)

    def word(self) -> str:
        return "".join(self.chance.choices("abcdef", k=3))

    async def edit(self) -> None:
        await self.patch(self.root())

    async def edit_output(self) -> None:
        rows = await self.engine.database.rows(
            self.engine.user.user_id, "select id from blobs where provider_id is not null and version > 0"
        )
        if rows:
            await self.patch(self.chance.choice(rows)["id"])

    async def patch(self, blob_id: UUID) -> None:
        changed = {"data": {"text": self.word()}} if self.chance.random() < 0.9 else {"title": self.word()}
        await self.ask("PATCH", f"/blobs/{blob_id}", {"delta": {"operation": "update", "patch": changed}})

    async def create(self) -> None:
        if len(self.roots) >= ROOTS_MAX:
            return
        body = {"schema_id": "in-v1", "data": {"text": self.word()}, "title": "T"}
        if self.chance.random() < 0.7:
            body["bucket_ids"] = [self.bucket]
        self.roots.append(UUID((await self.ask("POST", "/blobs", body)).json()["id"]))

    async def place(self) -> None:
        body = {"position": self.chance.randint(0, 9)}
        await self.ask("PUT", f"/buckets/{self.bucket}/blobs/{self.root()}", body)

    async def remove(self) -> None:
        await self.ask("DELETE", f"/buckets/{self.bucket}/blobs/{self.root()}")

    async def delete(self) -> None:
        rows = await self.engine.database.rows(
            self.engine.user.user_id, "select id from blobs where version > 0 and deleted_at is null"
        )
        if rows:
            await self.ask("DELETE", f"/blobs/{self.chance.choice(rows)['id']}", **{"if-match": "*"})

    async def restore(self) -> None:
        rows = await self.engine.database.rows(
            self.engine.user.user_id, "select id from blobs where deleted_at is not null"
        )
        if rows:
            await self.engine.restore(self.chance.choice(rows)["id"])

    async def switch(self) -> None:
        slug = self.chance.choice(["one", "two", "side", "book"])
        await self.ask("PUT", f"/providers/{slug}/instance", {"active": self.chance.random() < 0.7}, **ANY)

    async def configure(self) -> None:
        await self.ask("PUT", "/providers/two/instance", {"settings": {"end": self.chance.choice("?!.")}}, **ANY)

    async def process(self) -> None:
        await self.ask("POST", "/providers/one/process", {"blob_id": str(self.root())})

    async def redefine(self) -> None:
        end = self.chance.choice("xyz")
        await self.engine.provider("side", "mid-v1", "side-v1", f"$.data.text + '{end}'", origin="any")

    # --- workers --------------------------------------------------------------------------------------------------

    async def worker(self, schedule: PostgresSchedule) -> None:
        """Answer doorbells as the Cascade workflow does."""
        activities = CascadeActivities(schedule, window=20, batch=5, budget=timedelta(seconds=1))
        user = self.engine.user.user_id
        while True:
            cascade = await self.bells.queue.get()
            found = await activities.advance(CascadeRef(user_id=str(user), cascade_id=str(cascade)))
            for start in found.runs:
                await self.carry_out(schedule, UUID(start.run_id))
            self.bells.open -= 1
            if found.more:
                self.bells.open += 1
                self.bells.queue.put_nowait(cascade)

    async def carry_out(self, schedule: PostgresSchedule, run_id: UUID) -> None:
        """One workflow run: it may fail, get lost, or be reported twice."""
        user, fate = self.engine.user.user_id, self.chance.random()
        if fate < 0.03:
            await schedule.fail(user, run_id, code="provider_failed", detail="chance", usage={})
        elif fate < 0.06:
            await schedule.lose(user, run_id)
        verdict = "moved"
        while verdict == "moved":
            works = await schedule.load(user, [run_id])
            if not works:
                return
            try:
                settlement = decided(works[0])
            except Invalid as error:
                await schedule.fail(user, run_id, code=error.problem_code, detail=error.detail, usage={})
                return
            verdict = (await schedule.settle(user, [settlement], caller=None))[run_id]
            if fate > 0.9:
                assert (await schedule.settle(user, [settlement], caller=None))[run_id] == verdict
        self.done[verdict] += 1

    async def relaying(self) -> None:
        while True:
            if not await self.relay.ring_doorbells():
                await asyncio.sleep(0.002)

    async def quiet(self) -> bool:
        """Whether nobody is awake: no doorbell unsent, none unanswered."""
        if self.bells.open:
            return False
        unsent = "select count(*) from cascades where user_id = $1 and seq > sent_seq"
        return not await self.engine.admin.fetchval(unsent, self.engine.user.user_id) and not self.bells.open


ANY = {"if-match": "*"}


@pytest_asyncio.fixture
async def world(
    make_database: Callable[..., Awaitable[Mapping[str, str]]],
) -> AsyncIterator[World]:
    """A user with a small graph of every kind: chain, fan, join, once, left to finish."""
    urls = await make_database()
    chance = random.Random(int(os.environ.get("STUDIO_STRESS_SEED", "7")))
    async with AsyncExitStack() as stack:
        databases = [await Database.connect(urls["DATABASE_URL"], size_max=8) for _ in range(2)]
        relays = await Database.connect(urls["DATABASE_RELAY_URL"], size_max=2)
        for opened in (*databases, relays):
            stack.push_async_callback(opened.close)
        contents = Contents(databases[0], objects_of(urls), inline_max=65_536)
        stack.push_async_callback(contents.close)
        admin = await asyncpg.connect(urls["DATABASE_ADMIN_URL"])
        stack.push_async_callback(admin.close)
        application = create_app(load_settings(urls))
        await stack.enter_async_context(application.router.lifespan_context(application))
        user: Person = await new_person(databases[0])
        http: httpx2.AsyncClient = await stack.enter_async_context(client_of(application, user.headers))
        schedules = [schedule_of(database, contents) for database in databases]
        engine = Engine(http, user, schedules[0], databases[0], contents, admin, urls["DATABASE_ADMIN_URL"])
        bells = Doorbells(chance)
        relay = Relay(relays, bells, bells, poll=timedelta(milliseconds=10), batch=50)
        world = World(engine, schedules, bells, relay, chance)
        await engine.provider("one", "in-v1", "mid-v1")
        await engine.provider("two", "mid-v1", "out-v1", "$.data.text + ($.settings.end || '!')", origin="any",
                              execution="workflow", supersede="finish", on_conflict="take_machine")  # fmt: skip
        await engine.provider("side", "mid-v1", "side-v1", origin="any", on_delete="delete")
        await engine.provider("once", "side-v1", "once-v1", origin="any", events=["onCreate"])
        await engine.join("book", "out-v1", "book-v1")
        await engine.provider("index", "book-v1", "index-v1", origin="any", on_conflict="wait")
        world.bucket = await engine.bucket()
        for text in "abc":
            world.roots.append(await engine.create("in-v1", text, bucket_ids=[world.bucket]))
        yield world


async def test_hands_and_workers_on_one_graph_converge_without_a_deadlock(world: World) -> None:
    engine = world.engine
    servants = [asyncio.create_task(world.worker(world.schedules[n % 2])) for n in range(WORKERS)]
    servants += [asyncio.create_task(world.relaying()), asyncio.create_task(checks(world))]
    hands = [asyncio.create_task(world.hand()) for _ in range(HANDS)]
    try:
        await first_failure([*servants, *hands], until=asyncio.sleep(SECONDS))
        world.stopped = True
        await first_failure(servants, until=settle_down(world, hands))
    finally:
        for task in [*servants, *hands]:
            task.cancel()
        await asyncio.gather(*servants, *hands, return_exceptions=True)
    await invariants.check_at_rest(engine.admin, engine.user.user_id)
    await check_heads(engine)
    assert world.done["settled"] > 0
    assert world.done["edit"] > 0
    assert await deadlocks(engine) == 0


async def first_failure(tasks: Sequence[asyncio.Task[None]], *, until: Coroutine[Any, Any, None]) -> None:
    """Wait for ``until``; whoever of the tasks raises meanwhile ends the test with it."""
    end = asyncio.create_task(until)
    finished, _ = await asyncio.wait([end, *tasks], return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    for task in finished:
        task.result()


async def settle_down(world: World, hands: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*hands)
    async with asyncio.timeout(60):
        while not await world.quiet():  # noqa: ASYNC110 - what is waited for is in PostgreSQL
            await asyncio.sleep(0.01)


async def checks(world: World) -> None:
    """Look again and again while everything moves; each statement sees committed transactions only."""
    connection = await asyncpg.connect(world.engine.admin_url)
    try:
        while True:
            await invariants.check(connection, world.engine.user.user_id)
            await asyncio.sleep(0.1)
    finally:
        await connection.close()


async def deadlocks(engine: Engine) -> int:
    found: int = await engine.admin.fetchval(
        "select deadlocks from pg_stat_database where datname = current_database()"
    )
    return found


async def check_heads(engine: Engine) -> None:
    """(6): the machine lane of whatever is settled is what its provider makes of its inputs."""
    rows = await engine.rows(
        "select d.id, p.slug, p.spec, n.settings, c.hash, c.size, c.codec, c.body, c.location, w.complete,"
        " array_agg(i.blob_id || ' ' || i.version order by i.position, i.blob_id) as inputs from derivations d"
        " join providers p on p.id = d.provider_id join instances n on n.user_id = d.user_id and n.id = d.instance_id"
        " join derivation_outputs o on o.user_id = d.user_id and o.derivation_id = d.id"
        " join contents c on c.user_id = o.user_id and c.hash = o.machine_hash"
        " join studio_want($1, (select array_agg(id) from derivations)) w on w.id = d.id"
        " join lateral (select i.position, i.blob_id, b.version"
        "   from derivation_inputs i join blobs b on b.user_id = i.user_id and b.id = i.blob_id and b.version > 0"
        "   where i.user_id = d.user_id and i.derivation_id = d.id) i on true"
        " where d.user_id = $1 and not d.unsettled and d.hold is null and w.complete and p.slug <> 'once'"
        " group by d.id, p.slug, p.spec, n.settings, c.hash, c.size, c.codec, c.body, c.location, w.complete"
    )
    assert rows
    states = States(engine.database, engine.contents)
    for row in rows:
        inputs = [(UUID(blob), int(version)) for blob, version in map(str.split, row["inputs"])]
        documents = await states.documents(engine.user.user_id, inputs)
        texts = [documents[key].body["text"] for key in inputs]
        made = Document.stored(orjson.loads(await engine.contents.read(engine.user.user_id, row))).body["text"]
        assert made in expected(row["slug"], texts, orjson.loads(row["settings"])), (row["slug"], texts, made)


def expected(slug: str, texts: list[str], settings: Mapping[str, Any]) -> list[str]:
    if slug == "book":
        return [" ".join(texts)]
    ends = {"two": [settings.get("end", "!")], "side": list("xyz!")}.get(slug, ["!"])
    return [texts[0] + end for end in ends]
