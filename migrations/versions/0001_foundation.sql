-- What the foundation consists of. Generated once from storage/tables.py, then frozen: later changes are later steps.

create function app_user() returns uuid language sql stable parallel safe as
$$ select nullif(current_setting('app.user_id', true), '')::uuid $$;

create function app_key_hash() returns bytea language sql stable parallel safe as
$$ select decode(nullif(current_setting('app.key_hash', true), ''), 'hex') $$;

CREATE TABLE api_keys (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  key_hash BYTEA NOT NULL,
  prefix TEXT NOT NULL,
  name TEXT DEFAULT '' NOT NULL,
  scopes TEXT[] DEFAULT '{}' NOT NULL,
  expires_at TIMESTAMP WITH TIME ZONE,
  revoked_at TIMESTAMP WITH TIME ZONE,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT api_keys_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash)
);

CREATE TABLE blobs (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  content_type TEXT NOT NULL,
  schema_id TEXT NOT NULL,
  version INTEGER DEFAULT 0 NOT NULL,
  document_hash TEXT,
  content_hash TEXT,
  cutoff_hash TEXT,
  meta_hash TEXT,
  size BIGINT DEFAULT 0 NOT NULL,
  planned_version INTEGER DEFAULT 0 NOT NULL,
  planned_hash TEXT,
  planned_meta_hash TEXT,
  title TEXT DEFAULT '' NOT NULL,
  preview TEXT DEFAULT '' NOT NULL,
  tags TEXT[] DEFAULT '{}' NOT NULL,
  created_by TEXT NOT NULL,
  provider_id TEXT,
  root_id UUID NOT NULL,
  depth INTEGER DEFAULT 0 NOT NULL,
  storage_type TEXT DEFAULT 'inline' NOT NULL,
  processing_meta JSONB DEFAULT '{}'::jsonb NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  deleted_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT blobs_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT blobs_planned_check CHECK (planned_version <= version)
);

CREATE INDEX blobs_created_idx ON blobs (user_id, created_at, id);

CREATE INDEX blobs_root_idx ON blobs (user_id, root_id);

CREATE INDEX blobs_schema_idx ON blobs (user_id, schema_id);

CREATE TABLE buckets (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  name TEXT NOT NULL,
  type TEXT DEFAULT 'collection' NOT NULL,
  parent_id UUID,
  metadata TEXT DEFAULT '{}' NOT NULL,
  version INTEGER DEFAULT 1 NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  deleted_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT buckets_pkey PRIMARY KEY (user_id, id)
);

CREATE INDEX buckets_type_idx ON buckets (user_id, type);

CREATE TABLE cascades (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  cause TEXT NOT NULL,
  target_id UUID,
  instance_id UUID,
  actor TEXT NOT NULL,
  label TEXT DEFAULT '' NOT NULL,
  planned_at TIMESTAMP WITH TIME ZONE,
  status TEXT DEFAULT 'pending' NOT NULL,
  superseded_by UUID,
  touched INTEGER DEFAULT 0 NOT NULL,
  cut_off INTEGER DEFAULT 0 NOT NULL,
  seq BIGINT DEFAULT 1 NOT NULL,
  sent_seq BIGINT DEFAULT 0 NOT NULL,
  error JSONB,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  rung_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  ended_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT cascades_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT cascades_status_check CHECK (status in ('pending','running','completed','partial','cancelled','superseded'))
);

CREATE INDEX cascades_created_idx ON cascades (user_id, created_at, id);

CREATE INDEX cascades_doorbell_idx ON cascades (rung_at) WHERE seq > sent_seq;

CREATE INDEX cascades_open_idx ON cascades (rung_at) WHERE status in ('pending','running');

CREATE INDEX cascades_unplanned_idx ON cascades (user_id, target_id) WHERE planned_at is null;

CREATE TABLE contents (
  user_id UUID NOT NULL,
  hash TEXT NOT NULL,
  size BIGINT NOT NULL,
  codec TEXT DEFAULT 'identity' NOT NULL,
  tier TEXT DEFAULT 'warm' NOT NULL,
  body BYTEA,
  location TEXT,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT contents_pkey PRIMARY KEY (user_id, hash),
  CONSTRAINT contents_placed_check CHECK ((body is null) <> (location is null))
);

