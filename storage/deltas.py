"""Deltas in PostgreSQL: appended under an expected version, listed, and replayed from the nearest snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg
import orjson

from domain.blobs import Appended, LostSide, NewDelta, NewProposal, Outcome
from domain.deltas import State
from domain.documents import Document, binary_hash, content_size, meta_hash, preview
from domain.errors import NotFound
from domain.snapshots import keep
from storage.contents import Contents, Placed
from storage.database import Before, Database
from storage.proposals import encoded_conflicts, hold, offer
from storage.replays import Replays, Report

SNAPSHOT_EVERY = 50
SHOWN_BYTES_MAX = 100 * 1024
"""A created document beyond this is not repeated as its delta's patch."""

CHANGES_MAX = 20
"""Changes that a refused write is told of."""
CHANGE_PATCH_BYTES_MAX = 64 * 1024
"""A larger patch is not searched for the places that it changes."""
POINTERS_MAX = 20

_APPEND = """
select status, version, cascade_id, updated_at from append_delta($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
  $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28)
"""
_ACCEPT = _APPEND.replace("append_delta", "accept_delta")
_COLUMNS = f"""
d.id, d.blob_id, d.from_version, d.to_version, d.operation, d.patch, d.inverse, d.document_hash, d.content_hash,
d.actor, d.provider_id, d.previous_delta, d.caused_by, d.cascade_id, d.status, d.run_id, d.machine_hash,
d.base_hash, d.conflicts, d.inputs, d.error, d.created_at, d.applied_at, d.base_version, d.resolved_at, d.resolved_by,
case when d.operation = 'create' then (select row(c.hash, c.codec, c.size, c.body, c.location)
  from contents c where c.user_id = d.user_id and c.hash = d.document_hash and c.size <= {SHOWN_BYTES_MAX})
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
_LATEST = f"""
select {_COLUMNS} from blobs b
join deltas d on d.user_id = b.user_id and d.blob_id = b.id and d.status = 'applied'
  and d.to_version = case when $3::int is null then b.version else $3 end
where b.user_id = $1 and b.id = $2 and b.version > 0
"""  # noqa: S608 - constants of this module
_RESOLUTION = """
select d.conflicts, a.id as aside_id, a.status as aside_status from deltas d
left join deltas a on a.user_id = d.user_id and a.blob_id = d.blob_id and a.caused_by = d.id
where d.user_id = $1 and d.blob_id = $2 and d.to_version = $3 and d.status = 'applied' and d.provider_id is null
"""
_CHANGES = """
select to_version, operation, actor, provider_id, applied_at,
  case when octet_length(patch) <= $5 then patch end as patch
