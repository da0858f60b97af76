-- settle: the end of runs, in the transaction that applies their deltas. Set-based: one call settles a batch.

-- What settle knows of a run, and of an output, while it works: arrays of these instead of temporary tables, which
-- PostgreSQL truncates on disk at every commit.
drop type if exists settling_run;
create type settling_run as (run_id uuid, derivation_id uuid, verdict text, sketch boolean, current boolean);
drop type if exists settling_output;
create type settling_output as (
  run_id uuid, derivation_id uuid, slot text, blob_id uuid, expected int, effect text, changed boolean, patch text,
  inverse text, document_hash text, content_hash text, cutoff_hash text, meta_hash text, size bigint, location text,
  title text, preview text, tags text[], machine_hash text, base_hash text, conflicts text, delta_id uuid,
  volatile text, schema_id text, body_moved boolean, meta_moved boolean, old_size bigint, version int
);

-- What was to be made where a person has deleted an output is given up: it would count as made of inputs that it has never seen.
-- Until the deletion is planned, which retires the derivation, or the output is back, it is tried once in a second.
create or replace function studio_give_up(p_user uuid, p_derivations uuid[], p_caller uuid) returns void language plpgsql as $$
begin
  perform studio_drop_runs(p_user, p_derivations, p_caller);
  update derivations set run_after = greatest(run_after, now() + interval '1 second')
    where user_id = p_user and id = any(p_derivations);
  perform studio_recount(p_user, p_derivations, p_caller);
end $$;

-- One row an output and effect: 'change' stores a delta, 'head' only moves the machine head (the human side won
-- everywhere), 'offer' proposes the machine's side of a conflict, 'hold' does so and waits for a person.
drop function if exists settle_runs(uuid, uuid[], jsonb, uuid, uuid[], text[], int[], text[], text[], text[], text[], text[],
  text[], text[], bigint[], bigint[], bigint[], text[], bytea[], text[], text[], text[], text[], text[], bigint[], bigint[],
  text[], bytea[], text[], text[], text[], text[]);
drop function if exists settle_runs(uuid, uuid[], jsonb, uuid, uuid[], text[], int[], text[], text[], text[], text[], text[],
  text[], text[], bigint[], bigint[], bigint[], text[], bytea[], text[], text[], text[], text[], text[], bigint[], bigint[],
  text[], bytea[], text[], text[], text[], text[], jsonb);
create or replace function settle_runs(
  p_user uuid, p_runs uuid[], p_usages jsonb, p_caller uuid,
  p_out_run uuid[], p_out_slot text[], p_out_expected int[], p_effect text[], p_patch text[], p_inverse text[],
  p_document_hash text[], p_content_hash text[], p_cutoff_hash text[], p_meta_hash text[], p_size bigint[],
  p_document_size bigint[], p_stored_size bigint[], p_codec text[], p_body bytea[], p_location text[], p_title text[],
  p_preview text[], p_tags text[], p_machine_hash text[], p_machine_size bigint[], p_machine_stored_size bigint[],
  p_machine_codec text[], p_machine_body bytea[], p_machine_location text[], p_base_hash text[], p_conflicts text[],
  p_volatile text[], p_unchanged jsonb default '{}', p_sketches jsonb default '[]'
) returns table (run_id uuid, status text) language plpgsql as $$
#variable_conflict use_column
declare
  v_ok uuid[]; v_derivations uuid[]; v_blobs uuid[]; v_affected uuid[]; v_cured uuid[]; v_running uuid[];
  v_deleted uuid[]; v_gone uuid[]; v_bodies uuid[]; v_metas uuid[]; v_untracked uuid[]; v_without uuid[];
  v_open uuid[]; v_closable uuid[]; v_held uuid[]; v_rings uuid[]; v_made int; v_changed int; v_offered int;
  v_told int; v_written int; v_before bigint;
  v_bytes bigint;
  v_runs settling_run[] := '{}'; v_outputs settling_output[]; v_now timestamptz; v_moved uuid[]; v_effects jsonb;
