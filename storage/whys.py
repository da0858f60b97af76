"""Why a version exists and why a derivation is as it is: the facts, in two statements of bounded size.

``_STORY`` follows a version down to what people did: the delta, the run that made it, what that run read, and so on.
``_STANDING`` reads one derivation with everything that decides its state. Both probe by whole keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domain.errors import NotFound
from storage.database import Database

VERSIONS_MAX = 200
"""Versions that one story tells; ``truncated`` says that there are more."""
READ_MAX = 5_000
"""Steps that are followed to find them."""
INPUTS_MAX = 50
"""Inputs of one run, or of one derivation, that are shown; their number is told."""
ABOVE_MAX = 10_000
"""Unsettled derivations above one that are looked at for what blocks it."""
BLOCKERS_MAX = 20
KEPT_MAX = 10
"""Human edits that one merge is shown to have kept, the newest."""
CONFLICT_BYTES_MAX = 65_536
"""Recorded conflicts beyond this are counted as there, not listed."""

_OF_BLOB = "select id, case when $3::int is null then version else $3 end from blobs where user_id = $1 and id = $2"
_OF_DERIVATION = """
  select b.id, b.version from (select blob_id from derivation_outputs
    where user_id = $1 and derivation_id = $2 and $3::int is null order by slot limit 20) o
  cross join lateral (select id, version from blobs where user_id = $1 and id = o.blob_id offset 0) b
"""

_STORY = """
with recursive start (blob_id, version) as ({start}),
chain (blob_id, version, depth) as (
  select blob_id, version, 0 from start
  union
  select n.blob_id, n.version, c.depth + 1 from chain c
  cross join lateral (select run_id, inputs from deltas
    where user_id = $1 and blob_id = c.blob_id and to_version = c.version and status = 'applied' offset 0) d
  cross join lateral (
    select (i.item->>'blob_id')::uuid as blob_id, (i.item->>'version')::int as version
      from jsonb_array_elements(d.inputs) with ordinality i(item, ord)
      where d.run_id is not null and i.ord <= {inputs_max}
    union all
    -- What a person changed here was made by a machine once.
    select c.blob_id, m.to_version from (select from derivation_outputs
      where user_id = $1 and blob_id = c.blob_id and d.run_id is null offset 0) o
    cross join lateral (select to_version from deltas
      where user_id = $1 and blob_id = c.blob_id and status = 'applied' and to_version < c.version
        and run_id is not null order by to_version desc limit 1) m offset 0) n
  where c.depth < $4
),
told as materialized (
  select blob_id, version, min(depth) as depth from (select * from chain limit {read_max}) x
  group by blob_id, version order by min(depth), blob_id, version limit {versions_max} + 1
)
select t.blob_id, t.version, t.depth, b.title, left(b.preview, 80) as preview, b.schema_id,
  b.version as current_version, b.deleted_at, o.derivation_id, d.id as delta_id, d.operation, d.actor, d.provider_id,
  d.run_id, d.cascade_id, d.applied_at, d.resolved_by, d.document_hash, d.machine_hash, d.base_hash,
  d.conflicts is not null as conflicted,
  case when t.depth = 0 and octet_length(d.conflicts) <= {conflict_bytes_max} then d.conflicts end as conflicts,
  (select jsonb_agg(i.item order by i.ord) from jsonb_array_elements(d.inputs) with ordinality i(item, ord)
    where i.ord <= {inputs_max}) as inputs,
  coalesce(jsonb_array_length(d.inputs), 0) as inputs_total, run.run, cascade.cascade, cause.cause, kept.kept,
  (select u.name from users u where u.user_id = $1) as user_name
from told t
cross join lateral (select * from blobs where user_id = $1 and id = t.blob_id offset 0) b
left join lateral (select derivation_id from derivation_outputs
  where user_id = $1 and blob_id = t.blob_id offset 0) o on true
left join lateral (select * from deltas
  where user_id = $1 and blob_id = t.blob_id and to_version = t.version and status = 'applied' offset 0) d on true
