-- Budgets: the worst case of a paid step is reserved before it is called, what it did cost is charged once. Amounts are
-- whole micro-dollars. domain/budgets.py is the model of every move here.

-- An ended run holds no reservation, whoever ends it, whatever for (invariant 12), nor does one that waits for a person.
-- Runs end under the user lock; inline ones call nobody and are not looked at.
create or replace function studio_run_ended() returns trigger language plpgsql as $$
declare v_back bigint;
begin
  with gone as (delete from reservations where user_id = new.user_id and run_id = new.id returning amount)
    select sum(amount) into v_back from gone;
  if v_back > 0 then
    update budgets set reserved = reserved - v_back, updated_at = now() where user_id = new.user_id;
  end if;
  return null;
end $$;
-- Replacing a trigger locks out every writer: only where it is missing.
do $$ begin
  if not exists (select from pg_trigger where tgname = 'runs_ended' and tgrelid = 'runs'::regclass) then
    create trigger runs_ended after update of status on runs for each row
      when (old.status in ('running', 'parked') and new.status <> 'running'
        and new.execution = 'workflow') execute function studio_run_ended();
  end if;
end $$;

-- Lift the holds at the head of the line as far as the money goes, strictly first come first served, and ring their
-- cascades. At the end of every move that may have freed money, or a place. Who waits for an input stands aside.
create or replace function studio_call_up(p_user uuid) returns int language plpgsql as $$
declare v_free bigint; v_lifted uuid[] := '{}'; v_owners uuid[]; d record;
begin
  select limit_amount - spent - reserved into v_free from budgets
    where user_id = p_user and limit_amount is not null;
  if not found then return 0; end if;
  for d in
    select id, hold, budget_needed from derivations
    where user_id = p_user and budget_place is not null and unsettled and pending_inputs = 0
      and (hold is null or hold = 'budget') order by budget_place
  loop
    exit when d.budget_needed > v_free;
    v_free := v_free - d.budget_needed;
    if d.hold = 'budget' then v_lifted := v_lifted || d.id; end if;
  end loop;
  if cardinality(v_lifted) = 0 then return 0; end if;
  with lifted as (
    update derivations set hold = null, hold_detail = null where user_id = p_user and id = any(v_lifted)
    returning owner_cascade_id
  ) select array_agg(distinct owner_cascade_id) into v_owners from lifted;
  perform studio_ring(p_user, v_owners);
  return cardinality(v_lifted);
end $$;

-- Whether so much is left for a derivation: of what is neither spent nor reserved, less what those before it need.
create or replace function studio_affords(p_user uuid, p_place bigint, p_worst bigint) returns boolean
language plpgsql as $$
declare v_free bigint; d record;
begin
  select limit_amount - spent - reserved into v_free from budgets where user_id = p_user;
  for d in
    select budget_needed from derivations
    where user_id = p_user and budget_place is not null and unsettled and pending_inputs = 0
      and (hold is null or hold = 'budget') and (p_place is null or budget_place < p_place) order by budget_place
  loop
    exit when p_worst > v_free;
    v_free := v_free - d.budget_needed;
  end loop;
  return p_worst <= v_free;
end $$;

-- Micro-dollars as people write them (domain/prices.py, money).
create or replace function studio_usd(p_amount bigint) returns text language sql immutable as $$
  select rtrim(rtrim((p_amount / 1000000.0)::numeric(30, 6)::text, '0'), '.') || ' USD'
$$;

