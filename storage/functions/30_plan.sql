-- plan: what does this cause touch, known and newly matching; mark it unsettled, own it (CASCADES, Moves).

-- The user's effective activations: own and published providers; built-ins are active without a row. A provider of
-- one's own takes the place of a published one with its name, on or off.
create or replace function studio_active_providers(p_user uuid)
returns table (provider_id uuid, instance_id uuid, settings_digest text, has_row boolean) language sql stable as $$
  select p.id, coalesce(i.id, studio_instance_id(p_user, p.id)), coalesce(i.settings_digest, ''), i.id is not null
  from providers p left join instances i on i.user_id = p_user and i.provider_id = p.id
  where p.active and coalesce(i.active, p.owner_id = '00000000-0000-0000-0000-000000000000')
    and (p.owner_id = p_user or not exists (
      select from providers o where o.owner_id = p_user and o.slug = p.slug and o.active))
$$;

-- The output slots of a derivation that it does not have yet, as invisible version-0 blobs; returns the new blobs.
create or replace function studio_add_outputs(
  p_user uuid, p_derivation uuid, p_provider providers, p_root uuid, p_depth int
) returns uuid[] language plpgsql as $$
declare v_outputs uuid[];
begin
  with made as (
    insert into blobs (user_id, id, content_type, schema_id, created_by, provider_id, root_id, depth)
      select p_user, studio_output_id(p_derivation, o->>'slot'), o->>'content_type', o->>'schema_id', p_provider.slug,
        p_provider.slug, coalesce(p_root, studio_output_id(p_derivation, o->>'slot')), p_depth
      from jsonb_array_elements(p_provider.outputs) o
      on conflict do nothing returning id
  ) select coalesce(array_agg(id), '{}') into v_outputs from made;
  insert into derivation_outputs (user_id, derivation_id, slot, blob_id)
    select p_user, p_derivation, o->>'slot', studio_output_id(p_derivation, o->>'slot')
    from jsonb_array_elements(p_provider.outputs) o on conflict do nothing;
  return v_outputs;
end $$;

-- One derivation with its invisible version-0 outputs; returns the new output blobs, null if it existed already.
create or replace function studio_derive(
  p_user uuid, p_provider providers, p_instance uuid, p_settings_digest text, p_anchor_kind text, p_anchor uuid,
  p_cascade uuid
) returns uuid[] language plpgsql as $$
declare v_id uuid := studio_derivation_id(p_instance, p_anchor); v_outputs uuid[]; v_root uuid; v_depth int := 0;
begin
  insert into instances (user_id, id, provider_id) values (p_user, p_instance, p_provider.id) on conflict do nothing;
  insert into derivations (user_id, id, instance_id, provider_id, anchor_kind, anchor_id, execution, supersede,
      reads_meta, want_digest, owner_cascade_id, dirty_since)
    values (p_user, v_id, p_instance, p_provider.id, p_anchor_kind, p_anchor, p_provider.execution,
      p_provider.supersede, p_provider.reads_meta, p_provider.definition_digest || ':' || p_settings_digest,
      p_cascade, now())
    on conflict do nothing;
  if not found then return null; end if;
  if p_anchor_kind = 'blob' then
    select root_id, depth into v_root, v_depth from blobs where user_id = p_user and id = p_anchor;
    insert into derivation_inputs (user_id, derivation_id, blob_id, tracks)
      values (p_user, v_id, p_anchor, 'onEdit' = any(p_provider.events));
    update derivations d set level = 1 + coalesce((
        select max(x.level) from derivation_outputs o
        join derivations x on x.user_id = o.user_id and x.id = o.derivation_id
        where o.user_id = p_user and o.blob_id = p_anchor), 0)
      where d.user_id = p_user and d.id = v_id;
  end if;
  v_outputs := studio_add_outputs(p_user, v_id, p_provider, v_root, v_depth + 1);
  insert into bucket_blobs (user_id, bucket_id, blob_id, position, inherited_from)
    select p_user, m.bucket_id, b, m.position, coalesce(m.inherited_from, m.blob_id)
    from unnest(v_outputs) b join bucket_blobs m on m.user_id = p_user and m.blob_id = p_anchor
    where p_anchor_kind = 'blob'
    union all
    select p_user, p_anchor, b, 0, b from unnest(v_outputs) b where p_anchor_kind = 'bucket'
    on conflict do nothing;
  return v_outputs;