left join lateral (
  select json_build_object('id', r.id, 'derivation_id', r.derivation_id, 'status', r.status, 'attempt', r.attempt,
    'label', r.label, 'execution', r.execution, 'provider_id', p.slug, 'provider_name', p.name,
    'definition_digest', r.definition_digest, 'settings_digest', r.settings_digest, 'definition_version', (
      select max(f.version) from definitions f where f.owner_id = p.owner_id and f.digest = r.definition_digest),
    'started_at', r.started_at, 'ended_at', r.ended_at, 'usage', r.usage, 'effects', r.effects, 'charged', (
      select sum(g.amount) from charges g where g.user_id = $1 and g.run_id = r.id), 'reused', coalesce((
      select json_agg(json_build_object('step_id', s.step_id, 'run_id', s.reused_from) order by s.position)
      from (select * from run_steps where user_id = $1 and run_id = r.id and reused_from is not null
        order by position limit 20) s), '[]'),
    'waited_ms', round(extract(epoch from studio_waited($1, r.id, r.started_at, coalesce(r.ended_at, now()))) * 1000),
    'decisions', coalesce((select json_agg(s.decision || jsonb_build_object('step_id', s.step_id) order by s.position)
      from (select * from run_steps where user_id = $1 and run_id = r.id and decision is not null
        order by position limit 20) s), '[]')) as run
  from (select * from runs where user_id = $1 and id = d.run_id offset 0) r
  cross join lateral (select provider_id from derivations where user_id = $1 and id = r.derivation_id offset 0) x
  left join lateral (select slug, name, owner_id from providers where id = x.provider_id offset 0) p on true
) run on true
left join lateral (
  select json_build_object('id', c.id, 'cause', c.cause, 'actor', c.actor, 'label', c.label, 'target_id', c.target_id,
    'status', c.status, 'created_at', c.created_at, 'error', c.error, 'provider_id', (
      select p.slug from instances i join providers p on p.id = i.provider_id
      where i.user_id = $1 and i.id = c.instance_id)) as cascade
  from (select * from cascades where user_id = $1 and id = d.cascade_id offset 0) c) cascade on true
left join lateral (
  select json_build_object('delta_id', x.id, 'blob_id', x.blob_id, 'version', x.to_version, 'operation', x.operation,
    'actor', x.actor, 'at', x.applied_at, 'title', y.title, 'preview', left(y.preview, 80)) as cause
  from (select * from deltas where user_id = $1 and id = d.caused_by offset 0) x
  cross join lateral (select title, preview from blobs where user_id = $1 and id = x.blob_id offset 0) y) cause on true
left join lateral (
  select json_agg(json_build_object('version', x.to_version, 'actor', x.actor, 'at', x.applied_at)
    order by x.to_version) as kept
  from (select * from deltas where user_id = $1 and blob_id = t.blob_id and status = 'applied' and run_id is null
      and provider_id is null and to_version < t.version and to_version > t.version - 200
    order by to_version desc limit {kept_max}) x
  where t.depth = 0 and d.run_id is not null and d.document_hash <> d.machine_hash) kept on true
order by t.depth, t.blob_id, t.version
"""

_WHICH_BLOB = """
  select d.* from (select derivation_id from derivation_outputs where user_id = $1 and blob_id = $2 offset 0) o
  cross join lateral (select * from derivations where user_id = $1 and id = o.derivation_id offset 0) d
