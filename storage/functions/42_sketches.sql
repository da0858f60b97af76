-- Sketches: inline runs that nothing has recorded yet. A claim answers them whole, they are evaluated, and settle makes runs of
-- them that have ended already: one write less of the run and of its derivation, and no round trip to load them. What a
-- fence and a lease are for is looked at when they settle: whether the derivation still waits for just this run.

-- Those that may be sketched: inline, and of providers that have no limit of their own, for places are taken by what is on
-- record. Against the user's limit they are counted by who has them (p_busy).
create or replace function studio_sketchable(p_user uuid, p_derivations uuid[]) returns uuid[] language plpgsql as $$
begin
  return (select coalesce(array_agg(d.id order by x.ord), '{}') from unnest(p_derivations) with ordinality x(id, ord)
    cross join lateral (select id, provider_id from derivations
      where user_id = p_user and id = x.id and execution = 'inline' offset 0) d
    cross join lateral (select from providers where id = d.provider_id and max_concurrency is null offset 0) p);
end $$;

-- Sketches as they are handed out: what settle needs to make runs of them, and what they read (as load_works says it).
drop function if exists studio_sketches(uuid, uuid[]);
create or replace function studio_sketches(p_user uuid, p_derivations uuid[]) returns json language plpgsql as $$
begin
  if p_derivations is null or p_derivations = '{}' then return '[]'; end if;
  return (select json_agg(s) from (
    select m.id, m.derivation_id, m.provider_id, m.attempt, m.execution, m.definition_digest, m.settings_digest,
      m.used_digest, m.inputs, m.label, m.fresh_after, now() as started_at, m.provider, m.provider_version,
      coalesce(i.on_conflict, m.on_conflict) as on_conflict, coalesce(i.settings, '{}') as settings, m.anchor_kind,
      m.anchor_title, m.settled_at, o.outputs
    from studio_runs_of(p_user, p_derivations) m
    left join lateral (select on_conflict, settings from instances
      where user_id = p_user and id = m.instance_id offset 0) i on true
    cross join lateral studio_outputs_of(p_user, m.derivation_id) o(outputs)) s);
end $$;

-- Whether sketches still stand: nobody else has run, held or settled their derivations, and be it without a run (settled_at),
-- after which they were unsettled again: what is below has run meanwhile, and this run would be older by its id. One whose
-- inputs have moved stands where everyone has waited for a minute (rule 6), so that steady edits keep nobody from ever
-- settling; there is no other use in finishing what was free. current: they have not moved. A recorded run keeps its
-- derivation from failing, a sketch does not: below it others have settled with what there was.
do $$ begin
  if to_regtype('sketched_run') is null then
    create type sketched_run as (id uuid, derivation_id uuid, provider_id text, attempt int, execution text,
      definition_digest text, settings_digest text, used_digest text, inputs jsonb, label text, started_at timestamptz,
      fresh_after timestamptz);
  end if;
  if to_regtype('standing_sketch') is null then
    create type standing_sketch as (run_id uuid, derivation_id uuid, stands boolean, current boolean);
  end if;
end $$;
create or replace function studio_standing(p_user uuid, p_sketches jsonb) returns standing_sketch[] language plpgsql as $$
begin
  return (select array_agg((x.id, x.derivation_id,
      coalesce(d.unsettled and d.run_id is null and d.hold is null and d.attempt = x.attempt - 1
        and d.settled_at is not distinct from x.settled_at
        and (n.current or not d.failing and d.dirty_since <= now() - studio_patience()), false),
      coalesce(n.current, false))::standing_sketch)
    from jsonb_to_recordset(p_sketches)
      x(id uuid, derivation_id uuid, attempt int, used_digest text, fresh_after timestamptz, settled_at timestamptz)
    left join lateral (select * from derivations where user_id = p_user and id = x.derivation_id offset 0) d on true
    cross join lateral studio_wanted(p_user, x.derivation_id, d.want_digest, d.reads_meta) w
    cross join lateral (select d.pending_inputs = 0 and w.digest = x.used_digest
      and d.fresh_after is not distinct from x.fresh_after as current) n);
end $$;

-- A sketch that cannot be carried out: it is recorded after all, and fails.
create or replace function fail_sketch(p_user uuid, p_cascade uuid, p_sketch jsonb, p_code text, p_detail text)
returns text language plpgsql as $$
declare v_run uuid := (p_sketch->>'id')::uuid;
begin
  perform studio_lock(p_user);
  if not (studio_standing(p_user, jsonb_build_array(p_sketch)))[1].stands then return 'superseded'; end if;
  insert into runs (user_id, id, derivation_id, cascade_id, provider_id, attempt, execution, definition_digest,
      settings_digest, used_digest, inputs, label, started_at, fresh_after)
    select p_user, x.id, x.derivation_id, p_cascade, x.provider_id, x.attempt, x.execution, x.definition_digest,
      x.settings_digest, x.used_digest, x.inputs, x.label, x.started_at, x.fresh_after
    from jsonb_populate_record(null::sketched_run, p_sketch) x;
  update derivations set run_id = v_run, attempt = attempt + 1
    where user_id = p_user and id = (p_sketch->>'derivation_id')::uuid;
  return fail_run(p_user, v_run, p_code, p_detail, '{}');
end $$;
