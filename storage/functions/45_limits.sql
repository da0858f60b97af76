-- Limits: how many runs a user, one of their providers, or a service that everybody shares may have at a time, and who
-- takes a place that is free. Held by claim, under the user lock; for services under a lock that all users share, since
-- row-level security hides what others run. domain/limits.py is the model of what one user's limits do.

-- A place is freed by whatever ends a run, and its service's with it: no move can forget it. One that goes on takes it
-- again.
create or replace function studio_runs_moved() returns trigger language plpgsql as $$
declare v_user uuid;
begin
  for v_user in select distinct n.user_id from now_runs n join were_runs o on o.user_id = n.user_id and o.id = n.id
      where o.status = 'running' and n.status <> 'running' loop
    delete from service_slots s using now_runs n
      where n.user_id = v_user and n.status <> 'running' and s.user_id = v_user and s.run_id = n.id;
    perform studio_offer(v_user);
  end loop;
  insert into service_slots (service, user_id, run_id)
    select s, n.user_id, n.id from now_runs n join were_runs o on o.user_id = n.user_id and o.id = n.id
    cross join lateral studio_services_of(n.user_id, n.derivation_id) s
    where n.status = 'running' and o.status = 'parked' on conflict do nothing;
  return null;
end $$;

create or replace function studio_runs_made() returns trigger language plpgsql as $$
begin
  insert into service_slots (service, user_id, run_id)
    select s, n.user_id, n.id from now_runs n cross join lateral studio_services_of(n.user_id, n.derivation_id) s
    where n.execution = 'workflow' and n.status = 'running' on conflict do nothing;
  return null;
end $$;

create or replace function studio_services_of(p_user uuid, p_derivation uuid) returns setof text language sql stable as $$
  select unnest(p.services) from (select provider_id from derivations
    where user_id = p_user and id = p_derivation offset 0) d
  cross join lateral (select services from providers where id = d.provider_id offset 0) p
$$;

-- Places of one limit that are in use: all runs of the user, those of one provider, or everybody's of a service.
create or replace function studio_in_use(p_user uuid, p_kind text, p_name text) returns int language plpgsql stable as $$
begin
  return case p_kind
    when 'user' then (select count(*) from runs where user_id = p_user and status = 'running')
    when 'provider' then (select count(*) from runs
      where user_id = p_user and provider_id = p_name and status = 'running')
    else (select count(*) from service_slots where service = p_name) end;
end $$;

-- Who waits for a place of one limit, the first first: what people wait for, then who has fewest in use (of a user's
-- cascades by runs, of users by places of the service), then who has waited longest.
create or replace function studio_waiters(p_user uuid, p_kind text, p_name text)
returns table (user_id uuid, cascade_id uuid, bulk boolean, used int, since timestamptz, rung boolean, cap int)
language sql stable as $$
  select w.user_id, w.cascade_id, not w.interactive, n.used, w.since, w.rung, w.cap from room_waits w
  cross join lateral (select case p_kind
    when 'service' then (select count(*)::int from service_slots s where s.service = p_name and s.user_id = w.user_id)
    else (select count(*)::int from runs r
      where r.user_id = w.user_id and r.cascade_id = w.cascade_id and r.status = 'running') end as used offset 0) n
  where w.kind = p_kind and w.name = p_name and (p_kind = 'service' or w.user_id = p_user)
  order by not w.interactive, n.used, w.since, w.cascade_id
$$;

-- What a cascade may take of a limit: a place is left to each that waits for it and comes before this one.
create or replace function studio_room(p_user uuid, p_cascade uuid, p_kind text, p_name text, p_cap int) returns int
language plpgsql as $$
declare v_bulk boolean; v_used int; v_since timestamptz; v_before int; v_room int;
begin
  v_room := p_cap - studio_in_use(p_user, p_kind, p_name);
  if v_room <= 0 or not exists (select from room_waits w where w.kind = p_kind and w.name = p_name
      and (p_kind = 'service' or w.user_id = p_user)) then return greatest(v_room, 0); end if;
  select not studio_interactive(c.cause) into v_bulk from cascades c where c.user_id = p_user and c.id = p_cascade;
  v_used := case p_kind when 'service'
    then (select count(*) from service_slots s where s.service = p_name and s.user_id = p_user)
    else (select count(*) from runs r where r.user_id = p_user and r.cascade_id = p_cascade and r.status = 'running') end;
  select w.since into v_since from room_waits w
    where w.user_id = p_user and w.cascade_id = p_cascade and w.kind = p_kind and w.name = p_name;
  select count(*) into v_before from studio_waiters(p_user, p_kind, p_name) w
    where (w.user_id, w.cascade_id) <> (p_user, p_cascade)
      and (w.bulk, w.used, w.since) < (v_bulk, v_used, coalesce(v_since, 'infinity'));
  return greatest(v_room - v_before, 0);