begin
  perform studio_lock(p_user);
  -- Look at the run's own status before the fence (CASCADES rule 3): an acknowledgement may have been lost.
  -- A person may be editing an output at this moment: whoever has its row goes first, and we see what came of it.
  select array_agg(q.blob_id) into v_blobs from (
      select r.derivation_id from unnest(p_runs) x(id)
      cross join lateral (select derivation_id from runs
        where user_id = p_user and id = x.id and status = 'running' offset 0) r
      union all select (e->>'derivation_id')::uuid from jsonb_array_elements(p_sketches) e) r
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = r.derivation_id offset 0) q;
  select array_agg(b.id) filter (where b.deleted_at is not null) into v_deleted from (select id, deleted_at from blobs
    where user_id = p_user and id = any(v_blobs) order by id for no key update) b;  -- a where would lock only those
  v_now := clock_timestamp();
  if p_runs <> '{}' then
    v_runs := array(select (x.id, r.derivation_id, case
        when r.id is null then 'superseded'
        when r.status in ('settled', 'blocked_budget') then r.status
        when r.status <> 'running' or d.run_id is distinct from r.id then 'superseded'
        else 'ok' end, false, false)::settling_run
      from (select distinct id from unnest(p_runs) id) x
      left join lateral (select * from runs where user_id = p_user and id = x.id offset 0) r on true
      left join lateral (select run_id from derivations where user_id = p_user and id = r.derivation_id offset 0) d on true);
  end if;
  if p_sketches <> '[]' then
    v_runs := v_runs || array(select (s.run_id, s.derivation_id, case when s.stands then 'ok'
        else coalesce((select status from runs where user_id = p_user and id = s.run_id), 'superseded') end, true,
        s.current)::settling_run from unnest(studio_standing(p_user, p_sketches)) s);
  end if;
  if v_deleted is not null then
    v_gone := array(select distinct o.derivation_id from unnest(v_runs) s join derivation_outputs o on o.user_id = p_user
      and o.derivation_id = s.derivation_id and o.blob_id = any(v_deleted) where s.verdict = 'ok');
    perform studio_give_up(p_user, v_gone, p_caller);
    v_runs := array(select (s.run_id, s.derivation_id, case when s.derivation_id = any(v_gone) then 'superseded'
      else s.verdict end, s.sketch, s.current)::settling_run from unnest(v_runs) s);
  end if;
  select array_agg((o.run_id, s.derivation_id, o.slot, q.blob_id, o.expected, o.effect, o.effect = 'change', o.patch,
      o.inverse, o.document_hash, o.content_hash, o.cutoff_hash, o.meta_hash, o.size, o.location, o.title, o.preview,
      array(select jsonb_array_elements_text(o.tags::jsonb)), o.machine_hash, o.base_hash, o.conflicts,
      studio_uuid7(), o.volatile, b.schema_id, b.planned_hash is distinct from o.cutoff_hash,
      b.planned_meta_hash is distinct from o.meta_hash, b.size, b.version)::settling_output)
    into v_outputs
    from unnest(p_out_run, p_out_slot, p_out_expected, p_effect, p_patch, p_inverse, p_document_hash, p_content_hash,
      p_cutoff_hash, p_meta_hash, p_size, p_location, p_title, p_preview, p_tags, p_machine_hash, p_base_hash,
      p_conflicts, p_volatile) o(run_id, slot, expected, effect, patch, inverse, document_hash, content_hash, cutoff_hash,
        meta_hash, size, location, title, preview, tags, machine_hash, base_hash, conflicts, volatile)
    join unnest(v_runs) s on s.run_id = o.run_id and s.verdict = 'ok'
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = s.derivation_id and slot = o.slot offset 0) q
    cross join lateral (select schema_id, planned_hash, planned_meta_hash, size, version from blobs
      where user_id = p_user and id = q.blob_id offset 0) b;
  v_moved := array(select o.run_id from unnest(v_outputs) o where o.version <> o.expected);
  if v_moved <> '{}' then
    v_runs := array(select (s.run_id, s.derivation_id, case when s.run_id = any(v_moved) then 'moved' else s.verdict end,
      s.sketch, s.current)::settling_run from unnest(v_runs) s);
    v_outputs := array(select o from unnest(v_outputs) o where o.run_id <> all(v_moved));
  end if;
  select array_agg(s.run_id), array_agg(s.derivation_id) into v_ok, v_derivations
    from unnest(v_runs) s where s.verdict = 'ok';
  if v_ok is null then
    return query select s.run_id, s.verdict from unnest(v_runs) s; return;
  end if;
  -- What became of each slot, those included that were left as they were.
  select jsonb_object_agg(e.run_id, e.effects) into v_effects from (
    select x.run_id, jsonb_agg(jsonb_build_object('slot', x.slot, 'blob_id', x.blob_id, 'effect', x.effect,
        'reason', x.reason) order by x.slot, x.ord) as effects
    from (
      select o.run_id, o.slot, o.blob_id, case o.effect when 'change' then 'changed' when 'offer' then 'offered'
          when 'hold' then 'held' else o.effect end, null::text, o.ordinality
        from unnest(v_outputs) with ordinality o
      union all
      select s.run_id, x.item->>'slot', q.blob_id, 'unchanged', x.item->>'reason', 0
        from unnest(v_runs) s
        cross join lateral jsonb_array_elements(p_unchanged->(s.run_id::text)) x(item)
        cross join lateral (select blob_id from derivation_outputs
          where user_id = p_user and derivation_id = s.derivation_id and slot = x.item->>'slot' offset 0) q
        where s.verdict = 'ok') x(run_id, slot, blob_id, effect, reason, ord)
    group by x.run_id) e;
  if p_sketches <> '[]' then
    insert into runs (user_id, id, derivation_id, cascade_id, provider_id, attempt, execution, status, definition_digest,
        settings_digest, used_digest, inputs, label, started_at, ended_at, fresh_after, usage, effects)
      select p_user, x.id, x.derivation_id, p_caller, x.provider_id, x.attempt, x.execution, 'settled',
        x.definition_digest, x.settings_digest, x.used_digest, x.inputs, x.label, x.started_at, now(), x.fresh_after,
        coalesce(p_usages->(x.id::text), '{}'), coalesce(v_effects->(x.id::text), '[]')
      from jsonb_populate_recordset(null::sketched_run, p_sketches) x
      join unnest(v_runs) s on s.run_id = x.id and s.verdict = 'ok' and s.sketch;
  end if;

  insert into contents as c (user_id, hash, size, stored_size, codec, tier, body, location)
    select distinct on (n.hash) p_user, n.hash, n.size, n.stored_size, n.codec,
      case when n.location is null then 'warm' else 'cold' end, n.body, n.location
    from (
      select hash, size, stored_size, codec, body, location
        from unnest(p_effect, p_document_hash, p_document_size, p_stored_size, p_codec, p_body, p_location)
          x(effect, hash, size, stored_size, codec, body, location)
        where effect = 'change'
      union all
      select * from unnest(p_machine_hash, p_machine_size, p_machine_stored_size, p_machine_codec, p_machine_body,
        p_machine_location) y(hash, size, stored_size, codec, body, location)) n
    where n.hash is not null order by n.hash
    on conflict (user_id, hash) do update set touched_at = now() where c.touched_at < now() - interval '1 minute';
  with causes as materialized (  -- once a cascade, not once a delta: a cascade has as many deltas as it has nodes
    select x.cascade_id, (select c.id from deltas c
        where c.user_id = p_user and c.cascade_id = x.cascade_id
          and (c.run_id is null or c.operation = 'update') and c.status = 'applied'
        order by c.created_at desc limit 1) as delta_id
    from (select distinct r.cascade_id from runs r where r.user_id = p_user and r.id = any(v_ok)) x
  )
  insert into deltas (user_id, id, blob_id, from_version, to_version, operation, patch, inverse, document_hash,
      content_hash, cutoff_hash, meta_hash, actor, provider_id, previous_delta, caused_by, cascade_id, run_id,
      machine_hash, base_hash, conflicts, inputs, applied_at)
    select p_user, o.delta_id, o.blob_id, o.expected, o.expected + 1,
      case when o.expected = 0 then 'create' else 'transform' end, case when o.expected > 0 then o.patch end,
      case when o.expected > 0 then o.inverse end, o.document_hash, o.content_hash, o.cutoff_hash, o.meta_hash,
      'provider:' || r.provider_id, r.provider_id,
      (select p.id from deltas p where p.user_id = p_user and p.blob_id = o.blob_id and p.to_version = o.expected
         and p.status = 'applied'),
      (select c.delta_id from causes c where c.cascade_id = r.cascade_id),
      r.cascade_id, r.id, o.machine_hash, o.base_hash, o.conflicts, r.inputs,
      -- Later than the version before, whichever transaction began first: ?at= relies on it.
      greatest(v_now, b.updated_at + interval '1 microsecond')
    from unnest(v_outputs) o join runs r on r.user_id = p_user and r.id = o.run_id
    join blobs b on b.user_id = p_user and b.id = o.blob_id where o.changed;
  -- What a machine made is kept whole: it rewrites most of a text, and merges need it.
  insert into snapshots (user_id, blob_id, version, document_hash)
    select p_user, o.blob_id, o.expected + 1, o.document_hash from unnest(v_outputs) o where o.changed;
  update blobs b set version = o.expected + 1, planned_version = o.expected + 1, planned_hash = o.cutoff_hash,
      planned_meta_hash = o.meta_hash, document_hash = o.document_hash, content_hash = o.content_hash,
      cutoff_hash = o.cutoff_hash, meta_hash = o.meta_hash, size = o.size, title = o.title, preview = o.preview,
      tags = o.tags, storage_type = case when o.location is null then 'inline' else 'url' end,
      updated_at = greatest(v_now, b.updated_at + interval '1 microsecond'),
      kept_version = o.expected + 1, patch_bytes = 0,
      created_at = case when o.expected = 0 then now() else b.created_at end,
      processing_meta = coalesce(p_usages->(o.run_id::text), '{}')
    from unnest(v_outputs) o where o.changed and b.user_id = p_user and b.id = o.blob_id;
  update derivation_outputs q set machine_hash = o.machine_hash, machine_run_id = o.run_id,
      volatile = array(select jsonb_array_elements_text(o.volatile::jsonb))
    from unnest(v_outputs) o
    where q.user_id = p_user and q.derivation_id = o.derivation_id and q.slot = o.slot
      and o.effect in ('change', 'head');

  -- What the machine says where a person's words stand: a proposal, which takes the place of the machine's older ones
  -- (it says what is left of them). What people propose is for people to decide.
  update deltas d set status = 'rejected', resolved_at = now(), resolved_by = d.actor from unnest(v_outputs) o
    where d.user_id = p_user and d.blob_id = o.blob_id and d.status = 'proposed' and d.run_id is not null;
  insert into deltas (user_id, id, blob_id, from_version, to_version, operation, patch, inverse, document_hash,
      content_hash, cutoff_hash, meta_hash, actor, provider_id, cascade_id, run_id, machine_hash, base_hash, conflicts,
      inputs, status)
    select p_user, o.delta_id, o.blob_id, b.version, b.version + 1, 'transform', o.patch, o.inverse, o.document_hash,
      o.content_hash, o.cutoff_hash, o.meta_hash, 'provider:' || r.provider_id, r.provider_id, r.cascade_id, r.id,
      o.machine_hash, o.base_hash, o.conflicts, r.inputs, 'proposed'
    from unnest(v_outputs) o join blobs b on b.user_id = p_user and b.id = o.blob_id
    join runs r on r.user_id = p_user and r.id = o.run_id where o.effect in ('offer', 'hold');
  -- Who waits for a person has not used its inputs: when one of them moves, or the output does, it runs again.
  if 'hold' = any(p_effect) then
    select array_agg(distinct d.id) into v_held from unnest(v_outputs) o
      join runs r on r.user_id = p_user and r.id = o.run_id
      join derivations d on d.user_id = p_user and d.id = o.derivation_id
      join studio_want(p_user, v_derivations) w on w.id = d.id and w.digest = r.used_digest
      where o.effect = 'hold';
  end if;

  update derivation_inputs i set used_version = (x.item->>'version')::int, used_hash = x.item->>'hash'
    from runs r cross join lateral jsonb_array_elements(r.inputs) x(item)
    where r.user_id = p_user and r.id = any(v_ok) and i.user_id = p_user and i.derivation_id = r.derivation_id
      and i.blob_id = (x.item->>'blob_id')::uuid and not i.derivation_id = any(coalesce(v_held, '{}'));
  -- An input that does not track counts no more, now that it was used.
  select array_agg(x.id) into v_untracked from unnest(v_derivations) x(id) where exists (
    select from derivation_inputs where user_id = p_user and derivation_id = x.id and not tracks);
  if v_untracked is not null then perform studio_recount(p_user, v_untracked, p_caller); end if;
  -- Closed where its inputs are what it has used: as studio_close does, in the same write.
  v_closable := array(select s.derivation_id from unnest(v_runs) s
    where s.verdict = 'ok' and s.sketch and s.current and (v_held is null or s.derivation_id <> all(v_held)));
  if p_runs <> '{}' then
    v_closable := v_closable || array(select w.id from unnest(v_runs) s
      cross join lateral (select used_digest, fresh_after from runs
        where user_id = p_user and id = s.run_id offset 0) r
      cross join lateral (select id from derivations
        where user_id = p_user and id = s.derivation_id and pending_inputs = 0
          and not (force and fresh_after is distinct from r.fresh_after) offset 0) d
      join studio_want(p_user, v_derivations) w on w.id = d.id and w.digest = r.used_digest
      where s.verdict = 'ok' and not s.sketch and (v_held is null or d.id <> all(v_held)));
  end if;
  v_without := studio_going_on(p_user, v_closable);
  -- A run that was claimed before it was asked for fresh answers is no answer to that.
  update derivations d set run_id = null, attempt = r.attempt, force = d.force and d.fresh_after is distinct from r.fresh_after,
      losses = 0, fresh_after = case when d.fresh_after is distinct from r.fresh_after then d.fresh_after end,
      used_digest = case when d.id = any(v_held) then d.used_digest else r.used_digest end,
      hold = case when d.id = any(v_held) then 'conflict' end,
      hold_detail = case when d.id = any(v_held) then jsonb_build_object('run_id', r.id) end,
      unsettled = d.unsettled and not d.id = any(v_closable),
      dirty_since = case when d.id = any(v_closable) then null else d.dirty_since end,
      run_after = case when d.id = any(v_closable) then null else d.run_after end,
      settled_at = case when d.id = any(v_closable) then now() else d.settled_at end,
      budget_place = case when d.id = any(v_closable) then null else d.budget_place end,
      budget_needed = case when d.id = any(v_closable) then null else d.budget_needed end,
      resume_run_id = case when d.id = any(v_closable) then null else d.resume_run_id end,
      failing = d.failing and not d.id = any(v_closable),
      provisional = case when d.id = any(v_without) then
        case d.on_parent_failure when 'skip' then 'skipped' else 'last_good' end end
    from runs r where r.user_id = p_user and r.id = any(v_ok) and d.user_id = p_user and d.id = r.derivation_id;
  if p_runs <> '{}' then
    update runs r set status = 'settled', ended_at = now(), lease_until = null,
        usage = coalesce(p_usages->(r.id::text), '{}'), effects = coalesce(v_effects->(r.id::text), '[]')
      from unnest(v_runs) s where s.verdict = 'ok' and not s.sketch and r.user_id = p_user and r.id = s.run_id;
  end if;

  -- Dependants of what is settled are counted again. Those whose inputs moved look again as well: a failure may be cured, a
  -- run of theirs may be out of date.
  v_bodies := array(select blob_id from unnest(v_outputs) where changed and body_moved);
  v_metas := array(select blob_id from unnest(v_outputs) where changed and meta_moved);
  select array_agg(distinct d.id) filter (where d.moved or x.id = any(v_closable)),
      array_agg(distinct d.id) filter (where d.moved and (d.hold in ('failed', 'conflict', 'budget') or d.losses > 0)),
      array_agg(distinct d.id) filter (where d.moved and d.run_id is not null)
    into v_affected, v_cured, v_running
    from unnest(v_derivations) x(id)
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = x.id offset 0) q
    cross join lateral (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = q.blob_id and (tracks or used_hash is null) offset 0) i
    cross join lateral (select id, hold, run_id, losses,
        hold is distinct from 'inactive' and hold is distinct from 'retired'
          and (q.blob_id = any(v_bodies) or reads_meta and q.blob_id = any(v_metas)) as moved
      from derivations where user_id = p_user and id = i.derivation_id offset 0) d;
  if v_cured is not null then
    update derivations set losses = 0, hold = case when hold not in ('failed', 'conflict', 'budget') then hold end,
        hold_detail = case when hold not in ('failed', 'conflict', 'budget') then hold_detail end
      where user_id = p_user and id = any(v_cured);
  end if;
  if v_running is not null then perform studio_supersede(p_user, v_running, p_caller); end if;
  v_open := array(select id from unnest(v_derivations) id where id <> all(v_closable));
  perform studio_recount(p_user, v_affected || v_open, p_caller);
  if v_open <> '{}' then perform studio_wait_anew(p_user, v_ok); end if;

  -- Every end of a run rings its owner and its claimer (rule 4); the caller looks again by itself.
  select array_agg(distinct c) into v_rings from (
    select r.cascade_id from runs r where r.user_id = p_user and r.id = any(v_ok)
    union select d.owner_cascade_id from derivations d where d.user_id = p_user and d.id = any(v_derivations)) x(c)
    where c is distinct from p_caller;
  if v_held is not null then
    -- Whoever waits for what is below one that is held now waits in vain: their cascades may close.
    select array_agg(distinct c) into v_rings from (
      select unnest(v_rings)
      union select d.owner_cascade_id from unnest(studio_below(p_user, v_held)) b(id)
        cross join lateral (select owner_cascade_id from derivations
          where user_id = p_user and id = b.id and unsettled offset 0) d) x(c)
      where c is distinct from p_caller;
  end if;
  if v_rings is not null then perform studio_ring(p_user, v_rings); end if;
  -- Sketches have reserved nothing, and whoever settles them claims at once.
  if p_runs <> '{}' then perform studio_call_up(p_user); end if;

  select count(*) filter (where changed and expected = 0), count(*) filter (where changed),
      count(*) filter (where effect in ('offer', 'hold')),
      coalesce(sum(size - case when expected = 0 then 0 else old_size end) filter (where changed), 0)
    into v_made, v_changed, v_offered, v_bytes from unnest(v_outputs);
  v_told := 2 * v_changed + v_offered + cardinality(v_ok);
  v_before := studio_take_events(p_user, v_told, v_made, v_bytes);
  with ended as materialized (
    select id, derivation_id, provider_id, cascade_id, attempt, inputs->0->>'blob_id' as parent_id
    from runs where user_id = p_user and id = any(v_ok)
  ), outcomes as materialized (
    select o.run_id, o.blob_id, o.expected, o.effect, o.changed, o.delta_id, o.schema_id, o.size, r.provider_id, r.cascade_id,
      r.parent_id
    from unnest(v_outputs) o join ended r on r.id = o.run_id
  )
  insert into events (user_id, seq, id, type, subject, key, data)
    select p_user, v_before + row_number() over (order by e.run_id, e.ord, e.type), studio_uuid7(), e.type, e.subject, e.key,
      e.data from (
    select o.run_id, 1, 'blob.derived', 'blobs/' || o.blob_id, o.schema_id,
      jsonb_build_object('blob_id', o.blob_id, 'derived_id', o.blob_id, 'user_id', p_user,
        'parent_id', o.parent_id, 'version', o.expected + 1, 'schema_id', o.schema_id,
        'provider_id', o.provider_id, 'processor_id', o.provider_id, 'run_id', o.run_id, 'cascade_id', o.cascade_id,
        'delta_id', o.delta_id, 'size', o.size)
      from outcomes o where o.changed
    union all
    select o.run_id, 2, 'delta.applied', 'deltas/' || o.delta_id, o.blob_id::text,
      jsonb_build_object('blob_id', o.blob_id, 'user_id', p_user, 'delta_id', o.delta_id,
        'operation', case when o.expected = 0 then 'create' else 'transform' end, 'from_version', o.expected,
        'to_version', o.expected + 1, 'run_id', o.run_id, 'cascade_id', o.cascade_id)
      from outcomes o where o.changed
    union all
    select o.run_id, 2, 'delta.proposed', 'deltas/' || o.delta_id, o.blob_id::text,
      jsonb_build_object('blob_id', o.blob_id, 'user_id', p_user, 'delta_id', o.delta_id,
        'operation', 'transform', 'from_version', b.version, 'provider_id', o.provider_id, 'run_id', o.run_id)
      from outcomes o
      join blobs b on b.user_id = p_user and b.id = o.blob_id where o.effect in ('offer', 'hold')
    union all
    select r.id, 3, 'run.completed', 'runs/' || r.id, r.provider_id,
      jsonb_build_object('run_id', r.id, 'user_id', p_user, 'derivation_id', r.derivation_id,
        'provider_id', r.provider_id, 'cascade_id', r.cascade_id, 'attempt', r.attempt)
      from ended r) e(run_id, ord, type, subject, key, data);
  get diagnostics v_written = row_count;
  if v_written <> v_told then raise exception 'told % events of %', v_written, v_told; end if;
  return query select s.run_id, case s.verdict when 'ok' then 'settled' else s.verdict end from unnest(v_runs) s;
