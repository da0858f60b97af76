"""Many blobs at once in PostgreSQL: one function, one round trip, whatever their number (``13_batches.sql``)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from domain.batches import Batch, BatchRow, Verdict
from domain.documents import binary_hash, content_size, document_hash, meta_hash, preview
from domain.errors import Forbidden
from domain.snapshots import keep as kept_whole
from storage.contents import Contents
from storage.database import Database
from storage.deltas import SNAPSHOT_EVERY
from storage.idempotency import Keep, unkept

_TYPES = (
    "int", "text", "uuid", "uuid", "int", "text", "text", "text", "text", "text", "text", "text", "text", "text",
    "bigint", "bigint", "bigint", "text", "bytea", "text", "boolean", "text", "text", "text", "uuid", "text",
)  # fmt: skip
_WRITE = (  # the types are this module's own
    "select * from write_batch($1, $2, $3, $4, $5, "  # noqa: S608
    + ", ".join(f"${index + 6}::{kind}[]" for index, kind in enumerate(_TYPES))
    + ")"
)
_PRESENT = "select id from blobs where user_id = $1 and id = any($2) and version > 0"


class Batches:
    """Batches of a user's blobs."""

    def __init__(self, database: Database, contents: Contents, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self._database = database
        self._contents = contents
        self._snapshot_every = snapshot_every

    async def write(
        self, batch: Batch, *, strict: bool, keep: Keep[Sequence[Verdict]] = unkept
    ) -> Sequence[Verdict] | None:
        """Write what can be written, and say what became of each item, in their order.

        ``strict``: nothing is written unless every item can be. ``keep`` is called if something was written. None:
        others took the room, or made a blob of the same key, at this very moment; nothing was written, look again.
        """
        columns = []
        for row in batch.rows:
            columns.append(await self._columns(batch, row))
            await asyncio.sleep(0)  # a thousand of them would keep all others waiting
        arrays = [[row[index] for row in columns] for index in range(len(_TYPES))]
        with suppress(asyncpg.UniqueViolationError, Forbidden):
            async with self._transaction(batch) as connection:
                rows = await connection.fetch(
                    _WRITE, batch.user_id, batch.cascade_id, batch.actor, batch.idempotency_key, strict, *arrays
                )
                verdicts = [Verdict(row["n"], row["status"], row["version"], row["about"]) for row in rows]
                if any(verdict.status == "ok" for verdict in verdicts) and (
                    not strict or all(verdict.stands for verdict in verdicts)
                ):
                    await keep(connection, verdicts)
            return verdicts
        return None

    async def present(self, user_id: UUID, ids: Sequence[UUID]) -> set[UUID]:
        """Return those of the ids that are blobs of the user, deleted or not."""
        rows = await self._database.rows(user_id, _PRESENT, user_id, list(ids))
        return {row["id"] for row in rows}

    @asynccontextmanager
    async def _transaction(self, batch: Batch) -> AsyncIterator[Any]:
        # Who locks rows of several blobs takes turns with plan and with other batches, which lock several as well.
        changes = any(row.draft is not None for row in batch.rows)
        opened = self._database.locked if changes else self._database.transaction
        async with opened(batch.user_id) as connection:
            yield connection

    async def _columns(self, batch: Batch, row: BatchRow) -> tuple[Any, ...]:
        """One item as ``write_batch`` takes it; what is large goes to the object store now."""
        document, draft = row.document, row.draft
        data = document.to_bytes()
        patch = None if draft is None else draft.patch_bytes
        whole = patch is None or kept_whole(
            len(data),
            patch_bytes=row.patch_bytes + len(patch),
            versions=0 if draft is None else draft.to_version - row.kept_version,
            every=self._snapshot_every,
        )
        placed = await self._contents.put(batch.user_id, data) if whole else None
        return (
            row.index,
            row.op,
            row.blob_id,
            row.delta_id,
            0 if draft is None else draft.from_version,
            document.content_type,
            row.schema_id,
            None if patch is None else patch.decode(),
            None if draft is None else draft.inverse_bytes.decode(),
            document_hash(data),
            row.content_hash,
            row.cutoff_hash,
            meta_hash(document),
            binary_hash(document),
            content_size(document),
            *(
                (None,) * 5
                if placed is None
                else (placed.size, placed.stored_size, placed.codec, placed.body, placed.location)
            ),
            row.external if placed is None else placed.location is not None,
            document.title,
            preview(document),
            orjson.dumps(document.tags).decode(),
            row.parent_id,
            orjson.dumps([str(bucket_id) for bucket_id in row.bucket_ids]).decode(),
        )