CREATE TABLE dead_letters (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  run_id UUID NOT NULL,
  derivation_id UUID NOT NULL,
  code TEXT NOT NULL,
  detail TEXT NOT NULL,
  inputs JSONB DEFAULT '[]'::jsonb NOT NULL,
  usage JSONB DEFAULT '{}'::jsonb NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  redriven_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT dead_letters_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT dead_letters_user_id_run_id_key UNIQUE (user_id, run_id)
);

CREATE TABLE definitions (
  owner_id UUID NOT NULL,
  slug TEXT NOT NULL,
  version INTEGER NOT NULL,
  digest TEXT NOT NULL,
  name TEXT NOT NULL,
  source TEXT NOT NULL,
  ir TEXT NOT NULL,
  published BOOLEAN DEFAULT false NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT definitions_pkey PRIMARY KEY (owner_id, slug, version),
  CONSTRAINT definitions_owner_id_slug_digest_key UNIQUE (owner_id, slug, digest)
);

CREATE TABLE derivations (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  instance_id UUID NOT NULL,
  provider_id UUID NOT NULL,
  anchor_kind TEXT NOT NULL,
  anchor_id UUID NOT NULL,
  execution TEXT NOT NULL,
  supersede TEXT NOT NULL,
  reads_meta BOOLEAN DEFAULT false NOT NULL,
  want_digest TEXT NOT NULL,
  used_digest TEXT,
  unsettled BOOLEAN DEFAULT true NOT NULL,
  pending_inputs INTEGER DEFAULT 0 NOT NULL,
  hold TEXT,
  hold_detail JSONB,
  run_id UUID,
  attempt INTEGER DEFAULT 0 NOT NULL,
  owner_cascade_id UUID,
  run_after TIMESTAMP WITH TIME ZONE,
  dirty_since TIMESTAMP WITH TIME ZONE,
  force BOOLEAN DEFAULT false NOT NULL,
  level INTEGER DEFAULT 0 NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  settled_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT derivations_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT derivations_user_id_instance_id_anchor_id_key UNIQUE (user_id, instance_id, anchor_id),
  CONSTRAINT derivations_hold_check CHECK (hold in ('approval','conflict','budget','failed','cancelled','inactive','retired'))
);

CREATE INDEX derivations_anchor_idx ON derivations (user_id, anchor_id);

CREATE INDEX derivations_owner_idx ON derivations (user_id, owner_cascade_id) WHERE unsettled;

CREATE TABLE events (
  user_id UUID NOT NULL,
  seq BIGINT NOT NULL,
  id UUID NOT NULL,
  type TEXT NOT NULL,
  subject TEXT NOT NULL,
  key TEXT NOT NULL,
  data JSONB DEFAULT '{}'::jsonb NOT NULL,
  time TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  published_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT events_pkey PRIMARY KEY (user_id, seq),
  CONSTRAINT events_id_key UNIQUE (id)
);

CREATE INDEX events_unpublished_idx ON events (user_id, seq) WHERE published_at is null;

CREATE TABLE idempotency_keys (
  user_id UUID NOT NULL,
  route TEXT NOT NULL,
  key TEXT NOT NULL,
  fingerprint TEXT NOT NULL,
  status INTEGER,
  headers JSONB,
  body BYTEA,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  completed_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, route, key)
);

CREATE TABLE installation (
  id UUID NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  secret BYTEA NOT NULL,
  CONSTRAINT installation_pkey PRIMARY KEY (id)
);

CREATE TABLE instances (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  provider_id UUID NOT NULL,
  active BOOLEAN DEFAULT true NOT NULL,
  settings TEXT DEFAULT '{}' NOT NULL,
  settings_digest TEXT DEFAULT '' NOT NULL,
  version INTEGER DEFAULT 1 NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT instances_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT instances_user_id_provider_id_key UNIQUE (user_id, provider_id)
);

