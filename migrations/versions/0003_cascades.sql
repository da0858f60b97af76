-- Cascades that explain themselves: why nothing ran, what was reused, what was asked for, what it cost.

-- Memo and cut-off ------------------------------------------------------------------------------------------

-- A derivation that a cascade settled without a run, and why.
create table cut_offs (
  user_id uuid not null,
  cascade_id uuid not null,
  derivation_id uuid not null,
  reason text not null,
  detail jsonb not null default '{}'::jsonb,
  created_at timestamptz not null default now(),
  constraint cut_offs_pkey primary key (user_id, cascade_id, derivation_id),
  constraint cut_offs_reason_check check (reason in ('unchanged', 'no_input', 'parent_failed'))
);
create index cut_offs_derivation_idx on cut_offs (user_id, derivation_id, created_at);

-- The result of a paid or pure step, under a key that covers everything it depends on. Leased while somebody makes it.
create table memo (
  user_id uuid not null,
  key text not null,
  state text not null default 'leased',
  run_id uuid not null,
  step_id text not null,
  provider_id text not null,
  leased_by uuid,
  lease_until timestamptz,
  output_hash text,
  usage jsonb not null default '{}'::jsonb,
  created_at timestamptz not null default now(),
  used_at timestamptz not null default now(),
  constraint memo_pkey primary key (user_id, key),
  constraint memo_state_check check (state in ('leased', 'done'))
);
create index memo_used_idx on memo (user_id, used_at);

-- Who needs which content: memo's answers as well.
create or replace view content_references with (security_invoker = true) as
  select user_id, document_hash as hash, 'snapshot' as reason, blob_id as id from snapshots
  union all select user_id, machine_hash, 'machine_head', blob_id from derivation_outputs where machine_hash is not null
  union all select user_id, machine_hash, 'machine', id from deltas where machine_hash is not null
  union all select user_id, base_hash, 'base', id from deltas where base_hash is not null
  union all select user_id, binary_hash, 'binary', id from deltas where binary_hash is not null
  union all select user_id, output_hash, 'step', run_id from run_steps where output_hash is not null
  union all select user_id, 'sha256:' || substr(split_part(want_digest, ':', 2), 5), 'settings', id from derivations
    where want_digest like '%:pin-%'
  union all select user_id, 'sha256:' || substr(settings_digest, 5), 'settings', id from runs
    where settings_digest like 'pin-%' and status in ('running', 'parked')
  union all select user_id, output_hash, 'memo', run_id from memo where output_hash is not null;

-- effects: per output slot, what the run did to it. reused_from: the run whose result a step took over.
alter table runs add column effects jsonb not null default '[]'::jsonb;
alter table run_steps add column memo_key text, add column reused_from uuid;
-- fresh_after: reprocess with force was asked for at this time: no answer that was begun before counts any more.
alter table derivations add column fresh_after timestamptz;
alter table runs add column fresh_after timestamptz;
-- options: what a cause says beyond its target (reprocess: scope, force).
alter table cascades add column options jsonb not null default '{}'::jsonb;

-- Controls --------------------------------------------------------------------------------------------------

-- resumed: how often a person's approval set the run going again.
alter table runs add column resumed integer not null default 0;
-- decision: what a person said to a step that asked: {decision, actor, comment, at}.
alter table run_steps add column decision jsonb;
-- taken: of what it had to do, so much went over to later cascades. ended_counts: what was left when it ended.
alter table cascades add column taken integer not null default 0, add column ended_counts jsonb;
create index runs_parked_idx on runs (user_id, id) where status = 'parked';
-- Runs lost in a row on the inputs as they are.
alter table derivations add column losses integer not null default 0;
-- Workflows of cancelled runs that are to be told to end: the relay tells them.
create table stops (
  user_id uuid not null,
  run_id uuid not null,
  workflow_id text not null,
  created_at timestamptz not null default now(),
  constraint stops_pkey primary key (user_id, run_id)
);
create index stops_created_idx on stops (created_at);
alter table stops enable row level security, force row level security;
create policy stops_user on stops to studio_app using (user_id = app_user()) with check (user_id = app_user());
create policy stops_relay on stops to studio_relay using (true);
grant select, insert, update, delete on stops to studio_app;
grant select, delete on stops to studio_relay;

-- Failures --------------------------------------------------------------------------------------------------

