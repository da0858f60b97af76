"""Documents addressed by the hash of their bytes: in PostgreSQL up to a threshold, else in S3 (seed 004).

An object is put into the store *before* the transaction that names it: a crash leaves an object without a row, never
a row without its object. The row of ``contents`` is written by the SQL functions, with the blob it belongs to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from domain.documents import document_hash
from domain.errors import NotFound, StudioError
from storage.codecs import decoded, encoded
from storage.database import Database
from storage.objects import Objects

STORED = "hash, size, codec, body, location"
"""The columns of ``contents`` that ``Contents.read`` needs."""
_TOUCH = """
update contents set touched_at = now() where user_id = $1 and hash = $2
returning size, stored_size, codec, location
"""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where bytes went: ``body`` if they stay in PostgreSQL, else ``location`` in the object store.

    ``size`` is what a reader gets, ``stored_size`` what is kept, both in bytes; ``codec`` leads from one to the other.
    """

    hash: str
    size: int
    stored_size: int
    codec: str
    body: bytes | None
    location: str | None


class Contents:
    """Content of every user, addressed by (user, hash); nothing is shared between users."""

    def __init__(self, database: Database, objects: Objects, *, inline_max: int) -> None:
        self._database = database
        self._objects = objects
        self._inline_max = inline_max

    async def check(self) -> None:
        """Raise Unavailable if large content could not be stored now."""
        await self._objects.check()

    async def put(self, user_id: UUID, data: bytes) -> Placed:
        """Place bytes: up to ``inline_max`` they go along into the transaction, larger ones to the object store now.

        What is there already is not stored again.
        """
        digest = document_hash(data)
        external = len(data) > self._inline_max
        if external and (known := await self._touched(user_id, digest)) is not None:
            return known
        codec, stored = await encoded(data)
        if not external:
            return Placed(digest, len(data), len(stored), codec, stored, None)
        # Unguessable: a listing of the object store tells nothing about what is in it.
        location = f"{user_id}/{uuid4()}"
        await self._objects.put(location, stored)
        return Placed(digest, len(data), len(stored), codec, None, location)

    async def get(self, user_id: UUID, digest: str) -> bytes:
        """Return the bytes of a hash. Raises NotFound, StudioError ``integrity`` if they do not fit their hash."""
        row = await self._database.row(
            user_id,
            f"select {STORED} from contents where user_id = $1 and hash = $2",  # noqa: S608 - a constant
            user_id,
            digest,
        )
        if row is None:
            raise NotFound(f"There is no content {digest}.")
        return await self.read(user_id, row)

    async def read(self, user_id: UUID, row: Any) -> bytes:
        """Return the bytes of a row of ``contents`` that has been read (``STORED``): fetched, unpacked, verified."""
        digest, body = row["hash"], row["body"]
        if digest is None:
            raise StudioError("A version's content is gone.", code="integrity")
        stored = body if body is not None else await self._objects.get(str(row["location"]))
        data = await decoded(row["codec"], stored, size=row["size"])
        if document_hash(data) != digest:
            raise StudioError(f"Stored content does not match its hash {digest}.", code="integrity")
        return data

    async def close(self) -> None:
        """Let go of the object store."""
        await self._objects.close()

    async def _touched(self, user_id: UUID, digest: str) -> Placed | None:
        """Return where content is already; housekeeping then leaves it alone for a while."""
        async with self._database.transaction(user_id) as connection:
            row = await connection.fetchrow(_TOUCH, user_id, digest)
        if row is None or row["location"] is None:
            return None
        return Placed(digest, row["size"], row["stored_size"], row["codec"], None, row["location"])
