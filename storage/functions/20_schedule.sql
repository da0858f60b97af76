-- What plan, claim and settle share. All of it runs under the user lock.

-- Derived ids: the first 16 bytes of SHA-256 over a namespace and a text, as a UUIDv8 (RFC 9562, section 5.8).
-- domain/ids.py has the same rule and texts; UUIDv5 would need SHA-1, which PostgreSQL's core does not offer.
create or replace function studio_derived_id(p_text text) returns uuid language sql immutable parallel safe as $$
  select encode(set_byte(set_byte(h, 6, (get_byte(h, 6) & 15) | 128), 8, (get_byte(h, 8) & 63) | 128), 'hex')::uuid
  from (select substring(sha256('\x6f1d4a523c0b5b8e9a6f0d2f5a7c1e94'::bytea || convert_to(p_text, 'UTF8'))
        from 1 for 16) h) x
$$;

create or replace function studio_instance_id(p_user uuid, p_provider uuid) returns uuid
language sql immutable parallel safe as $$ select studio_derived_id('instance:' || p_user || ':' || p_provider) $$;

create or replace function studio_derivation_id(p_instance uuid, p_anchor uuid) returns uuid
language sql immutable parallel safe as $$ select studio_derived_id('derivation:' || p_instance || ':' || p_anchor) $$;

create or replace function studio_output_id(p_derivation uuid, p_slot text) returns uuid
language sql immutable parallel safe as $$ select studio_derived_id('output:' || p_derivation || ':' || p_slot) $$;

-- Joins here are LATERAL ... OFFSET 0, one probe by a whole key after the other: the planner may not turn them round, so
-- what they cost does not depend on what it believes about tables that it has never seen full.

-- An input as a derivation looks at it: one that does not track counts as it was used, however often. '-': not there yet.
create or replace function studio_seen(
  p_tracks boolean, p_used text, p_reads_meta boolean, p_planned text, p_planned_meta text
) returns text language sql immutable parallel safe as $$
  select case when not p_tracks and p_used is not null then p_used
    else coalesce(p_planned, '-') || case when p_reads_meta then ' ' || coalesce(p_planned_meta, '-') else '' end end
$$;

-- Digests of definition and settings, and the inputs that are looked at in their order, each as
-- E'\n' || blob || ' ' || position || ' ' || studio_seen: one digest.
create or replace function studio_digest(p_want_digest text, p_inputs text) returns text
language sql stable parallel safe as $$
  select encode(sha256(convert_to(p_want_digest || coalesce(p_inputs, ''), 'UTF8')), 'hex')
$$;

-- What a derivation would be made from now. complete: every required input is there, and at least one at all.
create or replace function studio_wanted(p_user uuid, p_derivation uuid, p_want_digest text, p_reads_meta boolean)
returns table (digest text, complete boolean) language sql stable as $$
  select studio_digest(p_want_digest, string_agg(E'\n' || i.blob_id || ' ' || i.position || ' ' ||
      studio_seen(i.tracks, i.used_hash, p_reads_meta, b.planned_hash, b.planned_meta_hash),
      '' order by i.position, i.blob_id)),
    coalesce(bool_and(not i.required or b.planned_version > 0) and bool_or(b.planned_version > 0), false)
  from (select * from derivation_inputs where user_id = p_user and derivation_id = p_derivation offset 0) i
  left join lateral (select planned_version, planned_hash, planned_meta_hash from blobs
    where user_id = p_user and id = i.blob_id offset 0) b on true
$$;

-- want, of each of these.
create or replace function studio_want(p_user uuid, p_derivations uuid[])
returns table (id uuid, digest text, complete boolean) language sql stable as $$
  select x.id, w.digest, w.complete from unnest(p_derivations) x(id)
  cross join lateral (select want_digest, reads_meta from derivations where user_id = p_user and id = x.id offset 0) d
  cross join lateral studio_wanted(p_user, x.id, d.want_digest, d.reads_meta) w
$$;

-- Derivations that look at an output of one of these. An input is looked at while it tracks, or was never used: an
-- onCreate-only provider waits for its input once, then keeps what it has read.
--
-- PL/pgSQL keeps the plan of a query for the session; a function in SQL that is not inlined plans it at each call.
create or replace function studio_dependants(p_user uuid, p_derivations uuid[]) returns uuid[]
language plpgsql stable as $$
begin
  return (select coalesce(array_agg(distinct i.derivation_id), '{}')
    from unnest(p_derivations) x(id)
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = x.id offset 0) o
    cross join lateral (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = o.blob_id and (tracks or used_hash is null) offset 0) i);
end $$;

