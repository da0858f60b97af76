"""Deltas in PostgreSQL: appended under an expected version, listed, and replayed from the nearest snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from domain.blobs import Appended, NewDelta, Outcome
from domain.deltas import Change, DeltaOperation, State, replay
from domain.documents import Document, content_size, meta_hash, preview
from domain.errors import NotFound
from storage.contents import Contents
from storage.database import Database

SNAPSHOT_EVERY = 50
SHOWN_BYTES_MAX = 100 * 1024
"""A created document beyond this is not repeated as its delta's patch."""

_APPEND = """
select status, version, cascade_id, updated_at from append_delta($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
  $13, $14, $15, $16, $17, $18, $19, $20, $21)
"""
_COLUMNS = f"""
d.id, d.blob_id, d.from_version, d.to_version, d.operation, d.patch, d.inverse, d.document_hash, d.content_hash,
d.actor, d.provider_id, d.previous_delta, d.caused_by, d.cascade_id, d.status, d.run_id, d.machine_hash,
d.base_hash, d.conflicts, d.inputs, d.error, d.created_at, d.applied_at,
case when d.operation = 'create' then (select c.body from contents c
  where c.user_id = d.user_id and c.hash = d.document_hash and octet_length(c.body) <= {SHOWN_BYTES_MAX})
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
select s.version, c.body, c.location, c.hash from snapshots s
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

    Every ``snapshot_every`` versions the whole document is kept, so replay never applies more patches than that.
    """

    def __init__(self, database: Database, contents: Contents, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self._database = database
        self._contents = contents
        self._snapshot_every = snapshot_every

    async def append(self, new: NewDelta) -> Appended:
        """Apply a delta under the row lock of its blob; nothing is written unless the status is ``applied``."""
        document = new.draft.document
        placed = await self._contents.put(new.user_id, document.to_bytes())
        row = await self._database.call(
            _APPEND, new.user_id, new.blob_id, new.draft.from_version, new.delta_id, new.cascade_id,
            str(new.draft.operation), new.draft.patch_bytes.decode(), new.draft.inverse_bytes.decode(),
            placed.hash, new.draft.content_hash, new.cutoff_hash, meta_hash(document), content_size(document),
            placed.body, placed.location, document.title, preview(document), list(document.tags), new.actor,
            self._snapshot_every, new.idempotency_key,
        )  # fmt: skip
        if row is None:  # pragma: no cover - the function always returns one row
            raise NotFound("There is no such blob.")
        external = placed.location is not None
        return Appended(row["status"], row["version"], row["cascade_id"], row["updated_at"], external)

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
    ) -> list[asyncpg.Record]:
        """Return up to ``limit`` deltas in the order of versions; ``status`` None shows proposed ones too."""
        return await self._database.rows(
            user_id, _PAGE, user_id, blob_id, from_version, *(after or (None, None)), status, limit
        )

    async def get(self, user_id: UUID, delta_id: UUID) -> asyncpg.Record:
        """Return one delta. Raises NotFound."""
        row = await self._database.row(user_id, _ONE, user_id, delta_id)
        if row is None:
            raise NotFound("There is no such delta.")
        return row

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
        data = await self._contents.read(snapshot["hash"], snapshot["body"], snapshot["location"])
        start = State(document=Document.stored(orjson.loads(data)), version=snapshot["version"])
        return replay(start, _steps(rows))


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
