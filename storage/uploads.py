"""Uploads: large content on its way in, part by part into the object store, then in one transaction into a blob.

The row of an upload is written before anything is put into the store, and names the one key that it writes to: whatever
is killed, ``expire`` finds what was left. An upload ends when its blob is written, in the same transaction, or when it
is aborted or expires; ``ended_at`` is set after that, when nothing of it is left in the store that a content does not
name. Lock order: the upload, its blob, contents, ``user_state`` last.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson

from domain.errors import Conflict, LimitExceeded, NotFound, StudioError
from domain.media import HEAD_BYTES, require_type
from domain.quotas import Usage, quota_exceeded
from domain.uploads import (
    Arrived,
    Landing,
    NewUpload,
    Part,
    Tally,
    Upload,
    ended,
    require_part,
    require_size,
    require_whole,
)
from storage.database import Database
from storage.objects import Objects, PartsLost

OPEN_MAX = 1_000
"""Open uploads of one user."""
KEPT_HOURS = 24
"""How long it can still be asked what became of an upload."""
EXPIRED_AT_ONCE = 100
RETRY_AFTER_SECONDS = 60

_COLUMNS = """
u.user_id, u.id, u.blob_id, u.content_type, u.size, u.digest, u.part_size, u.location, u.multipart, u.fields, u.status,
u.content_hash, u.created_at, u.expires_at, u.reserved, u.ended_at
"""
_BEGIN = """
insert into uploads (user_id, id, blob_id, content_type, size, digest, part_size, location, fields, reserved,
  expires_at)
select $1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($5::bigint, 0), now() + $10
where (select count(*) from uploads where user_id = $1 and status = 'open') < $11
on conflict (user_id, id) do nothing returning id
"""
_GET = f"select {_COLUMNS} from uploads u where u.user_id = $1 and u.id = $2"  # noqa: S608 - a constant of this module
# A part without a tag is being sent: it is counted in what is reserved, and not yet received.
_PARTS = "select number, size, etag from upload_parts where user_id = $1 and upload_id = $2 and etag <> '' order by 1"
_SENDING = """
insert into upload_parts (user_id, upload_id, number, size, etag) values ($1, $2, $3, $4, '')
on conflict (user_id, upload_id, number) do update set size = excluded.size, etag = ''
"""
_GROWN = """
update uploads set expires_at = greatest(expires_at, now() + $3), reserved = greatest(reserved, coalesce(size,
  (select sum(p.size) from upload_parts p where p.user_id = $1 and p.upload_id = $2)))
where user_id = $1 and id = $2 returning reserved
"""
_SENT = """
update upload_parts p set etag = $4, size = $5, created_at = now() from uploads u
where p.user_id = $1 and p.upload_id = $2 and p.number = $3 and u.user_id = $1 and u.id = $2 and u.status = 'open'
"""
_BEGUN = """
update uploads set multipart = $3 where user_id = $1 and id = $2 and multipart is null and status = 'open'
"""
_ASSEMBLED = """
update uploads set content_hash = $3, expires_at = greatest(expires_at, now() + $4)
where user_id = $1 and id = $2 and status = 'open' returning reserved
"""
_STORE = "select studio_store($1, $2, $3, $4, 'identity', $5, $6, $7)"
_COMPLETED = """
update uploads set status = 'completed', blob_id = $3, reserved = 0 where user_id = $1 and id = $2 and status = 'open'
"""
_ABORTED = """
update uploads set status = 'aborted', reserved = 0 where user_id = $1 and id = any($2) and status = 'open'
"""
_ENDED = "update uploads set ended_at = now() where user_id = $1 and id = $2 and status <> 'open'"
_RESERVE = """
update user_state set bytes_reserved = bytes_reserved + $2::bigint
where user_id = $1
  and ($2::bigint <= 0 or bytes_quota is null or bytes_used + bytes_reserved + $2::bigint <= bytes_quota)