-- These and everything below them that is awake.
create or replace function studio_below(p_user uuid, p_derivations uuid[]) returns uuid[]
language plpgsql stable as $$
begin
  return (with recursive down (id) as (
    select d.id from derivations d where d.user_id = p_user and d.id = any(p_derivations)
      and d.hold is distinct from 'inactive' and d.hold is distinct from 'retired'
    union
    select d.id from down n
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = n.id offset 0) o
    cross join lateral (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = o.blob_id and (tracks or used_hash is null) offset 0) i
    cross join lateral (select id from derivations where user_id = p_user and id = i.derivation_id
      and hold is distinct from 'inactive' and hold is distinct from 'retired' offset 0) d
  ) select array_agg(id) from down);
end $$;

-- Whether a derivation goes on without the maker of this input, which is failing: it skips, or there is an output to use.
create or replace function studio_stands_in(p_user uuid, p_policy text, p_blob uuid) returns boolean
language sql stable as $$
  select p_policy = 'skip' or p_policy = 'use_last_good' and exists (
    select from blobs where user_id = p_user and id = p_blob and planned_version > 0)
$$;

-- pending_inputs and failing are recounts, never accumulated (CASCADES rule 2). An input is not waited for whose maker
-- is failing, if the derivation's on_parent_failure says so. Where failing changes, what reads that is counted again, wave
-- by wave. Rings the owners of those that became free, and takes back what was settled below a failure that is over.
-- Whoever changes a hold, a run_id or unsettled of a derivation has it recounted.
create or replace function studio_recount(p_user uuid, p_derivations uuid[], p_quiet uuid default null)
returns void language plpgsql as $$
declare v_wave uuid[] := p_derivations; v_owners uuid[]; v_turned uuid[]; v_more uuid[]; v_provisional uuid[] := '{}';
begin
  while v_wave is not null loop
    with counted as materialized (
      select d.id, d.pending_inputs, d.failing, d.provisional, n.waits,
        d.unsettled and d.run_id is null and case when d.hold = 'failed' then n.standing = n.waits
          else d.hold is null and n.standing > 0 end as fails
      from (select distinct id from unnest(v_wave) id) x
      cross join lateral (select * from derivations where user_id = p_user and id = x.id offset 0) d
      cross join lateral (
        select count(*)::int as waits, count(*) filter (where p.failing) as standing
        from (select blob_id from derivation_inputs
          where user_id = p_user and derivation_id = d.id and (tracks or used_hash is null) offset 0) i
        cross join lateral (select derivation_id from derivation_outputs
          where user_id = p_user and blob_id = i.blob_id offset 0) o
        cross join lateral (select failing from derivations
          where user_id = p_user and id = o.derivation_id and unsettled offset 0) p
        where not (p.failing and d.on_parent_failure <> 'block'
          and studio_stands_in(p_user, d.on_parent_failure, i.blob_id)) offset 0) n
    ), changed as (
      update derivations d set pending_inputs = c.waits, failing = c.fails from counted c
      where d.user_id = p_user and d.id = c.id and (c.waits <> c.pending_inputs or c.fails <> c.failing)
      returning d.id, d.owner_cascade_id, d.unsettled and c.waits = 0 and c.pending_inputs > 0 as freed,
        c.fails <> c.failing as turned
    )
    select (select array_agg(distinct owner_cascade_id) from changed
        where freed and owner_cascade_id is distinct from p_quiet),
      (select array_agg(id) from changed where turned), (select array_agg(id) from counted where provisional is not null)
      into v_owners, v_turned, v_more;
    if v_owners is not null then perform studio_ring(p_user, v_owners); end if;
    if v_more is not null then v_provisional := v_provisional || v_more; end if;
    v_wave := case when v_turned is not null then studio_dependants(p_user, v_turned) end;
  end loop;
  if v_provisional <> '{}' then perform studio_take_back(p_user, v_provisional, p_quiet); end if;
end $$;

-- End runs that something has moved past, and clear their fences. Rings who claimed them.
create or replace function studio_drop_runs(p_user uuid, p_derivations uuid[], p_quiet uuid default null)
returns void language plpgsql as $$
declare v_cascades uuid[];
begin
  with dropped as (
    update runs r set status = 'superseded', ended_at = now() from derivations d
    where d.user_id = p_user and d.id = any(p_derivations) and d.run_id is not null
      and r.user_id = d.user_id and r.id = d.run_id and r.status in ('running', 'parked')
    returning r.cascade_id
  ) select array_agg(distinct cascade_id) into v_cascades from dropped where cascade_id is distinct from p_quiet;
  update derivations set run_id = null, hold = nullif(hold, 'approval'),
      hold_detail = case when hold = 'approval' then null else hold_detail end
    where user_id = p_user and id = any(p_derivations) and run_id is not null;
  if v_cascades is not null then perform studio_ring(p_user, v_cascades); end if;