-- End a run that cannot be paid: a hold with what it needs and a place in the line; descendants stay blocked, siblings
-- go on, no workflow waits. One that was left to finish although its input moved is followed by another, without a hold.
create or replace function studio_block(p_user uuid, p_run runs, p_worst bigint, p_usage jsonb) returns void
language plpgsql as $$
declare v_budget budgets%rowtype; v_owner uuid; v_below uuid[]; v_first boolean; v_held boolean; v_new boolean; v_data jsonb;
begin
  select * into v_budget from budgets where user_id = p_user;
  select not exists (select from derivations where user_id = p_user and budget_place is not null and hold = 'budget')
    into v_first;
  update runs set status = 'blocked_budget', ended_at = now(), lease_until = null, usage = p_usage,
      error = jsonb_build_object('code', 'budget_exhausted', 'detail', 'The next step may cost ' || studio_usd(p_worst)
        || ', which the budget does not have left.')
    where user_id = p_user and id = p_run.id;
  update run_steps set status = 'failed', ended_at = now(), error = jsonb_build_object('code', 'budget_exhausted')
    where user_id = p_user and run_id = p_run.id and status = 'running';
  update derivations set run_id = null, resume_run_id = p_run.id
    where user_id = p_user and id = p_run.derivation_id returning owner_cascade_id into v_owner;
  update derivations d set hold = 'budget', budget_needed = p_worst,
      budget_place = case when d.budget_place is null then v_budget.next_place else d.budget_place end,
      hold_detail = jsonb_build_object('run_id', p_run.id, 'budget_id', v_budget.id, 'needed', p_worst, 'unit', 'micro_usd')
    from studio_want(p_user, array[p_run.derivation_id]) w
    where d.user_id = p_user and d.id = p_run.derivation_id and w.id = d.id and w.digest = p_run.used_digest;
  v_held := found;
  v_new := v_held and exists (select from derivations
    where user_id = p_user and id = p_run.derivation_id and budget_place = v_budget.next_place);
  perform studio_recount(p_user, array[p_run.derivation_id]);
  if v_held then
    if v_new then update budgets set next_place = next_place + 1 where user_id = p_user; end if;
    select array_agg(distinct d.owner_cascade_id) into v_below from derivations d
      where d.user_id = p_user and d.unsettled and d.id = any(studio_below(p_user, array[p_run.derivation_id]));
  end if;
  perform studio_ring(p_user, array[p_run.cascade_id, v_owner] || v_below);
  perform studio_call_up(p_user);
  v_data := jsonb_build_object('run_id', p_run.id, 'user_id', p_user, 'derivation_id', p_run.derivation_id,
    'provider_id', p_run.provider_id, 'cascade_id', p_run.cascade_id, 'needed', p_worst, 'unit', 'micro_usd');
  perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'run.blocked', 'subject',
    'runs/' || p_run.id, 'key', p_run.provider_id, 'data', v_data)));
  if v_first and v_held then
    perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'budget.exhausted', 'subject',
      'budgets/' || v_budget.id, 'key', p_user, 'data', v_data || jsonb_build_object('budget_id', v_budget.id, 'limit',
        v_budget.limit_amount, 'spent', v_budget.spent, 'reserved', v_budget.reserved))));
  end if;
end $$;

-- Before a paid step is called, in the transaction that fences its run and records the attempt: what it may cost at most
-- is reserved, or its run ends as blocked_budget. Answers the run's status; repeated, it reserves nothing more. What an
-- attempt before has reserved and not used, another one takes over: at most one of them is called at a time.
drop function if exists reserve_step(uuid, uuid, text, bigint, jsonb);
create or replace function reserve_step(
  p_user uuid, p_run uuid, p_step text, p_attempt int, p_worst bigint, p_usage jsonb
) returns text
language plpgsql as $$
declare v_run runs%rowtype; v_place bigint;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run;
  if not found then return 'superseded'; end if;
  if v_run.status <> 'running' then return v_run.status; end if;
  if p_worst <= 0 or v_run.execution = 'inline' or not exists (select from budgets where user_id = p_user and limit_amount is not null)
      or exists (select from charges
        where user_id = p_user and run_id = p_run and step_id = p_step and attempt = p_attempt) then
    return 'running';
  end if;
  update reservations set attempt = greatest(attempt, p_attempt)
    where user_id = p_user and run_id = p_run and step_id = p_step;
  if found then return 'running'; end if;
  select budget_place into v_place from derivations where user_id = p_user and id = v_run.derivation_id;
  if not studio_affords(p_user, v_place, p_worst) then
    perform studio_block(p_user, v_run, p_worst, p_usage);
    return 'blocked_budget';
  end if;
  insert into reservations (user_id, run_id, step_id, attempt, amount)
    values (p_user, p_run, p_step, p_attempt, p_worst);
  update budgets set reserved = reserved + p_worst, updated_at = now() where user_id = p_user;
  if v_place is not null then
    update derivations set budget_place = null, budget_needed = null
      where user_id = p_user and id = v_run.derivation_id;
    perform studio_call_up(p_user);
  end if;
  return 'running';
end $$;