returning bytes_used, bytes_reserved, bytes_quota
"""
_WARN = "select studio_warn($1, $2, $3, $4, $5)"
_USAGE = "select bytes_used, bytes_reserved, bytes_quota from user_state where user_id = $1"
_OVERDUE = """
select id, reserved from uploads where user_id = $1 and status = 'open' and expires_at < now()
order by expires_at limit $2 for update skip locked
"""
_UNCLEAN = f"""
select {_COLUMNS} from uploads u where u.user_id = $1 and u.status <> 'open' and u.ended_at is null limit $2
"""  # noqa: S608 - a constant of this module
_FORGOTTEN = f"""
delete from uploads where user_id = $1 and status <> 'open' and ended_at < now() - interval '{KEPT_HOURS} hours'
"""  # noqa: S608 - a constant of this module


class Uploads:
    """The uploads of users."""

    def __init__(
        self, database: Database, objects: Objects, *, part_size: int, inline_max: int, lifetime: timedelta
    ) -> None:
        self._database = database
        self._objects = objects
        self._part_size = part_size
        self.inline_max = inline_max
        """Bytes of a content that stays in PostgreSQL."""
        self._lifetime = lifetime

    async def begin(self, new: NewUpload) -> Upload:
        """Begin an upload and reserve its declared size.

        Raises TooLarge, Forbidden ``storage_quota_exceeded``, LimitExceeded beyond ``OPEN_MAX``.
        """
        require_size(new.size, self._part_size)
        # Unguessable, and of this upload alone: what is found there belongs to it.
        location = f"{new.user_id}/{uuid4()}"
        async with self._database.transaction(new.user_id) as connection:
            begun = await connection.fetchval(
                _BEGIN, new.user_id, new.id, new.blob_id, new.content_type, new.size, new.digest, self._part_size,
                location, orjson.dumps(new.fields).decode(), self._lifetime, OPEN_MAX,
            )  # fmt: skip
            if begun is not None:
                await _reserve(connection, new.user_id, new.size or 0)
            upload = await _found(connection, new.user_id, new.id)
        if upload is None:
            detail = f"You have {OPEN_MAX} open uploads; complete or abort some."
            raise LimitExceeded(detail, members={"retry_after": RETRY_AFTER_SECONDS})
        return upload

    async def get(self, user_id: UUID, upload_id: UUID) -> Upload:
        """Return an upload as it stands. Raises NotFound."""
        async with self._database.transaction(user_id) as connection:
            upload = await _found(connection, user_id, upload_id)
        if upload is None:
            raise NotFound("There is no such upload.")
        return upload

    async def part(self, upload: Upload, number: int, data: bytes | bytearray) -> None:
        """Store one part; the same number again replaces it.

        Raises Invalid ``invalid_part`` or ``content_type_mismatch``, Conflict ``upload_ended``, Forbidden
        ``storage_quota_exceeded``; nothing is stored then.
        """
        require_part(size=upload.size, part_size=upload.part_size, number=number, given=len(data))
        if number == 1:
            require_type(upload.content_type, bytes(data[:HEAD_BYTES]))
        multipart = await self._room(upload, number, len(data)) or await self._multipart(upload)
        try:
            tag = await self._objects.part(upload.location, multipart, number, data)
        except PartsLost:
            raise ended("It was assembled or aborted meanwhile.") from None
        async with self._database.transaction(upload.user_id) as connection:
            done = await connection.execute(_SENT, upload.user_id, upload.id, number, tag, len(data))
        if done != "UPDATE 1":  # aborted since: what came too late goes as well
            await self._objects.abort(upload.location)
            raise ended("It was aborted meanwhile.")

    async def assembled(self, upload: Upload, *, keep_max: int = 0) -> Arrived:
        """Make one object of the parts and hash it in one pass; may be repeated until the upload has ended.

        Up to ``keep_max`` bytes are kept in ``Arrived.body``. Raises Conflict ``parts_missing``, ``upload_ended``.
        """
        require_whole(upload)
        tally, head, kept = Tally(), b"", bytearray()
        keep = upload.received <= max(self.inline_max, keep_max)
        async for piece in self._whole(upload):
            await asyncio.to_thread(tally.add, piece)
            head = head or piece[:HEAD_BYTES]
            if keep:
                kept += piece
        require_type(upload.content_type, head)
        body = bytes(kept) if keep else None
        return await self._arrived(upload, tally, body)

    async def received(self, new: NewUpload, source: AsyncIterator[bytearray]) -> Arrived:
        """Take a content as it comes, in pieces of the part size (the last shorter, perhaps empty).

        What is small is answered in ``body``; the rest becomes an upload with parts. Whatever ends it early leaves
        nothing behind.
        """
        upload = None if (new.size or 0) <= self.inline_max else await self.begin(new)
        tally, number = Tally(), 0
        try:
            async for piece in source:
                number += 1
                if number == 1:
                    require_type(new.content_type, bytes(piece[:HEAD_BYTES]))
                await asyncio.to_thread(tally.add, piece)
                if upload is None and len(piece) <= self.inline_max:
                    break
                upload = upload or await self.begin(new)
                if piece:
                    await self.part(upload, number, piece)
            if upload is None:
                return self._small(new, tally, bytes(piece))
            upload = await self.get(new.user_id, upload.id)
            await self._finish(upload)
            return await self._arrived(upload, tally, None)
        except BaseException:
            if upload is not None:
                await asyncio.shield(self.close(upload))
            raise

    def landing(self, arrived: Arrived, blob_id: UUID, *, binary: bool, replaces: bool) -> Landing:
        """Return what the write of the blob does as well: store the content (if the blob refers to it), end the upload.

        Done in the transaction of the write, so that both are there or neither.
        """

        async def before(connection: Any) -> None:
            upload = arrived.upload
            if upload is not None:
                done = await connection.execute(_COMPLETED, upload.user_id, upload.id, blob_id)
                if done != "UPDATE 1":
                    raise ended("It was completed or aborted meanwhile.")
            if replaces:  # the blob before contents: the order in which every edit locks them
                await connection.execute(
                    "select from blobs where user_id = $1 and id = $2 for no key update", arrived.user_id, blob_id
                )
            if binary:
                place: tuple[object, ...] = (arrived.body, None, None)
                if upload is not None and arrived.size > self.inline_max:
                    place = (None, upload.location, arrived.chunks)
                await connection.execute(_STORE, arrived.user_id, arrived.hash, arrived.size, arrived.size, *place)

        return Landing(before=before, reserved=arrived.reserved)

    async def land_alone(self, landing: Landing, user_id: UUID) -> None:
        """End an upload whose content made no new version: the blob had it already."""
        async with self._database.transaction(user_id) as connection:
            await landing.before(connection)
            await _reserve(connection, user_id, -landing.reserved)

    async def abort(self, user_id: UUID, upload_id: UUID) -> None:
        """End an upload without a blob; nothing of it stays. Raises NotFound, Conflict if it was completed."""
        async with self._database.transaction(user_id) as connection:
            row = await connection.fetchrow(f"{_GET} for update", user_id, upload_id)
            if row is None:
                raise NotFound("There is no such upload.")
            if row["status"] == "completed":
                raise ended("It was completed; delete the blob instead.")
            await _abort(connection, user_id, {upload_id: row["reserved"]} if row["status"] == "open" else {})
        await self._clean(row)

    async def close(self, upload: Upload) -> None:
        """Remove what a write that is over left in the object store; what it did not use is aborted.

        Nothing is raised: what cannot be removed now is left to ``expire``.
        """
        with suppress(StudioError):
            async with self._database.transaction(upload.user_id) as connection:
                row = await connection.fetchrow(f"{_GET} for update", upload.user_id, upload.id)
                if row["status"] == "open":
                    await _abort(connection, upload.user_id, {upload.id: row["reserved"]})
            await self._clean(row)

    async def expire(self, user_id: UUID, *, limit: int = EXPIRED_AT_ONCE) -> int:
        """Abort a user's overdue uploads, remove what ended ones left, forget old ones; return how many were handled.

        For housekeeping: call it again while the answer is ``limit`` or more.
        """
        async with self._database.transaction(user_id) as connection:
            overdue = await connection.fetch(_OVERDUE, user_id, limit)
            await _abort(connection, user_id, {row["id"]: row["reserved"] for row in overdue})
            await connection.execute(_FORGOTTEN, user_id)
            unclean = await connection.fetch(_UNCLEAN, user_id, limit)
        for row in unclean:
            await self._clean(row)
        return len(unclean)

    async def _room(self, upload: Upload, number: int, size: int) -> str | None:
        """Reserve room for a part and announce it; return the store's name of the upload, if it has one."""
        async with self._database.transaction(upload.user_id) as connection:
            row = await connection.fetchrow(f"{_GET} and u.expires_at > now() for update", upload.user_id, upload.id)
            if row is None or row["status"] != "open" or row["content_hash"] is not None:
                raise ended("It was completed or aborted, or has expired.")
            await connection.execute(_SENDING, upload.user_id, upload.id, number, size)
            reserved = await connection.fetchval(_GROWN, upload.user_id, upload.id, self._lifetime)
            if reserved > row["reserved"]:
                await _reserve(connection, upload.user_id, reserved - row["reserved"])
        multipart: str | None = row["multipart"]
        return multipart

    async def _multipart(self, upload: Upload) -> str:
        begun = await self._objects.begin(upload.location)
        async with self._database.transaction(upload.user_id) as connection:
            await connection.execute(_BEGUN, upload.user_id, upload.id, begun)
            # Of two first parts at a time one has begun it; what the other began is aborted at the end, with the key.
            return str((await connection.fetchrow(_GET, upload.user_id, upload.id))["multipart"] or begun)

    async def _finish(self, upload: Upload) -> None:
        parts = [(part.number, part.tag) for part in upload.parts]
        try:
            await self._objects.finish(upload.location, upload.multipart or "", parts)
        except PartsLost:
            # A repeated attempt finds what the first one has finished.
            found = await self._objects.stat(upload.location)
            if found is None or found.size != upload.received:
                members = {"missing": [part.number for part in upload.parts]}
                raise Conflict("The parts are not there any more.", code="parts_missing", members=members) from None

    async def _whole(self, upload: Upload) -> AsyncIterator[bytes]:
        if not upload.parts:  # an empty content has none, and the store makes no object of no parts
            return
        await self._finish(upload)
        async for piece in self._objects.open(upload.location):
            yield piece

    async def _arrived(self, upload: Upload, tally: Tally, body: bytes | None) -> Arrived:
        """Close an upload to further parts; what it has reserved is final then."""
        async with self._database.transaction(upload.user_id) as connection:
            row = await connection.fetchrow(_ASSEMBLED, upload.user_id, upload.id, tally.digest, self._lifetime)
        if row is None:
            await self.close(upload)
            raise ended("It was completed or aborted meanwhile.")
        return Arrived(
            user_id=upload.user_id,
            hash=tally.digest,
            size=tally.size,
            chunks=tally.chunks,
            body=body,
            upload=upload,
            reserved=row["reserved"],
        )

    def _small(self, new: NewUpload, tally: Tally, body: bytes) -> Arrived:
        return Arrived(
            user_id=new.user_id, hash=tally.digest, size=tally.size, chunks=tally.chunks, body=body, upload=None
        )

    async def _clean(self, row: Any) -> None:
        user_id, location = row["user_id"], row["location"]
        await self._objects.abort(location)
        async with self._database.transaction(user_id) as connection:
            named = await connection.fetchval(
                "select exists (select from contents where user_id = $1 and location = $2)", user_id, location
            )
        if not named:
            await self._objects.delete(location)
        async with self._database.transaction(user_id) as connection:
            await connection.execute(_ENDED, user_id, row["id"])
            await connection.execute(
                "delete from upload_parts where user_id = $1 and upload_id = $2", user_id, row["id"]
            )


