"""Blobs in PostgreSQL: made in one round trip, read in one, listed in pages bounded by count and by bytes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from domain.blobs import BlobView, Made, NewBlob
from domain.canonical import JSON_BYTES_MAX
from domain.documents import Document, binary_hash, content_size, meta_hash, preview
from domain.errors import Gone, NotFound
from domain.media import base_type, is_json
from storage.contents import Contents
from storage.database import Before, Database
from storage.states import States

PAGE_BYTES_MAX = 8 * 2**20
"""Content of one page; a page ends early (never empty) rather than exceed it."""

_CREATE = """
select created_at, root_id, depth, problem from create_blob($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13,
  $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)
"""
_READ = "select * from read_blob($1, $2, $3, $4)"

_PARENTS = """
array(select p from (
    select i.blob_id p, i.position n from derivation_outputs o
      join derivation_inputs i on i.user_id = o.user_id and i.derivation_id = o.derivation_id
      where o.user_id = b.user_id and o.blob_id = b.id
    union all
    select m.parent_id, 0 from manual_edges m where m.user_id = b.user_id and m.child_id = b.id) x
  order by n, p) as parent_ids
"""
_COLUMNS = f"""
b.id, b.version, b.version as current_version, b.content_type, b.schema_id, b.created_by, b.provider_id, b.root_id,
b.depth, b.processing_meta, b.created_at, b.updated_at, b.deleted_at, b.document_hash, b.content_hash, b.size,
b.storage_type, b.kept_version, b.patch_bytes,
(select d.cascade_id from deltas d where d.user_id = b.user_id and d.blob_id = b.id and d.to_version = b.version
  and d.status = 'applied') as cascade_id, {_PARENTS}
"""  # noqa: S608 - constants of this module
_PAGE = f"""
select {_COLUMNS} from blobs b
where b.user_id = $1 and b.version > 0 and b.deleted_at is null
  and ($2::timestamptz is null or (b.created_at, b.id) < ($2, $3::uuid))
  and ($4::text is null or b.schema_id = $4)
  and ($5::text is null or b.provider_id = $5)
  and ($6::text is null or $6 = any(b.tags))
  and ($7::uuid is null or exists (select from bucket_blobs m
        where m.user_id = $1 and m.bucket_id = $7 and m.blob_id = b.id))
order by b.created_at desc, b.id desc limit $8
"""  # noqa: S608 - constants of this module
_BY_ID = f"""
select {_COLUMNS}, coalesce((select o.volatile from derivation_outputs o
  where o.user_id = b.user_id and o.blob_id = b.id), '{{}}') as volatile
