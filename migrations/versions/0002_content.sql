-- Content: a person's edit stores its patch; whole documents are kept for some versions (snapshots).
alter table blobs
  add column kept_version integer not null default 0,
  add column patch_bytes bigint not null default 0;
-- Until now every version was kept whole; what is there stays readable: each such version is its own snapshot. Forced
-- row-level security hides the rows from their owner as well, who is at work here.
alter table blobs no force row level security;
alter table deltas no force row level security;
alter table contents no force row level security;
alter table snapshots no force row level security;
insert into snapshots (user_id, blob_id, version, document_hash)
  select d.user_id, d.blob_id, d.to_version, d.document_hash from deltas d
  where d.status = 'applied' and exists (
    select from contents c where c.user_id = d.user_id and c.hash = d.document_hash)
  on conflict do nothing;
update blobs set kept_version = version where version > 0;

-- size is what a reader gets, stored_size what is kept. chunks: SHA-256 of each MiB, so that a part can be verified alone.
alter table contents
  add column stored_size bigint not null default 0,
  add column chunks bytea,
  add column touched_at timestamptz not null default now(),
  add column accessed_at timestamptz not null default now(),
  add column verified_at timestamptz;
update contents set stored_size = size;
alter table blobs force row level security;
alter table deltas force row level security;
alter table contents force row level security;
alter table snapshots force row level security;

-- binary_hash: the bytes that the document of this version refers to. base_version: what the client knew when it wrote
-- (concurrent edits). resolved_*: when and by whom a proposed delta was accepted or rejected.
alter table deltas
  add column binary_hash text,
  add column base_version integer,
  add column resolved_at timestamptz,
  add column resolved_by text;
-- An accepted proposal keeps the run that made it, beside what that run applied itself.
drop index deltas_run_key;
create unique index deltas_run_key on deltas (user_id, run_id, blob_id)
  where run_id is not null and status = 'applied' and operation in ('create', 'transform');
create index deltas_open_idx on deltas (user_id, blob_id) where status in ('pending', 'proposed');

alter table user_state add column bytes_reserved bigint not null default 0;

-- A large content on its way in. reserved counts against the quota until it is completed, aborted or expired.
create table uploads (
  user_id uuid not null,
  id uuid not null,
  blob_id uuid,
  content_type text not null,
  size bigint,
  digest text,
  part_size integer not null,
  location text not null,
  multipart text,
  fields text not null default '{}',
  reserved bigint not null default 0,
  status text not null default 'open',
  content_hash text,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  ended_at timestamptz,
  constraint uploads_pkey primary key (user_id, id),
  constraint uploads_status_check check (status in ('open', 'completed', 'aborted'))
);
create index uploads_open_idx on uploads (user_id, expires_at) where status = 'open';
create table upload_parts (
  user_id uuid not null,
  upload_id uuid not null,
  number integer not null,
  size bigint not null,
  etag text not null,
  created_at timestamptz not null default now(),
  constraint upload_parts_pkey primary key (user_id, upload_id, number),
  constraint upload_parts_user_id_upload_id_fkey foreign key (user_id, upload_id) references uploads (user_id, id)
    on delete cascade
);

alter table uploads enable row level security;
alter table uploads force row level security;
create policy uploads_user on uploads to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on uploads to studio_app;
alter table upload_parts enable row level security;
alter table upload_parts force row level security;
create policy upload_parts_user on upload_parts to studio_app using (user_id = app_user()) with check (user_id = app_user());
grant select, insert, update, delete on upload_parts to studio_app;

-- Who needs which content. Counted, never stored: a counter that drifts deletes somebody's text.
create view content_references with (security_invoker = true) as
  select user_id, document_hash as hash, 'snapshot' as reason, blob_id as id from snapshots
  union all select user_id, machine_hash, 'machine_head', blob_id from derivation_outputs where machine_hash is not null
  union all select user_id, machine_hash, 'machine', id from deltas where machine_hash is not null
  union all select user_id, base_hash, 'base', id from deltas where base_hash is not null
  union all select user_id, binary_hash, 'binary', id from deltas where binary_hash is not null
  union all select user_id, output_hash, 'step', run_id from run_steps where output_hash is not null
  -- What derivations want and live runs are pinned to (studio_pin).
  union all select user_id, 'sha256:' || substr(split_part(want_digest, ':', 2), 5), 'settings', id from derivations
    where want_digest like '%:pin-%'
  union all select user_id, 'sha256:' || substr(settings_digest, 5), 'settings', id from runs
    where settings_digest like 'pin-%' and status in ('running', 'parked');
grant select on content_references to studio_app;

-- A key belongs to the API key that used it; holder fences off an attempt that was overtaken. Answers of before have
-- neither, and are forgotten.
truncate idempotency_keys;
alter table idempotency_keys
  add column principal uuid not null,
  add column holder uuid not null,
  add column leased_at timestamptz not null default now(),
  add column outcome jsonb,
  drop constraint idempotency_keys_pkey,
  add constraint idempotency_keys_pkey primary key (user_id, principal, route, key);

-- A user's own policy for conflicts. What a run is pinned to is named by studio_pin. volatile: the fields of an output that
-- its definition computes per run.
alter table instances add column on_conflict text, drop column settings_digest,
  add constraint instances_on_conflict_check check (on_conflict in ('keep_human', 'wait', 'take_machine'));
alter table derivation_outputs add column volatile text[] not null default '{}';

-- Housekeeping goes from user to user, over ids alone; and asks of each object who names it.
create policy user_state_relay on user_state for select to studio_relay using (true);
grant select (user_id) on user_state to studio_relay;
-- When housekeeping moved a content to the object store; null: nobody moved it.
alter table contents add column moved_at timestamptz;
create index contents_location_idx on contents (user_id, location) where location is not null;
