-- What people decide about work that is under way (domain/controls.py is the same as a model): approve, reject, cancel,
-- retry. Each answers 'done', 'already' where it had been done before, 'refused' where there is nothing left to decide,
-- and 'unknown'. Temporal hears of it by doorbells, and by stops.

-- Owners of what waits below these: their cascades may close, or go on.
create or replace function studio_owners_below(p_user uuid, p_derivations uuid[]) returns uuid[]
language sql stable as $$
  select coalesce(array_agg(distinct d.owner_cascade_id), '{}')
  from unnest(studio_below(p_user, p_derivations)) x(id)
  cross join lateral (select owner_cascade_id from derivations
    where user_id = p_user and id = x.id and unsettled offset 0) d
$$;

-- One event about each of these runs; more is added to its data.
create or replace function studio_run_events(p_user uuid, p_type text, p_runs uuid[], p_more jsonb) returns jsonb
language sql stable as $$
  select coalesce(jsonb_agg(jsonb_build_object('type', p_type, 'subject', 'runs/' || r.id, 'key', r.provider_id,
    'data', jsonb_build_object('run_id', r.id, 'user_id', p_user, 'derivation_id', r.derivation_id,
      'provider_id', r.provider_id, 'cascade_id', r.cascade_id, 'attempt', r.attempt) || p_more) order by r.id), '[]')
  from unnest(p_runs) x(id)
  cross join lateral (select * from runs where user_id = p_user and id = x.id offset 0) r
$$;

-- What the finished steps of a run have used: it is told even if the run comes to nothing.
create or replace function studio_used(p_user uuid, p_run uuid) returns jsonb language sql stable as $$
  select jsonb_build_object('prompt_tokens', coalesce(sum((usage->>'prompt_tokens')::bigint), 0),
    'completion_tokens', coalesce(sum((usage->>'completion_tokens')::bigint), 0),
    'total_tokens', coalesce(sum((usage->>'total_tokens')::bigint), 0),
    'tokens', coalesce(sum((usage->>'total_tokens')::bigint), 0),
    'model', string_agg(distinct usage->>'model', ', '))
  from run_steps where user_id = p_user and run_id = p_run and status = 'done'
$$;

-- park: a run has come to a step that a person decides. It stays its derivation's; nobody carries it out, no lease runs.
-- One that was left to finish although its inputs have moved is superseded here: nobody is asked about what is out of date.
create or replace function park_run(p_user uuid, p_run uuid, p_step text, p_position int, p_prompt text)
returns text language plpgsql as $$
declare v_run runs%rowtype; v_fence uuid; v_owner uuid; v_want text;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run;
  if not found then return 'superseded'; end if;
  if v_run.status <> 'running' then return v_run.status; end if;
  select run_id, owner_cascade_id into v_fence, v_owner from derivations
    where user_id = p_user and id = v_run.derivation_id;
  if v_fence is distinct from p_run then return 'superseded'; end if;
  if exists (select from run_steps where user_id = p_user and run_id = p_run and step_id = p_step
      and status = 'done') then return 'running'; end if;
  select digest into v_want from studio_want(p_user, array[v_run.derivation_id]);
  if v_want is distinct from v_run.used_digest then
    perform studio_drop_runs(p_user, array[v_run.derivation_id]);
    perform studio_recount(p_user, array[v_run.derivation_id]);
    perform studio_ring(p_user, array[v_owner]);
    perform studio_call_up(p_user);
    return 'superseded';
  end if;
  update runs set status = 'parked', lease_until = null where user_id = p_user and id = p_run;
  insert into run_steps (user_id, run_id, step_id, position, type, status)
    values (p_user, p_run, p_step, p_position, 'approval', 'waiting')
    on conflict (user_id, run_id, step_id) do update set status = 'waiting', ended_at = null;
  update derivations set hold = 'approval', hold_detail = jsonb_build_object('run_id', p_run, 'step_id', p_step,
      'prompt', p_prompt, 'since', now())
    where user_id = p_user and id = v_run.derivation_id;
  perform studio_ring(p_user, array[v_run.cascade_id, v_owner]
    || studio_owners_below(p_user, array[v_run.derivation_id]));
  perform studio_call_up(p_user);
  perform studio_emit(p_user, studio_run_events(p_user, 'run.parked', array[p_run],
    jsonb_build_object('step_id', p_step)));
  return 'parked';
