-- plan: what does this cause touch, known and newly matching; mark it unsettled, own it (CASCADES, Moves).

-- The user's effective activations: own and published providers; built-ins are active without a row. A provider of
-- one's own takes the place of a published one with its name, on or off.
create or replace function studio_active_providers(p_user uuid)
returns table (provider_id uuid, instance_id uuid, has_row boolean) language sql stable as $$
  select p.id, coalesce(i.id, studio_instance_id(p_user, p.id)), i.id is not null
  from (  -- by their indexes: other people's, which are not ours to see, are not looked at
    (select id, owner_id, slug from providers where owner_id = p_user and active offset 0)
    union all
    (select id, owner_id, slug from providers where published and active and owner_id <> p_user offset 0)) p
  left join lateral (select * from instances where user_id = p_user and provider_id = p.id offset 0) i on true
  where coalesce(i.active, p.owner_id = '00000000-0000-0000-0000-000000000000')
    and (p.owner_id = p_user or not exists (
      select from providers o where o.owner_id = p_user and o.slug = p.slug and o.active offset 0))
$$;

-- What a run reads besides its inputs and its definition: settings, and what decides whether an input is wanted. It is
-- kept by its digest, and a run reads what its derivation wanted, whatever has been changed since. Never through jsonb,
-- which loses characters and reshapes numbers. A digest is 'pin-' and SHA-256; before there were pins it was another.
create or replace function studio_pin(p_user uuid, p_provider providers) returns text language plpgsql as $$
declare v_spec json := p_provider.spec::json; v_bytes bytea; v_digest text;
begin
  v_bytes := convert_to(json_build_object('defaults', v_spec->'settings', 'settings', coalesce((  -- no row, and one that nobody has touched, are the same
      select settings::json from instances where user_id = p_user and provider_id = p_provider.id), '{}'),
    'trigger_patterns', v_spec->'trigger_patterns', 'max_input_size', v_spec->'max_input_size')::text, 'UTF8');
  v_digest := encode(sha256(v_bytes), 'hex');
  perform studio_store(p_user, 'sha256:' || v_digest, octet_length(v_bytes), octet_length(v_bytes), 'identity', v_bytes,
    null);
  return 'pin-' || v_digest;
end $$;

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
  p_user uuid, p_provider providers, p_instance uuid, p_pin text, p_anchor_kind text, p_anchor uuid,
  p_cascade uuid
) returns uuid[] language plpgsql as $$
declare v_id uuid := studio_derivation_id(p_instance, p_anchor); v_outputs uuid[]; v_root uuid; v_depth int := 0;
begin
  insert into instances (user_id, id, provider_id) values (p_user, p_instance, p_provider.id) on conflict do nothing;
  insert into derivations (user_id, id, instance_id, provider_id, anchor_kind, anchor_id, execution, supersede,
      priority, reads_meta, want_digest, owner_cascade_id, on_parent_failure)
    values (p_user, v_id, p_instance, p_provider.id, p_anchor_kind, p_anchor, p_provider.execution,
      coalesce((select supersede from instances where user_id = p_user and id = p_instance), p_provider.supersede),
      p_provider.priority, p_provider.reads_meta, p_provider.definition_digest || ':' || p_pin, p_cascade,
      coalesce((select on_parent_failure from instances where user_id = p_user and id = p_instance),
        p_provider.on_parent_failure))
    on conflict do nothing;
  if not found then return null; end if;
  if p_anchor_kind = 'blob' then
    select root_id, depth into v_root, v_depth from blobs where user_id = p_user and id = p_anchor;
    insert into derivation_inputs (user_id, derivation_id, blob_id, tracks)
      values (p_user, v_id, p_anchor, 'onEdit' = any(p_provider.events));
    update derivations d set level = 1 + coalesce((
        select max(x.level) from (select derivation_id from derivation_outputs
          where user_id = p_user and blob_id = p_anchor offset 0) o
        cross join lateral (select level from derivations
          where user_id = p_user and id = o.derivation_id offset 0) x), 0)
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

-- What discovery knows for the length of one plan: who reacts to which schema (null: to any), and which instances stand above
-- a blob. Without them each generation would ask for every provider again, and walk up to the root again.
do $$ begin
  if to_regtype('reacting') is null then
    create type reacting as (provider_id uuid, instance_id uuid, schema text, content_types text[], origin text);
  end if;
  if to_regtype('standing') is null then create type standing as (blob uuid, above uuid[]); end if;
end $$;

create or replace function studio_reacting(p_user uuid) returns reacting[] language sql stable as $$
  select coalesce(array_agg((a.provider_id, a.instance_id, s.schema, p.content_types, p.origin)::reacting), '{}')
  from studio_active_providers(p_user) a
  cross join lateral (select * from providers where id = a.provider_id offset 0) p
  left join lateral (select distinct unnest(p.input_schemas)) s(schema) on true
  where p.anchor = 'blob' and p.events && array['onCreate', 'onEdit']
