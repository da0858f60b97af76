"""The invariants of CASCADES.md, and of what is counted and kept, as SQL over one user's rows.

Each query returns what breaks it. ``ALWAYS`` and ``HISTORY`` hold after every transaction (the second is about what has
been made, and costs more), ``AT_REST`` when nobody is awake. The numbers are those of CASCADES.md, where there is one.
They are run as the user: over a connection that has entered (``studio_enter``), or one that row-level security does not
stop. Each holds within one statement, so that one snapshot is enough, on a system at work as well.

To add one, plant what it must find in ``tests/storage/planted.py``: a query that cannot fail is not a test.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

SHOWN_MAX = 5
"""Rows that show how an invariant is broken."""
RUNS_EXPLAINED_MAX = 500
"""Runs of several inputs, the newest, whose inputs are explained to the roots (8),"""
INPUTS_EXPLAINED_MAX = 10_000
"""as long as they have not more inputs than this together; one run is always explained."""

ALWAYS: dict[str, str] = {
    "(1) pending_inputs and failing equal the recount": """
        select d.id, d.pending_inputs, x.waits, d.failing, x.standing from derivations d cross join lateral (
          select count(*) as waits, count(*) filter (where p.failing) as standing from derivation_inputs i
          join derivation_outputs o on o.user_id = i.user_id and o.blob_id = i.blob_id
          join derivations p on p.user_id = o.user_id and p.id = o.derivation_id
          join blobs b on b.user_id = i.user_id and b.id = i.blob_id
          where i.user_id = d.user_id and i.derivation_id = d.id and p.unsettled
            and (i.tracks or i.used_hash is null) and not (p.failing and (d.on_parent_failure = 'skip'
              or d.on_parent_failure = 'use_last_good' and b.planned_version > 0))) x
        where d.user_id = $1 and (d.pending_inputs <> x.waits or d.failing <> (d.unsettled and d.run_id is null
          and case when d.hold = 'failed' then x.standing = x.waits else d.hold is null and x.standing > 0 end))""",
    "(2) an active derivation with an input that it waits for is unsettled": """
        select d.id from derivations d
        where d.user_id = $1 and not d.unsettled and d.hold is distinct from 'inactive'
          and d.hold is distinct from 'retired' and d.pending_inputs > 0""",
    "(2) settled below something unsettled: that is failing, and it is said": """
        select d.id, d.provisional, x.makers, x.failing from derivations d cross join lateral (
          select count(*) as makers, count(*) filter (where p.failing) as failing from derivation_inputs i
          join derivation_outputs o on o.user_id = i.user_id and o.blob_id = i.blob_id
          join derivations p on p.user_id = o.user_id and p.id = o.derivation_id
          where i.user_id = d.user_id and i.derivation_id = d.id and p.unsettled
            and (i.tracks or i.used_hash is null)) x
        where d.user_id = $1 and (d.provisional is not null and (d.unsettled or d.hold is not null or x.failing = 0)
          or not d.unsettled and d.hold is null and (x.makers > x.failing
            or x.failing > 0 and d.provisional is null))""",
    "(3) settled and active: no run, no hold": """
        select d.id, d.hold, d.run_id from derivations d
        where d.user_id = $1 and not d.unsettled and (d.run_id is not null
          or d.hold is not null and d.hold not in ('inactive', 'retired'))""",
    "(3) settled and active: want equals used": """
        select d.id, d.used_digest, w.digest from derivations d
        join studio_want($1, (select array_agg(id) from derivations where user_id = $1)) w on w.id = d.id
        where d.user_id = $1 and not d.unsettled and d.hold is null and w.complete
          and d.provisional is distinct from 'skipped' and d.used_digest is distinct from w.digest""",
    "(3) what is asleep is settled": """
        select d.id, d.hold from derivations d
        where d.user_id = $1 and d.unsettled and d.hold in ('inactive', 'retired')""",
    "(4) run_id is set if and only if one run is live": """
        select d.id, d.run_id, x.live from derivations d cross join lateral (
          select coalesce(array_agg(r.id), '{}') as live from runs r
          where r.user_id = d.user_id and r.derivation_id = d.id and r.status in ('running', 'parked')) x
        where d.user_id = $1 and x.live <> array_remove(array[d.run_id], null)""",
    "(4) what is held has no run, but for one that waits for a person": """
        select d.id, d.hold, d.run_id, r.status from derivations d
        left join runs r on r.user_id = d.user_id and r.id = d.run_id
        where d.user_id = $1 and (coalesce(d.hold, '') = 'approval' and coalesce(r.status, '') <> 'parked'
          or coalesce(d.hold, 'approval') <> 'approval' and d.run_id is not null
          or r.status = 'parked' and d.hold is null)""",
    "(5) inputs are acyclic": """
        with recursive up (start, id) as (
          select d.id, p.derivation_id from derivations d
          join derivation_inputs i on i.user_id = d.user_id and i.derivation_id = d.id
          join derivation_outputs p on p.user_id = i.user_id and p.blob_id = i.blob_id where d.user_id = $1
          union
          select u.start, p.derivation_id from up u
          join derivation_inputs i on i.user_id = $1 and i.derivation_id = u.id
          join derivation_outputs p on p.user_id = $1 and p.blob_id = i.blob_id
        ) select start from up where start = id""",
    "(5) planned is not beyond current": """
        select id, planned_version, version from blobs where user_id = $1 and planned_version > version""",
    "what is unsettled has an owner": """
        select d.id from derivations d where d.user_id = $1 and d.unsettled and not exists (
          select from cascades c where c.user_id = d.user_id and c.id = d.owner_cascade_id)""",
    "(10) only settled runs have deltas": """
        select r.id, r.status from deltas x join runs r on r.user_id = x.user_id and r.id = x.run_id
        where x.user_id = $1 and x.status = 'applied' and r.status <> 'settled'""",
    "(11) versions are contiguous and the last delta is the state": """
        select b.id, b.version, x.made, x.last from blobs b cross join lateral (
          select count(*)::int as made, coalesce(max(to_version), 0) as last,
            (array_agg(document_hash order by to_version desc))[1] as document_hash from deltas d
          where d.user_id = b.user_id and d.blob_id = b.id and d.status = 'applied') x
        where b.user_id = $1 and (b.version <> x.made or b.version <> x.last
          or b.document_hash is distinct from x.document_hash)""",
    "every hash that is named is stored": """
        select x.hash from (
          select hash from content_references where user_id = $1) x
        where not exists (
          select from contents c where c.user_id = $1 and c.hash = x.hash)""",
    "kept versions are what blobs say": """
        select b.id, b.kept_version, x.version, b.patch_bytes, y.weight from blobs b
        cross join lateral (select max(version) as version from snapshots s
          where s.user_id = b.user_id and s.blob_id = b.id) x
        cross join lateral (select coalesce(sum(octet_length(d.patch)), 0) as weight from deltas d
          where d.user_id = b.user_id and d.blob_id = b.id and d.status = 'applied' and d.to_version > x.version
            and (d.provider_id is null or d.operation = 'update')) y
        where b.user_id = $1 and b.version > 0 and (b.kept_version <> x.version or b.patch_bytes <> y.weight)""",
    "(12) charges and reservations stay within the budget, and are what it says": """
        select b.limit_amount, b.spent, x.spent as charged, b.reserved, y.reserved as held from budgets b
        cross join lateral (select coalesce(sum(c.amount - c.overrun), 0) as spent from charges c
          where c.user_id = b.user_id and c.budget_id = b.id) x
        cross join lateral (select coalesce(sum(r.amount), 0) as reserved from reservations r
          where r.user_id = b.user_id) y
        where b.user_id = $1 and (b.reserved <> y.reserved or b.spent + b.reserved > b.limit_amount
          or b.spent <> x.spent)""",
    "(12) an ended run holds no reservation": """
        select x.run_id, x.step_id, x.amount, r.status from reservations x
        left join runs r on r.user_id = x.user_id and r.id = x.run_id
        where x.user_id = $1 and coalesce(r.status, 'lost') <> 'running'""",
    "(12) nobody waits for money that is there": """
        select x.id, x.budget_needed, x.upto, b.limit_amount - b.spent - b.reserved as free from (
          select id, hold, budget_needed, sum(budget_needed) over (order by budget_place) as upto from derivations
          where user_id = $1 and budget_place is not null and unsettled and pending_inputs = 0
            and (hold is null or hold = 'budget')) x
        cross join budgets b
        where b.user_id = $1 and x.hold = 'budget'
          and (b.limit_amount is null or x.upto <= b.limit_amount - b.spent - b.reserved)""",
    "only what runs has a place at a service": """
        select s.service, s.run_id, r.status from service_slots s
        left join runs r on r.user_id = s.user_id and r.id = s.run_id
        where s.user_id = $1 and coalesce(r.status, 'lost') <> 'running'""",
    "(13) event sequences have no gaps": """
        select s.event_seq, x.* from user_state s cross join lateral (
          select count(*) as n, coalesce(max(seq), 0) as last from events e where e.user_id = s.user_id) x
        where s.user_id = $1 and (s.event_seq <> x.n or s.event_seq <> x.last)""",
    "user_state equals a recount": """
        select s.blob_count, x.n, s.bytes_used, x.bytes, s.bytes_reserved, y.reserved from user_state s
        cross join lateral (
          select count(*) filter (where deleted_at is null) as n, coalesce(sum(size), 0) as bytes
          from blobs b where b.user_id = s.user_id and b.version > 0) x
        cross join lateral (select coalesce(sum(reserved), 0) as reserved from uploads u
          where u.user_id = s.user_id and u.status = 'open') y
        where s.user_id = $1 and (s.blob_count <> x.n or s.bytes_used <> x.bytes or s.bytes_reserved <> y.reserved)""",
}

HISTORY: dict[str, str] = {
    # Through anchors, which never change: a join may collect later on what an instance below it has made elsewhere.
    "(5) no instance reacts to its own lineage": """
        with recursive up (start, instance_id, id) as (
          select d.id, d.instance_id, o.derivation_id from derivations d
          cross join lateral (select derivation_id from derivation_outputs
            where user_id = $1 and blob_id = d.anchor_id offset 0) o
          where d.user_id = $1 and d.anchor_kind = 'blob'
          union
          select u.start, u.instance_id, o.derivation_id from up u
          cross join lateral (select anchor_id from derivations
            where user_id = $1 and id = u.id and anchor_kind = 'blob' offset 0) p
          cross join lateral (select derivation_id from derivation_outputs
            where user_id = $1 and blob_id = p.anchor_id offset 0) o
        )
        select u.start, u.id from up u
        cross join lateral (select instance_id from derivations where user_id = $1 and id = u.id offset 0) p
        where p.instance_id = u.instance_id""",
    "(6) what counts as used was used by a run that settled": """
        select d.id, d.used_digest from derivations d
        where d.user_id = $1 and d.used_digest is not null and not exists (
          select from runs r where r.user_id = $1 and r.derivation_id = d.id and r.status = 'settled'
            and r.used_digest = d.used_digest)""",
    "(6) the inputs that count as used are those of that run": """
        select d.id, i.blob_id, i.used_version from derivations d
        cross join lateral (select * from derivation_inputs
          where user_id = $1 and derivation_id = d.id and used_version is not null offset 0) i
        where d.user_id = $1 and d.used_digest is not null and not exists (
          select from runs r cross join lateral jsonb_array_elements(r.inputs) x(item)
          where r.user_id = $1 and r.derivation_id = d.id and r.status = 'settled' and r.used_digest = d.used_digest
            and x.item->>'blob_id' = i.blob_id::text and (x.item->>'version')::int = i.used_version
            and x.item->>'hash' = i.used_hash)""",
    "(6) a machine head is what a run of its derivation left": """
        select o.derivation_id, o.slot, o.machine_run_id from derivation_outputs o
        where o.user_id = $1 and o.machine_run_id is not null and not exists (
          select from runs r where r.user_id = $1 and r.id = o.machine_run_id and r.derivation_id = o.derivation_id
            and r.status = 'settled')""",
    "(8) one vector of versions explains the inputs of a run": f"""
        with recursive explained as materialized (
          select n.id from (
            select r.id, row_number() over newest as nth, sum(jsonb_array_length(r.inputs)) over newest as read from (
              select id, inputs from runs
              where user_id = $1 and status = 'settled' and jsonb_array_length(inputs) > 1
              order by id desc limit {RUNS_EXPLAINED_MAX}) r
            window newest as (order by r.id desc)) n
          where n.nth = 1 or n.read <= {INPUTS_EXPLAINED_MAX}
        ), up (run_id, blob_id, hash) as (
          select e.id, (x.item->>'blob_id')::uuid, split_part(x.item->>'hash', ' ', 1) from explained e
          cross join lateral (select inputs, derivation_id from runs where user_id = $1 and id = e.id offset 0) r
          cross join lateral jsonb_array_elements(r.inputs) x(item)
          where not x.item ? 'stale' and not exists (select from derivation_inputs i
            where i.user_id = $1 and i.derivation_id = r.derivation_id
            and i.blob_id = (x.item->>'blob_id')::uuid and not i.tracks)
          union
          -- What made it, read when its maker last settled before the run; makers that slept, skipped or waited for a
          -- person in between are excused: what is below them goes on with what they had made before.
          select u.run_id, (x.item->>'blob_id')::uuid, split_part(x.item->>'hash', ' ', 1) from up u
          cross join lateral (select derivation_id from derivation_outputs
            where user_id = $1 and blob_id = u.blob_id offset 0) o
          cross join lateral (select id, instance_id, hold from derivations
            where user_id = $1 and id = o.derivation_id offset 0) p
          cross join lateral (select id, inputs, started_at from runs
            where user_id = $1 and derivation_id = p.id and status = 'settled' and id < u.run_id
            order by id desc limit 1) r
          cross join lateral jsonb_array_elements(r.inputs) x(item)
          where coalesce(p.hold, '') not in ('inactive', 'retired') and not x.item ? 'stale'
            and not exists (select from deltas m where m.user_id = $1 and m.run_id = r.id and m.operation = 'transform'
              and m.status in ('proposed', 'rejected') and not exists (
                select from derivation_outputs h where h.user_id = $1 and h.blob_id = m.blob_id
                  and h.machine_run_id = r.id))
            and not exists (select from cascades c where c.user_id = $1 and c.instance_id = p.instance_id
              and c.cause = 'provider' and c.created_at > r.started_at)
            and not exists (select from cut_offs k where k.user_id = $1 and k.derivation_id = p.id
              and k.reason <> 'unchanged' and k.created_at > r.started_at)
            and not exists (select from runs f where f.user_id = $1 and f.derivation_id = p.id and f.id > r.id
              and f.id < u.run_id and f.status in ('failed', 'cancelled'))
            and not exists (select from derivation_inputs i where i.user_id = $1 and i.derivation_id = p.id
              and i.blob_id = (x.item->>'blob_id')::uuid and not i.tracks)
        )
        select u.run_id, u.blob_id, array_agg(u.hash) as hashes from up u
        where not exists (select from deltas g
          where g.user_id = $1 and g.blob_id = u.blob_id and g.operation = 'delete')
        group by u.run_id, u.blob_id having count(*) > 1""",  # noqa: S608 - a constant of this module
    "(9) one cause makes a derivation once from the same inputs": """
        select r.cascade_id, r.derivation_id, count(*) as times from runs r
        where r.user_id = $1 and r.status = 'settled'
        group by r.cascade_id, r.derivation_id, r.used_digest having count(*) > 1""",
    "(10) a settled run has one delta for each slot that it changed": """
        select r.id, e.slot, e.effect from runs r
        cross join lateral jsonb_to_recordset(r.effects) e(slot text, blob_id uuid, effect text)
        where r.user_id = $1 and r.status = 'settled' and (e.effect = 'changed') <> exists (
          select from deltas x where x.user_id = $1 and x.run_id = r.id and x.blob_id = e.blob_id
            and x.status = 'applied' and x.operation in ('create', 'transform'))
          and not (e.effect <> 'changed' and exists (  -- a slot may be offered something beside what changed it
            select from jsonb_to_recordset(r.effects) f(slot text, effect text)
            where f.slot = e.slot and f.effect = 'changed'))""",
    "(10) a run writes its own outputs and no others": """
        select x.id, x.blob_id, x.run_id from deltas x
        cross join lateral (select derivation_id from runs where user_id = $1 and id = x.run_id offset 0) r
        where x.user_id = $1 and x.run_id is not null and not exists (
          select from derivation_outputs o
          where o.user_id = $1 and o.derivation_id = r.derivation_id and o.blob_id = x.blob_id)""",
    "(11) what nobody had changed is what the machine said": """
        select x.blob_id, x.to_version, x.run_id from deltas x
        left join deltas p on p.user_id = $1 and p.blob_id = x.blob_id and p.to_version = x.from_version
          and p.status = 'applied'
        where x.user_id = $1 and x.status = 'applied' and x.run_id is not null
          and x.operation in ('create', 'transform') and x.document_hash <> x.machine_hash
          and (x.from_version = 0 or p.document_hash = x.base_hash)""",
}

AT_REST: dict[str, str] = {
    "nobody's doorbell is unanswered": "select id from cascades where user_id = $1 and seq > sent_seq",
    "(12) nothing is reserved": "select run_id, amount from reservations where user_id = $1",
    "nobody waits for a place": "select cascade_id, kind, name from room_waits where user_id = $1",
    "no run is under way": "select id from runs where user_id = $1 and status = 'running'",
    "(1) the schedule sees what people see": """
        select id, version, planned_version from blobs where user_id = $1 and version <> planned_version""",
    "(6) what is unsettled is held, or has an ancestor that is": """
        with recursive up (start, id, hold) as (
          select d.id, d.id, d.hold from derivations d where d.user_id = $1 and d.unsettled
          union
          select u.start, p.id, p.hold from up u
          join derivation_inputs i on i.user_id = $1 and i.derivation_id = u.id
          join derivation_outputs o on o.user_id = $1 and o.blob_id = i.blob_id
          join derivations p on p.user_id = $1 and p.id = o.derivation_id and p.unsettled
        ) select start from up group by start having bool_and(hold is null)""",
    "(7) no cascade is open": "select id, status from cascades where user_id = $1 and status in ('pending', 'running')",
    "a cascade that left something is partial": """
        select c.id, c.status, x.n from cascades c cross join lateral (
          select count(*) as n from derivations d
          where d.user_id = c.user_id and d.owner_cascade_id = c.id and d.unsettled) x
        where c.user_id = $1 and c.error is null and x.n > 0 and c.status not in ('partial', 'cancelled')""",
    "every blob that matches has its derivation": """
        select m.blob, m.provider_id from studio_matches($1, array(select b.id from blobs b
          where b.user_id = $1 and b.planned_version > 0), 100000) m
        where not exists (select from cascades c  -- unless a bound has stopped a cascade before it, which it says
          where c.user_id = $1 and c.error->>'bound' in ('depth', 'nodes'))""",
    "joins collect what is in their buckets": """
        with wanted as (
          select d.id, m.blob_id, m.position from derivations d
          join providers p on p.id = d.provider_id and p.anchor = 'bucket'
          join bucket_blobs m on m.user_id = d.user_id and m.bucket_id = d.anchor_id
          join blobs b on b.user_id = m.user_id and b.id = m.blob_id and b.schema_id = p.collect_schema
            and b.deleted_at is null
          where d.user_id = $1 and d.hold is null and not studio_reaches($1, d.id, m.blob_id)
        ), collected as (
          select d.id, i.blob_id, i.position from derivations d
          join providers p on p.id = d.provider_id and p.anchor = 'bucket'
          join derivation_inputs i on i.user_id = d.user_id and i.derivation_id = d.id
          where d.user_id = $1 and d.hold is null
        ) (table wanted except table collected) union all (table collected except table wanted)""",
    "what needs something deleted is retired, or asleep": """
        select d.id, d.hold from derivations d
        join derivation_inputs i on i.user_id = d.user_id and i.derivation_id = d.id and i.required
        join blobs b on b.user_id = i.user_id and b.id = i.blob_id
        where d.user_id = $1 and b.deleted_at is not null and coalesce(d.hold, '') not in ('retired', 'inactive')""",
    "what has nothing left to read keeps no output, if its provider says so": """
        select d.id from derivations d join providers p on p.id = d.provider_id and p.on_delete = 'delete'
        where d.user_id = $1 and d.hold is null and not d.unsettled and d.provisional is null
          and d.used_digest is not null and not exists (
            select from derivation_inputs i where i.user_id = d.user_id and i.derivation_id = d.id)""",
    "an instance that is off has no active derivation": """
        select d.id, d.hold from derivations d
        where d.user_id = $1 and coalesce(d.hold, '') not in ('retired', 'inactive')
          and not exists (select from studio_active_providers($1) a where a.instance_id = d.instance_id)""",
}


async def violations(connection: Any, user_id: UUID, queries: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What is broken, by invariant, with the first rows that show it."""
    found = {}
    async with connection.transaction():
        await connection.execute("select studio_enter($1)", user_id)
        for name, query in queries.items():
            rows = await connection.fetch(f"{query} limit {SHOWN_MAX}", user_id)
            if rows:
                found[name] = [dict(row) for row in rows]
    return found
