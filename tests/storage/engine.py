"""A person's Studio whose schedule the test moves by hand: the real SQL, the real activities, no worker, no relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import httpx2

from activities.cascades import AdvanceResult, CascadeActivities, CascadeRef
from domain.blobs import NewDelta
from domain.deltas import restore
from domain.documents import cutoff_hash
from domain.execution import carry_out
from domain.ids import new_id
from domain.works import ClaimedRun, RunWork, Settlement, StepRecord
from storage.contents import Contents
from storage.database import Database
from storage.deltas import Deltas
from storage.schedule import PostgresSchedule
from tests.conftest import BASE, Person
from tests.storage import invariants

ROUNDS_MAX = 60
"""Doorbells answered in a row before a test gives up: the schedule would never come to rest."""


def schedule_of(database: Database, contents: Contents, **more: Any) -> PostgresSchedule:
    """A schedule of its own, as another process would have one."""
    bounds = {"lease": timedelta(minutes=5), "depth_max": 64, "nodes_max": 1000}
    return PostgresSchedule(database, contents, **{**bounds, **more})


@dataclass
class Engine:
    """What a person does over HTTP, and the moves of the schedule that follow."""

    http: httpx2.AsyncClient
    user: Person
    schedule: PostgresSchedule
    database: Database
    contents: Contents
    admin: Any
    admin_url: str
    known: set[str] = field(default_factory=set)

    # --- what a person does -------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Ask the API; a refusal fails the test."""
        answer = await self.http.request(method, f"{BASE}{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def schemas(self, *slugs: str, **definition: Any) -> None:
        """Register schemas, unless they are there."""
        for slug in slugs:
            if slug in self.known:
                continue
            self.known.add(slug)
            body = {"slug": slug, "version": "1.0.0", "definition": {"type": "object", **definition}}
            await self.ask("POST", "/schemas", body)

    async def provider(
        self,
        slug: str,
        source: str,
        target: str,
        text: str = "$.data.text + '!'",
        *,
        also: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        """Register ``source`` to ``target`` by expressions; registering it again is a newer version."""
        await self.schemas(source, target)
        fields = {"text": text, **(also or {})}
        operations = [{name: expression} for name, expression in fields.items()]
        compute = {"id": "compute", "type": "computation", "operations": operations}
        keep = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": target,
                "data_map": {name: f"$.{name}" for name in fields}}  # fmt: skip
        await self.register(slug, [compute, keep], input_schema_id=source, **more)

    async def register(self, slug: str, steps: Sequence[Mapping[str, Any]], **more: Any) -> None:
        await self.ask("POST", "/workflows", {"id": f"wf-{slug}", "name": slug, "steps": list(steps)})
        await self.ask("POST", "/providers", {"id": slug, "name": slug.title(), "workflow_id": f"wf-{slug}", **more})

    async def join(self, slug: str, source: str, target: str, **more: Any) -> None:
        """Register a provider that joins the texts of a bucket of type ``book``."""
        await self.schemas(source, target)
        texts = {"id": "join", "type": "computation", "operations": [
            {"text": "join($.inputs.map(one, one.data.text), ' ')"}]}  # fmt: skip
        keep = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": target,
                "data_map": {"text": "$.text"}}  # fmt: skip
        await self.register(
            slug, [texts, keep], anchor="bucket", collect={"bucket_type": "book", "schema_id": source}, **more
        )

    async def switch(self, slug: str, *, active: bool | None = None, settings: Any = None) -> None:
        body = {"active": active, "settings": settings}
        named = {name: value for name, value in body.items() if value is not None}
        await self.ask("PUT", f"/providers/{slug}/instance", named, **{"if-match": "*"})

    async def bucket(self, kind: str = "book") -> str:
        return str((await self.ask("POST", "/buckets", {"name": "Book", "type": kind}))["id"])

    async def create(self, schema: str, text: str = "a", **more: Any) -> UUID:
        made = await self.ask("POST", "/blobs", {"schema_id": schema, "data": {"text": text}, "title": "T", **more})
        return UUID(made["id"])

    async def edit(self, blob_id: UUID, text: str | None = None, **patch: Any) -> UUID:
        """Edit a blob; returns the cascade that follows it up."""
        changes = patch | ({} if text is None else {"data": {"text": text}})
        answer = await self.ask("PATCH", f"/blobs/{blob_id}", {"delta": {"operation": "update", "patch": changes}})
        return UUID(answer["cascade_id"])

    async def delete(self, blob_id: UUID) -> None:
        await self.ask("DELETE", f"/blobs/{blob_id}", **{"if-match": "*"})

    async def restore(self, blob_id: UUID) -> bool:
        """Restore a deleted blob; False if somebody changed it meanwhile."""
        deltas = Deltas(self.database, self.contents)
        row = await self.database.row(
            self.user.user_id, "select version, kept_version, patch_bytes from blobs where id = $1", blob_id
        )
        assert row is not None
        draft = restore(await deltas.replayed(self.user.user_id, blob_id, row["version"]))
        if draft is None:
            return False
        done = await deltas.append(
            NewDelta(user_id=self.user.user_id, blob_id=blob_id, delta_id=new_id(), cascade_id=new_id(), draft=draft,
                     cutoff_hash=cutoff_hash(draft.document), actor=f"user:{self.user.user_id}",
                     kept_version=row["kept_version"], patch_bytes=row["patch_bytes"], external=False)
        )  # fmt: skip
        return done.status == "applied"

    # --- looking ------------------------------------------------------------------------------------------------

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        """Rows of this user: ``$1`` is the user."""
        found: list[Any] = await self.admin.fetch(query, self.user.user_id, *arguments)
        return found

    async def outputs(self, provider: str) -> list[UUID]:
        rows = await self.rows("select id from blobs where user_id = $1 and provider_id = $2 order by id", provider)
        return [row["id"] for row in rows]

    async def output(self, provider: str) -> UUID:
        [found] = await self.outputs(provider)
        return found

    async def text(self, blob_id: UUID) -> Any:
        return (await self.ask("GET", f"/blobs/{blob_id}"))["data"]["text"]

    async def version(self, blob_id: UUID) -> int:
        found: int = await self.admin.fetchval("select version from blobs where id = $1", blob_id)
        return found

    async def derivation(self, provider: str) -> Any:
        [found] = await self.rows(
            "select d.* from derivations d join providers p on p.id = d.provider_id"
            " where d.user_id = $1 and p.slug = $2", provider,
        )  # fmt: skip
        return found

    async def runs(self, provider: str | None = None) -> list[str]:
        """Statuses of the runs so far, oldest first."""
        rows = await self.rows(
            "select status from runs where user_id = $1 and ($2::text is null or provider_id = $2) order by id",
            provider,
        )
        return [row["status"] for row in rows]

    async def cascade(self, cascade_id: UUID) -> Any:
        return (await self.rows("select * from cascades where user_id = $1 and id = $2", cascade_id))[0]

    async def plan_all(self) -> UUID:
        """Plan every cascade that is not planned, oldest first; returns the newest."""
        rows = await self.rows(
            "select id from cascades where user_id = $1 and planned_at is null order by created_at, id"
        )
        for row in rows:
            await self.plan(row["id"])
        return UUID(str(rows[-1]["id"]))

    async def latest(self) -> UUID:
        """The newest cascade."""
        found = await self.rows("select id from cascades where user_id = $1 order by created_at desc, id desc limit 1")
        return UUID(str(found[0]["id"]))

    async def check(self) -> None:
        await invariants.check(self.admin, self.user.user_id)

    @asynccontextmanager
    async def locked(self, statement: str, *arguments: Any) -> AsyncIterator[None]:
        """Hold what ``statement`` locks, as another transaction would, until the block ends."""
        connection = await asyncpg.connect(self.admin_url)
        try:
            async with connection.transaction():
                await connection.execute(statement, *arguments)
                yield
        finally:
            await connection.close()

    async def blocked(self, count: int) -> None:
        """Wait until so many connections of this database wait for a lock."""
        async with asyncio.timeout(10):
            while True:
                waiting = await self.admin.fetchval(
                    "select count(*) from pg_stat_activity where datname = current_database()"
                    " and wait_event_type = 'Lock'"
                )
                if waiting >= count:
                    return
                await asyncio.sleep(0.005)

    # --- moving the schedule ------------------------------------------------------------------------------------

    async def plan(self, cascade_id: UUID) -> bool:
        done = await self.schedule.plan(self.user.user_id, cascade_id)
        await self.check()
        return done

    async def claim(self, cascade_id: UUID, *, window: int = 100) -> Any:
        found = await self.schedule.claim(self.user.user_id, cascade_id, window=window)
        await self.check()
        return found

    async def take(self, cascade_id: UUID) -> ClaimedRun:
        """Plan and claim; the one run that comes of it."""
        await self.plan(cascade_id)
        [run] = (await self.claim(cascade_id)).runs
        found: ClaimedRun = run
        return found

    async def decide(self, run: ClaimedRun | UUID, **entries: Any) -> Settlement:
        """Load a run and carry it out, without settling it."""
        run_id = run if isinstance(run, UUID) else run.run_id
        [work] = await self.schedule.load(self.user.user_id, [run_id])
        return decided(work, **entries)

    async def settle(self, *settlements: Settlement, caller: UUID | None = None) -> list[str]:
        verdicts = await self.schedule.settle(self.user.user_id, settlements, caller=caller)
        await self.check()
        return [verdicts[settlement.run_id] for settlement in settlements]

    async def finish(self, run: ClaimedRun | UUID) -> str:
        """Carry out one run to its end."""
        [verdict] = await self.settle(await self.decide(run))
        return verdict

    async def advance(self, cascade_id: UUID) -> AdvanceResult:
        """What the Cascade workflow does once."""
        activities = CascadeActivities(self.schedule, window=100, batch=50, budget=timedelta(seconds=5))
        ref = CascadeRef(user_id=str(self.user.user_id), cascade_id=str(cascade_id))
        found = await activities.advance(ref)
        await self.check()
        return found

    async def ring(self, *only: UUID) -> list[UUID]:
        """What the relay does once: take every unsent doorbell, or those of ``only``."""
        rows = await self.rows(
            "update cascades set sent_seq = seq where user_id = $1 and seq > sent_seq"
            " and (cardinality($2::uuid[]) = 0 or id = any($2)) returning id, created_at",
            list(only),
        )
        return [row["id"] for row in sorted(rows, key=lambda row: (row["created_at"], row["id"]))]

    async def rest(self) -> None:
        """Answer doorbells and carry out what is claimed until nothing is left to do, then check everything."""
        for _ in range(ROUNDS_MAX):
            rung = await self.ring()
            if not rung:
                break
            for cascade_id in rung:
                for start in (await self.advance(cascade_id)).runs:
                    await self.finish(UUID(start.run_id))
        await invariants.check_at_rest(self.admin, self.user.user_id)


def decided(work: RunWork, **entries: Any) -> Settlement:
    """The settlement of a run; ``entries`` are what a recorded step of each name added."""
    records = [StepRecord(step_id=step, entries=added) for step, added in entries.items()]
    return carry_out(work, now=datetime.now(UTC), records=records)
