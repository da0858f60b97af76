-- Pace: when a derivation may run after an edit, what becomes of a run that an edit overtakes, who comes first.

-- How long edits may keep dropping a derivation's runs: after that a run is left to finish (rule 6). The model has the
-- same number (domain/facts.py), and a test holds the two against each other.
create or replace function studio_patience() returns interval language sql immutable parallel safe as
$$ select interval '60 seconds' $$;

-- Whether people wait for what this cause sets in motion; the others make much work at once, and come after.
create or replace function studio_interactive(p_cause text) returns boolean language sql immutable parallel safe as $$
  select p_cause not in ('batch', 'provider', 'provider_change', 'redrive', 'reprocess', 'top_up')
$$;

-- When a debounced derivation may run, null: at once. Quiet since the last edit of its cause, or after the longest wait
-- since the first that no run has taken in. Both count from the cause, so a chain waits once (rule 10). What somebody
-- asked for by name does not wait.
create or replace function studio_due(
  p_quiet_ms int, p_longest_ms int, p_cause text, p_caused_at timestamptz, p_dirty_since timestamptz
) returns timestamptz language sql immutable parallel safe as $$
  select case when p_quiet_ms > 0 and p_cause not in ('process', 'reprocess', 'redrive', 'provider_change', 'top_up')
    then least(p_caused_at + make_interval(secs => p_quiet_ms / 1000.0),
      p_dirty_since + make_interval(secs => greatest(p_longest_ms, p_quiet_ms) / 1000.0)) end
$$;

-- The debounce of these derivations: the instance's own, else its provider's.
create or replace function studio_pace(p_user uuid, p_derivations uuid[])
returns table (id uuid, quiet_ms int, longest_ms int) language sql stable as $$
  select x.id, case when i.debounce_ms is null then p.debounce_ms else i.debounce_ms end,
    case when i.debounce_ms is null then p.debounce_max_ms else i.debounce_max_ms end
  from unnest(p_derivations) x(id)
  cross join lateral (select instance_id, provider_id from derivations where user_id = p_user and id = x.id offset 0) d
  cross join lateral (select debounce_ms, debounce_max_ms from providers where id = d.provider_id offset 0) p
  left join lateral (select debounce_ms, debounce_max_ms from instances
    where user_id = p_user and id = d.instance_id offset 0) i on true
$$;

-- Another debounce holds for what waits already: its owners look again, and wait for another time.
create or replace function studio_repace(p_user uuid, p_derivations uuid[]) returns void language plpgsql as $$
declare v_owners uuid[];
begin
  with paced as (
    select d.id, studio_due(x.quiet_ms, x.longest_ms, c.cause, c.caused_at, d.dirty_since) as due
    from studio_pace(p_user, p_derivations) x
    cross join lateral (select id, owner_cascade_id, dirty_since from derivations
      where user_id = p_user and id = x.id and unsettled and run_id is null offset 0) d
    cross join lateral (select cause, caused_at from cascades
      where user_id = p_user and id = d.owner_cascade_id offset 0) c
  ), moved as (
    update derivations d set run_after = p.due from paced p
      where d.user_id = p_user and d.id = p.id and d.run_after is distinct from p.due
      returning d.owner_cascade_id
  ) select array_agg(distinct owner_cascade_id) into v_owners from moved;
  if v_owners is not null then perform studio_ring(p_user, v_owners); end if;
end $$;

-- What a settled run has not taken in came after it began: the longest wait counts from there again.
create or replace function studio_wait_anew(p_user uuid, p_runs uuid[]) returns void language sql as $$
  update derivations d set dirty_since = n.started_at, run_after = n.due from (
    select x.id, r.started_at, studio_due(x.quiet_ms, x.longest_ms, c.cause, c.caused_at, r.started_at) as due
    from (select derivation_id, started_at from runs where user_id = p_user and id = any(p_runs) offset 0) r
    cross join lateral (select owner_cascade_id from derivations
      where user_id = p_user and id = r.derivation_id and unsettled offset 0) u
    cross join lateral (select cause, caused_at from cascades where user_id = p_user and id = u.owner_cascade_id offset 0) c
    cross join lateral studio_pace(p_user, array[r.derivation_id]) x) n
  where d.user_id = p_user and d.id = n.id
$$;
