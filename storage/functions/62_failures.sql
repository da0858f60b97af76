-- What a failure means further down: who goes on without what has failed, and what comes back when it is over; redrives,
-- and newer definitions on request. The recount that follows failures is studio_recount (20_schedule.sql).

-- Those of these that go on without something that is failing.
create or replace function studio_going_on(p_user uuid, p_derivations uuid[]) returns uuid[] language plpgsql stable as $$
begin
  if not exists (select from derivations where user_id = p_user and (failing or provisional is not null)) then
    return '{}';
  end if;
  return (select coalesce(array_agg(d.id), '{}') from unnest(p_derivations) x(id)
    cross join lateral (select id, on_parent_failure from derivations
      where user_id = p_user and id = x.id and on_parent_failure <> 'block' offset 0) d
    where exists (
      select from (select blob_id from derivation_inputs
        where user_id = p_user and derivation_id = d.id and (tracks or used_hash is null) offset 0) i
      cross join lateral (select derivation_id from derivation_outputs
        where user_id = p_user and blob_id = i.blob_id offset 0) o
      cross join lateral (select from derivations
        where user_id = p_user and id = o.derivation_id and unsettled and failing offset 0) p
      where studio_stands_in(p_user, d.on_parent_failure, i.blob_id)));
end $$;

-- Of these, settled below a failure, take back those for which none stands any more, or which is being cured: unsettled
-- again with all that is below, owned by the cascade that makes what was failing.
create or replace function studio_take_back(p_user uuid, p_provisional uuid[], p_quiet uuid default null)
returns void language plpgsql as $$
declare v_id uuid; v_owner uuid; v_taken uuid[]; v_all uuid[] := '{}'; v_stand uuid[];
begin
  v_stand := studio_going_on(p_user, p_provisional);
  for v_id in select d.id from derivations d
    where d.user_id = p_user and d.id = any(p_provisional) and d.provisional is not null
      and (d.pending_inputs > 0 or not d.id = any(v_stand)) order by d.id
  loop
    v_owner := coalesce((
      select p.owner_cascade_id from (select blob_id from derivation_inputs
        where user_id = p_user and derivation_id = v_id and (tracks or used_hash is null) offset 0) i
      cross join lateral (select derivation_id from derivation_outputs
        where user_id = p_user and blob_id = i.blob_id offset 0) o
      cross join lateral (select id, owner_cascade_id from derivations
        where user_id = p_user and id = o.derivation_id and unsettled and not failing offset 0) p
      order by p.id limit 1), (select owner_cascade_id from derivations where user_id = p_user and id = v_id));
    with taken as (
      update derivations set unsettled = true, owner_cascade_id = v_owner, provisional = null
        where user_id = p_user and id = any(studio_below(p_user, array[v_id])) and not unsettled returning id
    ) select coalesce(array_agg(id), '{}') into v_taken from taken;
    v_all := v_all || v_taken;
    if v_owner is distinct from p_quiet then perform studio_ring(p_user, array[v_owner]); end if;
  end loop;
  if v_all <> '{}' then perform studio_recount(p_user, v_all || studio_dependants(p_user, v_all), p_quiet); end if;
end $$;

-- Inputs of these that are of an older generation: something that they are made from is failing, or was skipped.
create or replace function studio_stale_inputs(p_user uuid, p_derivations uuid[]) returns uuid[]
language plpgsql stable as $$
begin
  if not exists (select from derivations where user_id = p_user and (failing or provisional is not null)) then
    return '{}';
  end if;
  return (
    with recursive up (blob_id, id) as (  -- blob_id: the input of ours that it comes in by, null for us
      select null::uuid, id from unnest(p_derivations) id
      union
      select coalesce(u.blob_id, i.blob_id), p.id from up u
      cross join lateral (select blob_id from derivation_inputs
        where user_id = p_user and derivation_id = u.id and (tracks or used_hash is null) offset 0) i
      cross join lateral (select derivation_id from derivation_outputs
        where user_id = p_user and blob_id = i.blob_id offset 0) o
      cross join lateral (select id from derivations where user_id = p_user and id = o.derivation_id
        and hold is distinct from 'inactive' and hold is distinct from 'retired' offset 0) p
    )
    select coalesce(array_agg(distinct u.blob_id), '{}') from up u
    cross join lateral (select from derivations
      where user_id = p_user and id = u.id and (unsettled or provisional = 'skipped') offset 0) d
    where u.blob_id is not null);
end $$;

-- What is to run anyway runs with the newest definition of a provider that others define, if that makes the same slots:
-- who asks for an upgrade gets it everywhere.
create or replace function studio_renew(p_user uuid, p_derivations uuid[]) returns boolean language plpgsql as $$
declare v_older uuid[];
begin
  select array_agg(d.id) into v_older from unnest(p_derivations) x(id)
    cross join lateral (select * from derivations where user_id = p_user and id = x.id offset 0) d
    cross join lateral (select * from providers where id = d.provider_id offset 0) p
    where p.owner_id <> p_user and p.definition_digest <> split_part(d.want_digest, ':', 1)
      and not exists (select from jsonb_array_elements(p.outputs) o where not exists (
        select from derivation_outputs q where q.user_id = p_user and q.derivation_id = d.id and q.slot = o->>'slot'));
  if v_older is null then return false; end if;
  -- Switched off since, or replaced, by a cause that is not planned yet: what wakes nothing must not be tried for ever.
  select array_agg(d.id) into v_older from derivations d where d.user_id = p_user and d.id = any(v_older)
    and d.instance_id in (select instance_id from studio_active_providers(p_user));
  if v_older is null then return false; end if;
  perform studio_wake(p_user, v_older, true);
  perform studio_recount(p_user, v_older);
  return true;
end $$;

-- Plan of a redrive: free what is still failed, to run whatever it wants by now. What has settled since is left alone.
create or replace function studio_redriven(p_user uuid, p_cascade uuid) returns uuid[] language plpgsql as $$
declare v_failed uuid[];
begin
  select array_agg(distinct d.id) into v_failed from dead_letters l
    join derivations d on d.user_id = l.user_id and d.id = l.derivation_id and d.hold = 'failed'
    where l.user_id = p_user and l.redriven_by = p_cascade;
  if v_failed is null then return '{}'; end if;
  perform studio_wake(p_user, v_failed, true);
  update derivations set force = true, hold = null, hold_detail = null where user_id = p_user and id = any(v_failed);
  return v_failed;
end $$;

-- Plan of an upgrade: what wants an older definition or older defaults than its provider has now.
create or replace function studio_outdated(p_user uuid, p_instance uuid) returns uuid[] language plpgsql as $$
declare v_known uuid[];
begin
  select array_agg(id) into v_known from derivations where user_id = p_user and instance_id = p_instance
    and hold is distinct from 'inactive' and hold is distinct from 'retired';
  return case when v_known is null then '{}' else studio_wake(p_user, v_known, true) end;
end $$;