async def _found(connection: Any, user_id: UUID, upload_id: UUID) -> Upload | None:
    row = await connection.fetchrow(_GET, user_id, upload_id)
    if row is None:
        return None
    parts = await connection.fetch(_PARTS, user_id, upload_id)
    names = (
        "user_id", "id", "blob_id", "content_type", "size", "digest", "part_size", "location", "multipart", "status",
        "content_hash", "created_at", "expires_at",
    )  # fmt: skip
    return Upload(
        **{name: row[name] for name in names},
        fields=orjson.loads(row["fields"]),
        parts=[Part(part["number"], part["size"], part["etag"]) for part in parts],
    )


async def _reserve(connection: Any, user_id: UUID, size: int) -> None:
    if size == 0:
        return
    taken = await connection.fetchrow(_RESERVE, user_id, size)
    if taken is None:
        used, reserved, quota = await connection.fetchrow(_USAGE, user_id)
        raise quota_exceeded(Usage(used=used, reserved=reserved, quota=quota), size)
    if size > 0 and taken["bytes_quota"] is not None:
        await connection.execute(_WARN, user_id, size, *taken)


async def _abort(connection: Any, user_id: UUID, reserved: dict[UUID, int]) -> None:
    if reserved:
        await connection.execute(_ABORTED, user_id, list(reserved))
        await _reserve(connection, user_id, -sum(reserved.values()))