end $$;

-- Supersede what moved, unless its run is left to finish: always where a step is paid, and for everyone who has waited
-- for a minute (rule 6), so that steady edits keep nobody from ever settling.
create or replace function studio_supersede(p_user uuid, p_derivations uuid[], p_quiet uuid default null)
returns void language plpgsql as $$
declare v_cancel uuid[];
begin
  select array_agg(id) into v_cancel from derivations
    where user_id = p_user and id = any(p_derivations) and run_id is not null
      -- A person is never left to decide about what is out of date.
      and (hold = 'approval' or supersede = 'cancel' and coalesce(dirty_since, now()) > now() - studio_patience());
  if v_cancel is not null then perform studio_drop_runs(p_user, v_cancel, p_quiet); end if;
end $$;

-- Settled: unsettled is false, dependants are recounted (CASCADES, close). What goes on without something that failed
-- is so for the time being; what was skipped although it was asked for by name remembers that.
create or replace function studio_close(p_user uuid, p_derivations uuid[], p_quiet uuid default null)
returns void language plpgsql as $$
declare v_without uuid[] := studio_going_on(p_user, p_derivations);
begin
  update derivations d set unsettled = false, failing = false, dirty_since = null, run_after = null, settled_at = now(),
      provisional = case when x.goes_on then case on_parent_failure when 'skip' then 'skipped' else 'last_good' end end,
      force = d.force and x.goes_on and on_parent_failure = 'skip',
      fresh_after = case when x.goes_on and on_parent_failure = 'skip' then d.fresh_after end,
      budget_place = null, budget_needed = null, resume_run_id = null
    from (select id, hold is null and id = any(v_without) as goes_on from derivations
      where user_id = p_user and id = any(p_derivations)) x
    where d.user_id = p_user and d.id = x.id;
  perform studio_recount(p_user, studio_dependants(p_user, p_derivations), p_quiet);
end $$;

-- No longer part of the schedule: inactive (its instance is off) or retired (its parent or output is deleted).
-- Its outputs stay as they are, and nothing waits for it. Who owned it may have waited for nothing else: rung.
create or replace function studio_rest(p_user uuid, p_derivations uuid[], p_hold text) returns void
language plpgsql as $$
declare v_owners uuid[]; v_waited_for uuid[];
begin
  select array_agg(distinct owner_cascade_id), array_agg(id) into v_owners, v_waited_for from derivations
    where user_id = p_user and id = any(p_derivations) and unsettled;
  if v_owners is not null then
    perform studio_ring(p_user, v_owners);
    if current_setting('studio.plan_id', true) <> '' then  -- a plan tells what goes on because of it (studio_released)
      perform set_config('studio.rested',
        (nullif(current_setting('studio.rested', true), '')::uuid[] || v_waited_for)::text, true);
    end if;
  end if;
  perform studio_drop_runs(p_user, p_derivations);
  update derivations set hold = p_hold, hold_detail = null where user_id = p_user and id = any(p_derivations);
  perform studio_close(p_user, p_derivations);
end $$;

-- Instances among the producers of a blob: an instance never matches what has itself among its producers.
create or replace function studio_lineage(p_user uuid, p_blob uuid) returns setof uuid language sql stable as $$
  with recursive up (derivation_id) as (
    select o.derivation_id from derivation_outputs o where o.user_id = p_user and o.blob_id = p_blob
    union
    select o.derivation_id from up u
    cross join lateral (select blob_id from derivation_inputs
      where user_id = p_user and derivation_id = u.derivation_id offset 0) i
    cross join lateral (select derivation_id from derivation_outputs
      where user_id = p_user and blob_id = i.blob_id offset 0) o
  )
  select distinct d.instance_id from up
  cross join lateral (select instance_id from derivations where user_id = p_user and id = up.derivation_id offset 0) d
$$;

-- Whether a blob is made, however indirectly, from an output of a derivation: as an input it would close a cycle.
create or replace function studio_reaches(p_user uuid, p_derivation uuid, p_blob uuid) returns boolean
language sql stable as $$
  with recursive up (derivation_id) as (
    select o.derivation_id from derivation_outputs o where o.user_id = p_user and o.blob_id = p_blob
    union
    select o.derivation_id from up u
    cross join lateral (select blob_id from derivation_inputs
      where user_id = p_user and derivation_id = u.derivation_id offset 0) i
    cross join lateral (select derivation_id from derivation_outputs
      where user_id = p_user and blob_id = i.blob_id offset 0) o
  )
  select exists (select from up where derivation_id = p_derivation)
$$;
