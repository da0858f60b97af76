-- previews: what a write would set in motion. The write itself is made, its cascades are planned in its transaction,
-- and what became unsettled is read; a plan then undoes it all, and a write that is bound to a plan compares and commits.
-- So a plan is never a second implementation of what plan does (storage/plans.py has both endings).

-- Mark this transaction as that of a plan: the cascades that it causes carry the plan (a default of cascades.plan_id),
-- and no fact of it folds into an older cascade, which would do more than was planned. Takes the user lock first.
create or replace function studio_stage(p_user uuid, p_plan uuid, p_outputs uuid[], p_timeout_ms int) returns void
language plpgsql as $$
begin
  perform set_config('statement_timeout', p_timeout_ms::text, true);
  perform studio_lock(p_user);
  perform set_config('studio.plan_id', p_plan::text, true);
  -- An unplanned write holds its blob and waits for the sequence of events, which ours takes before its plan deletes or
  -- restores outputs: whatever that could be is locked first, in the order of ids.
  perform from blobs where user_id = p_user and id = any(p_outputs) order by id for no key update;
end $$;

-- A blob and what is made of it, however indirectly: what deleting or restoring it may take along.
create or replace function studio_made_of(p_user uuid, p_blob uuid) returns uuid[] language sql stable as $$
  with recursive down (id) as (
    select p_blob
    union
    select o.blob_id from down n
    cross join lateral (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = n.id offset 0) i
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = i.derivation_id offset 0) o
  ) select array_agg(id) from down
$$;

-- Plan what this transaction has caused. cascades is null if it caused nothing.
create or replace function studio_plan_staged(p_user uuid, p_plan uuid, p_depth_max int, p_nodes_max int)
returns table (cascades uuid[], problem text) language plpgsql as $$
declare v_cascade uuid; v_problem text;
begin
  for v_cascade in
    select c.id from cascades c where c.user_id = p_user and c.planned_at is null and c.plan_id = p_plan::text
    order by c.created_at, c.id
  loop
    select p.problem into v_problem from plan_cascade(p_user, v_cascade, p_depth_max, p_nodes_max) p;
    problem := coalesce(v_problem, problem); cascades := cascades || v_cascade;
  end loop;
  return next;
end $$;

-- What the write itself changes: deltas, the provider and its instance, the members of a bucket. print says all that
-- matters for what follows.
create or replace function studio_roots(p_user uuid, p_cascades uuid[])
returns table (kind text, id uuid, title text, operation text, version int, print text) language sql stable as $$
  select 'blob', d.blob_id, b.title, d.operation, d.from_version, md5(concat_ws('|', d.from_version, d.operation,
      d.content_hash, d.cutoff_hash, d.meta_hash, b.schema_id))
    from unnest(p_cascades) c(id)
    cross join lateral (select * from deltas
      where user_id = p_user and cascade_id = c.id and run_id is null and status = 'applied' offset 0) d
    cross join lateral (select title, schema_id from blobs where user_id = p_user and id = d.blob_id offset 0) b
  union all
  select 'provider', p.id, p.name, case when a.provider_id is null then 'inactive' else 'active' end, p.version,
      md5(concat_ws('|', p.spec, p.active, p.published, a.provider_id,
        (to_jsonb(i) - array['user_id', 'created_at', 'updated_at'])::text))
    from unnest(p_cascades) c(id)
    cross join lateral (select instance_id from cascades where user_id = p_user and id = c.id offset 0) k
    cross join lateral (select * from instances where user_id = p_user and id = k.instance_id offset 0) i
    cross join lateral (select * from providers where id = i.provider_id offset 0) p
    left join studio_active_providers(p_user) a on a.provider_id = p.id
  union all
  select 'bucket', k.id, k.name, 'members', k.version, md5(coalesce((
      select string_agg(m.blob_id || ' ' || m.position, ',' order by m.blob_id) from bucket_blobs m
      where m.user_id = p_user and m.bucket_id = k.id), ''))
    from unnest(p_cascades) c(id)
    cross join lateral (select target_id, cause from cascades where user_id = p_user and id = c.id offset 0) x
    cross join lateral (select * from buckets
      where user_id = p_user and id = x.target_id and x.cause = 'bucket' offset 0) k
  union all
  -- What is no delta, fact or member: redrives, upgrades, what is asked for by name.
  select k.cause, coalesce(k.target_id, k.instance_id, '00000000-0000-0000-0000-000000000000'), k.label, k.cause, 0,
      md5(concat_ws('|', k.target_id, k.instance_id, k.options, (
        select string_agg(l.id::text, ',' order by l.id) from dead_letters l
        where l.user_id = p_user and l.redriven_by = k.id)))
    from unnest(p_cascades) c(id)
    cross join lateral (select * from cascades where user_id = p_user and id = c.id
      and cause not in ('create', 'edit', 'delete', 'restore', 'batch', 'bucket', 'provider') offset 0) k
