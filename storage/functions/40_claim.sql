-- claim: take what has no unsettled input, pin the planned input versions; settle at once, without a run, what turns
-- out unchanged. May be executed again at any time: it returns every unfinished run of its cascade, old and new.

-- Settle without a run those of p_ready with used = want. An input that its producer chose not to make leaves nothing to
-- do either. Returns them.
create or replace function studio_cut_these(p_user uuid, p_cascade uuid, p_ready uuid[]) returns uuid[]
language plpgsql as $$
declare v_done uuid[]; v_reasons text[]; v_without uuid[] := studio_going_on(p_user, p_ready);
begin
  select array_agg(d.id), array_agg(case when d.on_parent_failure = 'skip' and d.id = any(v_without)
      then 'parent_failed' when w.complete then 'unchanged' else 'no_input' end)
    into v_done, v_reasons from studio_want(p_user, p_ready) w
    cross join lateral (select * from derivations where user_id = p_user and id = w.id offset 0) d
    where (w.digest = d.used_digest and not d.force) or not w.complete
      or d.on_parent_failure = 'skip' and d.id = any(v_without);
  if v_done is null then return null; end if;
  perform studio_close(p_user, v_done, p_cascade);
  perform studio_note_cut_offs(p_user, p_cascade, v_done, v_reasons);
  if 'no_input' = any(v_reasons) then
    perform studio_withdraw(p_user, p_cascade, array(
      select x.id from unnest(v_done, v_reasons) x(id, reason) where x.reason = 'no_input'));
  end if;
  -- What waited for a person (so that the head has not taken it in) is about inputs that are back as they were.
  update deltas d set status = 'rejected', resolved_at = now(), resolved_by = d.actor
    from unnest(v_done) x(id) join derivation_outputs o on o.user_id = p_user and o.derivation_id = x.id
    where d.user_id = p_user and d.blob_id = o.blob_id and d.status = 'proposed' and d.run_id is not null
      and d.machine_hash <> o.machine_hash;
  return v_done;
end $$;

-- A page of what is ready, not of the providers p_full nor sketched already (p_busy), in the order in which it is taken, from
-- behind the one named: read off derivations_ready_idx. To sort would be to look at all that wait, and once there are
-- statistics the planner believes that these are few: of a fan of ten thousand each claim then looked at all.
create or replace function studio_ready(
  p_user uuid, p_cascade uuid, p_priority int, p_level int, p_id uuid, p_page int, p_busy uuid[],
  p_full uuid[] default '{}'
) returns table (id uuid, provider_id uuid, priority int, level int) language plpgsql stable set enable_sort = off as $$
#variable_conflict use_column
begin
  return query select d.id, d.provider_id, d.priority, d.level from derivations d
    where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled and d.pending_inputs = 0
      and d.run_id is null and d.hold is null and (d.run_after is null or d.run_after <= now())
      and (d.priority, d.level, d.id) > (p_priority, p_level, p_id)
      and d.id <> all(p_busy) and d.provider_id <> all(p_full)
    order by d.priority, d.level, d.id limit p_page;
end $$;

-- When the next of a cascade's is due that only waits for its time: read off derivations_due_idx.
create or replace function studio_next_due(p_user uuid, p_cascade uuid) returns timestamptz
language plpgsql stable set enable_sort = off as $$
begin
  return (select d.run_after from derivations d
    where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled and d.pending_inputs = 0
      and d.run_id is null and d.hold is null and d.run_after > now()
    order by d.run_after limit 1);
end $$;

-- Settle without a run whatever is ready with used = want, and repeat until nothing more is (CASCADES rule 5).
--
-- Looks at ready derivations page by page, down the levels, and stops at a page's worth that has to run: a claim has no
-- use for more, and of a fan of ten thousand each claim would look at all again. What settles here makes ready what is
-- below it, whose level is higher: the same way down finds it. p_most bounds how long the user's lock is held: more.
drop function if exists studio_cut_off(uuid, uuid);
drop function if exists studio_cut_off(uuid, uuid, int, int);
create or replace function studio_cut_off(
  p_user uuid, p_cascade uuid, p_page int, p_most int, p_busy uuid[], out cut int, out more boolean
) language plpgsql as $$
declare
  v_page uuid[]; v_priority int; v_done uuid[]; v_level int; v_id uuid; v_kept int; v_before int;