"""
_WHICH_DERIVATION = "select * from derivations where user_id = $1 and id = $2"

_STANDING = """
with recursive it as materialized ({which}),
up (id) as (
  select id from it where unsettled
  union
  select p.id from up
  cross join lateral (select on_parent_failure from derivations where user_id = $1 and id = up.id offset 0) d
  cross join lateral (select blob_id from derivation_inputs
    where user_id = $1 and derivation_id = up.id and (tracks or used_hash is null) offset 0) i
  cross join lateral (select derivation_id from derivation_outputs
    where user_id = $1 and blob_id = i.blob_id offset 0) o
  cross join lateral (select id, failing from derivations
    where user_id = $1 and id = o.derivation_id and unsettled offset 0) p
  where not (p.failing and d.on_parent_failure <> 'block' and studio_stands_in($1, d.on_parent_failure, i.blob_id))
),
held as materialized (
  select d.*, row_number() over (order by d.level, d.id) as nth from (select id from up limit {above_max}) u
  cross join lateral (select * from derivations where user_id = $1 and id = u.id and hold is not null offset 0) d
  where d.id not in (select id from it) order by d.level, d.id limit {blockers_max}
),
reads as materialized (
  select i.*, b.title, left(b.preview, 80) as preview, b.schema_id, b.provider_id as made_by, b.version,
    b.planned_version, b.deleted_at, p.id as producer_id, p.unsettled as pending,
    b.planned_version > 0 and (i.tracks or i.used_hash is null) and i.used_hash is distinct from (b.planned_hash ||
      case when d.reads_meta then ' ' || coalesce(b.planned_meta_hash, '-') else '' end) as moved
  from it d
  cross join lateral (select * from derivation_inputs where user_id = $1 and derivation_id = d.id offset 0) i
  cross join lateral (select * from blobs where user_id = $1 and id = i.blob_id offset 0) b
  left join lateral (select derivation_id from derivation_outputs
    where user_id = $1 and blob_id = b.id offset 0) o on true
  left join lateral (select id, unsettled from derivations
    where user_id = $1 and id = o.derivation_id offset 0) p on true
)
select d.id, d.instance_id, d.anchor_kind, d.anchor_id, d.execution, d.supersede, d.want_digest, d.used_digest,
  d.unsettled, d.pending_inputs, d.hold, d.hold_detail, d.run_id, d.attempt, d.owner_cascade_id, d.run_after,
  d.dirty_since, d.force, d.provisional, d.on_parent_failure,
  d.level, d.created_at, d.settled_at, p.slug as provider_id, p.name as provider_name,
  p.version as provider_version, p.workflow_id, p.definition_digest, i.active as instance_active,
  p.active as provider_active, exists (select from studio_active_providers($1) a where a.instance_id = d.instance_id)
    as active,
  case d.anchor_kind when 'bucket' then (select k.name from buckets k where k.user_id = $1 and k.id = d.anchor_id)
    else (select coalesce(nullif(b.title, ''), left(b.preview, 80)) from blobs b
      where b.user_id = $1 and b.id = d.anchor_id) end as anchor_name,
  (select coalesce(json_agg(json_build_object('blob_id', r.blob_id, 'title', r.title, 'preview', r.preview, 'schema_id',
      r.schema_id, 'provider_id', r.made_by, 'version', r.version, 'planned_version', r.planned_version, 'used_version',
      r.used_version, 'moved', r.moved, 'pending', coalesce(r.pending, false), 'deleted', r.deleted_at is not null,
      'role', r.role, 'position', r.position, 'required', r.required, 'tracks', r.tracks) order by r.nth), '[]')
    from (select *, row_number() over (
        order by moved desc nulls last, pending desc nulls last, position, blob_id) as nth from reads) r
    where r.nth <= {inputs_max}) as inputs,
  (select count(*)::int from reads) as inputs_total,
  (select coalesce(json_agg(json_build_object('slot', o.slot, 'blob_id', b.id, 'title', b.title, 'preview',
      left(b.preview, 80), 'schema_id', b.schema_id, 'version', b.version, 'deleted', b.deleted_at is not null,
      'machine_run_id', o.machine_run_id) order by o.slot), '[]')
    from (select * from derivation_outputs where user_id = $1 and derivation_id = d.id order by slot limit 20) o
    cross join lateral (select * from blobs where user_id = $1 and id = o.blob_id offset 0) b) as outputs,
  (select coalesce(json_agg(json_build_object('id', r.id, 'status', r.status, 'attempt', r.attempt, 'usage', r.usage,
      'error', r.error, 'effects', r.effects, 'started_at', r.started_at, 'ended_at', r.ended_at, 'cascade_id',
      r.cascade_id, 'definition_digest', r.definition_digest) order by r.attempt desc), '[]')
    from (select * from runs where user_id = $1 and derivation_id = d.id order by attempt desc limit 3) r) as runs,
  (select json_build_object('cascade_id', c.cascade_id, 'reason', c.reason, 'detail', c.detail, 'at', c.created_at)
    from cut_offs c where c.user_id = $1 and c.derivation_id = d.id order by c.created_at desc limit 1) as cut_off,
  (select json_build_object('id', l.id, 'code', l.code, 'detail', l.detail, 'redriven_at', l.redriven_at)
    from dead_letters l where l.user_id = $1 and d.hold = 'failed' and l.run_id::text = d.hold_detail->>'run_id')
    as dead_letter,
  (select coalesce(json_agg(json_build_object('delta_id', x.id, 'blob_id', x.blob_id, 'run_id', x.run_id)
      order by x.id), '[]')
    from (select x.* from (select blob_id from derivation_outputs where user_id = $1 and derivation_id = d.id) o
      cross join lateral (select * from deltas
        where user_id = $1 and blob_id = o.blob_id and status = 'proposed' and run_id is not null offset 0) x
      order by x.id limit 5) x) as proposals,
  (select json_build_object('id', c.id, 'cause', c.cause, 'actor', c.actor, 'label', c.label, 'target_id', c.target_id,
      'status', c.status, 'created_at', c.created_at, 'error', c.error)
    from cascades c where c.user_id = $1 and c.id = d.owner_cascade_id) as cascade,
  (select coalesce(json_agg(json_build_object('derivation_id', h.id, 'hold', h.hold, 'hold_detail', h.hold_detail,
      'run_id', h.run_id, 'owner_cascade_id', h.owner_cascade_id, 'line', {line_of_h},
      'attempt', h.attempt, 'blob_id', o.blob_id, 'title', b.title, 'provider_id', q.slug,
      'provider_name', q.name) order by h.nth), '[]')
    from held h
    left join lateral (select blob_id from derivation_outputs
      where user_id = $1 and derivation_id = h.id order by slot limit 1) o on true
    left join lateral (select title from blobs where user_id = $1 and id = o.blob_id offset 0) b on true
    left join lateral (select slug, name from providers where id = h.provider_id offset 0) q on true) as blockers,
  (select coalesce(json_agg(json_build_object('kind', w.kind, 'name', w.name, 'cap', w.cap, 'since', w.since)
      order by w.kind, w.name), '[]')
    from room_waits w where w.user_id = $1 and w.cascade_id = d.owner_cascade_id and d.unsettled and d.run_id is null
      and d.hold is null and d.pending_inputs = 0 and (w.kind = 'user' or w.kind = 'provider' and w.name = p.slug
        or w.kind = 'service' and w.name = any(p.services))) as places,
  (select json_build_object('user_id', g.user_id, 'limit', g.limit_amount, 'spent', g.spent, 'reserved', g.reserved,
    'managed', g.managed) from budgets g where g.user_id = $1) as budget,
  {line_of_d} as line,
  (select u.name from users u where u.user_id = $1) as user_name
