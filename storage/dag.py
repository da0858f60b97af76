"""The graph around a blob, read in one statement, so that its parts belong to one moment.

Neighbours are probed by index, level by level (LATERAL ... OFFSET 0): the obvious join hashes every edge again at each
level (``reference/performance.md``, B).
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from storage.database import Database

_CHILDREN = """
  select o.blob_id as id from derivation_inputs i
    join derivation_outputs o on o.user_id = i.user_id and o.derivation_id = i.derivation_id
    where i.user_id = $1 and i.blob_id = w.id
  union all
  select m.child_id from manual_edges m where m.user_id = $1 and m.parent_id = w.id
"""
_PARENTS = """
  select i.blob_id as id from derivation_outputs o
    join derivation_inputs i on i.user_id = o.user_id and i.derivation_id = o.derivation_id
    where o.user_id = $1 and o.blob_id = w.id
  union all
  select m.parent_id from manual_edges m where m.user_id = $1 and m.child_id = w.id
"""

_WALK = """
with recursive w (id) as (
  select $2::uuid
  union
  select x.id from w cross join lateral ({neighbours} offset 0) x
)
select id from w limit $3
"""
_WALK_TO_DEPTH = """
with recursive w (id, distance) as (
  select $2::uuid, 0
  union
  select x.id, w.distance + 1 from w cross join lateral ({neighbours} offset 0) x where w.distance < $4
)
select id from w group by id order by min(distance) limit $3
"""

# Unsettled derivations among the nodes and whatever unsettled stands above them: what may block them.
_GRAPH = """
with recursive nodes as materialized ({walk}),
derived as materialized (
  select d.*, o.blob_id as output_id from nodes n
  join derivation_outputs o on o.user_id = $1 and o.blob_id = n.id
  join derivations d on d.user_id = $1 and d.id = o.derivation_id
),
up (id) as (
  select d.id from derived d where d.unsettled
  union
  select x.id from up cross join lateral (
    select p.id from derivation_inputs i
    join derivations d on d.user_id = i.user_id and d.id = i.derivation_id
    join derivation_outputs o on o.user_id = i.user_id and o.blob_id = i.blob_id
    join derivations p on p.user_id = o.user_id and p.id = o.derivation_id
    where i.user_id = $1 and i.derivation_id = up.id and p.unsettled and not (p.failing
      and d.on_parent_failure <> 'block' and studio_stands_in($1, d.on_parent_failure, i.blob_id)) offset 0) x
),
settled_without as materialized (
  -- Settled, but not by what a run made: declined by its last one, or, later, without any.
  select d.id, case when c.reason <> 'unchanged' and (r.ended_at is null or c.created_at >= r.ended_at) then c.reason
    else r.skipped end as skipped
  from (select distinct id from derived where not unsettled and hold is null) d
  left join lateral (select usage->>'skipped' as skipped, ended_at from runs
    where user_id = $1 and derivation_id = d.id and status = 'settled' order by attempt desc limit 1) r on true
  left join lateral (select reason, created_at from cut_offs
    where user_id = $1 and derivation_id = d.id order by created_at desc limit 1) c on true
),
open_cascades as (
  select c.id, c.cause, c.status, c.label, c.target_id, c.created_at from cascades c
  where c.user_id = $1 and c.status in ('pending', 'running') and (
    c.target_id in (select id from nodes)
    or c.id in (select owner_cascade_id from derived where unsettled)
    or c.id in (select r.cascade_id from runs r join derived d on d.id = r.derivation_id
                where r.user_id = $1 and r.status in ('running', 'parked'))
    or (c.cause = 'bucket' and c.target_id in (
          select m.bucket_id from bucket_blobs m where m.user_id = $1 and m.blob_id in (select id from nodes)))
    or (c.cause = 'batch' and exists (
          select from deltas x where x.user_id = $1 and x.cascade_id = c.id and x.run_id is null
            and x.blob_id in (select id from nodes)))
    or (c.cause not in ('create', 'edit', 'delete', 'restore', 'bucket', 'batch') and c.planned_at is null)
    or c.instance_id in (select instance_id from derived))
)
select
  (select coalesce(json_agg(json_build_array(b.id, b.title, left(b.preview, 80), b.schema_id, b.version,
      b.provider_id, d.id, d.run_id, d.unsettled, d.hold, d.hold_detail->>'code', d.attempt, d.pending_inputs,
      case d.provisional when 'last_good' then d.provisional else s.skipped end,
      case when d.run_after > now() then d.run_after end) order by b.created_at, b.id), '[]')
   from nodes n join blobs b on b.user_id = $1 and b.id = n.id left join derived d on d.output_id = b.id
   left join settled_without s on s.id = d.id) as nodes,
  (select coalesce(json_agg(json_build_array(e.parent, e.child, e.provider, e.kind)), '[]') from (
     select i.blob_id as parent, d.output_id as child, b.provider_id as provider, 'derived' as kind
       from derived d join derivation_inputs i on i.user_id = $1 and i.derivation_id = d.id
       join nodes n on n.id = i.blob_id
       join blobs b on b.user_id = $1 and b.id = d.output_id
     union all
     select m.parent_id, m.child_id, null, 'manual' from manual_edges m
       join nodes p on p.id = m.parent_id join nodes c on c.id = m.child_id where m.user_id = $1) e) as edges,
  (select coalesce(json_agg(json_build_object('id', c.id, 'cause', c.cause, 'status', c.status, 'label', c.label,
      'created_at', c.created_at) order by c.created_at, c.id), '[]') from open_cascades c) as cascades,
  (select coalesce(json_agg(json_build_array(u.id, d.hold is not null, o.blob_id, coalesce(nullif(b.title, ''),
      b.provider_id))), '[]')
   from up u join derivations d on d.user_id = $1 and d.id = u.id
   join lateral (select x.blob_id from derivation_outputs x where x.user_id = $1 and x.derivation_id = u.id
                 order by x.slot limit 1) o on true
   join blobs b on b.user_id = $1 and b.id = o.blob_id) as unsettled,
  (select coalesce(json_agg(json_build_array(u.id, p.id)), '[]')
   from up u join derivation_inputs i on i.user_id = $1 and i.derivation_id = u.id
   join derivation_outputs o on o.user_id = $1 and o.blob_id = i.blob_id
   join up p on p.id = o.derivation_id) as waits
