"""Everything that writes content at once, of one user, while housekeeping collects: no deadlock, and no text is lost.

The hands of ``test_schedule_stress`` do more here: stale writes under every policy, proposals and decisions, batches in
any order, going back, and bytes that are named again while nobody else needs them. In between housekeeping finds that
everything is old. At the end every version of every blob is read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any
from uuid import UUID

import pytest_asyncio

from domain.housekeeping import Chore
from storage.housekeeping import Housekeeping
from storage.verification import Verification
from tests.conftest import BASE, objects_of
from tests.storage import invariants
from tests.storage.shelf import HOUR, RULES, nobody
from tests.storage.test_schedule_stress import (
    ANY,
    HANDS,
    SECONDS,
    WORKERS,
    World,
    check_heads,
    checks,
    deadlocks,
    first_failure,
    settle_down,
    world,
)

__all__ = ["world"]

MERGE = {"content-type": "application/merge-patch+json"}
OCTETS = {"content-type": "application/octet-stream"}
POLICIES = ("merge", "last_write_wins", "reject")
CHORES = (Chore.STEPS, Chore.CONTENTS, Chore.OBJECTS, Chore.COLD, Chore.WARM)


@dataclass
class Busy(World):
    """A world in which content moves as well."""

    housekeeping: Housekeeping = field(kw_only=True)
    files: list[UUID] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    tidying: asyncio.Lock = field(default_factory=asyncio.Lock)
    """While a collector looks, nothing becomes old that somebody has just touched."""

    async def hand(self) -> None:
        """Do one thing after the other, whatever it is."""
        moves = {self.edit: 15, self.edit_output: 10, self.create: 5, self.place: 3, self.delete: 3, self.undelete: 6,
                 self.process: 2, self.stale: 20, self.propose: 8, self.decide: 10, self.batch: 12, self.go_back: 10,
                 self.reset: 4, self.file: 4, self.rename_bytes: 10, self.tidy: 6}  # fmt: skip
        while not self.stopped:
            move = self.chance.choices(list(moves), list(moves.values()))[0]
            await move()
            self.done[move.__name__] += 1

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = await super().ask(method, path, body, **headers)
        if not answer.is_success:
            self.refused.add(answer.json()["code"])
        return answer

    async def rows(self, query: str, *arguments: Any) -> list[Any]:
        user = self.engine.user.user_id
        return list(await self.engine.database.rows(user, query, user, *arguments))

    async def one(self, condition: str = "deleted_at is null") -> Any:
        """A blob by chance, with its version."""
        rows = await self.rows(  # the condition is this module's own
            "select id, version, schema_id, deleted_at from blobs"  # noqa: S608
            f" where user_id = $1 and version > 0 and {condition} order by random() limit 1"
        )
        return rows[0] if rows else None

    def change(self, blob: Any) -> dict[str, Any]:
        if blob["schema_id"] == "blob-v1" or self.chance.random() < 0.2:
            return {"title": self.word()}
        return {"data": {"text": " ".join(self.word() for _ in range(self.chance.randint(1, 40)))}}

    def earlier(self, blob: Any) -> int:
        return self.chance.randint(max(1, blob["version"] - 3), blob["version"])

    async def stale(self) -> None:
        blob = await self.one()
        path = f"/blobs/{blob['id']}?on_conflict={self.chance.choice(POLICIES)}"
        await self.ask("PATCH", path, self.change(blob), **MERGE, **{"if-match": f'"v{self.earlier(blob)}"'})

    async def propose(self) -> None:
        blob = await self.one()
        body = {"patch": self.change(blob), "from_version": self.earlier(blob), "proposed": True}
        await self.ask("POST", f"/blobs/{blob['id']}/deltas", body)

    async def decide(self) -> None:
        rows = await self.rows(
            "select id from deltas where user_id = $1 and status = 'proposed' order by random() limit 1"
        )
        for row in rows:
            path = f"/deltas/{row['id']}"
            policy = self.chance.choice(POLICIES)
            await self.ask("POST", f"{path}/reject" if policy == "reject" else f"{path}/accept?on_conflict={policy}")

    async def batch(self) -> None:
        rows = await self.rows(
            "select id, version, schema_id from blobs where user_id = $1 and version > 0 and deleted_at is null"
            " order by random() limit 6"
        )
        items: list[dict[str, Any]] = []
        for row in rows:
            if self.chance.random() < 0.1:
                items.append({"op": "delete", "id": str(row["id"])})
            else:
                items.append({"op": "update", "id": str(row["id"]), "patch": self.change(row)})
            if self.chance.random() < 0.2:
                items[-1]["from_version"] = row["version"]
        if self.chance.random() < 0.2:
            text = {"schema_id": "blob-v1", "data": {"text": self.word()}}
            items.append({"op": "create", "key": self.chance.choice("abcd"), **text})
        await self.ask("POST", "/blobs/batch", {"atomic": self.chance.random() < 0.5, "items": items})

    async def go_back(self) -> None:
        blob = await self.one()
        await self.ask("POST", f"/blobs/{blob['id']}/revert", {"version": self.chance.randint(1, blob["version"])})

    async def reset(self) -> None:
        blob = await self.one("provider_id is not null and deleted_at is null")
        if blob is not None:
            await self.ask("POST", f"/blobs/{blob['id']}/reset")

    async def undelete(self) -> None:
        blob = await self.one("deleted_at is not null")
        if blob is not None:
            await self.ask("POST", f"/blobs/{blob['id']}/restore")

    async def file(self) -> None:
        """New bytes, or those that were there already."""
        data = random.Random(self.chance.randint(0, 8)).randbytes(self.chance.choice([10, 3_000]))
        if len(self.files) < 4:
            answer = await self.engine.http.post(f"{BASE}/blobs", content=data, headers=OCTETS)
            self.files.append(UUID(answer.json()["id"]))
            return
        answer = await self.engine.http.put(
            f"{BASE}/blobs/{self.chance.choice(self.files)}/content", content=data, headers=OCTETS | ANY
        )
        assert answer.status_code in {200, 410, 412}, answer.text

    async def rename_bytes(self) -> None:
        """Name bytes that some version, or some proposal, of some blob has."""
        if len(self.files) < 2:
            return
        rows = await self.rows(
            "select d.binary_hash as hash, c.size from deltas d"
            " join contents c on c.user_id = d.user_id and c.hash = d.binary_hash"
            " where d.user_id = $1 order by random() limit 2"
        )
        named = [{"hash": row["hash"], "size": row["size"]} for row in rows]
        blob = await self.one(f"id = '{self.chance.choice(self.files)}'")
        patch: dict[str, Any] = {"binary": named[0]}
        match self.chance.randint(0, 3):
            case 0:
                items = [{"op": "update", "id": str(blob["id"]), "patch": patch}] + [
                    {"op": "create", "content_type": OCTETS["content-type"], "binary": one} for one in named
                ]
                await self.ask("POST", "/blobs/batch", {"atomic": False, "items": items})
            case 1:
                body = {"patch": patch, "proposed": True, "from_version": self.earlier(blob)}
                await self.ask("POST", f"/blobs/{blob['id']}/deltas", body)
            case _:
                path = f"/blobs/{blob['id']}?on_conflict={self.chance.choice(POLICIES)}"
                await self.ask("PATCH", path, patch, **MERGE, **{"if-match": f'"v{self.earlier(blob)}"'})

    async def tidy(self) -> None:
        """Housekeeping comes by long after everything that has been written so far."""
        user = self.engine.user.user_id
        async with self.tidying:
            async with self.engine.database.transaction(user) as connection:
                # By hash, as everybody locks contents.
                await connection.execute(
                    "update contents set touched_at = now() - interval '2 hours',"
                    " accessed_at = now() - interval '2 hours' where user_id = $1 and hash in"
                    " (select hash from contents where user_id = $1 order by hash for update skip locked)", user,
                )  # fmt: skip
            for chore in CHORES:
                done = await self.housekeeping.tidy(chore, user)
                self.done["collected"] += done.contents_collected
                self.done["moved"] += done.moved_to_cold
                assert done.damaged == 0, done


@pytest_asyncio.fixture
async def busy(world: World, database_urls: Mapping[str, str]) -> AsyncIterator[Busy]:
    engine = world.engine
    objects = objects_of(database_urls)
    rules = replace(RULES, grace=HOUR, cold_after=HOUR)
    housekeeping = Housekeeping(engine.database, engine.contents, objects, rules=rules, expire=nobody, forget=nobody)
    yield Busy(**{one.name: getattr(world, one.name) for one in fields(World)}, housekeeping=housekeeping)
    await objects.close()


async def test_hands_batches_and_housekeeping_at_once_lose_nothing(busy: Busy) -> None:
    engine, user = busy.engine, busy.engine.user.user_id
    servants = [asyncio.create_task(busy.worker(busy.schedules[n % 2])) for n in range(WORKERS)]
    servants += [asyncio.create_task(busy.relaying()), asyncio.create_task(checks(busy))]
    hands = [asyncio.create_task(busy.hand()) for _ in range(HANDS)]
    try:
        await first_failure([*servants, *hands], until=asyncio.sleep(SECONDS))
        busy.stopped = True
        await first_failure(servants, until=settle_down(busy, hands))
    finally:
        for task in [*servants, *hands]:
            task.cancel()
        await asyncio.gather(*servants, *hands, return_exceptions=True)
    await invariants.check_at_rest(engine.admin, user)
    await check_heads(engine)
    verification = Verification(engine.database, engine.contents)
    found = [look.findings async for look in verification.looks(user, sample=None, at_rest=True) if look.findings]
    assert not found, found
    await check_versions(busy)
    assert await deadlocks(engine) == 0
    assert "unknown_content" not in busy.refused
    assert busy.done["stale"] > 0
    assert busy.done["batch"] > 0


async def check_versions(busy: Busy) -> None:
    """Every version is read, by its number and by its time, and is what its delta recorded; so is what it names."""
    rows = await busy.rows(
        "select blob_id, to_version, content_hash, applied_at, binary_hash from deltas"
        " where user_id = $1 and status = 'applied' order by random() limit 300"
    )
    for row in rows:
        path = f"{BASE}/blobs/{row['blob_id']}"
        found = (await busy.engine.http.get(f"{path}?version={row['to_version']}")).json()
        assert found["content_hash"] == row["content_hash"], row
        at = (await busy.engine.http.get(path, params={"at": row["applied_at"].isoformat()})).json()
        assert at["version"] == row["to_version"], row
        if row["binary_hash"] is not None:
            answer = await busy.engine.http.get(f"{path}/content?version={row['to_version']}")
            assert answer.status_code == 200, row
