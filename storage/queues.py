"""The queue: what of a user's schedule runs, could run and waits, by cascade and provider, and what holds it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from domain.ids import UserId
from storage.database import Database

# What has failed or was cancelled, and what waits for that alone, waits for nothing that comes by itself: it is told by
# dead letters and cascades.
_QUEUED = """
with recursive stopped (id) as (
  select id from derivations where user_id = $1 and unsettled and hold = 'cancelled'
  union
  select d.id from stopped s
  cross join lateral (select blob_id from derivation_outputs where user_id = $1 and derivation_id = s.id offset 0) o
  cross join lateral (select derivation_id from derivation_inputs where user_id = $1 and blob_id = o.blob_id offset 0) i
  cross join lateral (select id from derivations where user_id = $1 and id = i.derivation_id and unsettled offset 0) d
), queued as materialized (
  select d.* from derivations d where d.user_id = $1 and d.unsettled and d.hold is distinct from 'failed'
    and (d.run_id is not null or not d.failing and d.id not in (select id from stopped))
)
"""
# Groups of them, in the order of claim: what people wait for, then by priority, then the oldest cause. The place of the
# first ready one is counted over all groups, running ones aside.
_GROUPS = f"""{_QUEUED}, open as materialized (
  select d.owner_cascade_id as cascade_id, d.provider_id, d.priority,
    count(*) filter (where d.run_id is not null and d.hold is null)::int as running,
    count(*) filter (where d.run_id is null and d.hold is null and d.pending_inputs = 0
      and (d.run_after is null or d.run_after <= now()))::int as ready,
    count(*) filter (where d.run_id is null and d.hold is null and d.pending_inputs = 0 and d.run_after > now())::int
      as due_later,
    count(*) filter (where d.run_id is null and d.hold is null and d.pending_inputs > 0)::int as waiting,
    count(*) filter (where d.hold is not null)::int as held,
    min(d.run_after) filter (where d.run_id is null and d.hold is null and d.run_after > now()) as due_at,
    min(d.dirty_since) as since
  from queued d group by 1, 2, 3
), placed as (
  select o.*, c.label, c.cause, studio_interactive(c.cause) as interactive, p.slug, p.max_concurrency, p.services,
    c.created_at, row_number() over w as number,
    1 + coalesce(sum(o.ready) over (w rows between unbounded preceding and 1 preceding), 0)::int as position
  from open o join cascades c on c.user_id = $1 and c.id = o.cascade_id join providers p on p.id = o.provider_id
  window w as (order by not studio_interactive(c.cause), o.priority, c.created_at, o.cascade_id, o.provider_id)
)
select g.*, (select coalesce(jsonb_agg(jsonb_build_object('limit', w.kind, 'name', nullif(w.name, ''), 'most', w.cap,
      'since', w.since) order by w.kind, w.name), '[]') from room_waits w
    where w.user_id = $1 and w.cascade_id = g.cascade_id and (w.kind = 'user'
      or w.kind = 'provider' and w.name = g.slug or w.kind = 'service' and w.name = any(g.services))) as held_by,
  h.seconds
from placed g
left join lateral (select avg(extract(epoch from r.ended_at - r.started_at
      - studio_waited($1, r.id, r.started_at, r.ended_at)))::float as seconds from (
    select id, started_at, ended_at from runs where user_id = $1 and provider_id = g.slug and status = 'settled'
    order by id desc limit $4) r offset 0) h on true
where g.number > $2 order by g.number limit $3
"""  # noqa: S608 - constants of this module
_TOTALS = f"""{_QUEUED}
select
  (select count(*)::int from runs where user_id = $1 and status = 'running') as running,
  (select count(*)::int from queued where hold is null and run_id is null
    and pending_inputs = 0 and (run_after is null or run_after <= now())) as ready,
  (select count(*)::int from queued where hold is null and run_id is null
    and (pending_inputs > 0 or run_after > now())) as waiting,
  (select runs_limit from user_state where user_id = $1) as runs_limit
"""  # noqa: S608 - as above
_EVERYBODY = "select * from everybodys_queue($1, $2, $3, $4)"
_EVERYBODYS_TOTALS = "select * from everybodys_totals()"
HISTORY_RUNS = 20
"""Runs of a provider that an estimate goes by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """How much runs, could run and waits; ``runs_limit`` is the user's own, None: as the settings say."""

    running: int
    ready: int
    waiting: int
    runs_limit: int | None


class Queues:
    """Reads the queue of one user, or how much there is of each; ``runs_per_user`` is what the settings allow."""

    def __init__(self, database: Database, *, runs_per_user: int | None) -> None:
        self._database = database
        self.runs_per_user = runs_per_user

    async def page(self, user_id: UserId, *, after: int, limit: int) -> list[asyncpg.Record]:
        """Return up to ``limit`` groups, each what one cascade wants of one provider, beyond the number ``after``."""
        return await self._database.rows(user_id, _GROUPS, user_id, after, limit, HISTORY_RUNS)

    async def totals(self, user_id: UserId) -> Totals:
        """Count everything of a user."""
        row: Any = await self._database.row(user_id, _TOTALS, user_id)
        return Totals(**dict(row))

    async def everybodys_page(self, *, after: Sequence[Any] | None, limit: int) -> list[asyncpg.Record]:
        """Return up to ``limit`` users, who has the most under way first; ``after``: running, ready, user id.

        Ids and counts, of all users, whoever asks: ``storage/functions/48_queues.sql``.
        """
        running, ready, user_id = after or (None, None, None)
        async with self._database.connection() as connection:
            found: list[asyncpg.Record] = await connection.fetch(_EVERYBODY, running, ready, user_id, limit)
        return found

    async def everybodys_totals(self) -> dict[str, int]:
        """Count users, and what of theirs runs, could run, waits and is held."""
        return dict(await self._database.call(_EVERYBODYS_TOTALS) or {})