end $$;

-- New derivations of these blobs by providers that match on declared schema, type, origin (CASCADES rule 8).
create or replace function studio_match(p_user uuid, p_cascade uuid, p_blobs uuid[])
returns table (derivation uuid, outputs uuid[]) language plpgsql as $$
declare v record; v_provider providers; v_outputs uuid[];
begin
  for v in
    select b.id as blob, a.* from blobs b
    join studio_active_providers(p_user) a on true
    join providers p on p.id = a.provider_id
    where b.user_id = p_user and b.id = any(p_blobs) and b.deleted_at is null and p.anchor = 'blob'
      and (p.input_schemas = '{}' or b.schema_id = any(p.input_schemas))
      and (p.content_types = '{}' or exists (select from unnest(p.content_types) t
            where b.content_type = t or b.content_type like replace(t, '*', '%')))
      and (p.origin = 'any' or b.provider_id is null)
      and p.events && array['onCreate', 'onEdit']
      and not exists (select from studio_lineage(p_user, b.id) l where l = a.instance_id)
    order by b.id, a.provider_id
  loop
    select * into v_provider from providers where id = v.provider_id;
    v_outputs := studio_derive(p_user, v_provider, v.instance_id, v.settings_digest, 'blob', v.blob, p_cascade);
    if v_outputs is not null then
      derivation := studio_derivation_id(v.instance_id, v.blob); outputs := v_outputs; return next;
    end if;
  end loop;
end $$;

-- Hold joins against their buckets: which blobs do they collect now, in which order? Returns what changed.
create or replace function studio_sync_joins(p_user uuid, p_cascade uuid, p_buckets uuid[])
returns table (derivation uuid, outputs uuid[]) language plpgsql as $$
declare v record; v_provider providers; v_id uuid; v_outputs uuid[]; v_changed int;
begin
  for v in
    select k.id as bucket, a.* from buckets k
    join studio_active_providers(p_user) a on true
    join providers p on p.id = a.provider_id
    where k.user_id = p_user and k.id = any(p_buckets) and p.anchor = 'bucket' and k.type = p.collect_bucket_type
    order by k.id, a.provider_id
  loop
    select * into v_provider from providers where id = v.provider_id;
    v_id := studio_derivation_id(v.instance_id, v.bucket);
    v_outputs := null;
    if not exists (select from derivations d where d.user_id = p_user and d.id = v_id) then
      continue when not exists (
        select from bucket_blobs m join blobs b on b.user_id = m.user_id and b.id = m.blob_id
        where m.user_id = p_user and m.bucket_id = v.bucket and b.schema_id = v_provider.collect_schema
          and b.deleted_at is null);
      v_outputs := studio_derive(p_user, v_provider, v.instance_id, v.settings_digest, 'bucket', v.bucket, p_cascade);
    end if;
    with wanted as (
      select m.blob_id, m.position from bucket_blobs m
      join blobs b on b.user_id = m.user_id and b.id = m.blob_id
      where m.user_id = p_user and m.bucket_id = v.bucket and b.schema_id = v_provider.collect_schema
        and b.deleted_at is null and not studio_reaches(p_user, v_id, m.blob_id)
    ), gone as (
      delete from derivation_inputs i where i.user_id = p_user and i.derivation_id = v_id
        and not exists (select from wanted w where w.blob_id = i.blob_id) returning 1
    ), put as (
      insert into derivation_inputs as i (user_id, derivation_id, blob_id, role, position, required)
        select p_user, v_id, w.blob_id, 'member', w.position, false from wanted w
        on conflict (user_id, derivation_id, blob_id) do update set position = excluded.position
          where i.position <> excluded.position
        returning 1
    ) select (select count(*) from gone) + (select count(*) from put) into v_changed;
    if v_changed > 0 or v_outputs is not null then
      update derivations d set level = 1 + coalesce((
          select max(x.level) from derivation_inputs i
          join derivation_outputs o on o.user_id = i.user_id and o.blob_id = i.blob_id
          join derivations x on x.user_id = o.user_id and x.id = o.derivation_id
          where i.user_id = p_user and i.derivation_id = v_id), 0)
        where d.user_id = p_user and d.id = v_id;
      derivation := v_id; outputs := coalesce(v_outputs, '{}'); return next;
    end if;
  end loop;