$$;

-- What fell asleep in this very transaction (settled_at is its time): neighbours of the roots, derivations of the
-- instance. Their outputs stay, or have gone along.
create or replace function studio_rested(p_user uuid, p_cascades uuid[]) returns setof uuid language sql stable as $$
  with changed as materialized (
    select d.blob_id as id from unnest(p_cascades) c(id)
    cross join lateral (select blob_id from deltas
      where user_id = p_user and cascade_id = c.id and run_id is null offset 0) d
  ), near as (
    select i.derivation_id as id from changed x
    cross join lateral (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = x.id offset 0) i
    union
    select o.derivation_id from changed x
    cross join lateral (select derivation_id from derivation_outputs
      where user_id = p_user and blob_id = x.id offset 0) o
    union
    select d.id from unnest(p_cascades) c(id)
    cross join lateral (select instance_id from cascades where user_id = p_user and id = c.id offset 0) k
    cross join lateral (select id from derivations where user_id = p_user and instance_id = k.instance_id offset 0) d
  )
  select n.id from near n
  cross join lateral (select from derivations where user_id = p_user and id = n.id
    and hold in ('inactive', 'retired') and settled_at = now() offset 0) d
$$;

-- What goes on because of what fell asleep in this very transaction: it waited for nothing else. It is run by the
-- cascades that it belongs to, older ones. And everything that waits for it.
create or replace function studio_released(p_user uuid) returns setof uuid language plpgsql stable as $$
declare v_rested uuid[] := nullif(current_setting('studio.rested', true), '')::uuid[]; v_free uuid[];
begin
  select array_agg(d.id) into v_free from unnest(studio_dependants(p_user, v_rested)) x(id)
    cross join lateral (select id from derivations where user_id = p_user and id = x.id
      and unsettled and pending_inputs = 0 and run_id is null and hold is null offset 0) d;
  return query select d.id from unnest(studio_below(p_user, v_free)) x(id)
    cross join lateral (select id from derivations where user_id = p_user and id = x.id and unsettled offset 0) d;
end $$;

-- Each derivation that the cascades touch or let go on, and a print of what it wants, what it has used, and what it has made.
drop function if exists studio_prints(uuid, uuid[]);
create or replace function studio_prints(p_user uuid, p_cascades uuid[])
returns table (id uuid, print text, run_after timestamptz) language sql stable as $$
  with mine as materialized (
    select d.id from derivations d
      where d.user_id = p_user and d.owner_cascade_id = any(p_cascades) and d.unsettled
    union
    select r from studio_rested(p_user, p_cascades) r
    union
    select r from studio_released(p_user) r
  )
  select w.id, md5(concat_ws('|', d.want_digest, w.digest, coalesce(d.used_digest, '-'), coalesce(d.hold, '-'), d.force,
      d.unsettled, (select string_agg(concat_ws(' ', o.slot, b.version, o.machine_hash, b.deleted_at is null), ','
          order by o.slot) from (select * from derivation_outputs
            where user_id = p_user and derivation_id = w.id offset 0) o
        cross join lateral (select version, deleted_at from blobs
          where user_id = p_user and id = o.blob_id offset 0) b))), d.run_after
  from (select array_agg(m.id) as ids from mine m) a cross join lateral studio_want(p_user, a.ids) w
  cross join lateral (select * from derivations where user_id = p_user and id = w.id offset 0) d