-- begin_step (26_memo.sql) for a step that costs something: unless the memo has its answer, or another run is calling, what
-- it may cost is reserved in the same transaction. Where that does not fit nobody waits for our lease of the memo.
drop function if exists begin_paid_step(uuid, uuid, text, int, text, interval, text, interval, bigint, jsonb);
create function begin_paid_step(
  p_user uuid, p_run uuid, p_step text, p_position int, p_type text, p_lease interval, p_key text, p_patience interval,
  p_worst bigint, p_usage jsonb
) returns table (status text, memo text, maker uuid, usage jsonb, hash text, size bigint, codec text, body bytea,
  location text, attempt int) language plpgsql as $$
#variable_conflict use_column
declare v record; v_status text;
begin
  perform studio_lock(p_user);
  select * into v from begin_step(p_user, p_run, p_step, p_position, p_type, p_lease, p_key, p_patience);
  v_status := v.status;
  if v_status = 'running' and v.memo is distinct from 'hit' and v.memo is distinct from 'leased' then
    v_status := reserve_step(p_user, p_run, p_step, v.attempt, p_worst, p_usage);
    if v_status <> 'running' then perform studio_release_memo(p_user, p_run); end if;
  end if;
  return query select v_status, v.memo, v.maker, v.usage, v.hash, v.size, v.codec, v.body, v.location,
    v.attempt;
end $$;

-- What an attempt of a step did cost, once, in the transaction that records its result; the rest of its reservation comes
-- back, unless a later attempt has taken that over. A call that was made is charged whatever became of its run or of its
-- answer; what the budget does not have any more is an overrun, not spent.
drop function if exists charge_step(uuid, uuid, text, bigint, text, text, bigint, bigint);
create or replace function charge_step(
  p_user uuid, p_run uuid, p_step text, p_attempt int, p_amount bigint, p_service text, p_model text, p_prompt bigint, p_completion bigint
) returns boolean language plpgsql as $$
declare v_run runs%rowtype; v_budget budgets%rowtype; v_back bigint; v_over bigint := 0;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run;
  if not found or exists (select from charges
      where user_id = p_user and run_id = p_run and step_id = p_step and attempt = p_attempt) then
    return false;
  end if;
  delete from reservations where user_id = p_user and run_id = p_run and step_id = p_step and attempt <= p_attempt
    returning amount into v_back;
  v_back := coalesce(v_back, 0);
  select * into v_budget from budgets where user_id = p_user;
  if v_budget.user_id is not null then
    -- Without a limit greatest() passes over the null.
    v_over := greatest(0, p_amount - (v_budget.limit_amount - v_budget.spent - v_budget.reserved + v_back));
    update budgets set spent = spent + p_amount - v_over, reserved = reserved - v_back, updated_at = now()
      where user_id = p_user;
  end if;
  insert into charges (user_id, id, run_id, step_id, attempt, cascade_id, derivation_id, provider_id, budget_id, service,
      model, prompt_tokens, completion_tokens, amount, overrun)
    values (p_user, studio_uuid7(), p_run, p_step, p_attempt, v_run.cascade_id, v_run.derivation_id, v_run.provider_id, v_budget.id,
      p_service, p_model, p_prompt, p_completion, p_amount, v_over);
  perform studio_call_up(p_user);
  if v_budget.limit_amount > 0 and v_budget.spent * 10 < v_budget.limit_amount * 8
      and (v_budget.spent + p_amount - v_over) * 10 >= v_budget.limit_amount * 8 then
    perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'budget.warning', 'subject',
      'budgets/' || v_budget.id, 'key', p_user, 'data', jsonb_build_object('user_id', p_user, 'budget_id', v_budget.id,
        'limit', v_budget.limit_amount, 'spent', v_budget.spent + p_amount - v_over, 'unit', 'micro_usd'))));
  end if;
  return true;
end $$;

-- Set a limit (null: none), or raise it by p_add (then p_limit is not looked at). Holds are lifted as far as the money
-- goes; if any are, the cascade of cause top_up says so. problem: managed, version, none, in_use, too_large.
create or replace function set_budget(
  p_user uuid, p_limit bigint, p_add bigint, p_most bigint, p_expected int[], p_cascade uuid, p_actor text,
  p_manages boolean
) returns table (problem text, id uuid, limit_amount bigint, spent bigint, reserved bigint, managed boolean, version int,
  updated_at timestamptz, lifted int) language plpgsql as $$