$$;

-- Which active providers match these blobs on declared schema, type, origin and are not there yet (CASCADES rule 8), at
-- most p_room. depth: where a derivation would stand, counted through what made the blob and through the lineage that
-- clients state (parent_id), so that a loop through somebody's own writes grows as well as one through providers. above:
-- the instances among the blob's producers, null where nobody had to know: an instance without derivations is not there.
drop function if exists studio_matches(uuid, uuid[], int);
create or replace function studio_matches(
  p_user uuid, p_blobs uuid[], p_room int, p_reacting reacting[] default null, p_standing standing[] default null
) returns table (blob uuid, provider_id uuid, instance_id uuid, depth int, above uuid[]) language sql stable as $$
  with active as materialized (select * from unnest(coalesce(p_reacting, studio_reacting(p_user)))),
  candidates as materialized (
    select b.id, b.schema_id, b.provider_id, b.depth,
      lower(btrim(split_part(b.content_type, ';', 1))) as content_type
    from unnest(p_blobs) x(id)
    cross join lateral (select * from blobs where user_id = p_user and id = x.id and deleted_at is null offset 0) b
  ), pairs as (
    select b, a from candidates b join active a on a.schema = b.schema_id
    union all
    select b, a from candidates b join active a on a.schema is null
  )
  select (p.b).id, (p.a).provider_id, (p.a).instance_id, 1 + greatest((p.b).depth, (
      select d.level from (select derivation_id from derivation_outputs
        where user_id = p_user and blob_id = (p.b).id offset 0) o
      cross join lateral (select level from derivations where user_id = p_user and id = o.derivation_id offset 0) d)),
    u.above
  from pairs p
  left join unnest(p_standing) s on s.blob = (p.b).id
  cross join lateral (select case when s.above is not null then s.above
    when exists (select from derivations where user_id = p_user and derivations.instance_id = (p.a).instance_id offset 0)
      then array(select studio_lineage(p_user, (p.b).id)) end as above offset 0) u
  where ((p.a).content_types = '{}' or exists (select from unnest((p.a).content_types) t
      where (p.b).content_type like replace(replace(t, '_', '\_'), '*', '%')))
    and ((p.a).origin = 'any' or (p.b).provider_id is null)
    and not exists (select from derivations d
      where d.user_id = p_user and d.anchor_id = (p.b).id and d.instance_id = (p.a).instance_id offset 0)
    and (u.above is null or (p.a).instance_id <> all(u.above))
  order by 1, 2 limit greatest(p_room, 0)
$$;

-- Make derivations of what matches: at most p_room of them, none deeper than p_depth_max. What a bound stops is answered
-- as such (which blob, which provider, which bound), and not made: a plan that makes more than it may does not even end.
drop function if exists studio_match(uuid, uuid, uuid[]);
drop function if exists studio_match(uuid, uuid, uuid[], int);
drop function if exists studio_match(uuid, uuid, uuid[], int, int);
create or replace function studio_match(
  p_user uuid, p_cascade uuid, p_blobs uuid[], p_room int, p_depth_max int, p_reacting reacting[], p_standing standing[]
) returns table (derivation uuid, outputs uuid[], stopped jsonb, above uuid[]) language plpgsql as $$
declare v record; v_provider providers; v_outputs uuid[]; v_pins jsonb := '{}'; v_room int := greatest(p_room, 0);
begin
  for v in select m.* from studio_matches(p_user, p_blobs, v_room + 1, p_reacting, p_standing) m
  loop
    select * into v_provider from providers where id = v.provider_id;
    derivation := null; outputs := null; above := null;
    stopped := jsonb_build_object('blob_id', v.blob, 'provider_id', v_provider.slug, 'bound',
      case when v.depth > p_depth_max then 'depth' when v_room = 0 then 'nodes' end);
    if stopped->>'bound' is not null then return next; continue; end if;
    stopped := null;
    if not v_pins ? v.provider_id::text then
      v_pins := v_pins || jsonb_build_object(v.provider_id, studio_pin(p_user, v_provider));
    end if;
    v_outputs := studio_derive(p_user, v_provider, v.instance_id, v_pins->>v.provider_id::text, 'blob', v.blob, p_cascade);
    if v_outputs is not null then
      v_room := v_room - 1;
      derivation := studio_derivation_id(v.instance_id, v.blob); outputs := v_outputs;
      if v.above is not null then above := v.above || v.instance_id; end if;
      return next;
    end if;
  end loop;
end $$;