CREATE TABLE manual_edges (
  user_id UUID NOT NULL,
  parent_id UUID NOT NULL,
  child_id UUID NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT manual_edges_pkey PRIMARY KEY (user_id, parent_id, child_id)
);

CREATE INDEX manual_edges_child_idx ON manual_edges (user_id, child_id);

CREATE TABLE providers (
  id UUID NOT NULL,
  owner_id UUID NOT NULL,
  slug TEXT NOT NULL,
  name TEXT NOT NULL,
  description TEXT DEFAULT '' NOT NULL,
  version INTEGER DEFAULT 1 NOT NULL,
  spec TEXT NOT NULL,
  workflow_id TEXT NOT NULL,
  definition_digest TEXT NOT NULL,
  input_schemas TEXT[] DEFAULT '{}' NOT NULL,
  content_types TEXT[] DEFAULT '{}' NOT NULL,
  events TEXT[] DEFAULT '{}' NOT NULL,
  origin TEXT NOT NULL,
  anchor TEXT NOT NULL,
  collect_bucket_type TEXT,
  collect_schema TEXT,
  outputs JSONB DEFAULT '[]'::jsonb NOT NULL,
  execution TEXT NOT NULL,
  supersede TEXT DEFAULT 'finish' NOT NULL,
  reads_meta BOOLEAN DEFAULT false NOT NULL,
  on_conflict TEXT DEFAULT 'keep_human' NOT NULL,
  on_delete TEXT DEFAULT 'keep' NOT NULL,
  debounce_ms INTEGER DEFAULT 0 NOT NULL,
  debounce_max_ms INTEGER DEFAULT 0 NOT NULL,
  priority INTEGER DEFAULT 3 NOT NULL,
  published BOOLEAN DEFAULT false NOT NULL,
  active BOOLEAN DEFAULT true NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT providers_pkey PRIMARY KEY (id),
  CONSTRAINT providers_owner_id_slug_key UNIQUE (owner_id, slug)
);

CREATE TABLE schemas (
  id UUID NOT NULL,
  owner_id UUID NOT NULL,
  slug TEXT NOT NULL,
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  type TEXT DEFAULT 'intermediate' NOT NULL,
  definition TEXT NOT NULL,
  strict_mode BOOLEAN DEFAULT false NOT NULL,
  examples TEXT DEFAULT '[]' NOT NULL,
  description TEXT DEFAULT '' NOT NULL,
  compatible_with TEXT[] DEFAULT '{}' NOT NULL,
  published BOOLEAN DEFAULT false NOT NULL,
  deprecated BOOLEAN DEFAULT false NOT NULL,
  active BOOLEAN DEFAULT true NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  provider_id TEXT DEFAULT '' NOT NULL,
  required_fields TEXT[] DEFAULT '{}' NOT NULL,
  CONSTRAINT schemas_pkey PRIMARY KEY (id),
  CONSTRAINT schemas_owner_id_slug_version_key UNIQUE (owner_id, slug, version)
);

CREATE TABLE user_state (
  user_id UUID NOT NULL,
  event_seq BIGINT DEFAULT 0 NOT NULL,
  blob_count BIGINT DEFAULT 0 NOT NULL,
  bytes_used BIGINT DEFAULT 0 NOT NULL,
  bytes_quota BIGINT,
  updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT user_state_pkey PRIMARY KEY (user_id)
);

CREATE TABLE users (
  user_id UUID NOT NULL,
  name TEXT NOT NULL,
  roles TEXT[] DEFAULT '{}' NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT users_pkey PRIMARY KEY (user_id),
  CONSTRAINT users_name_key UNIQUE (name)
);

CREATE TABLE bucket_blobs (
  user_id UUID NOT NULL,
  bucket_id UUID NOT NULL,
  blob_id UUID NOT NULL,
  position INTEGER NOT NULL,
  inherited_from UUID,
  added_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT bucket_blobs_pkey PRIMARY KEY (user_id, bucket_id, blob_id),
  CONSTRAINT bucket_blobs_user_id_bucket_id_fkey FOREIGN KEY(user_id, bucket_id) REFERENCES buckets (user_id, id),
  CONSTRAINT bucket_blobs_user_id_blob_id_fkey FOREIGN KEY(user_id, blob_id) REFERENCES blobs (user_id, id)
);

