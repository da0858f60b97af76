"""Deltas in PostgreSQL: appended under an expected version, listed, and replayed from the nearest snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from domain.blobs import Appended, NewDelta, Outcome
from domain.deltas import Change, DeltaOperation, State, replay
from domain.documents import Document, binary_hash, content_size, meta_hash, preview
from domain.errors import NotFound
from domain.snapshots import keep
from storage.codecs import decoded
from storage.contents import Contents, Placed
from storage.database import Before, Database

SNAPSHOT_EVERY = 50
SHOWN_BYTES_MAX = 100 * 1024
"""A created document beyond this is not repeated as its delta's patch."""

_APPEND = """
select status, version, cascade_id, updated_at from append_delta($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
  $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)
"""
_COLUMNS = f"""
d.id, d.blob_id, d.from_version, d.to_version, d.operation, d.patch, d.inverse, d.document_hash, d.content_hash,
d.actor, d.provider_id, d.previous_delta, d.caused_by, d.cascade_id, d.status, d.run_id, d.machine_hash,
d.base_hash, d.conflicts, d.inputs, d.error, d.created_at, d.applied_at,
case when d.operation = 'create' then (select row(c.codec, c.size, c.body) from contents c
  where c.user_id = d.user_id and c.hash = d.document_hash and c.size <= {SHOWN_BYTES_MAX} and c.body is not null)
end as created
"""  # noqa: S608 - constants of this module
_PAGE = f"""
select {_COLUMNS} from deltas d
where d.user_id = $1 and d.blob_id = $2 and d.from_version >= $3
  and ($4::int is null or (d.to_version, d.id) > ($4, $5::uuid)) and ($6::text is null or d.status = $6)
order by d.to_version, d.id limit $7
"""  # noqa: S608 - constants of this module
_ONE = f"""
select {_COLUMNS} from deltas d join blobs b on b.user_id = d.user_id and b.id = d.blob_id and b.version > 0
where d.user_id = $1 and d.id = $2
"""  # noqa: S608
_OUTCOME = "select blob_id, to_version, cascade_id from deltas where user_id = $1 and id = $2 and status = 'applied'"
_SNAPSHOT = """
select s.version, c.hash, c.size, c.codec, c.body, c.location from snapshots s
join contents c on c.user_id = s.user_id and c.hash = s.document_hash
where s.user_id = $1 and s.blob_id = $2 and s.version <= $3 order by s.version desc limit 1
"""
_STEPS = """
select operation, from_version, to_version, patch, document_hash from deltas
where user_id = $1 and blob_id = $2 and status = 'applied' and to_version > $3 and to_version <= $4
order by to_version
"""


class Deltas:
    """The deltas of a user's blobs.

    At least every ``snapshot_every`` versions the whole document is kept: reading one never applies more patches.
    """

    def __init__(self, database: Database, contents: Contents, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self._database = database
        self._contents = contents
        self._snapshot_every = snapshot_every

    async def append(self, new: NewDelta, *, before: Before | None = None) -> Appended:
        """Apply a delta under the row lock of its blob; after ``before``, in one transaction.

        Nothing is written unless the status is ``applied``.
        The document goes along only if this version is to be kept whole (``domain/snapshots.py``).
        """
        draft, document = new.draft, new.draft.document
        data, patch = document.to_bytes(), draft.patch_bytes
        kept = keep(
            len(data),
            patch_bytes=new.patch_bytes + len(patch),
            versions=draft.to_version - new.kept_version,
            every=self._snapshot_every,
        )
        placed = await self._contents.put(new.user_id, data) if kept else None
        external = new.external if placed is None else placed.location is not None
        row = await self._database.call_after(
            before, _applied, new.user_id,
            _APPEND, new.user_id, new.blob_id, draft.from_version, new.delta_id, new.cascade_id, str(draft.operation),
            patch.decode(), draft.inverse_bytes.decode(), draft.document_hash, draft.content_hash, new.cutoff_hash,
            meta_hash(document), binary_hash(document), content_size(document), *_columns(placed), external,
            document.title, preview(document), list(document.tags), new.actor, new.idempotency_key, new.reserved,
        )  # fmt: skip
        if row is None:  # pragma: no cover - the function always returns one row
            raise NotFound("There is no such blob.")
        since = (draft.to_version, 0) if kept else (new.kept_version, new.patch_bytes + len(patch))
        return Appended(row["status"], row["version"], row["cascade_id"], row["updated_at"], *since, external)

    async def outcome(self, user_id: UUID, delta_id: UUID) -> Outcome | None:
        """Return what a delta with this very id did, None if there is none: the check of a keyed retry."""
        row = await self._database.row(user_id, _OUTCOME, user_id, delta_id)
        return None if row is None else Outcome(row["blob_id"], row["to_version"], row["cascade_id"])

    async def page(
        self,
        user_id: UUID,
        blob_id: UUID,
        *,
        limit: int,
        after: tuple[int, UUID] | None = None,
        from_version: int = 0,
        status: str | None = "applied",
    ) -> list[dict[str, Any]]:
        """Return up to ``limit`` deltas in the order of versions; ``status`` None shows proposed ones too."""
        rows = await self._database.rows(
            user_id, _PAGE, user_id, blob_id, from_version, *(after or (None, None)), status, limit
        )
        return [await _shown(row) for row in rows]

    async def get(self, user_id: UUID, delta_id: UUID) -> dict[str, Any]:
        """Return one delta. Raises NotFound."""
        row = await self._database.row(user_id, _ONE, user_id, delta_id)
        if row is None:
            raise NotFound("There is no such delta.")
        return await _shown(row)

    async def replayed(self, user_id: UUID, blob_id: UUID, version: int, *, from_start: bool = False) -> State:
        """Fold the deltas up to ``version``, from the nearest snapshot below it (or from the first one).

        Raises NotFound, or StudioError ``integrity`` if what is reached is not what the delta recorded.
        """
        async with self._database.transaction(user_id) as connection:
            nearest = 1 if from_start else version
            snapshot = await connection.fetchrow(_SNAPSHOT, user_id, blob_id, nearest)
            if snapshot is None:
                raise NotFound("There is no such blob, or it has no such version.")
            rows = await connection.fetch(_STEPS, user_id, blob_id, snapshot["version"], version)
        data = await self._contents.read(user_id, snapshot)
        start = State(document=Document.stored(orjson.loads(data)), version=snapshot["version"])
        return replay(start, _steps(rows))


def _applied(row: asyncpg.Record) -> bool:
    return bool(row["status"] == "applied")


async def _shown(row: asyncpg.Record) -> dict[str, Any]:
    """Return a delta with the document that it created, where that is to be shown."""
    shown = dict(row)
    if row["created"] is not None:
        codec, size, body = row["created"]
        shown["created"] = await decoded(codec, body, size=size)
    return shown


def _columns(placed: Placed | None) -> tuple[object, ...]:
    """Document size, stored size, codec, body, location, as ``append_delta`` takes them; all null: not kept."""
    if placed is None:
        return (None,) * 5
    return placed.size, placed.stored_size, placed.codec, placed.body, placed.location


def _steps(rows: Sequence[Any]) -> list[Change]:
    return [
        Change(
            operation=DeltaOperation(row["operation"]),
            from_version=row["from_version"],
            to_version=row["to_version"],
            patch=orjson.loads(row["patch"]),
            document_hash=row["document_hash"],
        )
        for row in rows
    ]
