"""The invariants of CASCADES.md, and of what is counted and kept, as SQL over one user's rows.

Each query returns what breaks it. ``ALWAYS`` holds after every transaction, ``AT_REST`` when nobody is awake. They are
run as the user: over a connection that has entered (``studio_enter``), or one that row-level security does not stop.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

SHOWN_MAX = 5
"""Rows that show how an invariant is broken."""

ALWAYS: dict[str, str] = {
    "(1) pending_inputs equals the recount": """
        select d.id, d.pending_inputs, x.counted from derivations d cross join lateral (
          select count(*) as counted from derivation_inputs i
          join derivation_outputs o on o.user_id = i.user_id and o.blob_id = i.blob_id
          join derivations p on p.user_id = o.user_id and p.id = o.derivation_id
          where i.user_id = d.user_id and i.derivation_id = d.id and p.unsettled
            and (i.tracks or i.used_hash is null)) x
        where d.user_id = $1 and d.pending_inputs <> x.counted""",
    "(2) an active derivation with an unsettled producer is unsettled": """
        select d.id from derivations d
        where d.user_id = $1 and not d.unsettled and d.hold is distinct from 'inactive'
          and d.hold is distinct from 'retired' and d.pending_inputs > 0""",
    "(3) settled and active: no run, no hold": """
        select d.id, d.hold, d.run_id from derivations d
        where d.user_id = $1 and not d.unsettled and (d.run_id is not null
          or d.hold is not null and d.hold not in ('inactive', 'retired'))""",
    "(3) settled and active: want equals used": """
        select d.id, d.used_digest, w.digest from derivations d
        join studio_want($1, (select array_agg(id) from derivations where user_id = $1)) w on w.id = d.id
        where d.user_id = $1 and not d.unsettled and d.hold is null and w.complete
          and d.used_digest is distinct from w.digest""",
    "(3) what is asleep is settled": """
        select d.id, d.hold from derivations d
        where d.user_id = $1 and d.unsettled and d.hold in ('inactive', 'retired')""",
    "(4) run_id is set if and only if one run is live": """
        select d.id, d.run_id, x.live from derivations d cross join lateral (
          select coalesce(array_agg(r.id), '{}') as live from runs r
          where r.user_id = d.user_id and r.derivation_id = d.id and r.status in ('running', 'parked')) x
        where d.user_id = $1 and x.live <> array_remove(array[d.run_id], null)""",
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
          or b.limit_amount is not null and b.spent <> x.spent)""",
    "(12) an ended run holds no reservation": """
        select x.run_id, x.step_id, x.amount, r.status from reservations x
        left join runs r on r.user_id = x.user_id and r.id = x.run_id
        where x.user_id = $1 and coalesce(r.status, 'lost') not in ('running', 'parked')""",
    "(12) nobody waits for money that is there": """
        select x.id, x.budget_needed, x.upto, b.limit_amount - b.spent - b.reserved as free from (
          select id, hold, budget_needed, sum(budget_needed) over (order by budget_place) as upto from derivations
          where user_id = $1 and budget_place is not null and unsettled and pending_inputs = 0
            and (hold is null or hold = 'budget')) x
        cross join budgets b
        where b.user_id = $1 and x.hold = 'budget'
          and (b.limit_amount is null or x.upto <= b.limit_amount - b.spent - b.reserved)""",
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

AT_REST: dict[str, str] = {
    "nobody's doorbell is unanswered": "select id from cascades where user_id = $1 and seq > sent_seq",
    "(12) nothing is reserved": "select run_id, amount from reservations where user_id = $1",
    "no run is live": "select id from runs where user_id = $1 and status in ('running', 'parked')",
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
        where c.user_id = $1 and c.error is null and x.n > 0 and c.status <> 'partial'""",
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