end $$;

-- Ring those who wait for a place that is free: no more of them than there are places. Of one user; those who wait for a
-- service may be others', whom only the relay can ring (studio_offer_services).
create or replace function studio_offer(p_user uuid) returns void language plpgsql as $$
declare v_limit record; v record; v_free int; v_ring uuid[] := '{}';
begin
  for v_limit in select w.kind, w.name, max(w.cap) as cap, count(*) filter (where w.rung)::int as promised
      from room_waits w where w.user_id = p_user and w.kind <> 'service' group by w.kind, w.name loop
    if v_limit.kind = 'user' then
      v_limit.cap := coalesce((select runs_limit from user_state where user_id = p_user), v_limit.cap);
    end if;
    v_free := v_limit.cap - studio_in_use(p_user, v_limit.kind, v_limit.name) - v_limit.promised;
    continue when v_free <= 0;
    for v in select * from studio_waiters(p_user, v_limit.kind, v_limit.name) where not rung limit v_free loop
      update room_waits w set rung = true where w.user_id = p_user and w.cascade_id = v.cascade_id
        and w.kind = v_limit.kind and w.name = v_limit.name;
      v_ring := v_ring || v.cascade_id;
    end loop;
  end loop;
  if v_ring <> '{}' then perform studio_ring(p_user, v_ring); end if;
end $$;

-- What the relay does before it delivers doorbells: the places of services that are free are offered to those who wait,
-- whoever they are. It rings many in one transaction, and moves lock the same rows in orders of their own: so it waits
-- for none of them. Who is locked is being looked at, and is offered what is left the next time.
create or replace function studio_offer_services() returns int language plpgsql as $$
declare v_limit record; v record; v_free int; v_count int := 0;
begin
  for v_limit in select w.name, min(w.cap) as cap, count(*) filter (where w.rung)::int as promised
      from room_waits w where w.kind = 'service' group by w.name loop
    v_free := v_limit.cap - (select count(*) from service_slots where service = v_limit.name) - v_limit.promised;
    continue when v_free <= 0;
    for v in select * from studio_waiters(null, 'service', v_limit.name) where not rung limit v_free loop
      perform from cascades where user_id = v.user_id and id = v.cascade_id for update skip locked;
      continue when not found;
      perform from room_waits where user_id = v.user_id and cascade_id = v.cascade_id and kind = 'service'
        and name = v_limit.name and not rung for update skip locked;
      continue when not found;
      update room_waits w set rung = true
        where w.user_id = v.user_id and w.cascade_id = v.cascade_id and w.kind = 'service' and w.name = v_limit.name;
      update cascades c set seq = c.seq + 1, rung_at = now() where c.user_id = v.user_id and c.id = v.cascade_id;
      v_count := v_count + 1;
    end loop;
  end loop;
  return v_count;
end $$;

-- What holds a provider's runs back besides the user's own limit: its own, and those of the services that it calls.
create or replace function studio_limits_of(p_provider uuid, p_limits jsonb)
returns table (kind text, name text, cap int) language sql stable as $$
  select 'provider', p.slug, p.max_concurrency from providers p where p.id = p_provider and p.max_concurrency is not null
  union all
  select 'service', s, (p_limits->'services'->>s)::int from providers p, unnest(p.services) s
    where p.id = p_provider and p_limits->'services' ? s
  order by 1, 2
$$;

-- Those to start now, by priority, level and id, as far as the window and the limits have room: {runs_per_user, services}.
-- What is left for want of a place is noted as a wait.
drop function if exists studio_choose(uuid, uuid, int, jsonb);
create or replace function studio_choose(p_user uuid, p_cascade uuid, p_window int, p_limits jsonb, p_busy uuid[])
returns uuid[] language plpgsql as $$
declare
  v record; v_limit record; v_room int; v_user_cap int; v_rooms jsonb := '{}'; v_held jsonb := '{}'; v_key text;
  v_chosen uuid[] := '{}'; v_full uuid[] := '{}'; v_known jsonb := '{}'; v_blocked boolean; v_free uuid[] := '{}';
  v_found boolean; v_priority int := -1; v_level int := -1; v_id uuid := '00000000-0000-0000-0000-000000000000';
