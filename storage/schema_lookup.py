"""The schema that a blob names: own ones before published ones, kept in the process for a few seconds.

Versions are immutable, so what is remembered can only be outdated by a newer one: a blob that is written within these
seconds is held against the older.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from typing import Any
from uuid import UUID

import orjson

from domain.blobs import BlobSchema
from domain.schemas import Schema, canonical_slug
from domain.volatile import VOLATILE
from storage.database import Database

CACHE_SECONDS = 5.0
CACHE_ENTRIES_MAX = 5_000

_FIND = """
select slug, version, definition, strict_mode, required_fields from schemas
where active and (slug = $2 or id = $3::uuid)
order by (id = $3::uuid) desc nulls last, (owner_id = $1) desc,
  string_to_array(split_part(version, '-', 1), '.')::int[] desc
limit 1
"""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class SchemaLookup:
    """Schemas found and compiled without a round trip, most of the time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[tuple[UUID, str], tuple[float, BlobSchema]] = OrderedDict()

    async def find(self, user_id: UUID, reference: str) -> BlobSchema | None:
        """Return the newest version of a schema by slug (``schema-`` prefix or not) or by id; None if unknown."""
        key = (user_id, canonical_slug(reference))
        now = time.monotonic()
        entry = self._known.get(key)
        if entry is not None and entry[0] > now:
            return entry[1]
        found = await self._read(user_id, key[1])
        if found is None:
            self._known.pop(key, None)
            return None
        self._known[key] = (now + CACHE_SECONDS, found)
        self._known.move_to_end(key)
        while len(self._known) > CACHE_ENTRIES_MAX:
            self._known.popitem(last=False)
        return found

    def forget(self, user_id: UUID, slug: str) -> None:
        """Read a schema afresh the next time: after this process itself registered a version of it."""
        self._known.pop((user_id, slug), None)

    async def _read(self, user_id: UUID, slug: str) -> BlobSchema | None:
        by_id = UUID(slug) if _UUID.fullmatch(slug) else None
        row: Any = await self._database.row(user_id, _FIND, user_id, slug, by_id)
        if row is None:
            return None
        definition = orjson.loads(row["definition"])
        schema = Schema(
            slug=row["slug"],
            version=row["version"],
            definition=definition,
            strict_mode=row["strict_mode"],
            required_fields=tuple(row["required_fields"]),
        )
        return BlobSchema(row["slug"], definition, schema.validator, VOLATILE in row["definition"])
