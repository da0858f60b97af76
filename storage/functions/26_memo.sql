-- Memo: the answer of a paid or pure step under a key that covers everything it depends on (domain/memo.py), so that nothing
-- is paid for twice. Who calls holds a lease; who comes meanwhile waits for the answer. Nothing in the schedule reads it.
-- Lock order: a run's row, then its memo's, several by key; neither under the user lock unless by fail_run, which takes
-- them so as well.

-- A step begins: its run's lease is extended, the step is recorded, and with a key the memo is asked, all in one round trip.
-- status: 'running', or what the run has ended as. memo: 'hit' (the answer is in the other columns), 'mine' (call; the
-- lease is ours until p_patience is over), 'leased' (another run is calling), null (no key was given).
-- Of a run that is to pay again (reprocess with force) only answers count that were begun since that was asked for.
-- attempt: the number of this beginning of the step; no other has it.
drop function if exists begin_step(uuid, uuid, text, int, text, interval, text, interval);
create function begin_step(
  p_user uuid, p_run uuid, p_step text, p_position int, p_type text, p_lease interval, p_key text default null,
  p_patience interval default null
) returns table (status text, memo text, maker uuid, usage jsonb, hash text, size bigint, codec text, body bytea,
  location text, attempt int) language plpgsql as $$
#variable_conflict use_column
declare v_run runs%rowtype; v_memo memo%rowtype; v_attempt int;
begin
  perform set_config('app.user_id', p_user::text, true);
  update runs r set lease_until = now() + p_lease where r.user_id = p_user and r.id = p_run and r.status = 'running'
    returning * into v_run;
  if not found then
    return query select coalesce((select r.status from runs r where r.user_id = p_user and r.id = p_run), 'superseded'),
      null::text, null::uuid, null::jsonb, null::text, null::bigint, null::text, null::bytea, null::text, null::int;
    return;
  end if;
  insert into run_steps as s (user_id, run_id, step_id, position, type, status, memo_key, calls)
    values (p_user, p_run, p_step, p_position, p_type, 'running', p_key, 1)
    on conflict (user_id, run_id, step_id) do update set calls = s.calls + 1,
      status = case when s.status = 'done' then s.status else 'running' end,
      ended_at = case when s.status = 'done' then s.ended_at end,
      memo_key = case when s.status = 'done' then s.memo_key else p_key end
    returning s.calls into v_attempt;
  if p_key is null then
    return query select 'running', null::text, null::uuid, null::jsonb, null::text, null::bigint, null::text, null::bytea,
      null::text, v_attempt;
    return;
  end if;
  update memo m set used_at = now()
    where m.user_id = p_user and m.key = p_key and m.output_hash is not null
      and m.created_at >= coalesce(v_run.fresh_after, '-infinity')
      and exists (select from contents c where c.user_id = p_user and c.hash = m.output_hash)
    returning * into v_memo;
  if found then
    return query select 'running', 'hit', v_memo.run_id, v_memo.usage, c.hash, c.size, c.codec, c.body, c.location,
      v_attempt from contents c where c.user_id = p_user and c.hash = v_memo.output_hash;
    return;
  end if;
  insert into memo as m (user_id, key, state, run_id, step_id, provider_id, leased_by, lease_until)
    values (p_user, p_key, 'leased', p_run, p_step, v_run.provider_id, p_run, now() + p_patience)
    on conflict (user_id, key) do update set state = 'leased', leased_by = p_run, lease_until = excluded.lease_until
      where m.leased_by is null or m.leased_by = p_run or m.lease_until < now()
    returning * into v_memo;
  return query select 'running', case when found then 'mine' else 'leased' end, null::uuid, null::jsonb, null::text,
    null::bigint, null::text, null::bytea, null::text, v_attempt;
end $$;

-- A step has ended: what it added is recorded (its first record stays), whatever has become of its run, for what was paid
-- for is kept. With a key its answer goes into the memo, unless that has a newer one; p_reused: it came from there.
create or replace function end_step(
  p_user uuid, p_run uuid, p_step text, p_usage jsonb, p_hash text, p_size bigint, p_stored_size bigint, p_codec text,
  p_body bytea, p_location text, p_reused uuid default null, p_key text default null, p_memo_usage jsonb default null,
  p_answer_hash text default null, p_answer_size bigint default null, p_answer_stored_size bigint default null,
  p_answer_codec text default null, p_answer_body bytea default null, p_answer_location text default null
) returns void language plpgsql as $$
declare v_step run_steps%rowtype;
begin
  perform set_config('app.user_id', p_user::text, true);
  perform studio_store(p_user, p_hash, p_size, p_stored_size, p_codec, p_body, p_location);
  update run_steps s set status = 'done', output_hash = p_hash, usage = p_usage, error = null, ended_at = now(),
      attempts = s.attempts + 1,
      reused_from = p_reused
    where s.user_id = p_user and s.run_id = p_run and s.step_id = p_step and s.status <> 'done';
  if p_key is null then return; end if;
  select * into v_step from run_steps s where s.user_id = p_user and s.run_id = p_run and s.step_id = p_step;
  perform studio_store(p_user, p_answer_hash, p_answer_size, p_answer_stored_size, p_answer_codec, p_answer_body,
    p_answer_location);
  insert into memo as m (user_id, key, state, run_id, step_id, provider_id, output_hash, usage, created_at)
    select p_user, p_key, 'done', p_run, p_step, r.provider_id, p_answer_hash, p_memo_usage, coalesce(v_step.started_at, now())
      from runs r where r.user_id = p_user and r.id = p_run
    on conflict (user_id, key) do update set state = 'done', run_id = excluded.run_id, step_id = excluded.step_id,
      provider_id = excluded.provider_id, leased_by = null, lease_until = null, output_hash = excluded.output_hash,
      usage = excluded.usage, created_at = excluded.created_at, used_at = now()
      where m.output_hash is null or m.created_at <= excluded.created_at;