$$;

-- Do what claim does before it claims: settle without a run (early cut-off), as far down as that is known before anything
-- runs, and give what runs anyway its newest definition.
create or replace function studio_cut_staged(p_user uuid, p_cascades uuid[]) returns void language plpgsql as $$
declare
  -- What goes on because something rests belongs to other cascades: what one of them settles may free what is another's.
  v_all uuid[] := p_cascades || array(select distinct d.owner_cascade_id from studio_released(p_user) r
    join derivations d on d.user_id = p_user and d.id = r where d.owner_cascade_id <> all(p_cascades));
  v_cascade uuid; v_ready uuid[]; v_before int; v_cut int := 0;
begin
  loop
    v_before := v_cut;
    foreach v_cascade in array v_all loop
      -- As it will be when all of it is due: what is put off by debounce is cut off then. studio_prints has told when.
      update derivations set run_after = null
        where user_id = p_user and owner_cascade_id = v_cascade and unsettled and run_after is not null;
      select v_cut + c.cut into v_cut
        from studio_cut_off(p_user, v_cascade, 1000000, 1000000, '{}') c;  -- all of it, at once
    end loop;
    exit when v_cut = v_before or cardinality(v_all) = 1;
  end loop;
  select array_agg(d.id) into v_ready from unnest(v_all) c(id)
    cross join lateral (select id from derivations where user_id = p_user and owner_cascade_id = c.id
      and unsettled and pending_inputs = 0 and run_id is null and hold is null offset 0) d;
  if v_ready is not null then perform studio_renew(p_user, v_ready); end if;
end $$;

