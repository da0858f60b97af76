"""What is in a bucket, in PostgreSQL. Joining, moving and leaving each write their event and their cause."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg

from domain.buckets import MEMBERS_MAX, Member
from domain.errors import Conflict, Fault, NotFound
from domain.ids import BlobId, BucketId, CascadeId, UserId
from storage.causes import add_cause, emit, event
from storage.database import Database
from storage.idempotency import Keep, unkept

# Outputs follow the member they were made from, so they leave with it (plan does the same: studio_inherit).
_REMOVE = """
with gone as (
  delete from bucket_blobs where user_id = $1 and bucket_id = $2 and blob_id = $3 and inherited_from is null
  returning blob_id
), followers as (
  delete from bucket_blobs m using gone g
    where m.user_id = $1 and m.bucket_id = $2 and m.inherited_from = g.blob_id
)
select count(*) from gone
"""

_MEMBERS = """
select m.blob_id, m.position, m.inherited_from, m.added_at, b.version, b.title, b.schema_id, b.content_type,
  b.provider_id
from bucket_blobs m join blobs b on b.user_id = m.user_id and b.id = m.blob_id
where m.user_id = $1 and m.bucket_id = $2 and b.version > 0 and b.deleted_at is null
  and ($3::int is null or (m.position, m.blob_id) > ($3, $4::uuid))
order by m.position, m.blob_id limit $5
"""


class Members:
    """The blobs of a user's buckets."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self, user_id: UserId, bucket_id: BucketId, *, limit: int, after: tuple[int, UUID] | None = None
    ) -> list[Member]:
        """Return up to ``limit`` members in the order of position, then id. Raises NotFound for the bucket."""
        async with self._database.transaction(user_id) as connection:
            await _exists(connection, user_id, bucket_id)
            rows = await connection.fetch(_MEMBERS, user_id, bucket_id, *(after or (None, None)), limit)
        return [_member(row) for row in rows]

    async def add(
        self,
        user_id: UserId,
        bucket_id: BucketId,
        blob_id: BlobId,
        *,
        position: int | None,
        actor: str,
        keep: Keep[tuple[Member, CascadeId | None]] = unkept,
    ) -> tuple[Member, CascadeId | None]:
        """Put a blob into a bucket, last unless ``position`` says otherwise; a member is moved.

        Returns the cascade that follows it up, None if nothing changed. Raises NotFound for the bucket, Invalid
        for an unknown blob, Conflict for a full bucket.
        """
        async with self._database.locked(user_id) as connection:
            # Before the bucket: plan takes both as well, and would wait for us while we wait for it.
            bucket = await _exists(connection, user_id, bucket_id)
            before = await connection.fetchrow(
                "select position, inherited_from from bucket_blobs"
                " where user_id = $1 and bucket_id = $2 and blob_id = $3",
                user_id, bucket_id, blob_id,
            )  # fmt: skip
            await _check_blob(connection, user_id, blob_id)
            unchanged = before is not None and before["inherited_from"] is None
            if unchanged and position in (None, before["position"]):
                same = await _one_member(connection, user_id, bucket_id, blob_id), None
                await keep(connection, same)
                return same
            if before is None:
                await _check_room(connection, user_id, bucket_id)
            await connection.execute(
                "insert into bucket_blobs (user_id, bucket_id, blob_id, position) values ($1, $2, $3, coalesce($4,"
                " (select coalesce(max(position), 0) + 1 from bucket_blobs"
                "  where user_id = $1 and bucket_id = $2 and inherited_from is null)))"
                " on conflict (user_id, bucket_id, blob_id)"
                " do update set position = excluded.position, inherited_from = null",
                user_id, bucket_id, blob_id, position,
            )  # fmt: skip
            kind = "bucket.blob_added" if before is None else "bucket.structure_changed"
            cascade = await _follow_up(connection, user_id, bucket, kind, blob_id=blob_id, actor=actor)
            added = await _one_member(connection, user_id, bucket_id, blob_id), cascade
            await keep(connection, added)
            return added

    async def remove(
        self,
        user_id: UserId,
        bucket_id: BucketId,
        blob_id: BlobId,
        *,
        actor: str,
        keep: Keep[CascadeId] = unkept,
    ) -> CascadeId:
        """Take a blob, and the outputs that follow it, out of a bucket.

        Raises NotFound unless a person put it there: an output stays as long as what it was made from.
        """
        async with self._database.locked(user_id) as connection:
            # Before the bucket: plan takes both as well, and would wait for us while we wait for it.
            bucket = await _exists(connection, user_id, bucket_id)
            if not await connection.fetchval(_REMOVE, user_id, bucket_id, blob_id):
                raise NotFound("Nobody put this blob into this bucket.")
            kind = "bucket.blob_removed"
            cascade = await _follow_up(connection, user_id, bucket, kind, blob_id=blob_id, actor=actor)
            await keep(connection, cascade)
            return cascade


async def _exists(connection: Any, user_id: UserId, bucket_id: BucketId) -> asyncpg.Record:
    # The row lock puts changes of one bucket's members one after the other.
    row = await connection.fetchrow(
        "select id, name from buckets where user_id = $1 and id = $2 and deleted_at is null for update",
        user_id, bucket_id,
    )  # fmt: skip
    if row is None:
        raise NotFound("There is no such bucket.")
    found: asyncpg.Record = row
    return found


async def _check_blob(connection: Any, user_id: UserId, blob_id: BlobId) -> None:
    known = await connection.fetchval(
        "select true from blobs where user_id = $1 and id = $2 and version > 0 and deleted_at is null",
        user_id, blob_id,
    )  # fmt: skip
    if known is None:
        detail = "There is no such blob."
        raise NotFound(detail, faults=[Fault("/blob_id", "not_found", detail)])


async def _check_room(connection: Any, user_id: UserId, bucket_id: BucketId) -> None:
    count = await connection.fetchval(
        "select count(*) from bucket_blobs where user_id = $1 and bucket_id = $2", user_id, bucket_id
    )
    if count >= MEMBERS_MAX:
        raise Conflict(f"A bucket has at most {MEMBERS_MAX} blobs.", code="too_many")


async def _one_member(connection: Any, user_id: UserId, bucket_id: BucketId, blob_id: BlobId) -> Member:
    row = await connection.fetchrow(
        "select m.blob_id, m.position, m.inherited_from, m.added_at, b.version, b.title, b.schema_id,"
        " b.content_type, b.provider_id from bucket_blobs m"
        " join blobs b on b.user_id = m.user_id and b.id = m.blob_id"
        " where m.user_id = $1 and m.bucket_id = $2 and m.blob_id = $3",
        user_id, bucket_id, blob_id,
    )  # fmt: skip
    return _member(row)


def _member(row: asyncpg.Record) -> Member:
    return Member(**{name: row[name] for name in Member.__slots__})


async def _follow_up(
    connection: Any, user_id: UserId, bucket: asyncpg.Record, kind: str, *, blob_id: BlobId, actor: str
) -> CascadeId:
    bucket_id = BucketId(bucket["id"])
    await connection.execute("update buckets set updated_at = now() where user_id = $1 and id = $2", user_id, bucket_id)
    cascade = await add_cause(
        connection, user_id, cause="bucket", target_id=bucket_id, actor=actor, label=bucket["name"]
    )
    data: dict[str, object] = {"bucket_id": bucket_id, "blob_id": blob_id, "user_id": user_id}
    happened = event(kind, f"buckets/{bucket_id}", bucket_id, data | {"cascade_id": cascade})
    await emit(connection, user_id, happened)
    return cascade