from it d
left join providers p on p.id = d.provider_id
left join instances i on i.user_id = $1 and i.id = d.instance_id
"""

# What those need who wait for money before it, and it itself (studio_call_up serves them in this order).
_LINE = """(select sum(l.budget_needed)::bigint from derivations l where l.user_id = $1 and l.budget_place is not null
    and l.budget_place <= {one}.budget_place and l.unsettled and l.pending_inputs = 0
    and (l.hold is null or l.hold = 'budget'))"""

_MATCHING = """
select b.schema_id, b.content_type, b.provider_id as made_by, b.deleted_at is not null as deleted,
  exists (select from studio_active_providers($1) a where a.provider_id = p.id) as active,
  p.owner_id <> $1 and exists (select from providers o where o.owner_id = $1 and o.slug = p.slug and o.active)
    as replaced,
  exists (select from studio_lineage($1, b.id) l where l = studio_instance_id($1, p.id)) as in_lineage,
  1 + greatest(b.depth, (select max(x.level) from derivation_outputs o
    join derivations x on x.user_id = $1 and x.id = o.derivation_id
    where o.user_id = $1 and o.blob_id = b.id)) as depth,
  (select d.id from derivations d where d.user_id = $1 and d.instance_id = studio_instance_id($1, p.id)
    and (d.anchor_id = b.id or d.anchor_id in (select m.bucket_id from bucket_blobs m
      where m.user_id = $1 and m.blob_id = b.id and p.anchor = 'bucket')) order by d.id limit 1) as derivation_id,
  (select coalesce(json_agg(json_build_object('id', k.id, 'type', k.type) order by k.id), '[]')
    from (select bucket_id from bucket_blobs where user_id = $1 and blob_id = b.id order by bucket_id limit 100) m
    cross join lateral (select id, type from buckets where user_id = $1 and id = m.bucket_id offset 0) k) as buckets,
  exists (select from bucket_blobs m where m.user_id = $1 and m.blob_id = b.id and p.anchor = 'bucket'
    and studio_reaches($1, studio_derivation_id(studio_instance_id($1, p.id), m.bucket_id), b.id)) as reaches