-- What a derivation does when something that it reads cannot be made: its provider's word, or the user's own.
alter table providers add column on_parent_failure text not null default 'block',
  add constraint providers_on_parent_failure_check check (on_parent_failure in ('block', 'use_last_good', 'skip'));
alter table instances add column on_parent_failure text,
  add constraint instances_on_parent_failure_check check (on_parent_failure in ('block', 'use_last_good', 'skip'));

-- failing: unsettled, and not to be settled before a failure is lifted, its own or one above; a recount like
-- pending_inputs. provisional: settled below such a failure; it is unsettled again when that is over.
alter table derivations
  add column on_parent_failure text not null default 'block',
  add column failing boolean not null default false,
  add column provisional text,
  add constraint derivations_on_parent_failure_check check (on_parent_failure in ('block', 'use_last_good', 'skip')),
  add constraint derivations_provisional_check check (provisional in ('last_good', 'skipped'));
create index derivations_failing_idx on derivations (user_id) where failing or provisional is not null;

-- What was failed before goes on as it is; what waits for it is counted from here on.
alter table derivations no force row level security;
alter table derivation_inputs no force row level security;
alter table derivation_outputs no force row level security;
do $$ begin
  loop
    update derivations d set failing = true where not d.failing and d.unsettled and d.run_id is null
      and (d.hold = 'failed' or d.hold is null) and (
        select case when d.hold = 'failed' then coalesce(bool_and(p.failing), true) else coalesce(bool_or(p.failing), false) end
        from derivation_inputs i join derivation_outputs o on o.user_id = i.user_id and o.blob_id = i.blob_id
        join derivations p on p.user_id = o.user_id and p.id = o.derivation_id and p.unsettled
        where i.user_id = d.user_id and i.derivation_id = d.id and (i.tracks or i.used_hash is null));
    exit when not found;
  end loop;
end $$;
alter table derivations force row level security;
alter table derivation_inputs force row level security;
alter table derivation_outputs force row level security;

-- A dead letter says what failed, whatever the run and its provider become later; redriven_by: the cascade that tried again.
alter table dead_letters
  add column provider_id text not null default '',
  add column cascade_id uuid,
  add column attempt integer not null default 1,
  add column definition_digest text not null default '',
  add column settings_digest text not null default '',
  add column redriven_by uuid;
alter table dead_letters no force row level security;
alter table runs no force row level security;
update dead_letters l set provider_id = r.provider_id, cascade_id = r.cascade_id, attempt = r.attempt,
    definition_digest = r.definition_digest, settings_digest = r.settings_digest
  from runs r where r.user_id = l.user_id and r.id = l.run_id;
alter table dead_letters force row level security;
alter table runs force row level security;
create index dead_letters_redriven_idx on dead_letters (user_id, redriven_by) where redriven_by is not null;
create index dead_letters_derivation_idx on dead_letters (user_id, derivation_id, id);

-- The attempts of a step that did not succeed, and why: run_steps has the last word, this the way there.
-- calls: how often it was begun, which numbers what is reserved and charged for it.
alter table run_steps add column attempts integer not null default 0, add column errors jsonb not null default '[]'::jsonb,
  add column calls integer not null default 0;

-- Budgets ---------------------------------------------------------------------------------------------------

-- What a user may spend, in micro-dollars; no row, or no limit: as much as they like. spent and reserved are what charges
-- and reservations under this budget (id) add up to. managed: set by an admin, who alone may change it.
create table budgets (
  user_id uuid not null,
  id uuid not null,
  limit_amount bigint,
  spent bigint not null default 0,
  reserved bigint not null default 0,
  next_place bigint not null default 1,
  managed boolean not null default false,
  version integer not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint budgets_pkey primary key (user_id),
  constraint budgets_amounts_check check (limit_amount >= 0 and spent >= 0 and reserved >= 0),
  constraint budgets_limit_check check (spent + reserved <= limit_amount)
);

-- What a step that is under way may cost at most; attempt: the latest one, which the rest comes back with.
create table reservations (
  user_id uuid not null,
  run_id uuid not null,
  step_id text not null,
  attempt integer not null default 1,
  amount bigint not null,
  created_at timestamptz not null default now(),
  constraint reservations_pkey primary key (user_id, run_id, step_id),
  constraint reservations_amount_check check (amount > 0)
);

