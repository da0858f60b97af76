"""Providers in PostgreSQL: what reacts to what. A user sees own and published ones, own ones first."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from domain.canonical import canonical, same
from domain.errors import Conflict, NotFound
from domain.ids import SYSTEM_USER, CascadeId, ProviderKey, UserId, instance_id, provider_key
from domain.provider_ir import PROVIDERS
from domain.providers import Provider, canonical_provider
from storage.causes import add_cause, emit, event
from storage.database import Database
from storage.idempotency import Keep, unkept
from storage.instances import policies_of, put_instance

OWN_MAX = 1_000
"""Providers that one user may register."""

_COLUMNS = """
select p.id, p.owner_id, p.slug, p.version, p.spec, p.published, p.active, p.created_at, p.updated_at,
  coalesce(i.active, p.owner_id = $2) and not (p.owner_id <> $1 and p.slug in (
    select o.slug from providers o where o.owner_id = $1 and o.active)) as activated
from providers p left join instances i on i.user_id = $1 and i.provider_id = p.id
"""
_PAGE = f"""{_COLUMNS}
where p.active and ($3::text is null or (p.slug, p.id) > ($3, $4::uuid))
  and (p.owner_id = $1 or p.slug not in (select o.slug from providers o where o.owner_id = $1 and o.active))
order by p.slug, p.id limit $5
"""  # noqa: S608 - constants of this module
_UPSERT = """
insert into providers (id, owner_id, slug, name, description, spec, workflow_id, definition_digest, input_schemas,
  content_types, events, origin, anchor, collect_bucket_type, collect_schema, outputs, execution, supersede,
  reads_meta, on_conflict, on_delete, debounce_ms, debounce_max_ms, priority, max_concurrency, services,
  on_parent_failure, published)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24,
  $25, $26, $27, $28)
on conflict (id) do update set name = excluded.name, description = excluded.description, spec = excluded.spec,
  workflow_id = excluded.workflow_id, definition_digest = excluded.definition_digest,
  input_schemas = excluded.input_schemas, content_types = excluded.content_types, events = excluded.events,
  origin = excluded.origin, anchor = excluded.anchor, collect_bucket_type = excluded.collect_bucket_type,
  collect_schema = excluded.collect_schema, outputs = excluded.outputs, execution = excluded.execution,
  supersede = excluded.supersede, reads_meta = excluded.reads_meta, on_conflict = excluded.on_conflict,
  on_delete = excluded.on_delete, debounce_ms = excluded.debounce_ms, debounce_max_ms = excluded.debounce_max_ms,
  priority = excluded.priority, max_concurrency = excluded.max_concurrency, services = excluded.services,
  on_parent_failure = excluded.on_parent_failure, published = excluded.published, active = true, updated_at = now(),
  version = providers.version + 1
"""
_HEALTH = """
select count(*)::int as runs, (count(*) filter (where r.status = 'settled'))::int as settled,
  (count(*) filter (where r.status = 'failed'))::int as failed,
  (count(*) filter (where r.status in ('running', 'parked')))::int as running,
  max(r.started_at) as last_run_at,
  (array_agg(r.status order by r.id desc) filter (where r.status in ('settled', 'failed')))[1] as last_status,
  (array_agg(r.error order by r.id desc) filter (where r.status = 'failed'))[1] as last_error
from runs r join derivations d on d.user_id = r.user_id and d.id = r.derivation_id
where r.user_id = $1 and d.provider_id = $2 and r.started_at > now() - interval '24 hours'
"""
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredProvider:
    """A provider and what registering it added; ``activated``: whether it reacts to this user's blobs."""

    key: ProviderKey
    owner_id: UserId
    revision: int
    published: bool
    activated: bool
    created_at: datetime
    updated_at: datetime
    provider: Provider


