"""Instances in PostgreSQL: a user's activation of a provider, with settings. Changing one is a cause."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from domain.canonical import canonical, same
from domain.errors import Fault, Gone, Invalid, NotFound, VersionConflict
from domain.ids import BlobId, CascadeId, InstanceId, ProviderKey, UserId, instance_id
from domain.provider_ir import PROVIDERS, Debounce, Policies
from storage.causes import add_cause, emit, event
from storage.database import Database
from storage.idempotency import Keep, unkept

_PUT = """
insert into instances (user_id, id, provider_id, active, settings, on_conflict, supersede, debounce_ms,
  debounce_max_ms, on_parent_failure, version)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 2)
on conflict (user_id, id) do update set active = excluded.active, settings = excluded.settings,
  on_conflict = excluded.on_conflict, supersede = excluded.supersede, debounce_ms = excluded.debounce_ms,
  debounce_max_ms = excluded.debounce_max_ms, on_parent_failure = excluded.on_parent_failure,
  version = instances.version + 1, updated_at = now()
"""
_COLUMNS = (
    "id, active, settings, on_conflict, supersede, debounce_ms, debounce_max_ms, on_parent_failure, version, updated_at"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A user's activation of a provider. Version 1 is the state that nobody has touched.

    ``policies`` are the user's own.
    """

    id: InstanceId
    active: bool
    settings: Mapping[str, Any] = field(hash=False)
    policies: Policies
    version: int
    updated_at: datetime | None


class Instances:
    """A user's activations; built-in providers are active without a row."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(
        self, user_id: UserId, key: ProviderKey, *, default_active: bool, defaults: Mapping[str, Any]
    ) -> Instance:
        """Return the instance, or what holds as long as there is no row."""
        async with self._database.transaction(user_id) as connection:
            return await _instance(connection, user_id, key, default_active=default_active, defaults=defaults)

    async def put(
        self,
        user_id: UserId,
        key: ProviderKey,
        *,
        slug: str,
        name: str,
        before: Instance,
        active: bool,
        settings: Mapping[str, Any],
        policies: Policies,
        expected: Collection[int] | None,
        actor: str,
        keep: Keep[tuple[Instance, CascadeId | None]] = unkept,
    ) -> tuple[Instance, CascadeId | None]:
        """Switch a provider on or off, change its settings or the user's policies; the same: nothing is written.

        ``before`` is what ``get`` answered. Returns the cascade that follows it up. Raises VersionConflict if the
        version is not ``expected``.
        """
        async with self._database.locked(user_id) as connection:
            now = await _instance(connection, user_id, key, default_active=before.active, defaults=before.settings)
            if expected is not None and now.version not in expected:
                members = {"current_version": now.version}
                raise VersionConflict(f"The instance is at version {now.version}.", members=members)
            same_settings = same(dict(now.settings), dict(settings))
            if (now.active, now.policies) == (active, policies) and same_settings:
                await keep(connection, (now, None))
                return now, None
            await put_instance(connection, user_id, key, active=active, settings=settings, policies=policies)
            cascade = await add_cause(
                connection, user_id, cause="provider", target_id=None, instance_id=now.id, actor=actor, label=name
            )
            data: dict[str, object] = {
                "provider_id": slug,
                "instance_id": now.id,
                "active": active,
                "user_id": user_id,
                "cascade_id": cascade,
            }
            kind = "provider.configured"
            if now.active != active:
                kind = "provider.activated" if active else "provider.paused"
            await emit(connection, user_id, event(kind, f"providers/{slug}", slug, data))
            after = await _instance(connection, user_id, key, default_active=active, defaults=settings)
            await keep(connection, (after, cascade))
        return after, cascade

    async def upgrade(
        self,
        user_id: UserId,
        key: ProviderKey,
        *,
        slug: str,
        name: str,
        dry_run: bool,
        actor: str,
        keep: Keep[Upgrade] = unkept,
    ) -> Upgrade:
        """Ask that what was made with an older definition or older defaults is made again; ``dry_run`` only counts."""
        instance = instance_id(user_id, key)
        async with self._database.locked(user_id) as connection:
            found = await _outdated(connection, user_id, instance)
            if found.derivations and not dry_run:
                cascade = await add_cause(
                    connection, user_id, cause="provider_change", target_id=None, instance_id=instance, actor=actor,
                    label=f"Upgrade of {name}",
                )  # fmt: skip
                data: dict[str, object] = {"provider_id": slug, "user_id": user_id, "cascade_id": cascade}
                await emit(connection, user_id, event("provider.upgraded", f"providers/{slug}", slug, data))
                found = Upgrade(derivations=found.derivations, below=found.below, cascade_id=cascade)
            await keep(connection, found)
        return found

    async def process(
        self,
        user_id: UserId,
        key: ProviderKey,
        blob_id: BlobId,
        *,
        name: str,
        actor: str,
        keep: Keep[tuple[InstanceId, CascadeId]] = unkept,
    ) -> tuple[InstanceId, CascadeId]:
        """Ask an active instance to process one blob now, whether or not it would have matched.

        Raises NotFound, Gone for the blob, Invalid ``cycle`` if the provider made it, directly or not.
        """
        instance = instance_id(user_id, key)
        async with self._database.locked(user_id) as connection:
            blob = await connection.fetchrow(
                "select title, version, deleted_at from blobs where user_id = $1 and id = $2 and version > 0",
                user_id, blob_id,
            )  # fmt: skip
            if blob is None:
                detail = "There is no such blob."
                raise NotFound(detail, faults=[Fault("/blob_id", "not_found", detail)])
            if blob["deleted_at"] is not None:
                raise Gone("The blob is deleted.", members={"current_version": blob["version"]})
            made_by = await connection.fetch("select studio_lineage($1, $2) as id", user_id, blob_id)
            if instance in {row["id"] for row in made_by}:
                detail = "The blob was made by this provider, directly or not: it would process its own output."
                raise Invalid(detail, code="cycle", faults=[Fault("/blob_id", "cycle", detail)])
            cascade = await add_cause(
                connection, user_id, cause="process", target_id=blob_id, instance_id=instance, actor=actor,
                label=f"{name} '{blob['title']}'" if blob["title"] else name,
            )  # fmt: skip
            await keep(connection, (instance, cascade))
        return instance, cascade


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What an upgrade does, or would do: what is made again, and how much below that may follow."""

    derivations: list[UUID]
    below: int
    cascade_id: CascadeId | None = None


