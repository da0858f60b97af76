"""Buckets in PostgreSQL: what they are called and where they stand; ``storage/members.py`` has what is in them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from domain.buckets import Bucket, check_bucket, check_place
from domain.canonical import canonical
from domain.errors import Fault, Invalid, NotFound, VersionConflict
from domain.ids import BucketId, CascadeId, UserId
from storage.causes import add_cause, emit, event
from storage.database import Database
from storage.idempotency import Keep, unkept

_BUCKET = """
select b.id, b.name, b.type, b.parent_id, b.metadata, b.version, b.created_at, b.updated_at,
  (select count(*) from bucket_blobs m join blobs x on x.user_id = m.user_id and x.id = m.blob_id
   where m.user_id = b.user_id and m.bucket_id = b.id and x.version > 0 and x.deleted_at is null) as blob_count,
  array(select c.id from buckets c where c.user_id = b.user_id and c.parent_id = b.id and c.deleted_at is null
    order by c.created_at, c.id) as children
from buckets b where b.user_id = $1 and b.deleted_at is null
"""

_ANCESTORS = """
with recursive up(id, n) as (
  select $2::uuid, 1
  union all
  select b.parent_id, n + 1 from up join buckets b on b.user_id = $1 and b.id = up.id
  where b.parent_id is not null and n < 100)
select id from up order by n
"""

_HEIGHT = """
with recursive down(id, n) as (
  select $2::uuid, 0
  union all
  select b.id, n + 1 from down join buckets b on b.user_id = $1 and b.parent_id = down.id
  where b.deleted_at is null and n < 100)