CREATE INDEX bucket_blobs_blob_idx ON bucket_blobs (user_id, blob_id);

CREATE TABLE deltas (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  blob_id UUID NOT NULL,
  from_version INTEGER NOT NULL,
  to_version INTEGER NOT NULL,
  operation TEXT NOT NULL,
  patch TEXT,
  inverse TEXT,
  document_hash TEXT NOT NULL,
  content_hash TEXT NOT NULL,
  cutoff_hash TEXT NOT NULL,
  meta_hash TEXT NOT NULL,
  actor TEXT NOT NULL,
  provider_id TEXT,
  previous_delta UUID,
  caused_by UUID,
  cascade_id UUID,
  status TEXT DEFAULT 'applied' NOT NULL,
  idempotency_key TEXT,
  run_id UUID,
  machine_hash TEXT,
  base_hash TEXT,
  conflicts TEXT,
  inputs JSONB,
  error TEXT,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  applied_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT deltas_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT deltas_user_id_blob_id_fkey FOREIGN KEY(user_id, blob_id) REFERENCES blobs (user_id, id),
  CONSTRAINT deltas_contiguous_check CHECK (to_version = from_version + 1),
  CONSTRAINT deltas_operation_check CHECK (operation in ('create','update','transform','delete','revert','restore')),
  CONSTRAINT deltas_status_check CHECK (status in ('pending','proposed','applied','rejected','failed'))
);

CREATE INDEX deltas_cascade_idx ON deltas (user_id, cascade_id) WHERE cascade_id is not null;

CREATE UNIQUE INDEX deltas_idempotency_key ON deltas (user_id, idempotency_key) WHERE idempotency_key is not null;

CREATE UNIQUE INDEX deltas_run_key ON deltas (user_id, run_id, blob_id) WHERE run_id is not null and status = 'applied';

CREATE UNIQUE INDEX deltas_version_key ON deltas (user_id, blob_id, to_version) WHERE status = 'applied';

CREATE TABLE derivation_inputs (
  user_id UUID NOT NULL,
  derivation_id UUID NOT NULL,
  blob_id UUID NOT NULL,
  role TEXT DEFAULT 'source' NOT NULL,
  position INTEGER DEFAULT 0 NOT NULL,
  required BOOLEAN DEFAULT true NOT NULL,
  tracks BOOLEAN DEFAULT true NOT NULL,
  used_version INTEGER,
  used_hash TEXT,
  CONSTRAINT derivation_inputs_pkey PRIMARY KEY (user_id, derivation_id, blob_id),
  CONSTRAINT derivation_inputs_user_id_derivation_id_fkey FOREIGN KEY(user_id, derivation_id) REFERENCES derivations (user_id, id),
  CONSTRAINT derivation_inputs_user_id_blob_id_fkey FOREIGN KEY(user_id, blob_id) REFERENCES blobs (user_id, id)
);

CREATE INDEX derivation_inputs_blob_idx ON derivation_inputs (user_id, blob_id);

CREATE TABLE derivation_outputs (
  user_id UUID NOT NULL,
  derivation_id UUID NOT NULL,
  slot TEXT NOT NULL,
  blob_id UUID NOT NULL,
  machine_hash TEXT,
  machine_run_id UUID,
  CONSTRAINT derivation_outputs_pkey PRIMARY KEY (user_id, derivation_id, slot),
  CONSTRAINT derivation_outputs_user_id_blob_id_key UNIQUE (user_id, blob_id),
  CONSTRAINT derivation_outputs_user_id_derivation_id_fkey FOREIGN KEY(user_id, derivation_id) REFERENCES derivations (user_id, id),
  CONSTRAINT derivation_outputs_user_id_blob_id_fkey FOREIGN KEY(user_id, blob_id) REFERENCES blobs (user_id, id)
);