from blobs b where b.user_id = $1 and b.version > 0 and b.id = any($2)
"""  # noqa: S608 - constants of this module


class Blobs:
    """A user's blobs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        self._states = States(database, contents)

    async def create(self, new: NewBlob, *, before: Before | None = None) -> Made | None:
        """Write a blob, its delta, its events and its cascade in one statement; after ``before``, in one transaction.

        None means that an earlier attempt with the same ids did it. ``problem`` is ``unknown_parent``,
        ``unknown_bucket`` (then ``root_id`` is the bucket) or ``unknown_content``, and nothing was written.
        """
        document = new.document
        placed = await self._contents.put(new.user_id, document.to_bytes())
        try:
            row = await self._database.call_after(
                before, _made, new.user_id,
                _CREATE, new.user_id, new.blob_id, new.delta_id, new.cascade_id, document.content_type,
                new.schema_id, placed.hash, new.content_hash, new.cutoff_hash, meta_hash(document),
                binary_hash(document), content_size(document), placed.size, placed.stored_size, placed.codec,
                placed.body, placed.location, document.title, preview(document), list(document.tags),
                new.actor, new.parent_id, list(new.bucket_ids), [None] * len(new.bucket_ids), new.idempotency_key,
                new.reserved,
            )  # fmt: skip
        except asyncpg.UniqueViolationError:
            return None
        if row is None:  # pragma: no cover - the function always returns one row
            raise NotFound("The blob was not made.")
        return Made(row["created_at"], row["root_id"], row["depth"], row["problem"], placed.location is not None)

    async def get(
        self, user_id: UUID, blob_id: UUID, version: int | None = None, *, at: datetime | None = None
    ) -> BlobView:
        """Return a blob, deleted ones included, as it is, at a version, or as it was at an instant.

        Raises NotFound for an unknown blob or version.
        """
        row = await self._database.call(_READ, user_id, blob_id, version, at)
        if row is None:
            what = "blob" if version is None and at is None else "blob, or it had no such version"
            raise NotFound(f"There is no such {what}.")
        document = await self._states.document(user_id, row)
        return _view(row, document, content_size(document))

    async def living(self, user_id: UUID, blob_id: UUID) -> BlobView:
        """Return a blob as it is. Raises NotFound, Gone ``deleted``."""
        blob = await self.get(user_id, blob_id)
        if blob.deleted:
            raise Gone(
                f"The blob was deleted at version {blob.version}; read an older one with ?version=.",
                members={"current_version": blob.version},
            )
        return blob

    async def exists(self, user_id: UUID, blob_id: UUID) -> None:
        """Raise NotFound unless the user has this blob, deleted or not."""
        row = await self._database.row(
            user_id, "select from blobs where user_id = $1 and id = $2 and version > 0", user_id, blob_id
        )
        if row is None:
            raise NotFound("There is no such blob.")

    async def page(
        self,
        user_id: UUID,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        schema_id: str | None = None,
        provider_id: str | None = None,
        tag: str | None = None,
        bucket_id: UUID | None = None,
    ) -> tuple[list[BlobView], bool]:
        """Return blobs, newest first, and whether there are more; deleted ones are left out."""
        rows = await self._database.rows(
            user_id, _PAGE, user_id, *(before or (None, None)), schema_id, provider_id, tag, bucket_id, limit + 1
        )
        shown = within_bytes(rows[:limit])
        return await self._views(user_id, shown), len(rows) > len(shown)

    async def many(self, user_id: UUID, ids: Sequence[UUID]) -> tuple[list[BlobView], bool]:
        """Return blobs in the order of ``ids``, unknown ones left out, and whether the page was cut short."""
        found = {row["id"]: row for row in await self._database.rows(user_id, _BY_ID, user_id, list(ids))}
        rows = [found[blob_id] for blob_id in ids if blob_id in found]
        shown = within_bytes(rows)
        return await self._views(user_id, shown), len(shown) < len(rows)

    async def _views(self, user_id: UUID, rows: Sequence[asyncpg.Record]) -> list[BlobView]:
        documents = await self._states.documents(user_id, [(row["id"], row["version"]) for row in rows])
        return [_view(row, documents[row["id"], row["version"]], row["size"]) for row in rows]


def _made(row: asyncpg.Record) -> bool:
    return row["problem"] is None


def within_bytes(rows: Sequence[asyncpg.Record]) -> Sequence[asyncpg.Record]:
    """Return the first rows (at least one) whose documents stay within ``PAGE_BYTES_MAX``."""
    total = 0
    for index, row in enumerate(rows):
        total += row["size"] if _is_read(row) else 0
        if total > PAGE_BYTES_MAX and index > 0:
            return rows[:index]
    return rows


def _is_read(row: asyncpg.Record) -> bool:
    """Whether the content may be in the document: files only have their names there, whatever their size."""
    content_type = row["content_type"]
    return row["size"] <= JSON_BYTES_MAX and (base_type(content_type).startswith("text/") or is_json(content_type))


def _view(row: asyncpg.Record, document: Document, size: int) -> BlobView:
    return BlobView(
        id=row["id"],
        version=row["version"],
        current_version=row["current_version"],
        document=document,
        schema_id=row["schema_id"],
        created_by=row["created_by"],
        provider_id=row["provider_id"],
        root_id=row["root_id"],
        depth=row["depth"],
        parent_ids=row["parent_ids"],
        external=row["storage_type"] == "url",
        kept_version=row["kept_version"],
        patch_bytes=row["patch_bytes"],
        processing_meta=row["processing_meta"],
        content_hash=row["content_hash"],
        size=size,
        preview=preview(document),
        cascade_id=row["cascade_id"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        deleted=row["deleted_at"] is not None,
        volatile=row.get("volatile", ()),
    )
