"""Reading runs: every execution of a derivation, its pinned inputs, what it made, its steps and its cost."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from domain.errors import NotFound
from domain.ids import BlobId, CascadeId, RunId, UserId
from storage.database import Database

_RUN = """
select r.id, r.derivation_id, r.cascade_id, r.provider_id, r.attempt, r.execution, r.status, r.definition_digest,
  r.inputs, r.label, r.workflow_id, r.usage, r.effects, r.error, r.started_at, r.ended_at,
  studio_waited(r.user_id, r.id, r.started_at, coalesce(r.ended_at, now())) as waited, d.anchor_kind, d.anchor_id,
  coalesce((select jsonb_agg(jsonb_build_object('slot', o.slot, 'blob_id', o.blob_id, 'version', x.to_version,
      'delta_id', x.id) order by o.slot)
    from derivation_outputs o
    left join deltas x on x.user_id = o.user_id and x.blob_id = o.blob_id and x.run_id = r.id
      and x.status = 'applied'
    where o.user_id = r.user_id and o.derivation_id = r.derivation_id), '[]') as outputs
from runs r join derivations d on d.user_id = r.user_id and d.id = r.derivation_id
where r.user_id = $1
"""

_FILTERS = """
  and ($2::uuid is null or r.id < $2)
  and ($3::text is null or r.provider_id = $3)
  and ($4::text is null or r.status = $4)
  and ($5::uuid is null or r.cascade_id = $5)
  and ($6::uuid is null or r.derivation_id in (
    select i.derivation_id from derivation_inputs i where i.user_id = $1 and i.blob_id = $6
    union select o.derivation_id from derivation_outputs o where o.user_id = $1 and o.blob_id = $6))
order by r.id desc limit $7
"""

_STEPS = """
select step_id, position, type, status, output_hash, usage, attempts, errors, error, started_at, ended_at, memo_key,
  reused_from, decision from run_steps
where user_id = $1 and run_id = $2 order by position, step_id
"""


class Runs:
    """A user's runs, newest first; rows are mappings by column."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        user_id: UserId,
        *,
        limit: int,
        before: UUID | None = None,
        provider_id: str | None = None,
        status: str | None = None,
        cascade_id: CascadeId | None = None,
        blob_id: BlobId | None = None,
    ) -> list[asyncpg.Record]:
        """Return up to ``limit`` runs older than ``before``; ``blob_id`` is an input or an output of theirs."""
        return await self._database.rows(
            user_id, _RUN + _FILTERS, user_id, before, provider_id, status, cascade_id, blob_id, limit
        )

    async def get(self, user_id: UserId, run_id: RunId) -> tuple[asyncpg.Record, list[asyncpg.Record]]:
        """Return a run and its steps in their order. Raises NotFound."""
        async with self._database.transaction(user_id) as connection:
            row = await connection.fetchrow(_RUN + " and r.id = $2", user_id, run_id)
            if row is None:
                raise NotFound("There is no such run.")
            return row, await connection.fetch(_STEPS, user_id, run_id)