-- Buckets of joins above these blobs, which another join reads no longer, that may collect more now: what is made from
-- that join was refused to them, as long as it would have closed a cycle.
create or replace function studio_opened(p_user uuid, p_blobs uuid[]) returns uuid[] language sql stable as $$
  with recursive up (derivation_id) as (
    select o.derivation_id from unnest(p_blobs) x(id)
    cross join lateral (select derivation_id from derivation_outputs
      where user_id = p_user and blob_id = x.id offset 0) o
    union
    select o.derivation_id from up u
    cross join lateral (select blob_id from derivation_inputs
      where user_id = p_user and derivation_id = u.derivation_id offset 0) i
    cross join lateral (select derivation_id from derivation_outputs
      where user_id = p_user and blob_id = i.blob_id offset 0) o
  )
  select array_agg(distinct d.anchor_id) from up
  cross join lateral (select id, anchor_id, provider_id from derivations
    where user_id = p_user and id = up.derivation_id and anchor_kind = 'bucket' offset 0) d
  cross join lateral (select collect_schema from providers where id = d.provider_id offset 0) p
  where exists (select from (select blob_id from bucket_blobs
      where user_id = p_user and bucket_id = d.anchor_id offset 0) m
    cross join lateral (select schema_id, deleted_at from blobs
      where user_id = p_user and id = m.blob_id offset 0) b
    where b.schema_id = p.collect_schema and b.deleted_at is null and not exists (
      select from derivation_inputs where user_id = p_user and derivation_id = d.id and blob_id = m.blob_id offset 0))
$$;

-- Blobs made from a derivation, however indirectly, whoever is asleep in between.
create or replace function studio_made_below(p_user uuid, p_derivation uuid) returns uuid[] language sql stable as $$
  with recursive down (blob_id) as (
    select blob_id from derivation_outputs where user_id = p_user and derivation_id = p_derivation
    union
    select o.blob_id from down n
    cross join lateral (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = n.blob_id offset 0) i
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = i.derivation_id offset 0) o
  ) select coalesce(array_agg(blob_id), '{}') from down
$$;

-- Hold joins against their buckets: which blobs do they collect now, in which order? Returns what changed, and the blobs
-- to be matched: new ones, and those below a join that reads something made no longer, for they stem from fewer instances.
create or replace function studio_sync_joins(p_user uuid, p_cascade uuid, p_buckets uuid[])
returns table (derivation uuid, outputs uuid[]) language plpgsql as $$
declare
  v record; v_provider providers; v_id uuid; v_outputs uuid[]; v_put int; v_direct uuid[]; v_along uuid[];
  v_gone uuid[]; v_left uuid[];
begin
  while p_buckets <> '{}' loop  -- again where a cycle is no longer in the way: nothing is collected less by that
    v_left := '{}';
    for v in
      select k.id as bucket, a.*
      from (select distinct id from unnest(p_buckets) id) x
      cross join lateral (select id, type from buckets where user_id = p_user and id = x.id offset 0) k
      cross join lateral (select * from studio_active_providers(p_user) offset 0) a
      cross join lateral (select from providers
        where id = a.provider_id and anchor = 'bucket' and collect_bucket_type = k.type offset 0) p
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
        v_outputs := studio_derive(p_user, v_provider, v.instance_id, studio_pin(p_user, v_provider), 'bucket',
          v.bucket, p_cascade);
      end if;
      with wanted as (
        select m.blob_id, m.position from bucket_blobs m
        join blobs b on b.user_id = m.user_id and b.id = m.blob_id
        where m.user_id = p_user and m.bucket_id = v.bucket and b.schema_id = v_provider.collect_schema
          and b.deleted_at is null and (exists (select from derivation_inputs i  -- what is an input closes no cycle
            where i.user_id = p_user and i.derivation_id = v_id and i.blob_id = m.blob_id)
            or not studio_reaches(p_user, v_id, m.blob_id))
      ), gone as (
        delete from derivation_inputs i where i.user_id = p_user and i.derivation_id = v_id
          and not exists (select from wanted w where w.blob_id = i.blob_id) returning i.blob_id
      ), put as (
        insert into derivation_inputs as i (user_id, derivation_id, blob_id, role, position, required)
          select p_user, v_id, w.blob_id, 'member', w.position, false from wanted w
          on conflict (user_id, derivation_id, blob_id) do update set position = excluded.position
            where i.position <> excluded.position
          returning 1
      ) select (select array_agg(blob_id) from gone), (select count(*) from put) into v_gone, v_put;
      if v_gone is not null or v_put > 0 or v_outputs is not null then
        update derivations d set level = 1 + coalesce((
            select max(x.level) from derivation_inputs i
            join derivation_outputs o on o.user_id = i.user_id and o.blob_id = i.blob_id
            join derivations x on x.user_id = o.user_id and x.id = o.derivation_id
            where i.user_id = p_user and i.derivation_id = v_id), 0)
          where d.user_id = p_user and d.id = v_id;
        select c.direct, c.along into v_direct, v_along from studio_come_back(p_user, p_cascade, v_id) c;
        derivation := v_id; outputs := coalesce(v_outputs, '{}') || v_along;
        if exists (select from derivation_outputs o where o.user_id = p_user and o.blob_id = any(v_gone)) then
          outputs := outputs || studio_made_below(p_user, v_id);
        end if;
        return next;
        return query select x, '{}'::uuid[] from unnest(v_direct) x;
        v_left := v_left || coalesce(v_gone, '{}');
      end if;
    end loop;
    exit when v_left = '{}';
    p_buckets := studio_opened(p_user, v_left);
  end loop;
