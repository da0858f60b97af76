-- How much of each user's runs, could run and waits: what an admin may see of others, ids and counts. The application sees
-- one user's rows at a time; these two alone run as their owner, whose policy on derivations is for them
-- (0003_cascades.sql). Their text is fixed, and so is where names are looked up.
create or replace function everybodys_queue(p_running int, p_ready int, p_user uuid, p_limit int)
returns table (user_id uuid, running int, ready int, waiting int, held int)
language sql stable security definer set search_path = pg_catalog, public, pg_temp as $$
  with open as (
    select d.user_id, count(*) filter (where d.run_id is not null and d.hold is null)::int as running,
      count(*) filter (where d.run_id is null and d.hold is null and d.pending_inputs = 0
        and (d.run_after is null or d.run_after <= now()))::int as ready,
      count(*) filter (where d.run_id is null and d.hold is null and not d.failing
        and (d.pending_inputs > 0 or d.run_after > now()))::int as waiting,
      count(*) filter (where d.hold not in ('failed', 'cancelled'))::int as held
    from public.derivations d where d.unsettled group by d.user_id
  )
  select o.user_id, o.running, o.ready, o.waiting, o.held from open o
  where p_running is null or (o.running, o.ready, o.user_id) < (p_running, p_ready, p_user)
  order by o.running desc, o.ready desc, o.user_id desc limit p_limit
$$;

create or replace function everybodys_totals()
returns table (users int, running int, ready int, waiting int, held int)
language sql stable security definer set search_path = pg_catalog, public, pg_temp as $$
  select count(*)::int, coalesce(sum(q.running), 0)::int, coalesce(sum(q.ready), 0)::int,
    coalesce(sum(q.waiting), 0)::int, coalesce(sum(q.held), 0)::int
  from public.everybodys_queue(null, null, null, null) q
$$;

revoke all on function everybodys_queue(int, int, uuid, int), everybodys_totals() from public;
grant execute on function everybodys_queue(int, int, uuid, int), everybodys_totals() to studio_app;
