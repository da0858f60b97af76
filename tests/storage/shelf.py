"""A user's contents on their own: what housekeeping works on, without blobs around it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest_asyncio

from domain.housekeeping import Chore, Tidied
from domain.ids import new_id
from storage.contents import Contents, Placed
from storage.database import Database
from storage.housekeeping import Housekeeping, Rules
from storage.objects import Objects
from tests.conftest import Person, objects_of

INLINE_MAX = 65_536
AT_ONCE = timedelta(milliseconds=1)
HOUR = timedelta(hours=1)
RULES = Rules(
    grace=AT_ONCE, cold_after=timedelta(days=30), steps_kept=timedelta(days=30), memo_kept=timedelta(days=30),
    memo_max=1000, plans_kept=timedelta(days=30), runs_window=HOUR, sample=5,
)  # fmt: skip


async def nobody(_user_id: UUID) -> int:
    return 0


class Shelf:
    """The contents of one user, and housekeeping over them."""

    def __init__(self, user_id: UUID, contents: Contents, objects: Objects, database: Database, admin: Any) -> None:
        self.user_id = user_id
        self.contents = contents
        self.objects = objects
        self.database = database
        self.admin = admin

    def housekeeping(self, **changes: Any) -> Housekeeping:
        more = {name: changes.pop(name) for name in ("expire", "forget", "failpoint") if name in changes}
        return Housekeeping(
            self.database, self.contents, self.objects, rules=replace(RULES, **changes),
            **{"expire": nobody, "forget": nobody, **more},
        )  # fmt: skip

    async def tidy(self, chore: Chore, **changes: Any) -> Tidied:
        return await self.housekeeping(**changes).tidy(chore, self.user_id)

    async def keep(self, data: bytes) -> Placed:
        """A content with its row, which nothing refers to."""
        placed = await self.contents.put(self.user_id, data)
        async with self.database.transaction(self.user_id) as connection:
            await connection.execute(
                "select studio_store($1, $2, $3, $4, $5, $6, $7)", self.user_id, placed.hash, placed.size,
                placed.stored_size, placed.codec, placed.body, placed.location,
            )  # fmt: skip
        return placed

    async def refer(self, digest: str) -> None:
        """Make something refer to a content: a kept version of a blob."""
        blob = new_id()
        await self.admin.execute(
            "insert into blobs (user_id, id, content_type, schema_id, created_by, root_id)"
            " values ($1, $2, 'text/plain', 'text-v1', 'user', $2)", self.user_id, blob,
        )  # fmt: skip
        await self.admin.execute(
            "insert into snapshots (user_id, blob_id, version, document_hash) values ($1, $2, 1, $3)",
            self.user_id, blob, digest,
        )  # fmt: skip

    async def row(self, digest: str) -> Any:
        return await self.admin.fetchrow(
            "select * from contents where user_id = $1 and hash = $2", self.user_id, digest
        )

    async def hashes(self) -> set[str]:
        rows = await self.admin.fetch("select hash from contents where user_id = $1", self.user_id)
        return {row["hash"] for row in rows}

    async def stored(self) -> set[str]:
        """Keys of the user's objects."""
        return {found.key for found in await self.objects.list(f"{self.user_id}/")}

    async def named(self) -> set[str]:
        """Objects that rows name."""
        rows = await self.admin.fetch(
            "select location from contents where user_id = $1 and location is not null", self.user_id
        )
        return {row["location"] for row in rows}

    async def aged(self, digest: str, *, accessed: str = "60 days", touched: str = "60 days") -> None:
        await self.admin.execute(
            f"update contents set accessed_at = now() - interval '{accessed}',"  # noqa: S608
            f" touched_at = now() - interval '{touched}' where user_id = $1 and hash = $2",
            self.user_id, digest,
        )  # fmt: skip


@pytest_asyncio.fixture
async def shelf(user: Person, database: Database, database_urls: Mapping[str, str], admin: Any) -> AsyncIterator[Shelf]:
    """With a content store of its own: what others have read is not written down in the middle of this test."""
    objects = objects_of(database_urls)
    contents = Contents(database, objects, inline_max=INLINE_MAX)
    yield Shelf(user.user_id, contents, objects, database, admin)
    await contents.close()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


SMALL, LARGE = noise(5_000), noise(INLINE_MAX + 1, 2)