-- The outlook of derivations, once they are planned and cut off. waits: producers above that are unsettled; moved: an
-- input that nothing above will change any more is not what was used; spared: an earlier run read the very same, and
-- the results of its paid steps are kept.
drop function if exists studio_outlook(uuid, uuid[]);
create or replace function studio_outlook(p_user uuid, p_ids uuid[])
returns table (
  id uuid, provider_key uuid, provider_id text, provider text, definition_digest text, anchor_kind text, anchor_id uuid,
  anchor text, execution text, made boolean, unsettled boolean, pending int, hold text, force boolean, level int,
  complete boolean, waits uuid[], moved boolean, spared uuid, inputs uuid[], outputs jsonb, services text[]
) language sql stable as $$
  select d.id, d.provider_id, p.slug, p.name, split_part(d.want_digest, ':', 1), d.anchor_kind, d.anchor_id,
    coalesce(case d.anchor_kind when 'bucket' then k.name else coalesce(nullif(a.title, ''), left(a.preview, 80)) end, ''),
    d.execution, d.used_digest is not null, d.unsettled, d.pending_inputs, d.hold, d.force, d.level,
    w.complete, i.waits, i.moved, case when d.pending_inputs = 0 then s.run_id end, i.inputs, o.outputs, p.services
  from studio_want(p_user, p_ids) w
  cross join lateral (select * from derivations where user_id = p_user and id = w.id offset 0) d
  cross join lateral (select * from providers where id = d.provider_id offset 0) p
  left join lateral (select on_conflict from instances where user_id = p_user and id = d.instance_id offset 0) n on true
  left join lateral (select title, preview from blobs
    where user_id = p_user and id = d.anchor_id and d.anchor_kind = 'blob' offset 0) a on true
  left join lateral (select name from buckets
    where user_id = p_user and id = d.anchor_id and d.anchor_kind = 'bucket' offset 0) k on true
  cross join lateral (
    select coalesce(array_agg(q.derivation_id) filter (where q.derivation_id is not null), '{}') as waits,
      coalesce(array_agg(x.blob_id order by x.position, x.blob_id), '{}') as inputs,
      coalesce(bool_or(q.derivation_id is null and x.used_hash is not null and x.tracks and x.used_hash is distinct from
        b.planned_hash || case when d.reads_meta then ' ' || coalesce(b.planned_meta_hash, '-') else '' end), false) as moved
    from (select * from derivation_inputs where user_id = p_user and derivation_id = d.id offset 0) x
    cross join lateral (select planned_hash, planned_meta_hash from blobs
      where user_id = p_user and id = x.blob_id offset 0) b
    left join lateral (select y.derivation_id from (select derivation_id from derivation_outputs
        where user_id = p_user and blob_id = x.blob_id offset 0) y
      cross join lateral (select failing from derivations
        where user_id = p_user and id = y.derivation_id and unsettled offset 0) z
      where (x.tracks or x.used_hash is null) and not (z.failing and d.on_parent_failure <> 'block'
        and studio_stands_in(p_user, d.on_parent_failure, x.blob_id))) q on true offset 0) i
  cross join lateral (
    select coalesce(jsonb_agg(jsonb_build_object('slot', y.slot, 'blob_id', y.blob_id, 'version', b.version,
        'title', coalesce(nullif(b.title, ''), left(b.preview, 80)), 'schema_id', b.schema_id,
        'deleted', b.deleted_at is not null,
        'edited', b.version > 0 and y.machine_hash is not null and b.document_hash is distinct from y.machine_hash,
        'on_conflict', coalesce(n.on_conflict, p.on_conflict)) order by y.slot), '[]') as outputs
    from (select * from derivation_outputs where user_id = p_user and derivation_id = d.id offset 0) y
    cross join lateral (select * from blobs where user_id = p_user and id = y.blob_id offset 0) b offset 0) o
  left join lateral (
    select r.id as run_id from (select id, status, used_digest from runs
      where user_id = p_user and derivation_id = d.id order by attempt desc limit 20) r
    where d.pending_inputs = 0 and r.status = 'settled' and r.used_digest = w.digest
      and exists (select from run_steps t where t.user_id = p_user and t.run_id = r.id and t.memo_key is not null)
      and not exists (select from run_steps t where t.user_id = p_user and t.run_id = r.id and t.memo_key is not null
        and not exists (select from memo m where m.user_id = p_user and m.key = t.memo_key and m.state = 'done'
          and m.created_at >= coalesce(d.fresh_after, '-infinity')))
    limit 1) s on true
$$;

-- What runs of these providers took lately, newest first: the measure of what their next ones take. Money is in micro-dollars.
drop function if exists studio_run_history(uuid, text[], int);
create or replace function studio_run_history(p_user uuid, p_slugs text[], p_runs int)
returns table (provider_id text, definition_digest text, usage jsonb, seconds float8, cost float8)
language sql stable as $$
  select s.slug, r.definition_digest, r.usage,
    extract(epoch from r.ended_at - r.started_at - studio_waited(p_user, r.id, r.started_at, r.ended_at))::float8,
    (select sum(c.amount) from charges c where c.user_id = p_user and c.run_id = r.id)::float8
  from unnest(p_slugs) s(slug)
  cross join lateral (select * from runs where user_id = p_user and provider_id = s.slug and status = 'settled'
    order by id desc limit p_runs) r
$$;

-- Forget plans that were used long ago, and those that nobody used: these a day after they expired.
create or replace function drop_plans(p_user uuid, p_kept interval, p_limit int) returns int language plpgsql as $$
declare v_dropped int;
begin
  perform set_config('app.user_id', p_user::text, true);
  with old as (
    select id from plans
    where user_id = p_user and (used_at < now() - p_kept
      or used_at is null and expires_at < now() - least(p_kept, interval '1 day'))
    limit p_limit for update skip locked)
  delete from plans p using old where p.user_id = p_user and p.id = old.id;
  get diagnostics v_dropped = row_count;
  return v_dropped;
end $$;