end $$;

-- Membership follows derivation: what is made from a member is a member, what is made from one that left has left.
create or replace function studio_inherit(p_user uuid, p_bucket uuid) returns void language plpgsql as $$
begin
  delete from bucket_blobs m where m.user_id = p_user and m.bucket_id = p_bucket
    and m.inherited_from is not null and m.inherited_from <> m.blob_id
    and not exists (select from bucket_blobs r where r.user_id = p_user and r.bucket_id = p_bucket
                    and r.blob_id = m.inherited_from and (r.inherited_from is null or r.inherited_from = r.blob_id));
  -- What a join makes is in its bucket by itself: its own root. Below two members, the nearer one is followed.
  with recursive down (blob_id, position, root, steps) as (
    select m.blob_id, m.position, m.blob_id, 0 from bucket_blobs m
      where m.user_id = p_user and m.bucket_id = p_bucket
        and (m.inherited_from is null or m.inherited_from = m.blob_id)
    union
    select o.blob_id, d.position, d.root, d.steps + 1 from down d
    join derivations x on x.user_id = p_user and x.anchor_kind = 'blob' and x.anchor_id = d.blob_id
    join derivation_outputs o on o.user_id = p_user and o.derivation_id = x.id
  )
  insert into bucket_blobs as m (user_id, bucket_id, blob_id, position, inherited_from)
    select distinct on (blob_id) p_user, p_bucket, blob_id, position, root from down where blob_id <> root
    order by blob_id, steps, root
    on conflict (user_id, bucket_id, blob_id)
      do update set position = excluded.position, inherited_from = excluded.inherited_from
      where m.inherited_from is not null and m.inherited_from <> m.blob_id
        and (m.position, m.inherited_from) <> (excluded.position, excluded.inherited_from);
end $$;

-- Advance the planned versions of the blobs that people changed under this cascade (CASCADES rule 1). A cause that
-- moves no planned version moves nothing (rule 3).
create or replace function studio_advance(p_user uuid, p_cascade uuid)
returns table (blob uuid, body boolean, meta boolean) language sql as $$
  with last as (
    select distinct on (d.blob_id) d.blob_id, d.to_version, d.cutoff_hash, d.meta_hash from deltas d
    where d.user_id = p_user and d.cascade_id = p_cascade and d.status = 'applied'
      and (d.run_id is null or d.operation = 'update')  -- what a run proposed and a person accepted
    order by d.blob_id, d.to_version desc
  )
  update blobs b set planned_version = l.to_version, planned_hash = l.cutoff_hash, planned_meta_hash = l.meta_hash
  from last l join blobs old on old.user_id = p_user and old.id = l.blob_id
  where b.user_id = p_user and b.id = l.blob_id and l.to_version > old.planned_version
  returning b.id, old.planned_hash is distinct from l.cutoff_hash, old.planned_meta_hash is distinct from l.meta_hash
$$;

-- A provider's outputs go with their source, or come back with it: a delta each, which the schedule sees at once.
create or replace function studio_take_along(p_user uuid, p_cascade uuid, p_blobs uuid[], p_operation text)
returns void language plpgsql as $$
declare v_now timestamptz;
begin
  perform from blobs where user_id = p_user and id = any(p_blobs) order by id for no key update;
  v_now := clock_timestamp();
  insert into deltas (user_id, id, blob_id, from_version, to_version, operation, patch, inverse, document_hash,
      content_hash, cutoff_hash, meta_hash, actor, provider_id, previous_delta, cascade_id, applied_at)
    select p_user, studio_uuid7(), b.id, b.version, b.version + 1, p_operation, '[]', '[]', b.document_hash,
      b.content_hash, b.cutoff_hash, b.meta_hash, 'provider:' || b.provider_id, b.provider_id,
      (select d.id from deltas d where d.user_id = p_user and d.blob_id = b.id and d.to_version = b.version
         and d.status = 'applied'),
      p_cascade, greatest(v_now, b.updated_at + interval '1 microsecond')
    from blobs b where b.user_id = p_user and b.id = any(p_blobs);
  -- The document is as it was: where the last kept version has it, the new one is kept for a row, and however often an
  -- output goes and comes, no reading has to pass all those times.
  insert into snapshots (user_id, blob_id, version, document_hash)
    select p_user, b.id, b.version + 1, b.document_hash from blobs b
    join snapshots s on s.user_id = b.user_id and s.blob_id = b.id and s.version = b.kept_version
    where b.user_id = p_user and b.id = any(p_blobs) and s.document_hash = b.document_hash;
  update blobs b set version = b.version + 1, planned_version = b.version + 1, planned_hash = b.cutoff_hash,
      planned_meta_hash = b.meta_hash, deleted_at = case p_operation when 'delete' then v_now end,
      kept_version = case when k.kept then b.version + 1 else b.kept_version end,
      patch_bytes = case when k.kept then 0 else b.patch_bytes end,
      updated_at = greatest(v_now, b.updated_at + interval '1 microsecond')
    from (select c.id, exists (select from snapshots s where s.user_id = p_user and s.blob_id = c.id
            and s.version = c.version + 1) as kept
          from blobs c where c.user_id = p_user and c.id = any(p_blobs)) k
    where b.user_id = p_user and b.id = k.id;