end $$;

-- What a person said to a step that asked, as it is told of its run ever after.
create or replace function studio_decision(p_decision text, p_actor text, p_comment text) returns jsonb
language sql stable as $$
  select jsonb_build_object('decision', p_decision, 'actor', p_actor, 'comment', p_comment, 'at', now())
$$;

-- resume: the approval is the step's record, so that expressions see it and nothing before it is done, or paid, again.
-- p_step is the step that the person was shown: a definition may ask more than once.
drop function if exists approve_run(uuid, uuid, text, text, interval, text, bigint, bigint, text, bytea, text);
create or replace function approve_run(
  p_user uuid, p_run uuid, p_step text, p_actor text, p_lease interval, p_hash text, p_size bigint,
  p_stored_size bigint, p_codec text, p_body bytea, p_location text, p_comment text default null
) returns text language plpgsql as $$
declare v_run runs%rowtype; v_owner uuid; v_step text;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run;
  if not found then return 'unknown'; end if;
  select owner_cascade_id, hold_detail->>'step_id' into v_owner, v_step from derivations
    where user_id = p_user and id = v_run.derivation_id and run_id = p_run and hold = 'approval';
  if v_run.status <> 'parked' or v_step is distinct from p_step then
    return case when v_run.status in ('running', 'parked') and exists (select from run_steps s where s.user_id = p_user
      and s.run_id = p_run and s.step_id = p_step and s.type = 'approval' and s.status = 'done')
      then 'already' else 'refused' end;
  end if;
  perform studio_store(p_user, p_hash, p_size, p_stored_size, p_codec, p_body, p_location);
  update run_steps set status = 'done', output_hash = p_hash, error = null, ended_at = now(),
      decision = studio_decision('approved', p_actor, p_comment)
    where user_id = p_user and run_id = p_run and step_id = p_step;
  update runs set status = 'running', resumed = resumed + 1, lease_until = now() + p_lease
    where user_id = p_user and id = p_run;
  update derivations set hold = null, hold_detail = null where user_id = p_user and id = v_run.derivation_id;
  perform studio_ring(p_user, array[v_run.cascade_id, v_owner]);
  perform studio_call_up(p_user);
  perform studio_emit(p_user, studio_run_events(p_user, 'run.approved', array[p_run],
    jsonb_build_object('step_id', p_step, 'actor', p_actor)));
  return 'done';
end $$;

-- End runs that a person does not want, and hold their derivations. Workflows that carry them out are told to stop.
create or replace function studio_stop(p_user uuid, p_runs uuid[], p_code text, p_detail text, p_actor text)
returns void language plpgsql as $$
declare v_derivations uuid[]; v_rings uuid[];
begin
  select array_agg(r.derivation_id), array_agg(r.cascade_id) || array_agg(d.owner_cascade_id)
    into v_derivations, v_rings from unnest(p_runs) x(id)
    cross join lateral (select derivation_id, cascade_id from runs where user_id = p_user and id = x.id offset 0) r
    cross join lateral (select owner_cascade_id from derivations
      where user_id = p_user and id = r.derivation_id offset 0) d;
  insert into stops (user_id, run_id, workflow_id)
    select p_user, r.id, r.workflow_id from unnest(p_runs) x(id)
    cross join lateral (select id, workflow_id from runs
      where user_id = p_user and id = x.id and status = 'running' and workflow_id is not null offset 0) r
    on conflict do nothing;
  update runs set status = 'cancelled', ended_at = now(),
      lease_until = null, usage = studio_used(p_user, id),
      error = jsonb_build_object('code', p_code, 'detail', p_detail)
    where user_id = p_user and id = any(p_runs);
  -- Once it is retried, its finished steps are taken over, unless they are what was turned down: those are asked for
  -- again, past the memo.
  update derivations set run_id = null, resume_run_id = case p_code when 'cancelled' then run_id end,
      fresh_after = case p_code when 'rejected' then now() else fresh_after end,
      hold = 'cancelled', hold_detail = jsonb_build_object('code',
      nullif(p_code, 'cancelled'), 'actor', p_actor, 'at', now(), 'run_id', run_id, 'detail', p_detail)
    where user_id = p_user and id = any(v_derivations);
  perform studio_recount(p_user, v_derivations);
  perform studio_ring(p_user, v_rings || studio_owners_below(p_user, v_derivations));
  perform studio_call_up(p_user);
  perform studio_emit(p_user, studio_run_events(p_user, 'run.cancelled', p_runs,
    jsonb_build_object('code', p_code, 'actor', p_actor)));
