"""Reading cascades: the cause, the progress, what was folded in; ``storage/cascades.py`` moves them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from domain.errors import NotFound
from domain.ids import BlobId, CascadeId, UserId
from storage.database import Database

# What has ended is told as it ended; the others are counted, all at once.
_CASCADES = """
with picked as (
  select * from cascades c where c.user_id = $1
    and ($2::uuid is null or c.id = $2)
    and ($3::timestamptz is null or (c.created_at, c.id) < ($3, $4::uuid))
    and ($5::text is null or c.status = $5)
    and ($6::uuid is null or c.target_id = $6 or c.id in (
      select x.cascade_id from deltas x where x.user_id = $1 and x.blob_id = $6))
  order by c.created_at desc, c.id desc limit $7
), counted as (
  select * from studio_counts($1, array(
    select id from picked where status in ('pending', 'running') or ended_counts is null))
  union all
  select p.id, n.unsettled, n.running, n.failed, n.blocked from picked p
    cross join lateral jsonb_to_record(p.ended_counts) n(unsettled int, running int, failed int, blocked int)
    where p.status not in ('pending', 'running')
)
select c.id, c.cause, c.target_id, c.instance_id, c.actor, c.label, c.status, c.superseded_by, c.touched,
  c.cut_off, c.error, c.created_at, c.planned_at, c.ended_at,
  nullif(c.plan_id, '')::uuid as plan_id, coalesce(n.unsettled, 0) as unsettled,
  case when c.status in ('pending', 'running') or c.ended_counts is null then c.taken
    else (c.ended_counts->>'taken')::int end as taken,
  (select p.slug from instances i join providers p on p.id = i.provider_id
    where i.user_id = c.user_id and i.id = c.instance_id) as provider_id,
  (select coalesce(sum(x.amount), 0)::bigint from charges x
    where x.user_id = c.user_id and x.cascade_id = c.id) as cost,
  coalesce(n.running, 0) as running, coalesce(n.failed, 0) as failed, coalesce(n.blocked, 0) as blocked,
  array(select distinct x.blob_id from deltas x where x.user_id = c.user_id and x.cascade_id = c.id
    and x.run_id is null order by x.blob_id) as roots
from picked c left join counted n on n.cascade_id = c.id
order by c.created_at desc, c.id desc
"""

_DELTAS = """
select id, blob_id, operation, from_version, to_version, actor, created_at from deltas
where user_id = $1 and cascade_id = $2 and run_id is null order by created_at, id limit $3
"""

# Cascades whose work went over to this one whole, each to the next, newest first.
_SUPERSEDES = """
with recursive taken (id) as (
  select c.id from cascades c where c.user_id = $1 and c.superseded_by = $2
  union
  select c.id from taken t cross join lateral (
    select id from cascades where user_id = $1 and superseded_by = t.id offset 0) c
)
select c.id, c.cause, c.label, c.actor, c.created_at, n.edits from taken t
cross join lateral (select * from cascades where user_id = $1 and id = t.id offset 0) c
cross join lateral (select count(*)::int as edits from deltas
  where user_id = $1 and cascade_id = t.id and run_id is null offset 0) n
order by c.created_at desc, c.id desc limit $3
"""

_EDITS = "select count(*)::int from deltas where user_id = $1 and cascade_id = $2 and run_id is null"

_RUNS = """
select id, provider_id, derivation_id, status, label, workflow_id, started_at, ended_at, error,
  round(extract(epoch from studio_waited($1, id, started_at, coalesce(ended_at, now()))) * 1000)::bigint as waited_ms
from runs where user_id = $1 and cascade_id = $2 order by id limit $3
"""

_WAITED_FOR = """
select c.status in ('pending', 'running') and not exists (
    select from runs r join derivations d on d.user_id = r.user_id and d.id = r.derivation_id
    where r.user_id = c.user_id and r.cascade_id = c.id and d.instance_id = $3
      and r.status not in ('running', 'parked')) as open
from cascades c where c.user_id = $1 and c.id = $2
"""

DETAILS_MAX = 1000
"""Folded deltas, and runs, that one cascade shows; the lists of runs and events have them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeDetails:
    """What one cascade shows beside its row: people's deltas and runs, oldest first, ``DETAILS_MAX`` of each.

    ``edits`` counts all of its own deltas; ``supersedes`` are the cascades whose work it took over, newest first.
    """

    deltas: list[asyncpg.Record]
    edits: int
    supersedes: list[asyncpg.Record]
    runs: list[asyncpg.Record]


class CascadeViews:
    """A user's cascades, newest first; rows are mappings by column."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        user_id: UserId,
        *,
        limit: int,
        before: tuple[datetime, UUID] | None = None,
        status: str | None = None,
        blob_id: BlobId | None = None,
    ) -> list[asyncpg.Record]:
        """Return up to ``limit`` cascades older than ``before``; ``blob_id`` is one that they moved."""
        return await self._database.rows(
            user_id, _CASCADES, user_id, None, *(before or (None, None)), status, blob_id, limit
        )

    async def get(self, user_id: UserId, cascade_id: CascadeId) -> asyncpg.Record:
        """Return one cascade. Raises NotFound."""
        row = await self._database.row(user_id, _CASCADES, user_id, cascade_id, None, None, None, None, 1)
        if row is None:
            raise NotFound("There is no such cascade.")
        return row

    async def details(self, user_id: UserId, cascade_id: CascadeId) -> CascadeDetails:
        """Return what was folded into a cascade, whose work it took over, and the runs that it claimed."""
        async with self._database.transaction(user_id) as connection:
            return CascadeDetails(
                deltas=await connection.fetch(_DELTAS, user_id, cascade_id, DETAILS_MAX),
                edits=await connection.fetchval(_EDITS, user_id, cascade_id),
                supersedes=await connection.fetch(_SUPERSEDES, user_id, cascade_id, DETAILS_MAX),
                runs=await connection.fetch(_RUNS, user_id, cascade_id, DETAILS_MAX),
            )

    async def is_open(self, user_id: UserId, cascade_id: CascadeId, instance_id: UUID | None = None) -> bool:
        """Tell whether a cascade has still to close; with an instance, whether its run has still to end."""
        row = await self._database.row(user_id, _WAITED_FOR, user_id, cascade_id, instance_id)
        return bool(row and row["open"])
