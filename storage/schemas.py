"""Schemas in PostgreSQL: immutable versions, a user's own before the published ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from domain.canonical import canonical
from domain.errors import Conflict, Fault, NotFound
from domain.ids import SchemaKey, UserId, schema_key
from domain.schemas import Schema, canonical_slug
from storage.causes import emit, event
from storage.database import Database
from storage.idempotency import Keep, unkept

OWN_MAX = 5_000
"""Schema versions that one user may register."""

_COLUMNS = """
select s.id, s.owner_id, s.slug, s.version, s.type, s.definition, s.strict_mode, s.required_fields, s.examples,
  s.description, s.compatible_with, s.provider_id, s.published, s.deprecated, s.active, s.created_at
from schemas s
"""
_INSERT = """
insert into schemas (id, owner_id, slug, name, version, type, definition, strict_mode, required_fields, examples,
  description, compatible_with, provider_id, published, deprecated)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""
_NEWEST = """
 order by string_to_array(split_part(s.version, '-', 1), '.')::int[] desc, s.version desc
"""
_KNOWN = f"""{_COLUMNS}
where s.active and (s.slug = any($2) or s.id = any($3))
order by s.slug, (s.id = any($3)) desc, (s.owner_id = $1), string_to_array(split_part(s.version, '-', 1), '.')::int[],
  s.version
"""
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ROLE_DEFAULT = "intermediate"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchema:
    """A schema and what registering it added."""

    id: SchemaKey
    owner_id: UserId
    published: bool
    active: bool
    created_at: datetime
    schema: Schema


class Schemas:
    """The schemas that a user sees: own and published."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(
        self, user_id: UserId, schema: Schema, *, keep: Keep[tuple[StoredSchema, bool]] = unkept
    ) -> tuple[StoredSchema, bool]:
        """Store a version; the same again is found, not stored. Returns whether it is new.

        Raises Conflict ``already_exists`` if the version exists with another content, ``too_many`` at the bound.
        """
        async with self._database.locked(user_id) as connection:
            count = await connection.fetchval("select count(*) from schemas where owner_id = $1", user_id)
            if count >= OWN_MAX:
                raise Conflict(f"You have {OWN_MAX} schema versions.", code="too_many")
            stored, is_new = await add_schema(connection, user_id, schema)
            if is_new:
                data: dict[str, object] = {
                    "schema_id": schema.slug,
                    "schema_key": stored.id,
                    "version": schema.version,
                    "user_id": user_id,
                }
                happened = event("schema.registered", f"schemas/{schema.slug}", schema.slug, data)
                await emit(connection, user_id, happened)
            await keep(connection, (stored, is_new))
        return stored, is_new

    async def find(self, user_id: UserId, reference: str) -> StoredSchema:
        """Return the newest version of a slug (``schema-`` prefix or not), own first, or one by its id.

        Raises NotFound.
        """
        found = await self.versions(user_id, reference, limit=1)
        return found[0]

    async def versions(self, user_id: UserId, reference: str, *, limit: int) -> list[StoredSchema]:
        """Return the versions of a slug, newest first, own before published ones. Raises NotFound for none."""
        if _UUID.fullmatch(reference):
            query, value = "where s.id = $1", UUID(reference)
            rows = await self._database.rows(user_id, f"{_COLUMNS} {query}", value)
        else:
            # Whoever registers a slug of a published schema has replaced it for themselves.
            query = (
                "where s.active and s.slug = $2 and s.owner_id = coalesce("
                "(select owner_id from schemas where active and slug = $2 and owner_id = $1 limit 1),"
                " (select owner_id from schemas where active and slug = $2 and published limit 1))"
            )
            slug = canonical_slug(reference)
            rows = await self._database.rows(user_id, f"{_COLUMNS} {query} {_NEWEST} limit $3", user_id, slug, limit)
        if not rows:
            raise NotFound(f"There is no schema {reference[:100]!r}.")
        return [_read(row) for row in rows]

    async def known(self, user_id: UserId, references: Sequence[str]) -> dict[str, Schema]:
        """Return the newest version of each slug that exists, and each id's version, by slug or id."""
        slugs = [canonical_slug(reference) for reference in references]
        ids = [UUID(slug) for slug in slugs if _UUID.fullmatch(slug)]
        rows = await self._database.rows(user_id, _KNOWN, user_id, slugs, ids)
        # Later rows win: own over published, newer over older.
        found = {row["slug"]: schema_of(row) for row in rows}
        return found | {str(row["id"]): schema_of(row) for row in rows if row["id"] in ids}

    async def page(
        self, user_id: UserId, *, limit: int, after: tuple[str, UUID] | None = None, role: str | None = None
    ) -> list[StoredSchema]:
        """Return up to ``limit`` schemas by slug, the newest version of each owner's."""
        rows = await self._database.rows(
            user_id,
            "select * from (select distinct on (s.owner_id, s.slug) s.* from schemas s where s.active"
            " order by s.owner_id, s.slug, string_to_array(split_part(s.version, '-', 1), '.')::int[] desc,"
            " s.version desc) s"
            " where ($1::text is null or (s.slug, s.id) > ($1, $2::uuid)) and ($3::text is null or s.type = $3)"
            " order by s.slug, s.id limit $4",
            *(after or (None, None)), role, limit,
        )  # fmt: skip
        return [_read(row) for row in rows]