end $$;

-- settle, and claim at once, in one transaction and one round trip: what the settlement made ready is found under the same lock.
create or replace function settle_and_claim(
  p_user uuid, p_cascade uuid, p_runs uuid[], p_usages jsonb,
  p_out_run uuid[], p_out_slot text[], p_out_expected int[], p_effect text[], p_patch text[], p_inverse text[],
  p_document_hash text[], p_content_hash text[], p_cutoff_hash text[], p_meta_hash text[], p_size bigint[],
  p_document_size bigint[], p_stored_size bigint[], p_codec text[], p_body bytea[], p_location text[], p_title text[],
  p_preview text[], p_tags text[], p_machine_hash text[], p_machine_size bigint[], p_machine_stored_size bigint[],
  p_machine_codec text[], p_machine_body bytea[], p_machine_location text[], p_base_hash text[], p_conflicts text[],
  p_volatile text[], p_unchanged jsonb, p_sketches jsonb,
  p_window int, p_lease interval, p_runs_max int, p_root_max int, p_runs_window interval, p_limits jsonb, p_busy uuid[],
  p_more text
) returns table (
  runs jsonb, running int, due_in float, closed boolean, status text, cut_off int, more boolean, sketches json,
  sketching boolean, verdicts jsonb
) language plpgsql as $$
#variable_conflict use_column
declare v_verdicts jsonb;
begin
  select jsonb_object_agg(s.run_id, s.status) into v_verdicts from settle_runs(p_user, p_runs, p_usages, p_cascade,
    p_out_run, p_out_slot, p_out_expected, p_effect, p_patch, p_inverse, p_document_hash, p_content_hash, p_cutoff_hash,
    p_meta_hash, p_size, p_document_size, p_stored_size, p_codec, p_body, p_location, p_title, p_preview, p_tags,
    p_machine_hash, p_machine_size, p_machine_stored_size, p_machine_codec, p_machine_body, p_machine_location,
    p_base_hash, p_conflicts, p_volatile, p_unchanged, p_sketches) s;
  return query select c.*, v_verdicts from claim_runs(p_user, p_cascade, p_window, p_lease, p_runs_max, p_root_max,
    p_runs_window, p_limits, p_busy, p_more) c;