end $$;

-- What deletion and restoration mean for the schedule (CASCADES rule 9). Returns the derivations to look at again, and
-- the outputs that went or came along.
create or replace function studio_follow_deletions(p_user uuid, p_cascade uuid, p_blobs uuid[])
returns table (direct uuid[], along uuid[]) language plpgsql as $$
declare v_deleted uuid[]; v_restored uuid[]; v_found uuid[];
begin
  direct := '{}'; along := '{}';
  select array_agg(id) filter (where deleted_at is not null), array_agg(id) filter (where deleted_at is null)
    into v_deleted, v_restored from blobs where user_id = p_user and id = any(p_blobs);
  while v_deleted is not null loop
    select array_agg(distinct d.id) into v_found from derivations d
      where d.user_id = p_user and d.hold is distinct from 'retired' and (
        exists (select from derivation_inputs i where i.user_id = p_user and i.derivation_id = d.id
                and i.blob_id = any(v_deleted) and i.required)
        or exists (select from derivation_outputs o where o.user_id = p_user and o.derivation_id = d.id
                   and o.blob_id = any(v_deleted)));
    exit when v_found is null;
    perform studio_rest(p_user, v_found, 'retired');
    -- on_delete: delete takes the outputs along, and so their dependants.
    select array_agg(b.id) into v_deleted from derivations d join providers p on p.id = d.provider_id
      join derivation_outputs o on o.user_id = d.user_id and o.derivation_id = d.id
      join blobs b on b.user_id = o.user_id and b.id = o.blob_id
      where d.user_id = p_user and d.id = any(v_found) and p.on_delete = 'delete'
        and b.version > 0 and b.deleted_at is null;
    if v_deleted is not null then
      perform studio_take_along(p_user, p_cascade, v_deleted, 'delete');
      along := along || v_deleted;
    end if;
  end loop;
  -- What nothing deleted stands in the way of any more. An output that went along comes back along; one that a
  -- person deleted stays away, and its derivation retired.
  while v_restored is not null loop
    select array_agg(d.id) into v_found from derivations d
      where d.user_id = p_user and d.hold = 'retired'
        and (exists (select from derivation_inputs i where i.user_id = p_user and i.derivation_id = d.id
                     and i.blob_id = any(v_restored))
          or exists (select from derivation_outputs o where o.user_id = p_user and o.derivation_id = d.id
                     and o.blob_id = any(v_restored)))
        and not exists (select from derivation_inputs i join blobs b on b.user_id = i.user_id and b.id = i.blob_id
          where i.user_id = p_user and i.derivation_id = d.id and i.required and b.deleted_at is not null)
        and not exists (select from derivation_outputs o join blobs b on b.user_id = o.user_id and b.id = o.blob_id
          join deltas x on x.user_id = b.user_id and x.blob_id = b.id and x.to_version = b.version
            and x.status = 'applied'
          where o.user_id = p_user and o.derivation_id = d.id and b.deleted_at is not null and x.provider_id is null);
    exit when v_found is null;
    select array_agg(b.id) into v_restored from derivation_outputs o
      join blobs b on b.user_id = o.user_id and b.id = o.blob_id
      where o.user_id = p_user and o.derivation_id = any(v_found) and b.deleted_at is not null;
    if v_restored is not null then
      perform studio_take_along(p_user, p_cascade, v_restored, 'restore');
      along := along || v_restored;
    end if;
    -- Switched off, or changed, while it was retired.
    update derivations d set hold = 'inactive' where d.user_id = p_user and d.id = any(v_found);
    perform studio_wake(p_user, v_found);
    direct := direct || v_found;
  end loop;
  return next;
end $$;