class Providers:
    """The providers that a user sees."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def register(
        self,
        user_id: UserId,
        provider: Provider,
        *,
        actor: str,
        keep: Keep[tuple[StoredProvider, CascadeId | None]] = unkept,
    ) -> tuple[StoredProvider, CascadeId | None]:
        """Store a provider, or a new revision of it; the same again changes nothing.

        The first registration activates it, unless the provider says otherwise; a later one leaves that as it is, and
        settings too if somebody has set them.
        Returns the cascade that follows it up, None if nothing changed. Raises Conflict at the bound.
        """
        key = provider_key(user_id, provider.id)
        instance = instance_id(user_id, key)
        async with self._database.locked(user_id) as connection:
            before = await connection.fetchrow("select active, spec from providers where id = $1", key)
            if before is None:
                await _check_room(connection, user_id)
            if not await add_provider(connection, user_id, provider):
                known = await _stored(connection, user_id, key), None
                await keep(connection, known)
                return known
            if before is None or not before["active"]:
                settings = dict(provider.settings)
                await put_instance(
                    connection, user_id, key, active=provider.activate, settings=settings, policies=PROVIDERS
                )
                await _replace_published(connection, user_id, provider, actor)
            else:
                await _follow_settings(connection, user_id, key, before["spec"], provider)
            cascade = await add_cause(
                connection, user_id, cause="provider", target_id=None, instance_id=instance, actor=actor,
                label=provider.name,
            )  # fmt: skip
            stored = await _stored(connection, user_id, key)
            data: dict[str, object] = {
                "provider_id": provider.id,
                "revision": stored.revision,
                "workflow_id": provider.workflow_id,
                "definition_digest": provider.definition_digest,
                "active": stored.activated,
                "user_id": user_id,
                "cascade_id": cascade,
            }
            subject = f"providers/{provider.id}"
            await emit(connection, user_id, event("provider.registered", subject, provider.id, data))
            await keep(connection, (stored, cascade))
        return stored, cascade

    async def find(self, user_id: UserId, reference: str) -> StoredProvider:
        """Return a provider by slug (own, then published, then by the seeds' alias), or by its id.

        Raises NotFound.
        """
        where: str
        value: UUID | list[str]
        if _UUID.fullmatch(reference):
            where, value = "p.id = $3", UUID(reference)
        else:
            where, value = "p.slug = any($3)", [reference, canonical_provider(reference)]
        rows = await self._database.rows(
            user_id,
            f"{_COLUMNS} where p.active and {where} order by (p.owner_id = $1) desc, (p.slug = $4) desc limit 1",
            user_id, SYSTEM_USER, value, reference,
        )  # fmt: skip
        if not rows:
            raise NotFound(f"There is no provider {reference[:100]!r}.")
        return _read(rows[0])

    async def page(self, user_id: UserId, *, limit: int, after: tuple[str, UUID] | None = None) -> list[StoredProvider]:
        """Return up to ``limit`` providers by slug."""
        rows = await self._database.rows(user_id, _PAGE, user_id, SYSTEM_USER, *(after or (None, None)), limit)
        return [_read(row) for row in rows]

    async def delete(
        self, user_id: UserId, stored: StoredProvider, *, actor: str, keep: Keep[CascadeId] = unkept
    ) -> CascadeId:
        """Let a provider of one's own react no more; what it made stays. Raises NotFound if it is gone."""
        slug = stored.provider.id
        async with self._database.locked(user_id) as connection:
            done = await connection.execute(
                "update providers set active = false, version = version + 1, updated_at = now()"
                " where id = $1 and owner_id = $2 and active",
                stored.key, user_id,
            )  # fmt: skip
            if done != "UPDATE 1":
                raise NotFound(f"There is no provider {slug!r} of yours.")
            await _replace_published(connection, user_id, stored.provider, actor)
            cascade = await add_cause(
                connection, user_id, cause="provider", target_id=None,
                instance_id=instance_id(user_id, stored.key), actor=actor, label=stored.provider.name,
            )  # fmt: skip
            data: dict[str, object] = {"provider_id": slug, "user_id": user_id, "cascade_id": cascade}
            await emit(connection, user_id, event("provider.deleted", f"providers/{slug}", slug, data))
            await keep(connection, cascade)
        return cascade

    async def health(self, user_id: UserId, key: ProviderKey) -> Any:
        """Return the user's runs of the last 24 hours, counted, with the last error."""
        return await self._database.row(user_id, _HEALTH, user_id, key)


async def add_provider(connection: Any, owner_id: UserId, provider: Provider, *, published: bool = False) -> bool:
    """Store a provider inside the caller's transaction, which runs as its owner; False if nothing changed."""
    key = provider_key(owner_id, provider.id)
    spec = canonical(provider.to_json()).decode()
    known = await connection.fetchval(
        "select true from providers where id = $1 and spec = $2 and published = $3 and active", key, spec, published
    )
    if known:
        return False
    await connection.execute(_UPSERT, key, owner_id, *_values(provider, spec), published)
    return True


def _values(provider: Provider, spec: str) -> tuple[object, ...]:
    debounce = provider.debounce
    return (
        provider.id,
        provider.name,
        provider.description,
        spec,
        provider.workflow_id,
        provider.definition_digest,
        list(provider.input_schemas),
        list(provider.supported_types),
        list(provider.events),
        provider.origin,
        provider.anchor,
        provider.collect.bucket_type if provider.collect else None,
        provider.collect.schema_id if provider.collect else None,
        [
            {"slot": output.slot, "content_type": output.content_type, "schema_id": output.schema.slug}
            for output in provider.outputs
        ],
        provider.execution,
        provider.supersede,
        bool(provider.reads),
        provider.on_conflict,
        provider.on_delete,
        round(debounce.quiet_seconds * 1000) if debounce else 0,
        round(debounce.max_wait_seconds * 1000) if debounce else 0,
        provider.priority,
        provider.max_concurrency,
        list(provider.services),
        provider.on_parent_failure,
    )


async def _follow_settings(connection: Any, user_id: UserId, key: ProviderKey, spec: str, provider: Provider) -> None:
    """A newer revision's settings hold wherever the instance still has those of the revision before."""
    earlier, newer = orjson.loads(spec).get("settings", {}), dict(provider.settings)
    row = await connection.fetchrow("select * from instances where user_id = $1 and provider_id = $2", user_id, key)
    if row is not None and same(orjson.loads(row["settings"]), earlier) and not same(earlier, newer):
        await put_instance(connection, user_id, key, active=row["active"], settings=newer, policies=policies_of(row))


async def _replace_published(connection: Any, user_id: UserId, provider: Provider, actor: str) -> None:
    """A published provider of this name yields to one's own, or takes over again: either is a cause of its own."""
    key = await connection.fetchval(
        "select id from providers where slug = $1 and published and active and owner_id <> $2", provider.id, user_id
    )
    if key is not None:
        instance = instance_id(user_id, ProviderKey(key))
        await add_cause(
            connection, user_id, cause="provider", target_id=None, instance_id=instance, actor=actor,
            label=provider.name,
        )  # fmt: skip


async def _check_room(connection: Any, user_id: UserId) -> None:
    count = await connection.fetchval("select count(*) from providers where owner_id = $1", user_id)
    if count >= OWN_MAX:
        raise Conflict(f"You have {OWN_MAX} providers.", code="too_many")


async def _stored(connection: Any, user_id: UserId, key: ProviderKey) -> StoredProvider:
    return _read(await connection.fetchrow(f"{_COLUMNS} where p.id = $3", user_id, SYSTEM_USER, key))


def _read(row: Any) -> StoredProvider:
    return StoredProvider(
        key=ProviderKey(row["id"]),
        owner_id=UserId(row["owner_id"]),
        revision=row["version"],
        published=row["published"],
        activated=row["activated"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        provider=Provider.from_json(orjson.loads(row["spec"])),
    )
