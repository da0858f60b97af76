-- A clock that was put back: what was due in a minute is due in a day, a lease lasts as long, a doorbell was rung tomorrow.

-- What is further ahead than it can have been set is brought back to where it can be, and whoever is open looks again.
-- p_lease and p_wait are how far ahead a lease, and a time to run, are ever set. Returns how many rows were ahead.
create or replace function correct_clock(p_user uuid, p_lease interval, p_wait interval) returns int
language plpgsql as $$
declare v_count int := 0; v_more int;
begin
  perform studio_lock(p_user);
  update runs set lease_until = now() + p_lease
    where user_id = p_user and status = 'running' and lease_until > now() + 2 * p_lease;
  get diagnostics v_more = row_count; v_count := v_count + v_more;
  update memo set lease_until = now()
    where user_id = p_user and state = 'leased' and lease_until > now() + p_wait;
  get diagnostics v_more = row_count; v_count := v_count + v_more;
  -- Nobody can say any more how much of the wait is over: it is.
  update derivations set run_after = now()
    where user_id = p_user and unsettled and (run_after > now() + p_wait or run_after > now() and dirty_since > now());
  get diagnostics v_more = row_count; v_count := v_count + v_more;
  update derivations set dirty_since = now() where user_id = p_user and dirty_since > now();
  update root_runs set since = now() where user_id = p_user and since > now();
  update cascades set seq = seq + 1, rung_at = now()
    where user_id = p_user and status in ('pending', 'running') and rung_at > now();
  get diagnostics v_more = row_count;
  return v_count + v_more;
end $$;