from (select * from blobs where user_id = $1 and id = $3 offset 0) b, providers p where p.id = $2
"""

_SIZES = {
    "inputs_max": INPUTS_MAX,
    "read_max": READ_MAX,
    "versions_max": VERSIONS_MAX,
    "conflict_bytes_max": CONFLICT_BYTES_MAX,
    "kept_max": KEPT_MAX,
    "above_max": ABOVE_MAX,
    "blockers_max": BLOCKERS_MAX,
    "line_of_d": _LINE.format(one="d"),
    "line_of_h": _LINE.format(one="h"),
}
_STORY_OF_BLOB = _STORY.format(start=_OF_BLOB, **_SIZES)
_STORY_OF_DERIVATION = _STORY.format(start=_OF_DERIVATION, **_SIZES)
_STANDING_OF_BLOB = _STANDING.format(which=_WHICH_BLOB, **_SIZES)
_STANDING_OF_DERIVATION = _STANDING.format(which=_WHICH_DERIVATION, **_SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhyFacts:
    """``told``: versions, the asked one first; ``standing``: of the derivation, None for a person's blob."""

    told: Sequence[Mapping[str, Any]]
    standing: Mapping[str, Any] | None
    truncated: bool = False


class Whys:
    """Reads what explains a user's blobs and derivations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of_blob(self, user_id: UUID, blob_id: UUID, *, version: int | None, depth: int) -> WhyFacts:
        """Facts about a blob at a version (the newest without one), inputs ``depth`` steps down.

        Raises NotFound; an output that has not been made yet is known, at version 0.
        """
        told, standing = await self._read(_STORY_OF_BLOB, _STANDING_OF_BLOB, user_id, blob_id, version, depth)
        asked = told[0] if told else None
        if asked is None or (asked["version"] == 0 and standing is None):
            raise NotFound("There is no such blob.")
        if asked["version"] and asked["delta_id"] is None:
            raise NotFound("There is no such blob, or it had no such version.")
        return _facts(told, standing)

    async def of_derivation(self, user_id: UUID, derivation_id: UUID, *, depth: int) -> WhyFacts:
        """Facts about a derivation and its outputs as they are. Raises NotFound."""
        told, standing = await self._read(
            _STORY_OF_DERIVATION, _STANDING_OF_DERIVATION, user_id, derivation_id, None, depth
        )
        if standing is None:
            raise NotFound("There is no such derivation.")
        return _facts(told, standing)

    async def standing(self, user_id: UUID, derivation_id: UUID) -> Mapping[str, Any]:
        """A derivation with what decides its state. Raises NotFound."""
        row = await self._database.row(user_id, _STANDING_OF_DERIVATION, user_id, derivation_id)
        if row is None:
            raise NotFound("There is no such derivation.")
        return dict(row)

    async def matching(self, user_id: UUID, provider_key: UUID, blob_id: UUID) -> Mapping[str, Any]:
        """What decides whether a provider reacts to a blob, its content apart. Raises NotFound."""
        row = await self._database.row(user_id, _MATCHING, user_id, provider_key, blob_id)
        if row is None:
            raise NotFound("There is no such blob, or no such provider.")
        return dict(row)

    async def _read(
        self, story: str, standing: str, user_id: UUID, wanted: UUID, version: int | None, depth: int
    ) -> tuple[list[Any], Any]:
        async with self._database.transaction(user_id) as connection:
            # One step more than is told: what was read is named.
            told = await connection.fetch(story, user_id, wanted, version, depth + 1)
            return told, await connection.fetchrow(standing, user_id, wanted)


def _facts(told: Sequence[Any], standing: Any) -> WhyFacts:
    return WhyFacts(
        told=[dict(row) for row in told[:VERSIONS_MAX]],
        standing=None if standing is None else dict(standing),
        truncated=len(told) > VERSIONS_MAX,
    )