from deltas where user_id = $1 and blob_id = $2 and status = 'applied' and to_version > $3
order by to_version desc limit $4
"""
_HEAD = """
select c.hash, c.size, c.codec, c.body, c.location from derivation_outputs o
join contents c on c.user_id = o.user_id and c.hash = o.machine_hash
where o.user_id = $1 and o.blob_id = $2
"""


class Deltas:
    """The deltas of a user's blobs.

    At least every ``snapshot_every`` versions the whole document is kept: reading one never applies more patches.
    """

    def __init__(self, database: Database, contents: Contents, *, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self._database = database
        self._contents = contents
        self._snapshot_every = snapshot_every
        self._replays = Replays(database, contents)
        # A turn goes with the last one who waits for it.
        self._turns: WeakValueDictionary[UUID, asyncio.Lock] = WeakValueDictionary()

    async def append(self, new: NewDelta, *, before: Before | None = None) -> Appended:
        """Apply a delta under the row lock of its blob; after ``before``, in one transaction.

        Nothing is written unless the status is ``applied``; then ``new.aside`` is as well.
        The document goes along only if this version is to be kept whole (``domain/snapshots.py``).
        """
        return await self._write(_APPEND, new, before)

    async def accept(self, new: NewDelta) -> Appended:
        """Apply a proposed delta, whose row (``new.delta_id``) becomes the applied one; who waited for it goes on.

        As ``append``; the status is ``resolved`` if it is not open any more.
        """
        return await self._write(_ACCEPT, new, partial(_locked, new.user_id))

    async def _write(self, statement: str, new: NewDelta, before: Before | None) -> Appended:
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
        if new.aside is not None and new.aside.draft.document.binary:
            before = partial(_holding, new.aside, before)
        row = await self._database.call_after(
            before, _applied, new.user_id,
            statement, new.user_id, new.blob_id, draft.from_version, new.delta_id, new.cascade_id, str(draft.operation),
            patch.decode(), draft.inverse_bytes.decode(), draft.document_hash, draft.content_hash, new.cutoff_hash,
            meta_hash(document), binary_hash(document), content_size(document), *_columns(placed), external,
            document.title, preview(document), list(document.tags), new.actor, new.idempotency_key, new.reserved,
            encoded_conflicts(new.conflicts), new.base_version,
            after=None if new.aside is None else partial(offer, new.aside),
        )  # fmt: skip
        if row is None:  # pragma: no cover - the function always returns one row
            raise NotFound("There is no such blob.")
        since = (draft.to_version, 0) if kept else (new.kept_version, new.patch_bytes + len(patch))
        return Appended(row["status"], row["version"], row["cascade_id"], row["updated_at"], *since, external)

    @asynccontextmanager
    async def turn(self, blob_id: UUID) -> AsyncIterator[None]:
        """Let one writer of this process at a time decide against a blob that many are changing."""
        async with self._turns.setdefault(blob_id, asyncio.Lock()):
            yield

    async def outcome(self, user_id: UUID, delta_id: UUID) -> Outcome | None:
        """Return what a delta with this very id did, None if there is none: the check of a keyed retry."""
        row = await self._database.row(user_id, _OUTCOME, user_id, delta_id)
        return None if row is None else Outcome(row["blob_id"], row["to_version"], row["cascade_id"])

    async def resolution(
        self, user_id: UUID, blob_id: UUID, version: int
    ) -> tuple[Sequence[Mapping[str, Any]], LostSide | None]:
        """Return where the delta of a version clashed with others, and the side that lost."""
        row = await self._database.row(user_id, _RESOLUTION, user_id, blob_id, version)
        if row is None or row["conflicts"] is None:
            return (), None
        aside = None if row["aside_id"] is None else LostSide(row["aside_id"], row["aside_status"])
        return orjson.loads(row["conflicts"]), aside

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
        return [await self._shown(user_id, row) for row in rows]

    async def get(self, user_id: UUID, delta_id: UUID) -> dict[str, Any]:
        """Return one delta. Raises NotFound."""
        row = await self._database.row(user_id, _ONE, user_id, delta_id)
        if row is None:
            raise NotFound("There is no such delta.")
        return await self._shown(user_id, row)

    async def latest(self, user_id: UUID, blob_id: UUID, version: int | None = None) -> dict[str, Any]:
        """Return the delta that a blob is at, or was at a version. Raises NotFound."""
        row = await self._database.row(user_id, _LATEST, user_id, blob_id, version)
        if row is None:
            raise NotFound("There is no such blob, or it has no such version.")
        return await self._shown(user_id, row)

    async def changes(self, user_id: UUID, blob_id: UUID, since: int) -> list[dict[str, Any]]:
        """Return what changed after a version and by whom: the newest ``CHANGES_MAX``, newest last.

        ``pointers`` name the places; of a large patch only ``""``, the whole document.
        """
        rows = await self._database.rows(
            user_id, _CHANGES, user_id, blob_id, since, CHANGES_MAX, CHANGE_PATCH_BYTES_MAX
        )
        return [_change(row) for row in reversed(rows)]

    async def machine_head(self, user_id: UUID, blob_id: UUID) -> Document | None:
        """Return the last pure machine document of a blob, None if no provider makes it (or none yet)."""
        row = await self._database.row(user_id, _HEAD, user_id, blob_id)
        return None if row is None else Document.stored(orjson.loads(await self._contents.read(user_id, row)))

    async def replayed(self, user_id: UUID, blob_id: UUID, version: int, *, from_start: bool = False) -> State:
        """Fold the deltas up to ``version``, from the nearest snapshot below it (or from the first one).

        Raises NotFound, or StudioError ``integrity`` if what is reached is not what the delta recorded.
        """
        return await self._replays.state(user_id, blob_id, version, from_start=from_start)

    async def materialize(self, user_id: UUID, blob_id: UUID) -> Report:
        """Prove a blob's stored state against its deltas, forwards and backwards. Raises NotFound."""
        return await self._replays.materialize(user_id, blob_id)

    async def _shown(self, user_id: UUID, row: asyncpg.Record) -> dict[str, Any]:
        """Return a delta with the document that it created, where that is to be shown."""
        shown = dict(row)
        if row["created"] is not None:  # a row of contents: from whichever tier has it
            stored = dict(zip(("hash", "codec", "size", "body", "location"), row["created"], strict=True))
            shown["created"] = await self._contents.read(user_id, stored)
        return shown


async def _locked(user_id: UUID, connection: Any) -> None:
    """Take the user lock, which comes before a blob's; what follows is undone with the transaction unless it stands."""
    await connection.execute("select studio_lock($1)", user_id)


async def _holding(aside: NewProposal, before: Before | None, connection: Any) -> None:
    """Do what comes before a delta with another side, and hold the bytes that the side names."""
    if before is not None:
        await before(connection)
    await hold(aside, connection)


def _applied(row: asyncpg.Record) -> bool:
    return bool(row["status"] == "applied")


def _columns(placed: Placed | None) -> tuple[object, ...]:
    """Document size, stored size, codec, body, location, as ``append_delta`` takes them; all null: not kept."""
    if placed is None:
        return (None,) * 5
    return placed.size, placed.stored_size, placed.codec, placed.body, placed.location


def _change(row: asyncpg.Record) -> dict[str, Any]:
    patch = [{"path": ""}] if row["patch"] is None else orjson.loads(row["patch"])
    return {
        "version": row["to_version"],
        "operation": row["operation"],
        "actor": row["actor"],
        "provider_id": row["provider_id"],
        "at": row["applied_at"],
        "pointers": list(dict.fromkeys(operation["path"] for operation in patch))[:POINTERS_MAX],
    }