-- Bring derivations in line with their provider as it is now, and those that it switched on out of their sleep.
-- Returns those that have to be looked at again. A newer definition of somebody else's provider alone is no reason to make
-- anything again, unless p_renew: it costs money that nobody here agreed to.
create or replace function studio_wake(p_user uuid, p_derivations uuid[], p_renew boolean default false)
returns uuid[] language plpgsql as $$
declare v_changed uuid[];
begin
  with pinned as materialized (  -- once a provider, not once a derivation
    select a.instance_id, p.*, studio_pin(p_user, p) as pin, coalesce(i.on_conflict, p.on_conflict) as policy,
      coalesce(i.supersede, p.supersede) as overtaken, coalesce(i.on_parent_failure, p.on_parent_failure) as without
    from studio_active_providers(p_user) a join providers p on p.id = a.provider_id
    left join instances i on i.user_id = p_user and i.id = a.instance_id
    where a.instance_id in (select instance_id from derivations where user_id = p_user and id = any(p_derivations))
  ), fresh as (
    select d.id, d.hold, d.want_digest, d.reads_meta as reads_before, p.execution, p.overtaken, p.priority, p.reads_meta,
      p.definition_digest || ':' || p.pin as want, 'onEdit' = any(p.events) as tracks, p.policy, p.without,
      -- Whoever settled below a failure, or waits below one, by another word than the one of now.
      d.on_parent_failure <> p.without and d.hold is null and (d.unsettled or d.provisional is not null) as differs,
      not p_renew and p.owner_id <> p_user and split_part(d.want_digest, ':', 2) = p.pin as stays
    from derivations d join pinned p on p.instance_id = d.instance_id
    where d.user_id = p_user and d.id = any(p_derivations) and d.hold is distinct from 'retired'
  ), updated as (
    update derivations d set want_digest = case when f.stays then d.want_digest else f.want end,
        execution = case when f.stays then d.execution else f.execution end,
        reads_meta = case when f.stays then d.reads_meta else f.reads_meta end, supersede = f.overtaken,
        priority = f.priority, on_parent_failure = f.without,
        hold = case when d.hold = 'inactive' then null else d.hold end
      from fresh f where d.user_id = p_user and d.id = f.id
  ), followed as (
    update derivation_inputs i set tracks = f.tracks from fresh f
      where i.user_id = p_user and i.derivation_id = f.id and i.tracks <> f.tracks and i.role = 'source' and not f.stays
      returning i.derivation_id
  )
  select array_agg(id) into v_changed from fresh
    where hold = 'inactive' or not stays and (want <> want_digest or reads_meta <> reads_before) or differs
      -- What waits for a person waits no more, once the policy is another. Nothing else depends on it.
      or hold = 'conflict' and policy <> 'wait'
      or id in (select derivation_id from followed);
  -- A newer definition may have more slots.
  perform studio_add_outputs(p_user, d.id, p, b.root_id, coalesce(b.depth, 0) + 1)
    from derivations d join providers p on p.id = d.provider_id
    left join blobs b on b.user_id = d.user_id and b.id = d.anchor_id and d.anchor_kind = 'blob'
    where d.user_id = p_user and d.id = any(v_changed) and split_part(d.want_digest, ':', 1) = p.definition_digest;
  return coalesce(v_changed, '{}');
end $$;

-- (De)activation and changed settings of one instance. Returns derivations to look at again.
create or replace function studio_follow_instance(p_user uuid, p_instance uuid) returns uuid[] language plpgsql as $$
declare v_known uuid[]; v_changed uuid[];
begin
  select array_agg(id) into v_known from derivations
    where user_id = p_user and instance_id = p_instance and hold is distinct from 'retired';
  if v_known is null then return '{}'; end if;
  if exists (select from studio_active_providers(p_user) a where a.instance_id = p_instance) then
    v_changed := studio_wake(p_user, v_known);
    perform studio_repace(p_user, v_known);
    return v_changed;
  end if;
  perform studio_rest(p_user, v_known, 'inactive');
  return '{}';
end $$;

-- Blobs that a newly active instance might react to.
create or replace function studio_candidates(p_user uuid, p_instance uuid) returns uuid[] language sql stable as $$
  select coalesce(array_agg(b.id), '{}')
  from (select provider_id from studio_active_providers(p_user) where instance_id = p_instance offset 0) a
  cross join lateral (select input_schemas from providers where id = a.provider_id and anchor = 'blob' offset 0) p
  cross join lateral (select id from blobs where user_id = p_user and deleted_at is null
    and (p.input_schemas = '{}' or schema_id = any(p.input_schemas)) offset 0) b
$$;

-- A person asks one provider to process one blob, whether or not it would have matched (seed 000, process).
create or replace function studio_ask(p_user uuid, p_cascade uuid, p_instance uuid, p_blob uuid)
returns table (derivation uuid, outputs uuid[]) language plpgsql as $$
declare v_provider providers;
begin
  derivation := studio_derivation_id(p_instance, p_blob);
  select p.* into v_provider from providers p join studio_active_providers(p_user) a on a.provider_id = p.id
    where a.instance_id = p_instance;
  -- Since the person asked, the provider may have been switched off and the blob deleted.
  if not found or exists (select from studio_lineage(p_user, p_blob) l where l = p_instance)
    or not exists (select from blobs where user_id = p_user and id = p_blob and deleted_at is null) then return; end if;
  outputs := coalesce(studio_derive(
    p_user, v_provider, p_instance, studio_pin(p_user, v_provider), 'blob', p_blob, p_cascade), '{}');
  return next;
end $$;

