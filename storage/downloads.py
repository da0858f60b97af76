"""Contents on their way out, whole or in part: verified before any byte is given to a reader.

A large content has a hash of each of its chunks, so that reading a part of it reads no more than the chunks that the
part touches. A few are fetched at a time and then held: a slow reader occupies their memory, not a connection.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domain.errors import StudioError
from domain.uploads import CHUNK_BYTES, DIGEST_BYTES
from storage.contents import STORED, Contents
from storage.database import Database
from storage.objects import Objects

CHUNKS_AT_ONCE = 4
"""Fetched with one request: a request costs as much as some megabytes."""
_FIND = f"select {STORED}, chunks from contents where user_id = $1 and hash = $2"  # noqa: S608 - a constant


@dataclass(frozen=True, slots=True)
class Download:
    """A content that can be read; ``size`` in bytes."""

    user_id: UUID
    hash: str
    size: int
    row: Any


class Downloads:
    """What users' binary documents refer to."""

    def __init__(self, database: Database, contents: Contents, objects: Objects) -> None:
        self._database = database
        self._contents = contents
        self._objects = objects

    async def find(self, user_id: UUID, digest: str) -> Download:
        """Return the content of a hash; raises StudioError ``integrity`` if it is gone: some version refers to it."""
        row = await self._database.row(user_id, _FIND, user_id, digest)
        if row is None:
            raise StudioError(f"The content {digest} is gone.", code="integrity")
        return Download(user_id, digest, row["size"], row)

    async def pieces(self, found: Download, start: int, end: int) -> AsyncIterator[bytes]:
        """Yield the bytes from ``start`` up to ``end`` (exclusive).

        Raises StudioError ``integrity`` where stored bytes are not those that were stored: none of that chunk come.
        """
        if found.row["chunks"] is None:
            whole = await self._contents.read(found.user_id, found.row)
            yield whole[start:end]
            return
        first, beyond = start // CHUNK_BYTES, -(-end // CHUNK_BYTES)
        for number in range(first, beyond, CHUNKS_AT_ONCE):
            async for offset, chunk in self._chunks(found, number, min(number + CHUNKS_AT_ONCE, beyond)):
                yield chunk[max(start - offset, 0) : end - offset]

    async def _chunks(self, found: Download, first: int, beyond: int) -> AsyncIterator[tuple[int, bytes]]:
        """Yield verified chunks with their offsets, fetched together."""
        begin, last = first * CHUNK_BYTES, min(beyond * CHUNK_BYTES, found.size)
        fetched = b"".join([piece async for piece in self._objects.open(found.row["location"], begin, last)])
        for number in range(first, beyond):
            offset = number * CHUNK_BYTES
            chunk = fetched[offset - begin : offset - begin + CHUNK_BYTES]
            wanted = found.row["chunks"][number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
            if hashlib.sha256(chunk).digest() != wanted:
                raise StudioError(f"Stored content does not match its hash {found.hash}.", code="integrity")
            yield offset, chunk
