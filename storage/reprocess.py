"""Asking that something runs again although nothing has changed: a cause, planned by ``31_reprocess.sql``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domain.errors import Conflict, Gone, NotFound
from domain.ids import BlobId, DerivationId, ProviderKey, UserId, instance_id
from domain.reprocess import Asked, Scope
from storage.causes import add_cause
from storage.database import Database
from storage.idempotency import Keep, unkept

DERIVATIONS_NAMED = 100
"""How many derivations an answer names; all of them are asked for."""

_BLOB = "select title, version, deleted_at from blobs where user_id = $1 and id = $2 and version > 0"
_DERIVATION = """
select d.id, d.hold, d.anchor_id, d.instance_id, p.name, coalesce(b.title, k.name, '') as title
from derivations d join providers p on p.id = d.provider_id
left join blobs b on b.user_id = d.user_id and b.id = d.anchor_id and d.anchor_kind = 'blob'
left join buckets k on k.user_id = d.user_id and k.id = d.anchor_id and d.anchor_kind = 'bucket'
where d.user_id = $1 and d.id = $2
"""
_MEANT = """
select d.id, d.hold from unnest(studio_reprocessed($1, $2, $3)) x(id)
cross join lateral (select id, hold from derivations where user_id = $1 and id = x.id offset 0) d order by d.id
"""


class Reprocess:
    """Requests of people to run again."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def blob(
        self,
        user_id: UserId,
        blob_id: BlobId,
        *,
        provider: ProviderKey | None,
        scope: Scope,
        actor: str,
        keep: Keep[Asked] = unkept,
    ) -> Asked:
        """Ask for what makes the blob, else for what reads it; of one provider, for what that makes of it.

        Raises NotFound, Gone for the blob, Conflict ``nothing_to_reprocess``, ``provider_inactive``.
        """
        instance = None if provider is None else instance_id(user_id, provider)
        async with self._database.locked(user_id) as connection:
            blob = await connection.fetchrow(_BLOB, user_id, blob_id)
            if blob is None:
                raise NotFound("There is no such blob.")
            if blob["deleted_at"] is not None:
                raise Gone("The blob is deleted.", members={"current_version": blob["version"]})
            meant = await connection.fetch(_MEANT, user_id, blob_id, instance)
            _require_awake(meant)
            cascade = await add_cause(
                connection, user_id, cause="reprocess", target_id=blob_id, instance_id=instance, actor=actor,
                label=blob["title"], options=scope.options(),
            )  # fmt: skip
            asked = Asked(cascade_id=cascade, derivation_ids=tuple(row["id"] for row in meant[:DERIVATIONS_NAMED]))
            await keep(connection, asked)
        return asked

    async def derivation(
        self, user_id: UserId, derivation_id: DerivationId, *, scope: Scope, actor: str, keep: Keep[Asked] = unkept
    ) -> Asked:
        """Ask for one derivation. Raises NotFound, Conflict ``provider_inactive``."""
        async with self._database.locked(user_id) as connection:
            row = await connection.fetchrow(_DERIVATION, user_id, derivation_id)
            if row is None:
                raise NotFound("There is no such derivation.")
            _require_awake([row])
            cascade = await add_cause(
                connection, user_id, cause="reprocess", target_id=row["anchor_id"], instance_id=row["instance_id"],
                actor=actor, label=f"{row['name']} '{row['title']}'" if row["title"] else row["name"],
                options=scope.options(derivation_id=str(derivation_id)),
            )  # fmt: skip
            asked = Asked(cascade_id=cascade, derivation_ids=(row["id"],))
            await keep(connection, asked)
        return asked


def _require_awake(rows: Sequence[Any]) -> None:
    """Raise unless something of what is meant can run."""
    if not rows:
        raise Conflict("No provider makes or reads this blob.", code="nothing_to_reprocess")
    if all(row["hold"] in ("inactive", "retired") for row in rows):
        detail = "Its provider is switched off, or what it reads is deleted."
        raise Conflict(detail, code="provider_inactive")