end $$;

-- A person has accepted or rejected what a run proposed: the head takes it in, else the same conflict would come back, and
-- whoever waited for that goes on as settled with the inputs of that run. Under the user lock, after the decision.
create or replace function studio_decided(p_user uuid, p_delta uuid) returns void language plpgsql as $$
declare v_delta deltas%rowtype; v_run runs%rowtype; v_owner uuid;
begin
  select * into v_delta from deltas where user_id = p_user and id = p_delta and run_id is not null;
  select * into v_run from runs where user_id = p_user and id = v_delta.run_id;
  select owner_cascade_id into v_owner from derivations where user_id = p_user and id = v_run.derivation_id
    and hold = 'conflict' and hold_detail->>'run_id' = v_run.id::text;
  if not found then return; end if;
  update derivation_outputs set machine_hash = v_delta.machine_hash, machine_run_id = v_run.id
    where user_id = p_user and derivation_id = v_run.derivation_id and blob_id = v_delta.blob_id;
  -- A run of several outputs may wait for several decisions.
  if exists (select from deltas d where d.user_id = p_user and d.run_id = v_run.id and d.status = 'proposed') then
    return;
  end if;
  update derivation_inputs i set used_version = (x.item->>'version')::int, used_hash = x.item->>'hash'
    from jsonb_array_elements(v_run.inputs) x(item)
    where i.user_id = p_user and i.derivation_id = v_run.derivation_id and i.blob_id = (x.item->>'blob_id')::uuid;
  update derivations set hold = null, hold_detail = null, used_digest = v_run.used_digest
    where user_id = p_user and id = v_run.derivation_id;
  perform studio_recount(p_user, array[v_run.derivation_id]);
  if exists (select from derivations d join studio_want(p_user, array[v_run.derivation_id]) w on w.id = d.id
      where d.user_id = p_user and d.pending_inputs = 0 and w.digest = d.used_digest) then
    perform studio_close(p_user, array[v_run.derivation_id]);
  end if;
  perform studio_ring(p_user, array[v_owner]);