-- Everything below what moved is unsettled and ours; what moved itself is looked at afresh.
create or replace function studio_unsettle(p_user uuid, p_cascade uuid, p_direct uuid[]) returns int
language plpgsql as $$
declare v_all uuid[] := studio_below(p_user, p_direct); v_former uuid[]; v_tried uuid[]; v_mine jsonb;
begin
  if v_all is null then
    perform studio_recount(p_user, p_direct);
    return 0;
  end if;
  perform studio_supersede(p_user, p_direct, p_cascade);
  with theirs as (
    select d.owner_cascade_id as id, count(*)::int as taken from derivations d
      where d.user_id = p_user and d.id = any(v_all) and d.unsettled and d.owner_cascade_id <> p_cascade group by 1
  ), former as (
    update cascades c set taken = c.taken + t.taken from theirs t where c.user_id = p_user and c.id = t.id returning c.id
  ) select array_agg(id) into v_former from former;
  -- What moved itself is tried again. Found before: whether a row is among ten thousand would be asked ten thousand times.
  select array_agg(d.id) into v_tried from unnest(p_direct) x(id)
    cross join lateral (select id from derivations
      where user_id = p_user and id = x.id and (hold in ('failed', 'conflict', 'budget') or losses > 0) offset 0) d;
  if v_tried is not null then
    update derivations set losses = 0, hold = case when hold not in ('failed', 'conflict', 'budget') then hold end,
        hold_detail = case when hold not in ('failed', 'conflict', 'budget') then hold_detail end
      where user_id = p_user and id = any(v_tried);
  end if;
  -- Where nothing fails, pending_inputs is counted in the same write: what is to be unsettled is known before it is.
  -- Whether a maker is among ten thousand is looked up, as a text that the planner cannot take for ten rows to go through.
  if not exists (select from derivations where user_id = p_user and (failing or provisional is not null)) then
    v_mine := (select jsonb_object_agg(id, true) from unnest(v_all) id);
  end if;
  update derivations d set unsettled = true, owner_cascade_id = p_cascade, provisional = null,
      dirty_since = coalesce(d.dirty_since, c.created_at),
      run_after = studio_due(x.quiet_ms, x.longest_ms, c.cause, c.caused_at, coalesce(d.dirty_since, c.created_at)),
      -- Cancelled is what a cause before this one did.
      hold = nullif(d.hold, 'cancelled'), hold_detail = case when d.hold = 'cancelled' then null else d.hold_detail end,
      pending_inputs = coalesce(w.waits, d.pending_inputs)
    from studio_pace(p_user, v_all) x
    cross join (select cause, caused_at, created_at from cascades where user_id = p_user and id = p_cascade offset 0) c
    left join lateral (select count(*)::int as waits
      from (select blob_id from derivation_inputs
        where user_id = p_user and derivation_id = x.id and (tracks or used_hash is null) offset 0) i
      cross join lateral (select derivation_id from derivation_outputs
        where user_id = p_user and blob_id = i.blob_id offset 0) o
      where v_mine ? o.derivation_id::text or exists (select from derivations
        where user_id = p_user and id = o.derivation_id and unsettled offset 0)) w on v_mine is not null
    where d.user_id = p_user and d.id = x.id;
  -- What is asleep is counted as well: it may wake at any time.
  if v_mine is null then
    perform studio_recount(p_user, p_direct || v_all || studio_dependants(p_user, v_all), p_cascade);
  else
    perform studio_recount(p_user, array(select x.id from unnest(p_direct || studio_dependants(p_user, v_all)) x(id)
      where not v_mine ? x.id::text), p_cascade);
  end if;
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
  v_moved uuid[]; v_outputs uuid[]; v_made int := 0; v_problem text; v_touched int; v_along jsonb; v_count int;
  v_stopped jsonb := '[]'; v_reacting reacting[]; v_standing standing[] := '{}';
