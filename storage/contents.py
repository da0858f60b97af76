"""Documents addressed by the hash of their bytes: in PostgreSQL up to a threshold, else in S3 (seed 004).

An object is put into the store *before* the transaction that names it: a crash leaves an object without a row, never
a row without its object. The row of ``contents`` is written by the SQL functions, with the blob it belongs to.

Three tiers: hot is what a process remembers (``storage/caches.py``), warm a row's body, cold an object. Housekeeping
moves content between the latter two (``storage/housekeeping.py``), so a row that was read may be out of date a moment
later: a reader whose object is gone looks at the row again.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

from domain.documents import document_hash
from domain.errors import NotFound, StudioError
from storage.accesses import Accesses
from storage.caches import Caches, ValkeyCache
from storage.codecs import IDENTITY, decoded, encoded
from storage.database import Database
from storage.objects import Objects

STORED = "hash, size, codec, body, location"
"""The columns of ``contents`` that ``Contents.read`` needs."""
INLINE_BYTES_MAX = 16 * 2**20
"""The largest that a provider's choice keeps in PostgreSQL; beyond it, even ``inline`` is an object."""
MOVES_MAX = 3
"""How often a reader follows content that moves away under it; it moves at most a few times a month."""
_FIND = f"select {STORED} from contents where user_id = $1 and hash = $2"  # noqa: S608 - a constant
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

    def __init__(self, database: Database, objects: Objects, *, inline_max: int, caches: Caches | None = None) -> None:
        self._database = database
        self._objects = objects
        self._inline_max = inline_max
        self._caches = caches
        self._accesses = Accesses(database)

    async def check(self) -> None:
        """Raise Unavailable if large content could not be stored now."""
        await self._objects.check()

    async def put(
        self, user_id: UUID, data: bytes, *, strategy: str = "hybrid", threshold: int | None = None
    ) -> Placed:
        """Place bytes: some go along into the transaction, others to the object store now.

        ``strategy`` says which go along (``Placement``): ``hybrid`` those up to ``threshold`` bytes (None:
        ``inline_max``), ``url`` none, ``inline`` all up to ``INLINE_BYTES_MAX``. What is there already is not stored
        again: where the user has it, there it stays.
        """
        digest = document_hash(data)
        inline_max = {"url": -1, "inline": INLINE_BYTES_MAX}.get(
            strategy, self._inline_max if threshold is None else threshold
        )
        external = len(data) > inline_max
        known = await self._touched(user_id, digest) if external else None
        if known is not None and known.location is not None:
            return known
        codec, stored = await encoded(data)
        if not external or known is not None:  # in a row it stays in a row, and its bytes go along as ever
            return Placed(digest, len(data), len(stored), codec, stored, None)
        # Unguessable: a listing of the object store tells nothing about what is in it.
        location = f"{user_id}/{uuid4()}"
        if not self._database.rehearsing:
            await self._objects.put(location, stored)
        return Placed(digest, len(data), len(stored), codec, None, location)

    async def get(self, user_id: UUID, digest: str) -> bytes:
        """Return the bytes of a hash. Raises NotFound, StudioError ``integrity`` if they do not fit their hash."""
        row = await self.find(user_id, digest)
        if row is None:
            raise NotFound(f"There is no content {digest}.")
        return await self.read(user_id, row)

    async def find(self, user_id: UUID, digest: str) -> Any:
        """Return the row of a hash as it is now (``STORED``), None if there is none."""
        return await self._database.row(user_id, _FIND, user_id, digest)

    async def read(self, user_id: UUID, row: Any) -> bytes:
        """Return the bytes of a row of ``contents`` (``STORED``), from the hottest tier that has them.

        They have been verified. Raises StudioError ``integrity``, Unavailable.
        """
        digest = row["hash"]
        if digest is None:
            raise _gone()
        self._accesses.note(user_id, digest)
        if self._caches is None:
            return await self.fetch(user_id, row)
        data = self._caches.memory.get(user_id, digest)
        if data is None:
            data = await self._shared(user_id, row, self._caches.shared)
            self._caches.memory.put(user_id, digest, data)
        return data

    async def fetch(self, user_id: UUID, row: Any) -> bytes:
        """Return what is stored itself, past every cache: fetched, unpacked, verified. Raises as ``read`` does."""
        if row["hash"] is None:
            raise _gone()
        for _ in range(MOVES_MAX):
            try:
                return await self._stored(row)
            except StudioError as error:
                if error.problem_code != "integrity" or row["location"] is None:
                    raise
                fresh = await self.find(user_id, row["hash"])
                if fresh is None or fresh["location"] == row["location"]:
                    raise
                row = fresh
        return await self._stored(row)

    async def prove(self, user_id: UUID, row: Any) -> None:
        """Hold what is stored against its hash, in bounded memory. Raises as ``read`` does."""
        if row["location"] is None or row["codec"] != IDENTITY or row["size"] <= self._inline_max:
            await self.fetch(user_id, row)
            return
        found = hashlib.sha256()
        async for piece in self._objects.open(row["location"]):
            await asyncio.to_thread(found.update, piece)
        if f"sha256:{found.hexdigest()}" != row["hash"]:
            raise _not(row["hash"])

    async def close(self) -> None:
        """Write down what was read, let go of caches and object store."""
        await self._accesses.close()
        if self._caches is not None:
            await self._caches.close()
        await self._objects.close()

    async def _shared(self, user_id: UUID, row: Any, shared: ValkeyCache | None) -> bytes:
        """Fetch; from Valkey what would come from the object store. A body has come with its row already."""
        if shared is None or row["body"] is not None:
            return await self.fetch(user_id, row)
        data = await shared.get(user_id, row["hash"])
        if data is None:
            data = await self.fetch(user_id, row)
            await shared.put(user_id, row["hash"], data)
        return data

    async def _stored(self, row: Any) -> bytes:
        digest, body = row["hash"], row["body"]
        stored = body if body is not None else await self._objects.get(str(row["location"]))
        data = await decoded(row["codec"], stored, size=row["size"])
        if document_hash(data) != digest:
            raise _not(digest)
        return data

    async def _touched(self, user_id: UUID, digest: str) -> Placed | None:
        """Return where content is already; housekeeping then leaves it alone for a while."""
        async with self._database.transaction(user_id) as connection:
            row = await connection.fetchrow(_TOUCH, user_id, digest)
        if row is None:
            return None
        return Placed(digest, row["size"], row["stored_size"], row["codec"], None, row["location"])


def _not(digest: str) -> StudioError:
    return StudioError(f"Stored content does not match its hash {digest}.", code="integrity")


def _gone() -> StudioError:
    return StudioError("A version's content is gone.", code="integrity")