end $$;

-- reject: what a parked run would make is not wanted.
create or replace function reject_run(p_user uuid, p_run uuid, p_step text, p_comment text, p_actor text)
returns text language plpgsql as $$
declare v_run runs%rowtype; v_step text;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run;
  if not found then return 'unknown'; end if;
  select hold_detail->>'step_id' into v_step from derivations
    where user_id = p_user and id = v_run.derivation_id and run_id = p_run and hold = 'approval';
  if v_run.status <> 'parked' or v_step is distinct from p_step then
    return case when v_run.status = 'cancelled' and v_run.error->>'code' = 'rejected' then 'already' else 'refused' end;
  end if;
  update run_steps set status = 'failed', error = jsonb_build_object('code', 'rejected', 'detail', p_comment),
      ended_at = now(), decision = studio_decision('rejected', p_actor, p_comment)
    where user_id = p_user and run_id = p_run and step_id = p_step;
  perform studio_stop(p_user, array[p_run], 'rejected', p_comment, p_actor);
  return 'done';
end $$;

create or replace function cancel_run(p_user uuid, p_run uuid, p_actor text) returns text language plpgsql as $$
declare v_run runs%rowtype;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run;
  if not found then return 'unknown'; end if;
  if v_run.status not in ('running', 'parked') or not exists (select from derivations
      where user_id = p_user and id = v_run.derivation_id and run_id = p_run) then
    return case v_run.status when 'cancelled' then 'already' else 'refused' end;
  end if;
  perform studio_stop(p_user, array[p_run], 'cancelled', 'A person cancelled the run.', p_actor);
  return 'done';
end $$;

-- Hold everything that a cascade owns, and end its runs. One that was not planned is planned first, so that nothing is
-- lost: the schedule has seen the cause, and what it affects says that it was cancelled. What a later cause took over is
-- the later one's, and goes on.
create or replace function cancel_cascade(p_user uuid, p_cascade uuid, p_actor text, p_depth_max int, p_nodes_max int)
returns text language plpgsql as $$
declare v_cascade cascades%rowtype; v_owned uuid[]; v_live uuid[]; v_planned boolean;
begin
  perform studio_lock(p_user);
  perform from cascades where user_id = p_user and id = p_cascade;
  if not found then return 'unknown'; end if;
  select planned into v_planned from plan_cascade(p_user, p_cascade, p_depth_max, p_nodes_max);
  select * into v_cascade from cascades where user_id = p_user and id = p_cascade;
  -- Who waits for money is queued like the others.
  select array_agg(d.id) filter (where d.hold is null or d.hold = 'budget'), array_agg(d.run_id) filter (where d.run_id is not null)
    into v_owned, v_live from derivations d
    where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled;
  -- Not its status: what a closed one waits for may have been set going again.
  if not v_planned and v_live is null and studio_waiting(p_user, p_cascade) = 0 and not exists (select from derivations d
      where d.user_id = p_user and d.id = any(v_owned) and d.hold = 'budget') then
    return case v_cascade.status when 'cancelled' then 'already' else 'refused' end;
  end if;
  if v_live is not null then
    perform studio_stop(p_user, v_live, 'cancelled', 'A person cancelled the cascade.', p_actor);
  end if;
  update derivations set hold = 'cancelled', hold_detail = jsonb_build_object('actor', p_actor, 'at', now(),
      'cascade_id', p_cascade)
    where user_id = p_user and id = any(v_owned) and (hold is null or hold = 'budget');
  perform studio_recount(p_user, v_owned);
  update cascades set status = 'cancelled', ended_at = now() where user_id = p_user and id = p_cascade;
  perform studio_ring(p_user, p_cascade || studio_owners_below(p_user, v_owned));
  perform studio_call_up(p_user);
  perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'cascade.cancelled',
    'subject', 'cascades/' || p_cascade, 'key', coalesce(v_cascade.target_id, v_cascade.id), 'data',
    jsonb_build_object('cascade_id', p_cascade, 'user_id', p_user, 'actor', p_actor,
      'held', coalesce(cardinality(v_owned), 0), 'runs', coalesce(cardinality(v_live), 0)))));
  return 'done';