begin
  cut := 0; more := false;
  loop  -- once more if anything was settled: levels order the work, they do not decide what is done
    v_priority := -1; v_level := -1; v_id := '00000000-0000-0000-0000-000000000000'; v_kept := 0; v_before := cut;
    loop
      select array_agg(x.id order by x.priority, x.level, x.id) into v_page
        from studio_ready(p_user, p_cascade, v_priority, v_level, v_id, p_page, p_busy) x;
      exit when v_page is null;
      v_id := v_page[cardinality(v_page)];
      select d.priority, d.level into v_priority, v_level from derivations d where d.user_id = p_user and d.id = v_id;
      v_done := studio_cut_these(p_user, p_cascade, v_page);
      v_kept := v_kept + cardinality(v_page) - coalesce(cardinality(v_done), 0);
      if v_done is not null then
        cut := cut + cardinality(v_done);
        if cut >= p_most then more := true; return; end if;
      end if;
      exit when v_kept >= p_page;
    end loop;
    exit when cut = v_before;
  end loop;
end $$;

-- The runs that a claim makes of these: planned versions copied into their inputs; activities read exactly those.
drop function if exists studio_runs_of(uuid, uuid[]);
create or replace function studio_runs_of(p_user uuid, p_ready uuid[]) returns table (
  id uuid, derivation_id uuid, provider_id text, attempt int, execution text, definition_digest text,
  settings_digest text, used_digest text, inputs jsonb, label text, fresh_after timestamptz, instance_id uuid,
  provider uuid, provider_version int, on_conflict text, anchor_kind text, anchor_title text, settled_at timestamptz
) language plpgsql rows 1 as $$
#variable_conflict use_column
declare v_stale uuid[] := studio_stale_inputs(p_user, p_ready);
begin
  -- One derivation after the other, each probed by its whole key: a claim costs what it takes, however much the user has.
  return query select studio_uuid7(), d.id, p.slug, d.attempt + 1, d.execution, split_part(d.want_digest, ':', 1),
      split_part(d.want_digest, ':', 2), q.digest, coalesce(q.inputs, '[]'),
      p.name || coalesce(' ''' || nullif(case d.anchor_kind when 'bucket' then k.name else a.title end, '') || '''', '')
        || coalesce(' v' || a.planned_version, ''), d.fresh_after, d.instance_id, d.provider_id, p.version, p.on_conflict,
      d.anchor_kind, coalesce(k.name, ''), d.settled_at
    from unnest(p_ready) x(id)
    cross join lateral (select * from derivations where user_id = p_user and id = x.id offset 0) d
    cross join lateral (select slug, name, version, on_conflict from providers where id = d.provider_id offset 0) p
    cross join lateral (
      select studio_digest(d.want_digest, string_agg(E'\n' || i.blob_id || ' ' || i.position || ' ' || s.seen,
          '' order by i.position, i.blob_id)) as digest,
        jsonb_agg(jsonb_build_object('blob_id', b.id, 'version', v.version, 'hash', s.seen, 'document_hash',
            v.document_hash, 'role', i.role, 'position', i.position)
          || case when b.id = any(v_stale) and (i.tracks or i.used_hash is null) then '{"stale": true}' else '{}' end::jsonb
          order by i.position, i.blob_id) filter (where b.planned_version > 0 and v.document_hash is not null) as inputs
      from (select * from derivation_inputs where user_id = p_user and derivation_id = d.id offset 0) i
      left join lateral (select id, version, planned_version, planned_hash, planned_meta_hash, document_hash from blobs
        where user_id = p_user and id = i.blob_id offset 0) b on true
      cross join lateral (select
        studio_seen(i.tracks, i.used_hash, d.reads_meta, b.planned_hash, b.planned_meta_hash) as seen,
        case when not i.tracks and i.used_hash is not null then i.used_version else b.planned_version end as version
        offset 0) s
      cross join lateral (select s.version, case when s.version = b.version then b.document_hash else (
        select document_hash from deltas where user_id = p_user and blob_id = b.id and status = 'applied'
          and to_version = s.version) end as document_hash offset 0) v offset 0) q
    left join lateral (select title, planned_version from blobs
      where user_id = p_user and id = d.anchor_id and d.anchor_kind = 'blob' offset 0) a on true
    left join lateral (select name from buckets
      where user_id = p_user and id = d.anchor_id and d.anchor_kind = 'bucket' offset 0) k on true;
end $$;

-- Take what is ready and has room: claimed are recorded, with their fence; sketched (42_sketches.sql) are not. Returns the runs
-- of the former and the derivations of the latter.
drop function if exists studio_claim_ready(uuid, uuid, int, interval);
drop function if exists studio_claim_ready(uuid, uuid, int, interval, int, int, interval);
drop function if exists studio_claim_ready(uuid, uuid, int, interval, int, int, interval, jsonb);
create or replace function studio_claim_ready(
  p_user uuid, p_cascade uuid, p_room int, p_lease interval, p_runs_max int, p_root_max int, p_runs_window interval,
  p_limits jsonb, p_busy uuid[], p_sketching boolean, out claimed uuid[], out sketched uuid[]
) language plpgsql as $$
declare v_ready uuid[]; v_done uuid[];
begin
  -- Again where a newer definition looks at an input again, which is in the making; and where all of them have run too often
  -- and are put off: whoever is behind them is ready as well.
  loop
    v_ready := studio_choose(p_user, p_cascade, p_room, p_limits, p_busy);
    if v_ready = '{}' then return; end if;
    if exists (select from room_waits where user_id = p_user and cascade_id = p_cascade and kind <> 'user') then
      -- Nobody has looked at what is behind a provider that is full: what is unchanged there needs no run.
      v_done := studio_cut_these(p_user, p_cascade, v_ready);
      if v_done is not null then
        update cascades set cut_off = cut_off + cardinality(v_done) where user_id = p_user and id = p_cascade;
        continue;
      end if;
    end if;
    continue when studio_renew(p_user, v_ready);
    v_ready := studio_within_bounds(p_user, p_cascade, v_ready, p_runs_max, p_root_max, p_runs_window);
    exit when v_ready is not null;
  end loop;
  -- What is taken after all was not settled without a run.
  delete from cut_offs where user_id = p_user and cascade_id = p_cascade and derivation_id = any(v_ready);
  if p_sketching then
    sketched := studio_sketchable(p_user, v_ready);
    v_ready := array(select x.id from unnest(v_ready) with ordinality x(id, ord)
      where x.id <> all(sketched) order by x.ord);
    if v_ready = '{}' then return; end if;
  end if;
  with inserted as (
    insert into runs (user_id, id, derivation_id, cascade_id, provider_id, attempt, execution, definition_digest,
        settings_digest, used_digest, inputs, label, lease_until, started_at, fresh_after, workflow_id)
      select p_user, m.id, m.derivation_id, p_cascade, m.provider_id, m.attempt, m.execution, m.definition_digest,
        m.settings_digest, m.used_digest, m.inputs, m.label, now() + p_lease, now(), m.fresh_after,
        case m.execution when 'workflow' then 'run:' || m.provider_id || ':' || m.id end
      from studio_runs_of(p_user, v_ready) m
      returning id, derivation_id, attempt
  ), fenced as (
    update derivations d set run_id = i.id, attempt = i.attempt from inserted i
      where d.user_id = p_user and d.id = i.derivation_id
  ) select array_agg(id) into claimed from inserted;
end $$;

-- What still belongs to a cascade when nothing of it moves: waits for others (their doorbell comes), or is held. Counted
-- by sets, up once to the holds and down once from them: a way up for each would cost the square of a chain.
create or replace function studio_waiting(p_user uuid, p_cascade uuid) returns int language sql stable as $$
  with recursive mine as (
    select d.id, d.hold, d.on_parent_failure from derivations d
    where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled
  ), up (id, hold, policy) as (
    select id, hold, on_parent_failure from mine
    union
    select p.id, p.hold, p.on_parent_failure from up u
    cross join lateral (select blob_id from derivation_inputs
      where user_id = p_user and derivation_id = u.id and (tracks or used_hash is null) offset 0) i
    cross join lateral (select derivation_id from derivation_outputs
      where user_id = p_user and blob_id = i.blob_id offset 0) o
    cross join lateral (select id, hold, on_parent_failure, failing from derivations
      where user_id = p_user and id = o.derivation_id and unsettled offset 0) p
    where u.hold is null
      and not (p.failing and u.policy <> 'block' and studio_stands_in(p_user, u.policy, i.blob_id))
  ), held (id, failing) as (
    select u.id, d.failing from up u
    cross join lateral (select failing from derivations where user_id = p_user and id = u.id offset 0) d
    where u.hold is not null
    union
    select d.id, d.failing from held h
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = h.id offset 0) o
    cross join lateral (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = o.blob_id and (tracks or used_hash is null) offset 0) i
    cross join lateral (select id, failing, on_parent_failure from derivations
      where user_id = p_user and id = i.derivation_id and unsettled offset 0) d
    where not (h.failing and d.on_parent_failure <> 'block' and studio_stands_in(p_user, d.on_parent_failure, o.blob_id))
  )
  select count(*)::int from mine where id not in (select id from held)
$$;

-- p_sketches: what is to be sketched. 'none': all is recorded. 'begin': an advance begins; if the one before it has not finished
-- what it sketched (cascades.sketching), nothing is: who dies over a run dies over one that is on record. 'more': it goes on.
drop function if exists claim_runs(uuid, uuid, int, interval);
drop function if exists claim_runs(uuid, uuid, int, interval, int, int, interval);
drop function if exists claim_runs(uuid, uuid, int, interval, int, int, interval, jsonb);
create or replace function claim_runs(
  p_user uuid, p_cascade uuid, p_window int, p_lease interval, p_runs_max int default 1000000,
  p_root_max int default 1000000, p_runs_window interval default '1 hour', p_limits jsonb default '{}',
  p_busy uuid[] default '{}', p_sketches text default 'none'
) returns table (
  runs jsonb, running int, due_in float, closed boolean, status text, cut_off int, more boolean, sketches json,
  sketching boolean
)
language plpgsql as $$
#variable_conflict use_column
declare
  v_cascade cascades%rowtype; v_cut int; v_claimed uuid[]; v_running int; v_next timestamptz; v_status text;
  v_runs jsonb; v_left int; v_more boolean; v_closed boolean; v_events jsonb; v_sketched uuid[]; v_sketching boolean;
begin
  perform studio_lock(p_user);
  select * into v_cascade from cascades c where c.user_id = p_user and c.id = p_cascade;
  if not found then
    return query select '[]'::jsonb, 0, null::float, true, 'unknown', 0, false, '[]'::json, false; return;
  end if;
  v_sketching := p_sketches = 'more' or p_sketches = 'begin' and not v_cascade.sketching;
  select count(*) into v_running from runs r
    where r.user_id = p_user and r.cascade_id = p_cascade and r.status = 'running';
  v_running := v_running + cardinality(p_busy);
  -- As many are looked at as may be claimed, and none is claimed that nobody has looked at.
  select c.cut, c.more into v_cut, v_more
    from studio_cut_off(p_user, p_cascade, greatest(p_window - v_running, 20), 1000, p_busy) c;
  perform studio_call_up(p_user);
  if not v_more and p_window > 0 then  -- without a window nothing is taken, and nobody waits for a place
    select c.claimed, nullif(c.sketched, '{}') into v_claimed, v_sketched
      from studio_claim_ready(p_user, p_cascade, p_window - v_running, p_lease, p_runs_max, p_root_max, p_runs_window,
        p_limits, p_busy, v_sketching) c;
  end if;
  perform studio_offer(p_user);
  v_cascade.error := (select c.error from cascades c where c.user_id = p_user and c.id = p_cascade);
  if v_claimed is not null then perform studio_take_over(p_user, v_claimed); end if;
  select coalesce(jsonb_agg(jsonb_build_object('run_id', r.id, 'derivation_id', r.derivation_id,
      'provider_id', r.provider_id, 'execution', r.execution, 'label', r.label, 'workflow_id', r.workflow_id,
      'resumed', r.resumed)
      order by r.id), '[]') into v_runs
    from runs r where r.user_id = p_user and r.cascade_id = p_cascade and r.status = 'running';
  v_running := jsonb_array_length(v_runs) + cardinality(p_busy) + coalesce(cardinality(v_sketched), 0);
  if v_running = 0 and not v_more then
    -- Of ours, and run by another cascade that claimed them before we took them over.
    select count(*) into v_running from derivations d
      cross join lateral (select from runs
        where user_id = p_user and id = d.run_id and status = 'running' and cascade_id <> p_cascade offset 0) r
      where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled and d.run_id is not null;
  end if;
  v_next := studio_next_due(p_user, p_cascade);
  v_status := 'running';
  if v_running = 0 and v_next is null and not v_more then
    v_left := studio_waiting(p_user, p_cascade);
    if v_left = 0 then
      select count(*) into v_left from derivations d
        where d.user_id = p_user and d.owner_cascade_id = p_cascade and d.unsettled;
      -- What was put off (46_loops.sql) is nobody's error once it is another cascade's.
      v_status := case when v_left > 0 or v_cascade.error is not null and v_cascade.error->>'bound' is distinct from 'runs'
          then 'partial'
        when v_cascade.superseded_by is not null and not exists (
          select from derivations d where d.user_id = p_user and d.owner_cascade_id = p_cascade) then 'superseded'
        else 'completed' end;
    end if;
  end if;
  -- How a cascade ended is history: a later one that takes over what failed does not make it complete.
  if v_status <> 'running' and v_cut = 0 and v_cascade.status not in ('pending', 'running') then
    v_status := v_cascade.status;
  end if;
  v_closed := v_status <> 'running';
  v_sketching := case when v_sketching then v_sketched is not null or p_busy <> '{}'
    else v_cascade.sketching and v_runs @? '$[*] ? (@.execution == "inline")' end;
  -- A cancelled cascade may still have a run under way that a later cause wants. It is cancelled all the same.
  if not v_closed and v_cascade.status = 'cancelled' and v_claimed is null and v_sketched is null
      and v_next is null and not v_more then
    v_status := 'cancelled';
  end if;
  -- Whoever closes has looked: doorbells rung until now (the lock is held) need not start the workflow again.
  update cascades c set status = v_status, cut_off = c.cut_off + v_cut,
      sent_seq = case when v_status <> 'running' then c.seq else c.sent_seq end,
      superseded_by = case when v_status in ('running', 'superseded') then c.superseded_by end,
      ended_at = case when v_status <> 'running' then coalesce(c.ended_at, now()) end,
      error = case when v_status = 'running' or c.error->>'bound' is distinct from 'runs' then c.error end,
      sketching = v_sketching
    where c.user_id = p_user and c.id = p_cascade
      and (c.status <> v_status or c.sketching <> v_sketching or v_cut > 0 or (c.ended_at is null) <> (v_status = 'running')
        or v_status <> 'running' and c.sent_seq < c.seq);
  -- An inline run ends in the same breath: that it has started tells nobody anything.
  select jsonb_agg(jsonb_build_object('type', 'run.started', 'subject', 'runs/' || r.id,
      'key', r.provider_id, 'data', jsonb_build_object('run_id', r.id, 'user_id', p_user,
      'derivation_id', r.derivation_id, 'provider_id', r.provider_id, 'cascade_id', p_cascade,
      'attempt', r.attempt)) order by r.id) into v_events
    from runs r where r.user_id = p_user and r.id = any(v_claimed) and r.execution <> 'inline';
  if v_events is not null then perform studio_emit(p_user, v_events); end if;
  if v_status <> 'running' and v_cascade.status <> v_status then
    perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'cascade.completed',
      'subject', 'cascades/' || p_cascade, 'key', coalesce(v_cascade.target_id, v_cascade.id), 'data',
      jsonb_build_object('cascade_id', p_cascade, 'user_id', p_user, 'status', v_status))));
  end if;
  return query select v_runs, v_running, extract(epoch from v_next - now())::float, v_closed, v_status, v_cut, v_more,
    studio_sketches(p_user, v_sketched),
    p_sketches = 'more' or p_sketches = 'begin' and not v_cascade.sketching;
end $$;

-- plan, unless that is done, and claim at once, in one transaction and one round trip: how an advance begins.
create or replace function plan_and_claim(
  p_user uuid, p_cascade uuid, p_window int, p_lease interval, p_runs_max int, p_root_max int, p_runs_window interval,
  p_limits jsonb, p_busy uuid[], p_sketches text, p_depth_max int, p_nodes_max int
) returns table (
  runs jsonb, running int, due_in float, closed boolean, status text, cut_off int, more boolean, sketches json,
  sketching boolean
) language plpgsql as $$
#variable_conflict use_column
begin
  perform from plan_cascade(p_user, p_cascade, p_depth_max, p_nodes_max);
  return query select * from claim_runs(p_user, p_cascade, p_window, p_lease, p_runs_max, p_root_max, p_runs_window,
    p_limits, p_busy, p_sketches);
end $$;
