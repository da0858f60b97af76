"""Definitions in PostgreSQL: immutable versions of workflows, named by digest; own before published ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from domain.canonical import canonical
from domain.definitions import Definition
from domain.errors import Conflict, NotFound
from domain.ids import UserId
from domain.provider_ir import canonical_workflow
from storage.causes import emit, event
from storage.database import Database
from storage.idempotency import Keep, unkept

OWN_MAX = 5_000
"""Versions of definitions that one user may register."""

_COLUMNS = "select owner_id, slug, version, digest, name, source, ir, published, created_at from definitions"
_OF_SLUG = """
select owner_id, slug, version, digest, name, source, ir, published, created_at from definitions
where slug = $2 and ($3::int is null or version = $3) and owner_id = coalesce(
  (select owner_id from definitions where slug = $2 and owner_id = $1 limit 1),
  (select owner_id from definitions where slug = $2 and published limit 1))
order by version desc limit 1
"""
_PAGE = """
select * from (
  select distinct on (owner_id, slug) owner_id, slug, version, digest, name, source, ir, published, created_at
  from definitions order by owner_id, slug, version desc) d
where ($1::text is null or (slug, owner_id::text) > ($1, $2)) order by slug, owner_id::text limit $3
"""
_INSERT = """
insert into definitions (owner_id, slug, version, digest, name, source, ir, published)
select $1, $2, 1 + coalesce(max(version), 0), $3, $4, $5, $6, $7 from definitions where owner_id = $1 and slug = $2
"""
# A registration pins the definition of its day: the user's own providers that another version has come after.
_OUTDATED = """
select p.slug as provider_id, p.workflow_id, u.version, n.version as newest from providers p
cross join lateral (select owner_id, version, digest from definitions
  where slug = p.workflow_id and (owner_id = $1 or published) order by owner_id = $1 desc, version desc limit 1) n
left join lateral (select version from definitions
  where owner_id = n.owner_id and slug = p.workflow_id and digest = p.definition_digest limit 1) u on true
where p.owner_id = $1 and p.active and p.definition_digest <> n.digest
  and ($2::text is null or p.workflow_id = $2) and ($3::uuid[] is null or p.id = any($3))
order by p.slug
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """A definition and what registering it added; ``source`` is the text that was sent.

    ``outdated``: the user's providers that use another version, as ``outdated_providers`` has them.
    """

    owner_id: UserId
    version: int
    source: str
    published: bool
    created_at: datetime
    definition: Definition
    digest: str
    outdated: Sequence[Mapping[str, Any]] = ()


class Definitions:
    """The definitions that a user sees: own and published."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(
        self,
        user_id: UserId,
        definition: Definition,
        source: str,
        *,
        keep: Keep[tuple[StoredDefinition, bool]] = unkept,
    ) -> tuple[StoredDefinition, bool]:
        """Store a version; what has a version already is found, not stored. Returns whether it is new."""
        async with self._database.locked(user_id) as connection:
            count = await connection.fetchval("select count(*) from definitions where owner_id = $1", user_id)
            if count >= OWN_MAX:
                raise Conflict(f"You have {OWN_MAX} versions of workflows.", code="too_many")
            stored, is_new = await add_definition(connection, user_id, definition, source)
            if is_new:
                data: dict[str, object] = {
                    "workflow_id": definition.id,
                    "version": stored.version,
                    "digest": stored.digest,
                    "user_id": user_id,
                }
                subject = f"workflows/{definition.id}"
                await emit(connection, user_id, event("workflow.registered", subject, definition.id, data))
            behind = await outdated_providers(connection, user_id, workflow_id=definition.id)
            stored = replace(stored, outdated=behind)
            await keep(connection, (stored, is_new))
        return stored, is_new

    async def find(self, user_id: UserId, slug: str, *, version: int | None = None) -> StoredDefinition:
        """Return a version (the newest, unless given) of the user's own workflow, or else a published one.

        A seed's spelling of a built-in's id finds it.

        Raises NotFound.
        """
        row = await self._database.row(user_id, _OF_SLUG, user_id, slug, version)
        if row is None and canonical_workflow(slug) != slug:
            row = await self._database.row(user_id, _OF_SLUG, user_id, canonical_workflow(slug), version)
        if row is None:
            raise NotFound(f"There is no workflow {slug[:100]!r}.")
        return _read(row)

    async def page(
        self, user_id: UserId, *, limit: int, after: tuple[str, str] | None = None
    ) -> list[StoredDefinition]:
        """Return up to ``limit`` workflows by id, the newest version of each owner's."""
        rows = await self._database.rows(user_id, _PAGE, *(after or (None, None)), limit)
        return [_read(row) for row in rows]


async def outdated_providers(
    connection: Any, user_id: UserId, *, workflow_id: str | None = None, keys: Sequence[UUID] | None = None
) -> list[Mapping[str, Any]]:
    """Return the user's own providers that use an older version of their workflow, of one workflow or of some keys.

    ``{provider_id, workflow_id, version, newest}``; registering the provider again brings it to the newest.
    """
    return [dict(row) for row in await connection.fetch(_OUTDATED, user_id, workflow_id, keys)]


async def add_definition(
    connection: Any, owner_id: UserId, definition: Definition, source: str, *, published: bool = False
) -> tuple[StoredDefinition, bool]:
    """Store one version inside the caller's transaction, which runs as its owner and alone; see ``register``."""
    find = f"{_COLUMNS} where owner_id = $1 and slug = $2 and digest = $3"
    row = await connection.fetchrow(find, owner_id, definition.id, definition.digest)
    if row is not None:
        return _read(row), False
    ir = canonical(definition.to_json()).decode()
    await connection.execute(
        _INSERT, owner_id, definition.id, definition.digest, definition.name, source, ir, published
    )
    return _read(await connection.fetchrow(find, owner_id, definition.id, definition.digest)), True


def _read(row: Any) -> StoredDefinition:
    return StoredDefinition(
        owner_id=UserId(row["owner_id"]),
        version=row["version"],
        source=row["source"],
        published=row["published"],
        created_at=row["created_at"],
        definition=Definition.from_json(orjson.loads(row["ir"])),
        digest=row["digest"],
    )