async def _outdated(connection: Any, user_id: UserId, instance: InstanceId) -> Upgrade:
    """Rehearse the plan of an upgrade, and undo it."""
    rehearsal = connection.transaction()
    await rehearsal.start()
    ids = await connection.fetchval("select studio_outdated($1, $2)", user_id, instance)
    below = await connection.fetchval("select cardinality(studio_below($1, $2))", user_id, ids)
    await rehearsal.rollback()
    return Upgrade(derivations=sorted(ids), below=max((below or 0) - len(ids), 0))


async def put_instance(
    connection: Any,
    user_id: UserId,
    key: ProviderKey,
    *,
    active: bool,
    settings: Mapping[str, Any],
    policies: Policies,
) -> None:
    """Write the row inside the caller's transaction."""
    text = canonical(dict(settings)).decode()
    debounce = policies.debounce
    pace = (None, None) if debounce is None else (_ms(debounce.quiet_seconds), _ms(debounce.max_wait_seconds))
    await connection.execute(
        _PUT, user_id, instance_id(user_id, key), key, active, text, policies.on_conflict, policies.supersede, *pace,
        policies.on_parent_failure,
    )  # fmt: skip


def policies_of(row: Any) -> Policies:
    """The policies that a row of instances holds."""
    quiet, longest = row["debounce_ms"], row["debounce_max_ms"]
    return Policies(
        on_conflict=row["on_conflict"],
        supersede=row["supersede"],
        debounce=None if quiet is None else Debounce(quiet / 1000, longest / 1000),
        on_parent_failure=row["on_parent_failure"],
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


async def _instance(
    connection: Any, user_id: UserId, key: ProviderKey, *, default_active: bool, defaults: Mapping[str, Any]
) -> Instance:
    row = await connection.fetchrow(
        f"select {_COLUMNS} from instances where user_id = $1 and provider_id = $2",  # noqa: S608 - a constant
        user_id, key,
    )  # fmt: skip
    if row is None:
        return Instance(
            id=instance_id(user_id, key),
            active=default_active,
            settings=defaults,
            policies=PROVIDERS,
            version=1,
            updated_at=None,
        )
    return Instance(
        id=InstanceId(row["id"]),
        active=row["active"],
        # A row that plan made holds no settings of its own.
        settings={**defaults, **orjson.loads(row["settings"])}
        if row["version"] == 1
        else orjson.loads(row["settings"]),
        policies=policies_of(row),
        version=row["version"],
        updated_at=row["updated_at"],
    )