select max(n) from down
"""


class Buckets:
    """A user's buckets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        user_id: UserId,
        bucket: BucketId,
        *,
        name: str,
        type_: str,
        parent_id: BucketId | None,
        metadata: Mapping[str, Any],
        keep: Keep[Bucket] = unkept,
    ) -> Bucket:
        """Make an empty bucket with this id.

        Raises Invalid for its fields, an unknown parent, or too deep a nesting.
        """
        check_bucket(name=name, type_=type_, metadata=metadata)
        async with self._database.locked(user_id) as connection:
            await self._check_parent(connection, user_id, bucket, parent_id, height=0)
            await connection.execute(
                "insert into buckets (user_id, id, name, type, parent_id, metadata)"
                " values ($1, $2, $3, $4, $5, $6)",
                user_id, bucket, name, type_, parent_id, canonical(dict(metadata)).decode(),
            )  # fmt: skip
            data: dict[str, object] = {
                "bucket_id": bucket,
                "user_id": user_id,
                "type": type_,
                "parent_id": parent_id,
            }
            await emit(connection, user_id, event("bucket.created", f"buckets/{bucket}", bucket, data))
            made = await _bucket(connection, user_id, bucket)
            await keep(connection, made)
            return made

    async def get(self, user_id: UserId, bucket_id: BucketId) -> Bucket:
        """Return one bucket. Raises NotFound."""
        async with self._database.transaction(user_id) as connection:
            return await _bucket(connection, user_id, bucket_id)

    async def page(
        self,
        user_id: UserId,
        *,
        limit: int,
        after: tuple[datetime, UUID] | None = None,
        type_: str | None = None,
        parent_id: BucketId | None = None,
    ) -> list[Bucket]:
        """Return up to ``limit`` buckets in the order they were made, behind ``after``."""
        rows = await self._database.rows(
            user_id,
            _BUCKET + " and ($2::text is null or b.type = $2) and ($3::uuid is null or b.parent_id = $3)"
            " and ($4::timestamptz is null or (b.created_at, b.id) > ($4, $5::uuid))"
            " order by b.created_at, b.id limit $6",
            user_id, type_, parent_id, *(after or (None, None)), limit,
        )  # fmt: skip
        return [_read(row) for row in rows]

    async def change(
        self,
        user_id: UserId,
        bucket_id: BucketId,
        *,
        expected: Collection[int] | None,
        changes: Mapping[str, Any],
        keep: Keep[Bucket] = unkept,
    ) -> Bucket:
        """Change ``name``, ``metadata`` or ``parent_id`` (None: to the top level).

        Nothing different: nothing is written. Raises NotFound, VersionConflict if its version is not ``expected``,
        Invalid for a field, an unknown parent, a cycle or too deep a nesting.
        """
        check_bucket(name=changes.get("name"), type_=None, metadata=changes.get("metadata"))
        async with self._database.locked(user_id) as connection:
            before = await _bucket(connection, user_id, bucket_id, expected=expected)
            changed = {name for name, value in changes.items() if getattr(before, name) != value}
            if not changed:
                await keep(connection, before)
                return before
            if "parent_id" in changed:
                height = await connection.fetchval(_HEIGHT, user_id, bucket_id)
                await self._check_parent(connection, user_id, bucket_id, changes["parent_id"], height=height)
            await connection.execute(
                "update buckets set name = $3, metadata = $4, parent_id = $5, version = version + 1,"
                " updated_at = now() where user_id = $1 and id = $2",
                user_id,
                bucket_id,
                changes.get("name", before.name),
                canonical(dict(changes.get("metadata", before.metadata))).decode(),
                changes.get("parent_id", before.parent_id),
            )
            after = await _bucket(connection, user_id, bucket_id)
            await emit(connection, user_id, *_changed(user_id, after, changed))
            await keep(connection, after)
            return after

    async def delete(
        self,
        user_id: UserId,
        bucket_id: BucketId,
        *,
        expected: Collection[int] | None,
        actor: str,
        keep: Keep[CascadeId] = unkept,
    ) -> CascadeId:
        """Delete a bucket. Its blobs stay, its child buckets move up to its parent.

        Raises NotFound, or VersionConflict if its version is not ``expected``.
        """
        async with self._database.locked(user_id) as connection:
            bucket = await _bucket(connection, user_id, bucket_id, expected=expected)
            await connection.execute(
                "update buckets set parent_id = $3, version = version + 1, updated_at = now()"
                " where user_id = $1 and parent_id = $2",
                user_id, bucket_id, bucket.parent_id,
            )  # fmt: skip
            await connection.execute(
                "delete from bucket_blobs where user_id = $1 and bucket_id = $2", user_id, bucket_id
            )
            await connection.execute(
                "update buckets set deleted_at = now(), updated_at = now(), version = version + 1"
                " where user_id = $1 and id = $2",
                user_id, bucket_id,
            )  # fmt: skip
            cascade = await add_cause(
                connection, user_id, cause="bucket", target_id=bucket_id, actor=actor, label=bucket.name
            )
            data: dict[str, object] = {"bucket_id": bucket_id, "user_id": user_id, "cascade_id": cascade}
            await emit(connection, user_id, event("bucket.deleted", f"buckets/{bucket_id}", bucket_id, data))
            await keep(connection, cascade)
            return cascade

    async def _check_parent(
        self, connection: Any, user_id: UserId, bucket_id: BucketId, parent_id: BucketId | None, *, height: int
    ) -> None:
        if parent_id is None:
            check_place(bucket_id, (), height)
            return
        known = await connection.fetchval(
            "select true from buckets where user_id = $1 and id = $2 and deleted_at is null", user_id, parent_id
        )
        if known is None:
            detail = "There is no such bucket."
            raise Invalid(detail, faults=[Fault("/parent_id", "not_found", detail)])
        rows = await connection.fetch(_ANCESTORS, user_id, parent_id)
        check_place(bucket_id, [BucketId(row["id"]) for row in rows], height)


async def _bucket(
    connection: Any, user_id: UserId, bucket_id: BucketId, *, expected: Collection[int] | None = None
) -> Bucket:
    row = await connection.fetchrow(_BUCKET + " and b.id = $2", user_id, bucket_id)
    if row is None:
        raise NotFound("There is no such bucket.")
    if expected is not None and row["version"] not in expected:
        members = {"current_version": row["version"]}
        raise VersionConflict(f"The bucket is at version {row['version']}.", members=members)
    return _read(row)


def _read(row: asyncpg.Record) -> Bucket:
    return Bucket(
        id=BucketId(row["id"]),
        name=row["name"],
        type=row["type"],
        parent_id=row["parent_id"] and BucketId(row["parent_id"]),
        metadata=orjson.loads(row["metadata"]),
        version=row["version"],
        blob_count=row["blob_count"],
        child_bucket_ids=tuple(BucketId(child) for child in row["children"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _changed(user_id: UserId, bucket: Bucket, changed: set[str]) -> list[dict[str, object]]:
    subject = f"buckets/{bucket.id}"
    data: dict[str, object] = {"bucket_id": bucket.id, "user_id": user_id, "version": bucket.version}
    events = []
    if fields := sorted(changed - {"parent_id"}):
        events.append(event("bucket.updated", subject, bucket.id, data | {"changed": fields}))
    if "parent_id" in changed:
        moved = data | {"parent_id": bucket.parent_id}
        events.append(event("bucket.structure_changed", subject, bucket.id, moved))
    return events
