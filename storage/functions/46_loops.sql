-- Loops that no lineage shows: a provider's service that writes through the API is a person to us. What keeps running is
-- put off, never dropped: it waits until its window has passed, its cascade stays open and says why.

-- Those of p_ready that may run now. The others are due once they have had fewer than p_runs_max runs within the window, or
-- what stems from the same root has had fewer than p_root_max.
create or replace function studio_within_bounds(
  p_user uuid, p_cascade uuid, p_ready uuid[], p_runs_max int, p_root_max int, p_window interval
) returns uuid[] language plpgsql as $$
declare v_late jsonb; v_free uuid[]; v_roots uuid[];
begin
  with ready as materialized (
    select d.id, x.ord, d.anchor_id, d.level,
      case d.anchor_kind when 'bucket' then d.anchor_id else coalesce(a.root_id, d.anchor_id) end as root_id,
      -- How long the run took to come round that would be one too many: one probe, and none while there were fewer.
      (select r.started_at + p_window from runs r where r.user_id = p_user and r.derivation_id = d.id
         and d.attempt >= p_runs_max and r.attempt = d.attempt - p_runs_max + 1
         and r.started_at > now() - p_window limit 1) as due
    from unnest(p_ready) with ordinality x(id, ord)
    cross join lateral (select * from derivations where user_id = p_user and id = x.id offset 0) d
    left join lateral (select root_id from blobs where user_id = p_user and id = d.anchor_id offset 0) a on true
  ), counted as (
    select r.*, c.since, row_number() over (partition by r.root_id order by r.ord)
      + case when c.since > now() - p_window then c.runs else 0 end as nth
    from ready r left join lateral (select * from root_runs
      where user_id = p_user and root_id = r.root_id offset 0) c on true
    where r.due is null
  ), late as (
    select r.id, r.root_id, r.due, 'derivation' as per, p_runs_max as most from ready r where r.due is not null
    union all
    select c.id, c.root_id, p_window + case when c.since > now() - p_window then c.since else now() end, 'root',
      p_root_max from counted c where c.nth > p_root_max
  ), put_off as (
    update derivations d set run_after = l.due from late l where d.user_id = p_user and d.id = l.id
      returning d.id
  )
  select array_agg(c.id order by c.ord) filter (where c.nth <= p_root_max),
      array_agg(c.root_id) filter (where c.nth <= p_root_max),
      (select jsonb_build_object('code', 'too_many', 'bound', 'runs', 'per', min(l.per), 'limit', min(l.most),
          'until', min(l.due), 'stopped', (select jsonb_agg(jsonb_build_object('derivation_id', x.id, 'root_id',
            x.root_id, 'bound', 'runs')) from (select * from late order by due, id limit 5) x))
        from late l having count(*) > 0)
    into v_free, v_roots, v_late from counted c;
  insert into root_runs as k (user_id, root_id, since, runs)
    select p_user, x.root_id, now(), count(*) from unnest(v_roots) x(root_id) group by x.root_id
    on conflict (user_id, root_id) do update set
      since = case when k.since > now() - p_window then k.since else now() end,
      runs = case when k.since > now() - p_window then k.runs else 0 end + excluded.runs;
  -- What was put off before and runs now is no error any more.
  update cascades c set error = v_late where c.user_id = p_user and c.id = p_cascade
    and (v_late is not null and coalesce(c.error->>'bound', 'runs') = 'runs'
      or v_late is null and c.error->>'bound' = 'runs' and not exists (select from derivations d
        where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled and d.run_after > now()));
  return v_free;
end $$;

-- Forget counts whose window has passed: they count as nothing.
create or replace function drop_root_runs(p_user uuid, p_window interval, p_limit int) returns int
language plpgsql as $$
declare v_dropped int;
begin
  perform set_config('app.user_id', p_user::text, true);
  with old as (
    select root_id from root_runs where user_id = p_user and since <= now() - p_window
    limit p_limit for update skip locked)
  delete from root_runs k using old where k.user_id = p_user and k.root_id = old.root_id;
  get diagnostics v_dropped = row_count;
  return v_dropped;
end $$;