CREATE TABLE runs (
  user_id UUID NOT NULL,
  id UUID NOT NULL,
  derivation_id UUID NOT NULL,
  cascade_id UUID NOT NULL,
  provider_id TEXT NOT NULL,
  attempt INTEGER NOT NULL,
  execution TEXT NOT NULL,
  status TEXT DEFAULT 'running' NOT NULL,
  definition_digest TEXT NOT NULL,
  settings_digest TEXT DEFAULT '' NOT NULL,
  used_digest TEXT NOT NULL,
  inputs JSONB DEFAULT '[]'::jsonb NOT NULL,
  label TEXT DEFAULT '' NOT NULL,
  workflow_id TEXT,
  lease_until TIMESTAMP WITH TIME ZONE,
  error JSONB,
  usage JSONB DEFAULT '{}'::jsonb NOT NULL,
  started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  ended_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT runs_pkey PRIMARY KEY (user_id, id),
  CONSTRAINT runs_user_id_derivation_id_fkey FOREIGN KEY(user_id, derivation_id) REFERENCES derivations (user_id, id),
  CONSTRAINT runs_status_check CHECK (status in ('running','parked','settled','superseded','failed','lost','cancelled'))
);

CREATE INDEX runs_cascade_idx ON runs (user_id, cascade_id, status);

CREATE INDEX runs_lease_idx ON runs (lease_until) WHERE status = 'running';

CREATE UNIQUE INDEX runs_live_key ON runs (user_id, derivation_id) WHERE status in ('running','parked');

CREATE TABLE snapshots (
  user_id UUID NOT NULL,
  blob_id UUID NOT NULL,
  version INTEGER NOT NULL,
  document_hash TEXT NOT NULL,
  created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  CONSTRAINT snapshots_pkey PRIMARY KEY (user_id, blob_id, version),
  CONSTRAINT snapshots_user_id_blob_id_fkey FOREIGN KEY(user_id, blob_id) REFERENCES blobs (user_id, id)
);

CREATE TABLE run_steps (
  user_id UUID NOT NULL,
  run_id UUID NOT NULL,
  step_id TEXT NOT NULL,
  position INTEGER NOT NULL,
  type TEXT NOT NULL,
  status TEXT NOT NULL,
  output_hash TEXT,
  usage JSONB DEFAULT '{}'::jsonb NOT NULL,
  error JSONB,
  started_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
  ended_at TIMESTAMP WITH TIME ZONE,
  CONSTRAINT run_steps_pkey PRIMARY KEY (user_id, run_id, step_id),
  CONSTRAINT run_steps_user_id_run_id_fkey FOREIGN KEY(user_id, run_id) REFERENCES runs (user_id, id)
);

-- Row-level security: forced, so that not even the owner is exempt; no policy, no rows.

alter table users enable row level security;
alter table users force row level security;
create policy users_user on users to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on users to studio_app;

alter table user_state enable row level security;
alter table user_state force row level security;
create policy user_state_user on user_state to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on user_state to studio_app;

alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy api_keys_user on api_keys to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on api_keys to studio_app;

alter table idempotency_keys enable row level security;
alter table idempotency_keys force row level security;
create policy idempotency_keys_user on idempotency_keys to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on idempotency_keys to studio_app;

alter table contents enable row level security;
alter table contents force row level security;
create policy contents_user on contents to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on contents to studio_app;

alter table blobs enable row level security;
alter table blobs force row level security;
create policy blobs_user on blobs to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on blobs to studio_app;

alter table deltas enable row level security;
alter table deltas force row level security;
create policy deltas_user on deltas to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on deltas to studio_app;

alter table snapshots enable row level security;
alter table snapshots force row level security;
create policy snapshots_user on snapshots to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on snapshots to studio_app;

alter table manual_edges enable row level security;
alter table manual_edges force row level security;
create policy manual_edges_user on manual_edges to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on manual_edges to studio_app;

alter table buckets enable row level security;
alter table buckets force row level security;
create policy buckets_user on buckets to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on buckets to studio_app;

alter table bucket_blobs enable row level security;
alter table bucket_blobs force row level security;
create policy bucket_blobs_user on bucket_blobs to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on bucket_blobs to studio_app;

