"""Documents at versions: the nearest kept one, patched and verified (``storage/functions/11_reads.sql``)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from domain.deltas import rebuilt
from domain.documents import Document
from domain.errors import StudioError
from storage.contents import Contents
from storage.database import Database

THREAD_BYTES_MIN = 65_536
"""Larger documents are patched and hashed beside the event loop."""
_STATES = "select * from read_works($1, $2, $3, $4)"


class States:
    """The documents of a user's blobs at any of their versions."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents

    async def documents(self, user_id: UUID, versions: Sequence[tuple[UUID, int]]) -> dict[tuple[UUID, int], Document]:
        """Return the documents of ``(blob, version)`` pairs in one round trip; unknown pairs are left out."""
        return (await self.with_contents(user_id, versions, []))[0]

    async def with_contents(
        self, user_id: UUID, versions: Sequence[tuple[UUID, int]], hashes: Sequence[str]
    ) -> tuple[dict[tuple[UUID, int], Document], dict[str, bytes]]:
        """Return ``documents`` and, in the same round trip, contents by hash; what is unknown is left out."""
        wanted = list(dict.fromkeys(versions))
        if not wanted and not hashes:
            return {}, {}
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                _STATES, user_id, [blob for blob, _ in wanted], [version for _, version in wanted], hashes
            )
        states = [row for row in rows if row["blob_id"] is not None]
        documents = await asyncio.gather(*(self.document(user_id, row) for row in states))
        named = {row["hash"]: await self._contents.read(user_id, row) for row in rows if row["blob_id"] is None}
        found = {(row["blob_id"], row["version"]): document for row, document in zip(states, documents, strict=True)}
        return found, named

    async def document(self, user_id: UUID, row: Any) -> Document:
        """Return the document of a row of ``read_states`` or ``read_blob``; raises StudioError ``integrity``."""
        kept = await self._contents.read(user_id, row)
        patches = row["patches"]
        if not patches:
            if row["hash"] != row["document_hash"]:
                raise StudioError("A kept version is not the one that its delta recorded.", code="integrity")
            return Document.stored(orjson.loads(kept), kept)
        if len(kept) >= THREAD_BYTES_MIN:
            return await asyncio.to_thread(_rebuilt, kept, patches, row["document_hash"])
        return _rebuilt(kept, patches, row["document_hash"])


def _rebuilt(kept: bytes, patches: Sequence[str], document_hash: str) -> Document:
    return rebuilt(orjson.loads(kept), [orjson.loads(patch) for patch in patches], document_hash)