begin
  perform studio_lock(p_user);
  -- Lock order: the blob before its cascade, as append_delta does, else an edit and its plan could wait for each other.
  perform from blobs b join cascades c on c.user_id = b.user_id and c.target_id = b.id
    where c.user_id = p_user and c.id = p_cascade for no key update of b;
  select * into v_cascade from cascades c where c.user_id = p_user and c.id = p_cascade for update;
  if not found or v_cascade.planned_at is not null then
    return query select false, coalesce(v_cascade.touched, 0), null::text; return;
  end if;

  with moved as (select * from studio_advance(p_user, p_cascade))
  select coalesce(array_agg(blob), '{}'), coalesce((
      select array_agg(distinct i.derivation_id) from moved m
      join derivation_inputs i on i.user_id = p_user and i.blob_id = m.blob and (i.tracks or i.used_hash is null)
      join derivations d on d.user_id = p_user and d.id = i.derivation_id
      where m.body or (m.meta and d.reads_meta)), '{}')
    into v_moved, v_direct from moved;
  select v_direct || f.direct, v_moved || f.along into v_direct, v_moved
    from studio_follow_deletions(p_user, p_cascade, v_moved) f;
  -- A person's words on an output that waits for a decision are the decision: its merge is tried again.
  v_direct := v_direct || coalesce((select array_agg(d.id) from derivation_outputs o
    join derivations d on d.user_id = o.user_id and d.id = o.derivation_id and d.hold = 'conflict'
    where o.user_id = p_user and o.blob_id = any(v_moved) and exists (select from deltas x
      where x.user_id = p_user and x.blob_id = o.blob_id and x.status = 'proposed'
        and x.run_id::text = d.hold_detail->>'run_id')), '{}');
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
    -- Asked for is asked for: it runs although nothing changed, whatever held it.
    perform studio_drop_runs(p_user, array(select d.id from derivations d
      where d.user_id = p_user and d.id = any(v_direct) and d.hold = 'approval'));
    update derivations d set force = true, hold = null, hold_detail = null
      where d.user_id = p_user and d.id = any(v_direct)
        and d.hold is distinct from 'inactive' and d.hold is distinct from 'retired';
  elsif v_cascade.cause = 'redrive' then
    v_direct := v_direct || studio_redriven(p_user, p_cascade);
  elsif v_cascade.cause = 'provider_change' then
    v_direct := v_direct || studio_outdated(p_user, v_cascade.instance_id);
    v_new := v_new || coalesce((select array_agg(o.blob_id) from derivation_outputs o
      where o.user_id = p_user and o.derivation_id = any(v_direct)), '{}');
  elsif v_cascade.cause = 'reprocess' then
    v_direct := v_direct || studio_reprocess(p_user, v_cascade);
  end if;

  -- Discovery, one generation of outputs after the other, until nothing matches or a bound stops it.
  v_reacting := studio_reacting(p_user);
  while cardinality(v_new) > 0 or cardinality(v_buckets) > 0 loop
    with matched as materialized (
      select * from studio_match(p_user, p_cascade, v_new, p_nodes_max - v_made, p_depth_max, v_reacting, v_standing)
    )
    select coalesce((select array_agg(m.derivation) from matched m where m.derivation is not null), '{}'),
           coalesce((select array_agg(o) from matched m, unnest(m.outputs) o), '{}'),
           v_stopped || coalesce((select jsonb_agg(x.stopped) from (
             select m.stopped from matched m where m.stopped is not null limit 5) x), '[]'),
           coalesce((select array_agg((o, m.above)::standing) from matched m, unnest(m.outputs) o
             where m.above is not null), '{}')
      into v_more, v_outputs, v_stopped, v_standing;
    v_direct := v_direct || v_more;
    v_made := v_made + cardinality(v_more);
    select coalesce(array_agg(distinct m.bucket_id), '{}') || v_buckets into v_buckets from bucket_blobs m
      where m.user_id = p_user and m.blob_id = any(v_outputs);
    with joins as (select * from studio_sync_joins(p_user, p_cascade, v_buckets))
    select v_direct || coalesce(array_agg(j.derivation), '{}'), coalesce(
        (select array_agg(o) from joins k, unnest(k.outputs) o), '{}')
      into v_direct, v_more from joins j;
    v_new := v_outputs || v_more;
    -- What a join made is itself in the bucket: another join may collect it.
    select coalesce(array_agg(distinct m.bucket_id), '{}') into v_buckets from bucket_blobs m
      where m.user_id = p_user and m.blob_id = any(v_more);
  end loop;
  v_problem := v_stopped->0->>'bound';

  perform studio_replan();
  v_touched := studio_unsettle(p_user, p_cascade, v_direct);
  if v_cascade.cause = 'provider' then  -- whom a change of policy concerns that is held, and so was not looked at
    perform studio_recount(p_user, (select array_agg(d.id) from derivations d where d.user_id = p_user
      and d.instance_id = v_cascade.instance_id and d.unsettled and d.hold is not null), p_cascade);
  end if;
  perform studio_call_up(p_user);
  update cascades c set planned_at = now(), status = 'running', touched = v_touched,
      -- Where it stopped, so that people can see it: the first few blobs, and who would have reacted to them.
      error = case when v_problem is not null then jsonb_build_object('code', 'too_many', 'bound', v_problem, 'limit',
        case v_problem when 'depth' then p_depth_max else p_nodes_max end,
        'stopped', jsonb_path_query_array(v_stopped, '$[0 to 4]')) end
    where c.user_id = p_user and c.id = p_cascade;
  select events, blobs into v_along, v_count from studio_along(p_user, p_cascade);
  perform studio_emit(p_user, v_along || jsonb_build_array(jsonb_build_object('type', 'cascade.started',
    'subject', 'cascades/' || p_cascade, 'key', coalesce(v_cascade.target_id, v_cascade.id), 'data',
    jsonb_build_object('cascade_id', p_cascade, 'user_id', p_user, 'cause', v_cascade.cause, 'touched', v_touched))),
    v_count);
  return query select true, v_touched, v_problem;
end $$;