alter table instances enable row level security;
alter table instances force row level security;
create policy instances_user on instances to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on instances to studio_app;

alter table derivations enable row level security;
alter table derivations force row level security;
create policy derivations_user on derivations to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on derivations to studio_app;

alter table derivation_inputs enable row level security;
alter table derivation_inputs force row level security;
create policy derivation_inputs_user on derivation_inputs to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on derivation_inputs to studio_app;

alter table derivation_outputs enable row level security;
alter table derivation_outputs force row level security;
create policy derivation_outputs_user on derivation_outputs to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on derivation_outputs to studio_app;

alter table runs enable row level security;
alter table runs force row level security;
create policy runs_user on runs to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on runs to studio_app;

alter table run_steps enable row level security;
alter table run_steps force row level security;
create policy run_steps_user on run_steps to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on run_steps to studio_app;

alter table cascades enable row level security;
alter table cascades force row level security;
create policy cascades_user on cascades to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on cascades to studio_app;

alter table dead_letters enable row level security;
alter table dead_letters force row level security;
create policy dead_letters_user on dead_letters to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on dead_letters to studio_app;

alter table events enable row level security;
alter table events force row level security;
create policy events_user on events to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on events to studio_app;

alter table schemas enable row level security;
alter table schemas force row level security;
create policy schemas_read on schemas for select to studio_app using (published or owner_id = app_user());
create policy schemas_insert on schemas for insert to studio_app with check (owner_id = app_user());
create policy schemas_update on schemas for update to studio_app using (owner_id = app_user()) with check (owner_id = app_user());
create policy schemas_delete on schemas for delete to studio_app using (owner_id = app_user());
grant select, insert, update, delete on schemas to studio_app;

alter table definitions enable row level security;
alter table definitions force row level security;
create policy definitions_read on definitions for select to studio_app using (published or owner_id = app_user());
create policy definitions_insert on definitions for insert to studio_app with check (owner_id = app_user());
create policy definitions_update on definitions for update to studio_app using (owner_id = app_user()) with check (owner_id = app_user());
create policy definitions_delete on definitions for delete to studio_app using (owner_id = app_user());
grant select, insert, update, delete on definitions to studio_app;

alter table providers enable row level security;
alter table providers force row level security;
create policy providers_read on providers for select to studio_app using (published or owner_id = app_user());
create policy providers_insert on providers for insert to studio_app with check (owner_id = app_user());
create policy providers_update on providers for update to studio_app using (owner_id = app_user()) with check (owner_id = app_user());
create policy providers_delete on providers for delete to studio_app using (owner_id = app_user());
grant select, insert, update, delete on providers to studio_app;

-- An API key is found before its user is known: by its hash alone.
create policy api_keys_lookup on api_keys for select to studio_app using (key_hash = app_key_hash());

alter table installation enable row level security;
alter table installation force row level security;
create policy installation_read on installation for select to studio_app, studio_relay using (true);
grant select on installation to studio_app, studio_relay;
create policy installation_write on installation for insert to studio_owner with check (true);

-- The relay sees ids, sequences and lifecycles, never content.
create policy events_relay on events for select to studio_relay using (true);
create policy events_relay_mark on events for update to studio_relay using (true) with check (true);
grant select, update (published_at) on events to studio_relay;

create policy cascades_relay on cascades for select to studio_relay using (true);
create policy cascades_relay_mark on cascades for update to studio_relay using (true) with check (true);
grant select (user_id, id, cause, status, seq, sent_seq, created_at, rung_at, planned_at, ended_at),
  update (seq, sent_seq, rung_at) on cascades to studio_relay;

create policy derivations_relay on derivations for select to studio_relay using (true);
grant select (user_id, id, unsettled, pending_inputs, hold, run_id, owner_cascade_id, run_after)
  on derivations to studio_relay;

create policy runs_relay on runs for select to studio_relay using (true);
grant select (user_id, id, derivation_id, cascade_id, status, execution, workflow_id, lease_until)
  on runs to studio_relay;