end $$;

-- A run that failed for good: a hold with its reason, one dead letter; descendants stay blocked, siblings go on.
create or replace function fail_run(p_user uuid, p_run uuid, p_code text, p_detail text, p_usage jsonb)
returns text language plpgsql as $$
declare v_run runs%rowtype; v_owner uuid; v_fence uuid; v_below uuid[]; v_letter uuid;
begin
  perform studio_lock(p_user);
  select * into v_run from runs where user_id = p_user and id = p_run for no key update;  -- before its memo (26_memo.sql)
  if not found then return 'superseded'; end if;
  perform studio_release_memo(p_user, p_run);
  if v_run.status <> 'running' then return v_run.status; end if;
  select run_id, owner_cascade_id into v_fence, v_owner from derivations
    where user_id = p_user and id = v_run.derivation_id;
  if v_fence is distinct from p_run then return 'superseded'; end if;
  update runs set status = 'failed', ended_at = now(), lease_until = null, usage = p_usage,
      error = jsonb_build_object('code', p_code, 'detail', p_detail)
    where user_id = p_user and id = p_run;
  -- A run that finishes on purpose although its input moved fails for the old input only. Its finished steps may be why
  -- it failed: they are not taken over, unless nothing is wrong but that it got lost.
  update derivations d set run_id = null, resume_run_id = case p_code when 'run_lost' then d.resume_run_id end, losses = case when w.digest = v_run.used_digest then 0 else d.losses end,
      hold = case when w.digest = v_run.used_digest then 'failed' end,
      hold_detail = case when w.digest = v_run.used_digest then
        jsonb_build_object('code', p_code, 'detail', p_detail, 'run_id', p_run) end
    from studio_want(p_user, array[v_run.derivation_id]) w
    where d.user_id = p_user and d.id = v_run.derivation_id and w.id = d.id;
  perform studio_recount(p_user, array[v_run.derivation_id]);
  insert into dead_letters (user_id, id, run_id, derivation_id, code, detail, inputs, usage, provider_id, cascade_id,
      attempt, definition_digest, settings_digest)
    values (p_user, studio_uuid7(), p_run, v_run.derivation_id, p_code, p_detail, v_run.inputs, p_usage,
      v_run.provider_id, v_run.cascade_id, v_run.attempt, v_run.definition_digest, v_run.settings_digest)
    on conflict do nothing returning id into v_letter;
  -- Whoever waits for what is below waits in vain: their cascades may close.
  select array_agg(distinct d.owner_cascade_id) into v_below from derivations d
    where d.user_id = p_user and d.unsettled and d.id = any(studio_below(p_user, array[v_run.derivation_id]));
  perform studio_ring(p_user, array[v_run.cascade_id, v_owner] || v_below);
  perform studio_call_up(p_user);
  perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'run.failed', 'subject', 'runs/' || p_run,
    'key', v_run.provider_id, 'data', jsonb_build_object('run_id', p_run, 'user_id', p_user,
      'derivation_id', v_run.derivation_id, 'provider_id', v_run.provider_id, 'cascade_id', v_run.cascade_id,
      'code', p_code)), jsonb_build_object('type', 'run.dead_lettered', 'subject', 'runs/' || p_run,
    'key', v_run.provider_id, 'data', jsonb_build_object('run_id', p_run, 'user_id', p_user, 'dead_letter_id', v_letter,
      'derivation_id', v_run.derivation_id, 'provider_id', v_run.provider_id, 'cascade_id', v_run.cascade_id,
      'code', p_code))));
  return 'failed';
end $$;