-- What each attempt of a step did cost, once. overrun: the part that its budget no longer had. budget_id: none, if nothing was limited.
create table charges (
  user_id uuid not null,
  id uuid not null,
  run_id uuid not null,
  step_id text not null,
  attempt integer not null default 1,
  cascade_id uuid not null,
  derivation_id uuid not null,
  provider_id text not null,
  budget_id uuid,
  service text not null default '',
  model text,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  amount bigint not null,
  overrun bigint not null default 0,
  created_at timestamptz not null default now(),
  constraint charges_pkey primary key (user_id, id),
  constraint charges_user_id_run_id_step_id_attempt_key unique (user_id, run_id, step_id, attempt),
  constraint charges_amounts_check check (amount >= 0 and overrun >= 0 and overrun <= amount)
);
create index charges_cascade_idx on charges (user_id, cascade_id);

-- The line of those who wait for money: their place, and what they need. resume_run_id: the run whose finished steps the
-- next one takes over.
alter table derivations add column budget_place bigint, add column budget_needed bigint, add column resume_run_id uuid;
create index derivations_budget_idx on derivations (user_id, budget_place) where budget_place is not null;
alter table runs drop constraint runs_status_check, add constraint runs_status_check check (status in
  ('running','parked','settled','superseded','failed','lost','cancelled','blocked_budget'));

-- Plans -----------------------------------------------------------------------------------------------------

-- What a write would set in motion, told before it happens; the write that names it happens only if that still holds.
create table plans (
  user_id uuid not null,
  id uuid not null,
  path text not null,
  etag text not null,
  roots jsonb not null default '[]'::jsonb,
  prints jsonb not null default '{}'::jsonb,
  outputs uuid[] not null default '{}',
  body json not null,
  blob_id uuid not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz,
  used_key text,
  cascade_id uuid,
  constraint plans_pkey primary key (user_id, id)
);
create index plans_expires_idx on plans (user_id, expires_at) where used_at is null;
create index plans_used_idx on plans (user_id, used_at) where used_at is not null;
alter table plans enable row level security, force row level security;
create policy plans_user on plans to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on plans to studio_app;

-- A cascade caused under a plan says so by itself, whoever inserts it: the transaction is marked (32_previews.sql).
alter table cascades add column plan_id text not null default coalesce(current_setting('studio.plan_id', true), '');

-- What runs of a provider have cost lately.
create index runs_history_idx on runs (user_id, provider_id, id) where status = 'settled';

-- Pace and limits -------------------------------------------------------------------------------------------

-- caused_at: when the last edit was made that is part of the cause. The first one was at created_at.
alter table cascades add column caused_at timestamptz not null default now();
create index cascades_superseded_idx on cascades (user_id, superseded_by) where superseded_by is not null;
-- A user's own pace; null leaves it to the provider.
alter table instances add column debounce_ms integer, add column debounce_max_ms integer, add column supersede text,
  add constraint instances_supersede_check check (supersede in ('cancel', 'finish'));
-- priority: of the provider, 1 comes first.
alter table derivations add column priority integer not null default 3;
-- Runs at a time: of one provider for each user, and of a user (null: as the settings say). services: that it calls.
alter table providers add column max_concurrency integer, add column services text[] not null default '{}';
alter table user_state add column runs_limit integer;
create index runs_running_idx on runs (user_id, provider_id) where status = 'running';

-- A cascade that had to leave what was ready for want of a place: since when, and whether it was told that there is one.
create table room_waits (
  user_id uuid not null,
  cascade_id uuid not null,
  kind text not null,
  name text not null,
  cap integer not null,
  interactive boolean not null default true,
  since timestamptz not null default now(),
  rung boolean not null default false,
  constraint room_waits_pkey primary key (user_id, cascade_id, kind, name),
  constraint room_waits_kind_check check (kind in ('user', 'provider', 'service'))
);
create index room_waits_limit_idx on room_waits (kind, name);

-- Who has a run under way that calls a service which everybody shares: ids, so that everybody can count.
create table service_slots (
  service text not null,
  user_id uuid not null,
  run_id uuid not null,
  constraint service_slots_pkey primary key (user_id, run_id, service)
);
create index service_slots_service_idx on service_slots (service, user_id);

-- Scale -----------------------------------------------------------------------------------------------------

-- What a claim takes next, in the order that it takes it, and the next that is due: a page costs a page, however many wait.
create index derivations_ready_idx on derivations (user_id, owner_cascade_id, priority, level, id)
  where unsettled and pending_inputs = 0 and run_id is null and hold is null;
