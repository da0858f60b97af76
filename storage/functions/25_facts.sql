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
returns interval language sql stable as $$
  select coalesce(sum(coalesce(s.ended_at, p_ended) - s.started_at), interval '0') from run_steps s
  where s.user_id = p_user and s.run_id = p_run and s.type = 'approval' and s.started_at >= p_started
    and coalesce(s.ended_at, p_ended) <= p_ended
$$;
