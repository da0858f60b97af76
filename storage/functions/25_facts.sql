-- Facts that explain why a cascade ran nothing where it ran nothing (what a run did to its outputs is in runs.effects).
-- Nothing in the schedule reads them; they are written in the transaction of the move that they are about.

-- A cascade has settled these without a run. Of several times the last one counts; how often is in cascades.cut_off.
create or replace function studio_note_cut_offs(p_user uuid, p_cascade uuid, p_derivations uuid[], p_reasons text[])
returns void language plpgsql as $$
begin
  insert into cut_offs (user_id, cascade_id, derivation_id, reason, detail)
    select p_user, p_cascade, x.id, x.reason, coalesce(m.detail, '{}')
    from unnest(p_derivations, p_reasons) x(id, reason)
    left join lateral (  -- what is not there to be read, ten of it
      select jsonb_build_object('missing', jsonb_agg(y.blob_id)) as detail from (
        select i.blob_id from (select blob_id, position from derivation_inputs
          where user_id = p_user and derivation_id = x.id offset 0) i
        cross join lateral (select from blobs
          where user_id = p_user and id = i.blob_id and planned_version = 0 offset 0) b
        order by i.position, i.blob_id limit 10) y
      where x.reason = 'no_input' having count(*) > 0) m on true
    on conflict (user_id, cascade_id, derivation_id)
      do update set reason = excluded.reason, detail = excluded.detail, created_at = now();
end $$;

-- Forget what was cut off long ago.
create or replace function drop_cut_offs(p_user uuid, p_kept interval, p_limit int) returns int language plpgsql as $$
declare v_dropped int;
begin
  perform set_config('app.user_id', p_user::text, true);
  with old as (
    select cascade_id, derivation_id from cut_offs
    where user_id = p_user and created_at < now() - p_kept limit p_limit for update skip locked)
  delete from cut_offs c using old
    where c.user_id = p_user and c.cascade_id = old.cascade_id and c.derivation_id = old.derivation_id;
  get diagnostics v_dropped = row_count;
  return v_dropped;
end $$;

-- How long a run waited for people: that is no time that its work takes.
create or replace function studio_waited(p_user uuid, p_run uuid, p_started timestamptz, p_ended timestamptz)
returns interval language plpgsql stable as $$
begin
  return (select coalesce(sum(coalesce(s.ended_at, p_ended) - s.started_at), interval '0') from run_steps s
    where s.user_id = p_user and s.run_id = p_run and s.type = 'approval' and s.started_at >= p_started
      and coalesce(s.ended_at, p_ended) <= p_ended);
end $$;

-- How far cascades are: what of theirs is unsettled, runs, has failed, and cannot go on. Blocked is found downwards, once
-- for all: what unsettled stands below a hold.
create or replace function studio_counts(p_user uuid, p_cascades uuid[])
returns table (cascade_id uuid, unsettled int, running int, failed int, blocked int) language sql stable as $$
  with recursive mine as (
    select d.owner_cascade_id as cascade_id, d.id, d.hold, d.run_id from derivations d
    where d.user_id = p_user and d.unsettled and d.owner_cascade_id = any(p_cascades)
  ), below (id) as (
    select d.id from derivations d where d.user_id = p_user and d.unsettled and d.hold is not null
      and exists (select from mine)
    union
    select x.id from below u cross join lateral (
      select d.id from derivation_outputs o
      join derivation_inputs i on i.user_id = o.user_id and i.blob_id = o.blob_id
      join derivations d on d.user_id = i.user_id and d.id = i.derivation_id
      where o.user_id = p_user and o.derivation_id = u.id and d.unsettled offset 0) x
  )
  select m.cascade_id, count(*)::int, (count(*) filter (where m.hold is null and m.run_id is not null))::int,
    (count(*) filter (where m.hold = 'failed'))::int,
    (count(*) filter (where m.hold <> 'failed' or (m.hold is null and m.run_id is null and b.id is not null)))::int
  from mine m left join below b on b.id = m.id group by m.cascade_id
$$;

-- How a cascade ended is history: later ones take over what it left, and settle it.
create or replace function studio_cascade_ended() returns trigger language plpgsql as $$
begin
  if not exists (select from derivations where user_id = new.user_id and owner_cascade_id = new.id and unsettled) then
    new.ended_counts := jsonb_build_object('unsettled', 0, 'running', 0, 'failed', 0, 'blocked', 0, 'taken', new.taken);
    return new;
  end if;
  new.ended_counts := (select jsonb_build_object('unsettled', coalesce(sum(n.unsettled), 0),
      'running', coalesce(sum(n.running), 0), 'failed', coalesce(sum(n.failed), 0),
      'blocked', coalesce(sum(n.blocked), 0), 'taken', new.taken)
    from studio_counts(new.user_id, array[new.id]) n);
  return new;
end $$;

-- Replacing a trigger locks out every writer: only where it is missing.
do $$ begin
  if not exists (select from pg_trigger where tgname = 'cascades_ended' and tgrelid = 'cascades'::regclass) then
    create trigger cascades_ended before update of status on cascades for each row
      when (new.status not in ('pending', 'running') and (new.status <> old.status or new.cut_off <> old.cut_off))
      execute function studio_cascade_ended();
  end if;
end $$;