begin
  v_user_cap := coalesce((select runs_limit from user_state where user_id = p_user), (p_limits->>'runs_per_user')::int);
  v_room := case when v_user_cap is null then p_window
    else least(p_window, studio_room(p_user, p_cascade, 'user', '', v_user_cap - cardinality(p_busy))) end;
  while cardinality(v_chosen) < v_room loop
    v_found := false;
    for v in select * from studio_ready(p_user, p_cascade, v_priority, v_level, v_id, v_room - cardinality(v_chosen),
        p_busy, v_full) loop
      v_found := true; v_priority := v.priority; v_level := v.level; v_id := v.id;
      continue when v.provider_id = any(v_full);
      if v.provider_id = any(v_free) then  -- nothing but the window holds it back, as nearly always
        v_chosen := v_chosen || v.id;
        continue;
      end if;
      if not v_known ? v.provider_id::text then
        for v_limit in select * from studio_limits_of(v.provider_id, p_limits) loop
          if v_limit.kind = 'service' then perform pg_advisory_xact_lock(7264700); end if;
          v_key := v_limit.kind || ' ' || v_limit.name;
          if not v_rooms ? v_key then
            v_rooms := v_rooms || jsonb_build_object(v_key,
              studio_room(p_user, p_cascade, v_limit.kind, v_limit.name, v_limit.cap));
          end if;
        end loop;
        v_known := v_known || jsonb_build_object(v.provider_id, (select coalesce(jsonb_agg(jsonb_build_object(
          'key', l.kind || ' ' || l.name, 'cap', l.cap)), '[]') from studio_limits_of(v.provider_id, p_limits) l));
        if v_known->(v.provider_id::text) = '[]' then v_free := v_free || v.provider_id; end if;
      end if;
      v_blocked := false;
      for v_limit in select l->>'key' as key, (l->>'cap')::int as cap
          from jsonb_array_elements(v_known->(v.provider_id::text)) l loop
        if (v_rooms->>v_limit.key)::int <= 0 then
          v_blocked := true;
          v_held := v_held || jsonb_build_object(v_limit.key, v_limit.cap);
        end if;
      end loop;
      if v_blocked then  -- who is behind it may have room
        v_full := v_full || v.provider_id;
        continue;
      end if;
      for v_key in select l->>'key' from jsonb_array_elements(v_known->(v.provider_id::text)) l loop
        v_rooms := v_rooms || jsonb_build_object(v_key, (v_rooms->>v_key)::int - 1);
      end loop;
      v_chosen := v_chosen || v.id;
    end loop;
    exit when not v_found;
  end loop;
  -- Who has sketches in hand looks again as soon as they are settled.
  if p_busy = '{}' and v_room < p_window and cardinality(v_chosen) = v_room
      and exists (select from studio_ready(p_user, p_cascade, v_priority, v_level, v_id, 1, p_busy, v_full)) then
    v_held := v_held || jsonb_build_object('user ', v_user_cap);
  end if;
  perform studio_note_waits(p_user, p_cascade, v_held, v_chosen <> '{}');
  return v_chosen;
end $$;

-- What holds a cascade back as of now, each with its cap. Who was served waits anew, so that those who wait take turns.
create or replace function studio_note_waits(p_user uuid, p_cascade uuid, p_held jsonb, p_served boolean) returns void
language plpgsql as $$
begin
  delete from room_waits w where w.user_id = p_user and w.cascade_id = p_cascade
    and not p_held ? (w.kind || ' ' || w.name);
  if p_held = '{}' then return; end if;
  insert into room_waits as w (user_id, cascade_id, kind, name, cap, interactive, since)
    select p_user, p_cascade, split_part(h.key, ' ', 1), substr(h.key, strpos(h.key, ' ') + 1), h.value::int,
      studio_interactive(c.cause), now()
    from jsonb_each_text(p_held) h join cascades c on c.user_id = p_user and c.id = p_cascade
    on conflict (user_id, cascade_id, kind, name) do update set rung = false, cap = excluded.cap,
      since = case when p_served then excluded.since else w.since end;
end $$;

-- Replacing a trigger locks out every writer: only where they are missing.
do $$ begin
  if not exists (select from pg_trigger where tgname = 'runs_moved' and tgrelid = 'runs'::regclass) then
    create trigger runs_moved after update on runs referencing old table as were_runs new table as now_runs
      for each statement execute function studio_runs_moved();
  end if;
  if not exists (select from pg_trigger where tgname = 'runs_made' and tgrelid = 'runs'::regclass) then
    create trigger runs_made after insert on runs referencing new table as now_runs
      for each statement execute function studio_runs_made();
  end if;
end $$;