async def add_schema(
    connection: Any, owner_id: UserId, schema: Schema, *, published: bool = False
) -> tuple[StoredSchema, bool]:
    """Store one version inside the caller's transaction, which runs as its owner; see ``Schemas.register``."""
    row = await connection.fetchrow(
        _COLUMNS + "where s.owner_id = $1 and s.slug = $2 and s.version = $3",
        owner_id, schema.slug, schema.version,
    )  # fmt: skip
    if row is None:
        await connection.execute(_INSERT, *_values(owner_id, schema, published=published))
        row = await connection.fetchrow(_COLUMNS + "where s.id = $1", schema_key(owner_id, schema.slug, schema.version))
        return _read(row), True
    stored = _read(row)
    if canonical(_content(stored.schema)) != canonical(_content(schema)):
        detail = f"{schema.slug} {schema.version} exists with another content: give it a higher version."
        raise Conflict(detail, faults=[Fault("/version", "already_exists", detail)])
    return stored, False


async def newest_version(connection: Any, owner_id: UserId, slug: str) -> str | None:
    """Return the highest version of an owner's schema, None if there is none."""
    row = await connection.fetchrow(
        _COLUMNS + "where s.owner_id = $1 and s.slug = $2" + _NEWEST + "limit 1", owner_id, slug
    )
    return row and str(row["version"])


def _content(schema: Schema) -> dict[str, Any]:
    # Words about a schema may be bettered; what decides about values may not.
    named = schema.to_json()
    return {name: named[name] for name in ("definition", "strict_mode", "required_fields", "examples")}


def _values(owner_id: UserId, schema: Schema, *, published: bool) -> tuple[object, ...]:
    return (
        schema_key(owner_id, schema.slug, schema.version),
        owner_id,
        schema.slug,
        schema.name,
        schema.version,
        schema.role or _ROLE_DEFAULT,
        canonical(schema.definition).decode(),
        schema.strict_mode,
        list(schema.required_fields),
        canonical(list(schema.examples)).decode(),
        schema.description,
        list(schema.compatible_with),
        schema.provider_id,
        published,
        schema.deprecated,
    )


def _read(row: Any) -> StoredSchema:
    return StoredSchema(
        id=SchemaKey(row["id"]),
        owner_id=UserId(row["owner_id"]),
        published=row["published"],
        active=row["active"],
        created_at=row["created_at"],
        schema=schema_of(row),
    )


def schema_of(row: Any) -> Schema:
    """Return the schema of a row of ``schemas``."""
    return Schema(
        slug=row["slug"],
        version=row["version"],
        definition=orjson.loads(row["definition"]),
        description=row["description"],
        strict_mode=row["strict_mode"],
        required_fields=tuple(row["required_fields"]),
        examples=tuple(orjson.loads(row["examples"])),
        role=row["type"],
        provider_id=row["provider_id"],
        compatible_with=tuple(row["compatible_with"]),
        deprecated=row["deprecated"],
    )