"""

_LINEAGE = """
with recursive w (id, distance) as (
  select $2::uuid, 0
  union
  select x.id, w.distance + 1 from w cross join lateral ({neighbours} offset 0) x where w.distance < $3
),
nearest as (select id, min(distance) as distance from w where distance > 0 group by id)
select n.id, n.distance from nearest n
join blobs b on b.user_id = $1 and b.id = n.id and b.version > 0 and b.deleted_at is null
where $4::int is null or (n.distance, n.id) > ($4, $5::uuid)
order by n.distance, n.id limit $6
"""


class Dags:
    """The graph of a user's blobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def graph(self, user_id: UUID, blob_id: UUID, *, nodes_max: int, depth: int | None = None) -> dict[str, Any]:
        """Return a blob with everything below it: raw nodes, edges, open cascades and what is unsettled above.

        ``nodes`` has up to ``nodes_max + 1`` rows: one too many says that it was cut. Ids are text.
        """
        walk = (_WALK if depth is None else _WALK_TO_DEPTH).format(neighbours=_CHILDREN)
        arguments = [nodes_max + 1] if depth is None else [nodes_max + 1, depth]
        row = await self._database.row(user_id, _GRAPH.format(walk=walk), user_id, blob_id, *arguments)
        return dict(row) if row is not None else {}

    async def descendants(
        self, user_id: UUID, blob_id: UUID, *, depth: int, limit: int, after: tuple[int, UUID] | None = None
    ) -> list[tuple[UUID, int]]:
        """Return made blobs below this one as (id, distance), nearest first."""
        return await self._lineage(_CHILDREN, user_id, blob_id, depth, limit, after)

    async def ancestors(
        self, user_id: UUID, blob_id: UUID, *, depth: int, limit: int, after: tuple[int, UUID] | None = None
    ) -> list[tuple[UUID, int]]:
        """Return the blobs above this one as (id, distance), nearest first."""
        return await self._lineage(_PARENTS, user_id, blob_id, depth, limit, after)

    async def _lineage(
        self,
        neighbours: str,
        user_id: UUID,
        blob_id: UUID,
        depth: int,
        limit: int,
        after: tuple[int, UUID] | None,
    ) -> list[tuple[UUID, int]]:
        query = _LINEAGE.format(neighbours=neighbours)
        rows = await self._database.rows(user_id, query, user_id, blob_id, depth, *(after or (None, None)), limit)
        return [(row["id"], row["distance"]) for row in rows]