end $$;

-- Membership follows derivation: what is made from a member is a member, what is made from one that left has left.
create or replace function studio_inherit(p_user uuid, p_bucket uuid) returns void language plpgsql as $$
begin
  delete from bucket_blobs m where m.user_id = p_user and m.bucket_id = p_bucket
    and m.inherited_from is not null and m.inherited_from <> m.blob_id
    and not exists (select from bucket_blobs r where r.user_id = p_user and r.bucket_id = p_bucket
                    and r.blob_id = m.inherited_from and r.inherited_from is null);
  with recursive down (blob_id, position, root) as (
    select m.blob_id, m.position, m.blob_id from bucket_blobs m
      where m.user_id = p_user and m.bucket_id = p_bucket and m.inherited_from is null
    union
    select o.blob_id, d.position, d.root from down d
    join derivations x on x.user_id = p_user and x.anchor_kind = 'blob' and x.anchor_id = d.blob_id
    join derivation_outputs o on o.user_id = p_user and o.derivation_id = x.id
  )
  insert into bucket_blobs as m (user_id, bucket_id, blob_id, position, inherited_from)
    select p_user, p_bucket, blob_id, position, root from down where blob_id <> root
    on conflict (user_id, bucket_id, blob_id) do update set position = excluded.position
      where m.inherited_from is not null and m.position <> excluded.position;
end $$;

-- Advance the planned versions of the blobs that people changed under this cascade (CASCADES rule 1). A cause that
-- moves no planned version moves nothing (rule 3).
create or replace function studio_advance(p_user uuid, p_cascade uuid)
returns table (blob uuid, body boolean, meta boolean) language sql as $$
  with last as (
    select distinct on (d.blob_id) d.blob_id, d.to_version, d.cutoff_hash, d.meta_hash from deltas d
    where d.user_id = p_user and d.cascade_id = p_cascade and d.run_id is null and d.status = 'applied'
    order by d.blob_id, d.to_version desc
  )
  update blobs b set planned_version = l.to_version, planned_hash = l.cutoff_hash, planned_meta_hash = l.meta_hash
  from last l join blobs old on old.user_id = p_user and old.id = l.blob_id
  where b.user_id = p_user and b.id = l.blob_id and l.to_version > old.planned_version
  returning b.id, old.planned_hash is distinct from l.cutoff_hash, old.planned_meta_hash is distinct from l.meta_hash
$$;

