"""The schema that a blob names: own ones before published ones, kept in the process for a few seconds.

Versions are immutable, so what is remembered can only be outdated by a newer one: a blob that is written within these
seconds is held against the older.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from uuid import UUID

from domain.blobs import BlobSchema
from domain.errors import NotFound
from domain.ids import UserId
from domain.schemas import canonical_slug
from storage.schemas import Schemas

CACHE_SECONDS = 5.0
CACHE_ENTRIES_MAX = 5_000


class SchemaLookup:
    """Schemas found and compiled without a round trip, most of the time."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
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

    async def _read(self, user_id: UUID, reference: str) -> BlobSchema | None:
        try:
            schema = (await self._schemas.find(UserId(user_id), reference)).schema
        except NotFound:
            return None
        return BlobSchema(schema.slug, schema.definition, schema.validator, schema.has_normal_form)