end $$;

-- Lift what failed or was cancelled of these: their owners claim them again. Whether there was anything to lift.
create or replace function studio_lift(p_user uuid, p_derivations uuid[], p_actor text) returns boolean
language plpgsql as $$
declare v_lifted uuid[]; v_owners uuid[];
begin
  with lifted as (
    update derivations set hold = null, hold_detail = null, losses = 0
      where user_id = p_user and id = any(p_derivations) and unsettled and hold in ('failed', 'cancelled')
      returning id, owner_cascade_id
  ) select array_agg(id), array_agg(distinct owner_cascade_id) into v_lifted, v_owners from lifted;
  if v_lifted is null then return false; end if;
  perform studio_recount(p_user, v_lifted);
  update dead_letters set redriven_at = now()
    where user_id = p_user and derivation_id = any(v_lifted) and redriven_at is null;
  update cascades set status = 'running', ended_at = null where user_id = p_user and id = any(v_owners);
  perform studio_ring(p_user, v_owners);
  perform studio_call_up(p_user);
  perform studio_emit(p_user, (select jsonb_agg(jsonb_build_object('type', 'cascade.retried',
      'subject', 'cascades/' || c.id, 'key', coalesce(c.target_id, c.id), 'data', jsonb_build_object(
      'cascade_id', c.id, 'user_id', p_user, 'actor', p_actor)) order by c.id)
    from unnest(v_owners) x(id) cross join lateral (select id, target_id from cascades
      where user_id = p_user and id = x.id offset 0) c));
  return true;
end $$;

-- retry: the same cascade goes on, under the same id; its list of runs tells both attempts.
create or replace function retry_run(p_user uuid, p_run uuid, p_actor text) returns text language plpgsql as $$
declare v_derivation derivations%rowtype;
begin
  perform studio_lock(p_user);
  select d.* into v_derivation from runs r join derivations d on d.user_id = r.user_id and d.id = r.derivation_id
    where r.user_id = p_user and r.id = p_run;
  if not found then return 'unknown'; end if;
  if studio_lift(p_user, array[v_derivation.id], p_actor) then return 'done'; end if;
  return case when v_derivation.unsettled and v_derivation.hold is null then 'already' else 'refused' end;
end $$;

create or replace function retry_cascade(p_user uuid, p_cascade uuid, p_actor text) returns text language plpgsql as $$
declare v_status text;
begin
  perform studio_lock(p_user);
  select status into v_status from cascades where user_id = p_user and id = p_cascade;
  if not found then return 'unknown'; end if;
  if studio_lift(p_user, array(select d.id from derivations d
      where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled
        and d.hold in ('failed', 'cancelled')), p_actor) then return 'done'; end if;
  return case when v_status in ('pending', 'running') then 'already' else 'refused' end;
end $$;

-- lost: a run whose lease has expired and of which Temporal says closed or unknown. Its place is free, and its derivation
-- is claimed again: but a run that gets lost each time is what loses it, and after p_losses_max times it has failed.
drop function if exists lose_run(uuid, uuid);
create or replace function lose_run(p_user uuid, p_run uuid, p_losses_max int) returns text language plpgsql as $$
declare v_run runs%rowtype; v_derivation derivations%rowtype; v_want text;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run;
  if not found then return 'superseded'; end if;
  if v_run.status <> 'running' then return v_run.status; end if;
  update derivations set losses = losses + 1, resume_run_id = p_run
    where user_id = p_user and id = v_run.derivation_id and run_id = p_run returning * into v_derivation;
  if not found then return 'superseded'; end if;
  select digest into v_want from studio_want(p_user, array[v_run.derivation_id]);
  if v_derivation.losses >= p_losses_max and v_want = v_run.used_digest then
    return fail_run(p_user, p_run, 'run_lost', format('The run was lost %s times: whoever carried it out was gone each '
      'time before it ended.', v_derivation.losses), studio_used(p_user, p_run));
  end if;
  update runs set status = 'lost', ended_at = now(), lease_until = null where user_id = p_user and id = p_run;
  update derivations set run_id = null where user_id = p_user and id = v_run.derivation_id;
  perform studio_recount(p_user, array[v_run.derivation_id]);
  perform studio_ring(p_user, array[v_run.cascade_id, v_derivation.owner_cascade_id]);
  perform studio_call_up(p_user);
  return 'lost';
end $$;