-- What deletion and restoration mean for the schedule (CASCADES rule 9). Returns derivations to look at again.
create or replace function studio_follow_deletions(p_user uuid, p_cascade uuid, p_blobs uuid[]) returns uuid[]
language plpgsql as $$
declare v_deleted uuid[]; v_retired uuid[]; v_revived uuid[];
begin
  select array_agg(id) into v_deleted from blobs
    where user_id = p_user and id = any(p_blobs) and deleted_at is not null;
  while v_deleted is not null loop
    select array_agg(distinct d.id) into v_retired from derivations d
      where d.user_id = p_user and d.hold is distinct from 'retired' and (
        exists (select from derivation_inputs i where i.user_id = p_user and i.derivation_id = d.id
                and i.blob_id = any(v_deleted) and i.required)
        or exists (select from derivation_outputs o where o.user_id = p_user and o.derivation_id = d.id
                   and o.blob_id = any(v_deleted)));
    exit when v_retired is null;
    perform studio_rest(p_user, v_retired, 'retired');
    -- on_delete: delete takes the outputs along, and so their dependants.
    with doomed as (
      select b.* from derivations d join providers p on p.id = d.provider_id
      join derivation_outputs o on o.user_id = d.user_id and o.derivation_id = d.id
      join blobs b on b.user_id = o.user_id and b.id = o.blob_id
      where d.user_id = p_user and d.id = any(v_retired) and p.on_delete = 'delete'
        and b.version > 0 and b.deleted_at is null
    ), logged as (
      insert into deltas (user_id, id, blob_id, from_version, to_version, operation, document_hash, content_hash,
          cutoff_hash, meta_hash, actor, provider_id, cascade_id, applied_at)
        select p_user, studio_uuid7(), id, version, version + 1, 'delete', document_hash, content_hash, cutoff_hash,
          meta_hash, 'provider:' || provider_id, provider_id, p_cascade, now() from doomed
        returning blob_id, to_version
    ), buried as (
      update blobs b set version = l.to_version, planned_version = l.to_version, deleted_at = now(), updated_at = now()
        from logged l where b.user_id = p_user and b.id = l.blob_id returning b.id
    ) select array_agg(id) into v_deleted from buried;
  end loop;
  select array_agg(d.id) into v_revived from derivations d
    where d.user_id = p_user and d.hold = 'retired'
      and (exists (select from derivation_inputs i where i.user_id = p_user and i.derivation_id = d.id
                   and i.blob_id = any(p_blobs))
        or exists (select from derivation_outputs o where o.user_id = p_user and o.derivation_id = d.id
                   and o.blob_id = any(p_blobs)))
      and not exists (
        select from (
          select i.blob_id from derivation_inputs i where i.user_id = p_user and i.derivation_id = d.id and i.required
          union all
          select o.blob_id from derivation_outputs o where o.user_id = p_user and o.derivation_id = d.id) x
        join blobs b on b.user_id = p_user and b.id = x.blob_id where b.deleted_at is not null);
  update derivations set hold = null where user_id = p_user and id = any(v_revived);
  return coalesce(v_revived, '{}');
end $$;

-- (De)activation and changed settings of one instance. Returns derivations to look at again.
create or replace function studio_follow_instance(p_user uuid, p_instance uuid) returns uuid[] language plpgsql as $$
declare v_active boolean; v_rest uuid[]; v_changed uuid[];
begin
  select exists (select from studio_active_providers(p_user) a where a.instance_id = p_instance) into v_active;
  if not v_active then
    select array_agg(id) into v_rest from derivations
      where user_id = p_user and instance_id = p_instance and hold is distinct from 'retired';
    if v_rest is not null then perform studio_rest(p_user, v_rest, 'inactive'); end if;
    return '{}';
  end if;
  with fresh as (
    select d.id, p.definition_digest || ':' || a.settings_digest as want, p.execution, p.supersede, p.reads_meta
    from derivations d join studio_active_providers(p_user) a on a.instance_id = d.instance_id
    join providers p on p.id = a.provider_id
    where d.user_id = p_user and d.instance_id = p_instance and d.hold is distinct from 'retired'
  ), changed as (
    update derivations d set want_digest = f.want, execution = f.execution, supersede = f.supersede,
        reads_meta = f.reads_meta, hold = case when d.hold = 'inactive' then null else d.hold end
      from fresh f where d.user_id = p_user and d.id = f.id and (d.hold = 'inactive' or d.want_digest <> f.want)
      returning d.id
  ) select array_agg(id) into v_changed from changed;
  -- A newer definition may have more slots.
  perform studio_add_outputs(p_user, d.id, p, b.root_id, coalesce(b.depth, 0) + 1)
    from derivations d join providers p on p.id = d.provider_id
    left join blobs b on b.user_id = d.user_id and b.id = d.anchor_id and d.anchor_kind = 'blob'
    where d.user_id = p_user and d.id = any(v_changed);
  return coalesce(v_changed, '{}');
end $$;

-- Blobs that a newly active instance might react to.
create or replace function studio_candidates(p_user uuid, p_instance uuid) returns uuid[] language sql stable as $$
  select coalesce(array_agg(b.id), '{}') from studio_active_providers(p_user) a
  join providers p on p.id = a.provider_id
  join blobs b on b.user_id = p_user and b.deleted_at is null
    and (p.input_schemas = '{}' or b.schema_id = any(p.input_schemas))
  where a.instance_id = p_instance and p.anchor = 'blob'
$$;