end $$;

-- All steps of runs that were carried out as wholes, in one go: none of them calls, so none is in the memo. What is
-- recorded already stays. In one statement with settle_runs, after it: content that both name is locked in one order.
create or replace function end_steps(
  p_user uuid, p_runs uuid[], p_steps text[], p_positions int[], p_types text[], p_hashes text[], p_sizes bigint[],
  p_stored_sizes bigint[], p_codecs text[], p_bodies bytea[], p_locations text[]
) returns void language plpgsql as $$
begin
  perform set_config('app.user_id', p_user::text, true);
  insert into contents as c (user_id, hash, size, stored_size, codec, tier, body, location)
    select distinct on (x.hash) p_user, x.hash, x.size, x.stored_size, x.codec,
      case when x.location is null then 'warm' else 'cold' end, x.body, x.location
    from unnest(p_hashes, p_sizes, p_stored_sizes, p_codecs, p_bodies, p_locations)
      x(hash, size, stored_size, codec, body, location)
    order by x.hash
    on conflict (user_id, hash) do update set touched_at = now() where c.touched_at < now() - interval '1 minute';
  insert into run_steps as s (user_id, run_id, step_id, position, type, status, output_hash, ended_at, attempts)
    select p_user, x.run, x.step, x.position, x.type, 'done', x.hash, now(), 1
    from unnest(p_runs, p_steps, p_positions, p_types, p_hashes) x(run, step, position, type, hash)
    on conflict (user_id, run_id, step_id) do update set status = 'done', output_hash = excluded.output_hash,
      error = null, ended_at = now(), attempts = s.attempts + 1
      where s.status <> 'done';
end $$;

-- A run has failed: whoever waits for what it was calling need not wait until its leases are over.
create or replace function studio_release_memo(p_user uuid, p_run uuid) returns void language plpgsql as $$
declare v_keys text[];
begin
  select array_agg(memo_key) into v_keys from run_steps
    where user_id = p_user and run_id = p_run and memo_key is not null and status <> 'done';
  if v_keys is null then return; end if;
  perform from memo where user_id = p_user and key = any(v_keys) and leased_by = p_run order by key for update;
  delete from memo where user_id = p_user and key = any(v_keys) and leased_by = p_run and output_hash is null;
  update memo set state = 'done', leased_by = null, lease_until = null
    where user_id = p_user and key = any(v_keys) and leased_by = p_run;
end $$;

-- What a run's steps were answered is not good: it broke a schema further on, or a person has rejected it. Nobody gets
-- it any more, and who asks next pays for another.
create or replace function studio_distrust(p_user uuid, p_run uuid) returns void language plpgsql as $$
declare v_keys text[];
begin
  perform set_config('app.user_id', p_user::text, true);
  select array_agg(memo_key) into v_keys from run_steps
    where user_id = p_user and run_id = p_run and memo_key is not null and status = 'done';
  if v_keys is null then return; end if;
  perform from memo where user_id = p_user and key = any(v_keys) order by key for update;
  delete from memo where user_id = p_user and key = any(v_keys) and leased_by is null;
  update memo set output_hash = null where user_id = p_user and key = any(v_keys) and leased_by is not null;
end $$;

-- Forget answers that nobody asked for in a long time, and the longest unused of those beyond the bound. What is being
-- made stays, unless its maker must have died.
create or replace function drop_memo(p_user uuid, p_kept interval, p_max int, p_limit int) returns int
language plpgsql as $$
declare v_dropped int;
begin
  perform set_config('app.user_id', p_user::text, true);
  with old as (
    select m.key from memo m
    where m.user_id = p_user and coalesce(m.lease_until, '-infinity') < now() and (m.used_at < now() - p_kept
      or m.key in (select x.key from memo x where x.user_id = p_user order by x.used_at desc, x.key offset p_max))
    limit p_limit for update of m skip locked)
  delete from memo m using old where m.user_id = p_user and m.key = old.key;
  get diagnostics v_dropped = row_count;
  return v_dropped;
end $$;