#variable_conflict use_column
declare b budgets%rowtype; v_known boolean; v_before bigint; v_lifted int := 0; v_problem text; v_owners uuid[]; v_freed uuid[];
begin
  perform studio_lock(p_user);
  select * into b from budgets where user_id = p_user;
  v_known := found;
  v_before := b.limit_amount;
  if p_add is not null then p_limit := b.limit_amount + p_add; end if;
  v_problem := case
    when b.managed and not p_manages then 'managed'
    when p_expected is not null and not coalesce(b.version, 1) = any(p_expected) then 'version'
    when p_add is not null and v_before is null then 'none'
    when p_limit > p_most then 'too_large'
    when p_limit < b.spent + b.reserved then 'in_use' end;
  if v_problem is not null then
    return query select v_problem, b.id, b.limit_amount, coalesce(b.spent, 0), coalesce(b.reserved, 0),
      coalesce(b.managed, false), coalesce(b.version, 1), b.updated_at, 0;
    return;
  end if;
  if not v_known then
    insert into budgets (user_id, id) values (p_user, studio_uuid7()) returning * into b;
  end if;
  if p_limit is null then
    delete from reservations where user_id = p_user;
    update budgets set reserved = 0 where user_id = p_user;
    with waiting as (
      select w.id, w.hold is not distinct from 'budget' as held from derivations w
        where w.user_id = p_user and w.budget_place is not null
    ), freed as (
      update derivations d set hold = case when w.held then null else d.hold end,
          hold_detail = case when w.held then null else d.hold_detail end, budget_place = null, budget_needed = null
        from waiting w where d.user_id = p_user and d.id = w.id returning d.id, d.owner_cascade_id, w.held
    ) select array_agg(distinct owner_cascade_id), count(*), array_agg(id) into v_owners, v_lifted, v_freed
      from freed where held;
    if v_owners is not null then perform studio_ring(p_user, v_owners); end if;
    perform studio_recount(p_user, v_freed);
  end if;
  -- A budget counts from when it was first set; what is spent while nothing is limited counts as well.
  update budgets set limit_amount = p_limit, managed = p_limit is not null and (managed or p_manages),
      version = version + 1, updated_at = now()
    where user_id = p_user returning * into b;
  if p_limit is not null then v_lifted := studio_call_up(p_user); end if;
  if v_lifted > 0 then
    insert into cascades (user_id, id, cause, actor, label)
      values (p_user, p_cascade, 'top_up', p_actor, 'Budget raised: ' || v_lifted || ' go on')
      on conflict do nothing;
  end if;
  if p_limit is null or p_limit > v_before then
    perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'budget.topped_up', 'subject',
      'budgets/' || b.id, 'key', p_user, 'data', jsonb_build_object('user_id', p_user, 'budget_id', b.id, 'limit',
        b.limit_amount, 'before', v_before, 'lifted', v_lifted, 'unit', 'micro_usd'))));
  end if;
  return query select null::text, b.id, b.limit_amount, b.spent, b.reserved, b.managed, b.version, b.updated_at, v_lifted;
end $$;

-- A run takes over the finished steps of the one before it that ended for want of money or was lost: on the same inputs
-- and definition they are the same, and paid.
create or replace function studio_take_over(p_user uuid, p_runs uuid[]) returns void language sql as $$
  insert into run_steps (user_id, run_id, step_id, position, type, status, output_hash, usage, started_at, ended_at,
      memo_key, reused_from, decision)
    select p_user, r.id, s.step_id, s.position, s.type, s.status, s.output_hash,
      -- As for an answer of the memo (domain/memo.py, reused_usage): it used nothing, and saved what it had cost.
      jsonb_strip_nulls(jsonb_build_object('duration_ms', 0, 'reused', true, 'saved_tokens',
        coalesce(s.usage->'saved_tokens', s.usage->'total_tokens', '0'), 'model', s.usage->'model')),
      s.started_at, s.ended_at, s.memo_key, coalesce(s.reused_from, s.run_id), s.decision
    from unnest(p_runs) x(id)
    cross join lateral (select * from runs where user_id = p_user and id = x.id and execution = 'workflow' offset 0) r
    cross join lateral (select resume_run_id from derivations
      where user_id = p_user and id = r.derivation_id and not force and resume_run_id is not null offset 0) d
    cross join lateral (select id from runs
      where user_id = p_user and id = d.resume_run_id and used_digest = r.used_digest offset 0) o
    cross join lateral (select * from run_steps
      where user_id = p_user and run_id = o.id and status = 'done' and output_hash is not null offset 0) s
    -- Locked, as whoever makes a reference does (15_housekeeping.sql): what is being collected is done again.
    cross join lateral (select from contents where user_id = p_user and hash = s.output_hash for key share) c
    on conflict do nothing
$$;