-- A person asks one provider to process one blob, whether or not it would have matched (seed 000, process).
create or replace function studio_ask(p_user uuid, p_cascade uuid, p_instance uuid, p_blob uuid)
returns table (derivation uuid, outputs uuid[]) language plpgsql as $$
declare v_provider providers; v_settings text;
begin
  derivation := studio_derivation_id(p_instance, p_blob);
  select a.settings_digest into v_settings from studio_active_providers(p_user) a where a.instance_id = p_instance;
  if not found or exists (select from studio_lineage(p_user, p_blob) l where l = p_instance) then return; end if;
  select p.* into v_provider from providers p join studio_active_providers(p_user) a on a.provider_id = p.id
    where a.instance_id = p_instance;
  outputs := coalesce(
    studio_derive(p_user, v_provider, p_instance, v_settings, 'blob', p_blob, p_cascade), '{}');
  return next;
end $$;

-- Everything below what moved is unsettled and ours; what moved itself is looked at afresh.
create or replace function studio_unsettle(p_user uuid, p_cascade uuid, p_direct uuid[]) returns int
language plpgsql as $$
declare v_all uuid[]; v_former uuid[]; v_cancel uuid[];
begin
  with recursive down (id) as (
    select d.id from derivations d where d.user_id = p_user and d.id = any(p_direct)
      and d.hold is distinct from 'inactive' and d.hold is distinct from 'retired'
    union
    select x.id from down n cross join lateral (
      select d.id from derivation_outputs o
      join derivation_inputs i on i.user_id = o.user_id and i.blob_id = o.blob_id and i.tracks
      join derivations d on d.user_id = i.user_id and d.id = i.derivation_id
      where o.user_id = p_user and o.derivation_id = n.id
        and d.hold is distinct from 'inactive' and d.hold is distinct from 'retired' offset 0) x
  ) select array_agg(id) into v_all from down;
  if v_all is null then return 0; end if;
  select array_agg(id) into v_cancel from derivations
    where user_id = p_user and id = any(p_direct) and run_id is not null and supersede = 'cancel';
  if v_cancel is not null then perform studio_drop_runs(p_user, v_cancel, p_cascade); end if;
  select array_agg(distinct c.id) into v_former from derivations d
    join cascades c on c.user_id = d.user_id and c.id = d.owner_cascade_id
    where d.user_id = p_user and d.id = any(v_all) and d.unsettled and d.owner_cascade_id <> p_cascade;
  update derivations d set unsettled = true, owner_cascade_id = p_cascade,
      dirty_since = coalesce(d.dirty_since, now()),
      run_after = case when p.debounce_ms > 0 and d.id = any(p_direct)
        then c.created_at + make_interval(secs => p.debounce_ms / 1000.0) else d.run_after end,
      hold = case when d.id = any(p_direct) and d.hold in ('failed', 'conflict') then null else d.hold end,
      hold_detail = case when d.id = any(p_direct) and d.hold in ('failed', 'conflict') then null else d.hold_detail end
    from providers p, cascades c
    where d.user_id = p_user and d.id = any(v_all) and p.id = d.provider_id
      and c.user_id = p_user and c.id = p_cascade;
  perform studio_recount(p_user, v_all, p_cascade);
  if v_former is not null then
    update cascades set superseded_by = p_cascade
      where user_id = p_user and id = any(v_former) and status in ('pending', 'running');
    perform studio_ring(p_user, v_former);
  end if;
  return cardinality(v_all);
end $$;

create or replace function plan_cascade(p_user uuid, p_cascade uuid, p_depth_max int, p_nodes_max int)
returns table (planned boolean, touched int, problem text) language plpgsql as $$
#variable_conflict use_column
declare
  v_cascade cascades%rowtype; v_direct uuid[] := '{}'; v_new uuid[] := '{}'; v_buckets uuid[]; v_more uuid[];
  v_moved uuid[]; v_outputs uuid[]; v_round int := 0; v_problem text; v_touched int;