create index derivations_due_idx on derivations (user_id, owner_cascade_id, run_after)
  where unsettled and run_after is not null;

-- What people did under a cascade, without the thousands of deltas that came of it.
create index deltas_cause_idx on deltas (user_id, cascade_id, created_at)
  where cascade_id is not null and (run_id is null or operation = 'update');

-- What everybody may switch on, without all that anybody has registered for themselves.
create index providers_published_idx on providers (id) where published;

-- What nobody has been told of yet: of a user's events, from one sequence to another. One row a transaction, not a mark at
-- each event: a cascade leaves thousands.
create table outbox (
  user_id uuid not null,
  first_seq bigint not null,
  last_seq bigint not null,
  constraint outbox_pkey primary key (user_id, first_seq)
);
-- Before its policies: the owner, who may write none of its rows, fills it.
alter table events no force row level security;
insert into outbox select user_id, min(seq), max(seq) from events where published_at is null group by user_id;
alter table events force row level security;
alter table outbox enable row level security, force row level security;
create policy outbox_user on outbox to studio_app using (user_id = app_user()) with check (user_id = app_user());
create policy outbox_relay on outbox to studio_relay using (true) with check (true);
grant select, insert, update, delete on outbox to studio_app;
grant select, update (first_seq), delete on outbox to studio_relay;
drop policy events_relay_mark on events;
alter table events drop column published_at;
-- Nobody looks an event up by its id, and ids are made here; whoever hears one twice knows it by that.
alter table events drop constraint events_id_key;

-- Room beside each row for its next version: an edit of a thousand blobs then writes no index.
alter table blobs set (fillfactor = 80);
alter table derivation_inputs set (fillfactor = 80);
alter table derivation_outputs set (fillfactor = 80);
-- A snapshot is of a version, whose delta names the blob.
alter table snapshots drop constraint snapshots_user_id_blob_id_fkey;

-- Whether an advance of the cascade has sketched runs and not settled them yet (42_sketches.sql).
alter table cascades add column sketching boolean not null default false;

-- Why and loops ---------------------------------------------------------------------------------------------

-- The runs of one derivation, by number: the last one, and the one a bound ago.
create index runs_derivation_idx on runs (user_id, derivation_id, attempt);

-- How many runs what stems from one root has had since when (cascades.runs_per_root_max).
create table root_runs (
  user_id uuid not null,
  root_id uuid not null,
  since timestamptz not null default now(),
  runs integer not null default 0,
  constraint root_runs_pkey primary key (user_id, root_id)
);

-- Row-level security ----------------------------------------------------------------------------------------

alter table cut_offs enable row level security, force row level security;
create policy cut_offs_user on cut_offs to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on cut_offs to studio_app;
alter table memo enable row level security, force row level security;
create policy memo_user on memo to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on memo to studio_app;
alter table root_runs enable row level security, force row level security;
create policy root_runs_user on root_runs to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on root_runs to studio_app;
alter table budgets enable row level security, force row level security;
create policy budgets_user on budgets to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on budgets to studio_app;
alter table reservations enable row level security, force row level security;
create policy reservations_user on reservations to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on reservations to studio_app;
alter table charges enable row level security, force row level security;
create policy charges_user on charges to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on charges to studio_app;
alter table room_waits enable row level security, force row level security;
create policy room_waits_user on room_waits to studio_app using (user_id = app_user()) with check (user_id = app_user());
-- Who waits for a service is seen by all who share it, and rung by the relay: ids and since when, no content.
create policy room_waits_service on room_waits for select to studio_app
  using (kind = 'service' and app_user() is not null);
create policy room_waits_relay on room_waits to studio_relay using (true) with check (true);
grant select, insert, update, delete on room_waits to studio_app;
grant select, update (rung) on room_waits to studio_relay;
alter table service_slots enable row level security, force row level security;
create policy service_slots_user on service_slots to studio_app using (user_id = app_user()) with check (user_id = app_user());
create policy service_slots_all on service_slots for select to studio_app using (app_user() is not null);
create policy service_slots_relay on service_slots for select to studio_relay using (true);
grant select, insert, update, delete on service_slots to studio_app;
grant select on service_slots to studio_relay;

-- What the queue of all users is counted from (48_queues.sql), which runs as the owner and shows counts alone.
create policy derivations_counted on derivations for select to studio_owner using (unsettled);