begin
  perform studio_lock(p_user);
  -- Lock order: the blob before its cascade, as append_delta does, else an edit and its plan could wait for each other.
  perform from blobs b join cascades c on c.user_id = b.user_id and c.target_id = b.id
    where c.user_id = p_user and c.id = p_cascade for update of b;
  select * into v_cascade from cascades c where c.user_id = p_user and c.id = p_cascade for update;
  if not found or v_cascade.planned_at is not null then
    return query select false, coalesce(v_cascade.touched, 0), null::text; return;
  end if;

  with moved as (select * from studio_advance(p_user, p_cascade))
  select coalesce(array_agg(blob), '{}'), coalesce((
      select array_agg(distinct i.derivation_id) from moved m
      join derivation_inputs i on i.user_id = p_user and i.blob_id = m.blob and i.tracks
      join derivations d on d.user_id = p_user and d.id = i.derivation_id
      where m.body or (m.meta and d.reads_meta)), '{}')
    into v_moved, v_direct from moved;
  v_direct := v_direct || studio_follow_deletions(p_user, p_cascade, v_moved);
  v_new := v_moved;
  select coalesce(array_agg(distinct m.bucket_id), '{}') into v_buckets from bucket_blobs m
    where m.user_id = p_user and m.blob_id = any(v_moved);

  if v_cascade.cause = 'bucket' then
    perform studio_inherit(p_user, v_cascade.target_id);
    v_buckets := v_buckets || v_cascade.target_id;
  elsif v_cascade.cause = 'provider' then
    v_direct := v_direct || studio_follow_instance(p_user, v_cascade.instance_id);
    v_new := v_new || studio_candidates(p_user, v_cascade.instance_id) || coalesce((
      select array_agg(o.blob_id) from derivation_outputs o
      where o.user_id = p_user and o.derivation_id = any(v_direct)), '{}');
    select v_buckets || coalesce(array_agg(k.id), '{}') into v_buckets from buckets k
      where k.user_id = p_user and k.deleted_at is null;
  elsif v_cascade.cause = 'process' then
    select v_direct || coalesce(array_agg(derivation), '{}'), v_new || coalesce(
        (select array_agg(o) from studio_ask(p_user, p_cascade, v_cascade.instance_id, v_cascade.target_id) a,
         unnest(a.outputs) o), '{}')
      into v_direct, v_new
      from (select studio_derivation_id(v_cascade.instance_id, v_cascade.target_id) as derivation) x;
  end if;

  -- Discovery, one generation of outputs after the other.
  while cardinality(v_new) > 0 or cardinality(v_buckets) > 0 loop
    v_round := v_round + 1;
    if v_round > p_depth_max then v_problem := 'depth'; exit; end if;
    with matched as materialized (select * from studio_match(p_user, p_cascade, v_new))
    select coalesce((select array_agg(m.derivation) from matched m), '{}'),
           coalesce((select array_agg(o) from matched m, unnest(m.outputs) o), '{}')
      into v_more, v_outputs;
    v_direct := v_direct || v_more;
    select coalesce(array_agg(distinct m.bucket_id), '{}') || v_buckets into v_buckets from bucket_blobs m
      where m.user_id = p_user and m.blob_id = any(v_outputs);
    with joins as (select * from studio_sync_joins(p_user, p_cascade, v_buckets))
    select v_direct || coalesce(array_agg(j.derivation), '{}'), v_outputs || coalesce(
        (select array_agg(o) from joins k, unnest(k.outputs) o), '{}')
      into v_direct, v_outputs from joins j;
    v_new := v_outputs; v_buckets := '{}';
    if cardinality(v_direct) > p_nodes_max then v_problem := 'nodes'; exit; end if;
  end loop;

  v_touched := studio_unsettle(p_user, p_cascade, v_direct);
  update cascades c set planned_at = now(), status = 'running', touched = v_touched,
      error = case when v_problem is not null then jsonb_build_object('code', 'too_many', 'bound', v_problem) end
    where c.user_id = p_user and c.id = p_cascade;
  perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'cascade.started',
    'subject', 'cascades/' || p_cascade, 'key', coalesce(v_cascade.target_id, v_cascade.id), 'data',
    jsonb_build_object('cascade_id', p_cascade, 'user_id', p_user, 'cause', v_cascade.cause, 'touched', v_touched))));
  return query select true, v_touched, v_problem;
end $$;
