-- Blobs and deltas: each function is one transaction and one round trip.

create or replace function studio_store(
  p_user uuid, p_hash text, p_size bigint, p_stored_size bigint, p_codec text, p_body bytea, p_location text,
  p_chunks bytea default null
) returns void language sql as $$
  insert into contents as c (user_id, hash, size, stored_size, codec, tier, body, location, chunks)
  values (p_user, p_hash, p_size, p_stored_size, p_codec, case when p_location is null then 'warm' else 'cold' end,
    p_body, p_location, p_chunks)
  on conflict (user_id, hash) do update set touched_at = now() where c.touched_at < now() - interval '1 minute'
$$;

-- Whether the user has this content, of this size (a wrong one would cheat the quota); from now on it is needed by
-- whoever asks.
create or replace function studio_touch(p_user uuid, p_hash text, p_size bigint) returns boolean language plpgsql as $$
begin
  update contents set touched_at = now() where user_id = p_user and hash = p_hash and size = p_size;
  return found;
end $$;

-- A blob, its first delta, its events and its cascade (seed 001, CreateBlob; DESIGN section 2). The hottest write of
-- all: calling studio_enter and studio_emit instead of saying what they do would nearly double its time.
create or replace function create_blob(
  p_user uuid, p_blob uuid, p_delta uuid, p_cascade uuid, p_content_type text, p_schema text,
  p_document_hash text, p_content_hash text, p_cutoff_hash text, p_meta_hash text, p_binary_hash text,
  p_size bigint, p_document_size bigint, p_stored_size bigint, p_codec text, p_body bytea, p_location text, p_title text, p_preview text, p_tags text[], p_actor text,
  p_parent uuid, p_buckets uuid[], p_positions int[], p_idempotency_key text, p_reserved bigint default 0
) returns table (created_at timestamptz, root_id uuid, depth int, problem text) language plpgsql as $$
#variable_conflict use_column
declare v_now timestamptz := now(); v_root uuid := p_blob; v_depth int := 0; v_bucket uuid; v_seq bigint;
  v_used bigint; v_reserved bigint; v_quota bigint;
begin
  perform set_config('app.user_id', p_user::text, true);
  if p_parent is not null then
    select b.root_id, b.depth + 1 into v_root, v_depth from blobs b
      where b.user_id = p_user and b.id = p_parent and b.version > 0;
    if not found then return query select v_now, p_blob, 0, 'unknown_parent'; return; end if;
  end if;
  if cardinality(p_buckets) > 0 then
    select x into v_bucket from unnest(p_buckets) x
      where not exists (select from buckets k where k.user_id = p_user and k.id = x and k.deleted_at is null) limit 1;
    if v_bucket is not null then return query select v_now, v_bucket, 0, 'unknown_bucket'; return; end if;
  end if;

  if p_binary_hash is not null and not studio_touch(p_user, p_binary_hash, p_size) then
    return query select v_now, p_blob, 0, 'unknown_content'; return;
  end if;
  insert into contents as c (user_id, hash, size, stored_size, codec, tier, body, location)
    values (p_user, p_document_hash, p_document_size, p_stored_size, p_codec,
      case when p_location is null then 'warm' else 'cold' end, p_body, p_location)
    on conflict (user_id, hash) do update set touched_at = now() where c.touched_at < now() - interval '1 minute';
  insert into blobs (user_id, id, content_type, schema_id, version, document_hash, content_hash, cutoff_hash,
      meta_hash, size, title, preview, tags, created_by, root_id, depth, storage_type, created_at, updated_at,
      kept_version)
    values (p_user, p_blob, p_content_type, p_schema, 1, p_document_hash, p_content_hash, p_cutoff_hash,
      p_meta_hash, p_size, p_title, p_preview, p_tags, 'user', v_root, v_depth,
      case when p_location is null then 'inline' else 'url' end, v_now, v_now, 1);
  insert into cascades (user_id, id, cause, target_id, actor, label)
    values (p_user, p_cascade, 'create', p_blob, p_actor, p_title);
  insert into deltas (user_id, id, blob_id, from_version, to_version, operation, document_hash, content_hash,
      cutoff_hash, meta_hash, binary_hash, actor, cascade_id, idempotency_key, created_at, applied_at)
    values (p_user, p_delta, p_blob, 0, 1, 'create', p_document_hash, p_content_hash, p_cutoff_hash, p_meta_hash,
      p_binary_hash, p_actor, p_cascade, p_idempotency_key, v_now, v_now);
  insert into snapshots (user_id, blob_id, version, document_hash) values (p_user, p_blob, 1, p_document_hash);
  if p_parent is not null then
    insert into manual_edges (user_id, parent_id, child_id) values (p_user, p_parent, p_blob);
  end if;
  if cardinality(p_buckets) > 0 then
    insert into bucket_blobs (user_id, bucket_id, blob_id, position)
      select p_user, k.id, p_blob, coalesce(k.position, (
          select coalesce(max(m.position), 0) + 1 from bucket_blobs m
          where m.user_id = p_user and m.bucket_id = k.id and m.inherited_from is null))
      from unnest(p_buckets, p_positions) k(id, position);
  end if;
  -- What studio_emit does, without its array.
  -- What an upload had reserved is from now on used.
  update user_state set event_seq = event_seq + 2, blob_count = blob_count + 1, bytes_used = bytes_used + p_size,
      bytes_reserved = bytes_reserved - p_reserved, updated_at = v_now
    where user_id = p_user returning event_seq, bytes_used, bytes_reserved, bytes_quota
    into v_seq, v_used, v_reserved, v_quota;
  if not found then raise exception 'user % has no state', p_user; end if;
  if v_quota is not null then perform studio_charge(p_user, p_size - p_reserved, v_used, v_reserved, v_quota); end if;
  with told as (insert into outbox (user_id, first_seq, last_seq) values (p_user, v_seq - 1, v_seq))
  insert into events (user_id, seq, id, type, subject, key, data) values
    (p_user, v_seq - 1, studio_uuid7(), 'blob.created', 'blobs/' || p_blob, p_schema,
      jsonb_build_object('blob_id', p_blob, 'user_id', p_user, 'version', 1, 'schema_id', p_schema,
        'content_type', p_content_type, 'size', p_size, 'delta_id', p_delta, 'cascade_id', p_cascade,
        'parent_id', p_parent, 'bucket_ids', to_jsonb(p_buckets),
        'storage_type', case when p_location is null then 'inline' else 'url' end)),
    (p_user, v_seq, studio_uuid7(), 'delta.applied', 'deltas/' || p_delta, p_blob::text,
      jsonb_build_object('blob_id', p_blob, 'user_id', p_user, 'delta_id', p_delta, 'operation', 'create',
        'from_version', 0, 'to_version', 1, 'cascade_id', p_cascade));
  created_at := v_now; root_id := v_root; depth := v_depth; return next;
end $$;

-- The cascade an edit belongs to: the user's unplanned one on that blob, or a new one (CASCADES rule 10). The row
-- lock makes plan wait for us or us for plan: an edit is either in the plan or has a cascade of its own.
create or replace function studio_fold(
  p_user uuid, p_blob uuid, p_cascade uuid, p_cause text, p_actor text, p_label text
) returns uuid language plpgsql as $$
declare v_cascade uuid;
begin
  -- An edit under a plan has a cascade of its own: another one would do more than was planned.
  if coalesce(current_setting('studio.plan_id', true), '') = '' then
    select c.id into v_cascade from cascades c
      where c.user_id = p_user and c.target_id = p_blob and c.status = 'pending' and c.planned_at is null
        and c.cause in ('create', 'edit', 'delete', 'restore')
      order by c.created_at desc limit 1 for update;
  end if;
  if v_cascade is not null then
    update cascades set seq = seq + 1, rung_at = now(), caused_at = now() where user_id = p_user and id = v_cascade;
    return v_cascade;
  end if;
  insert into cascades (user_id, id, cause, target_id, actor, label)
    values (p_user, p_cascade, p_cause, p_blob, p_actor, p_label);
  return p_cascade;
end $$;

-- One person's delta on one blob: update, delete, revert or restore. status is 'applied', or names why not.
--
-- p_codec null: the document is not kept whole, its patch leads to it from the newest version that is.
create or replace function append_delta(
  p_user uuid, p_blob uuid, p_expected int, p_delta uuid, p_cascade uuid, p_operation text, p_patch text,
  p_inverse text, p_document_hash text, p_content_hash text, p_cutoff_hash text, p_meta_hash text, p_binary_hash text,
  p_size bigint, p_document_size bigint, p_stored_size bigint, p_codec text, p_body bytea, p_location text,
  p_external boolean, p_title text, p_preview text, p_tags text[], p_actor text, p_idempotency_key text,
  p_reserved bigint default 0, p_conflicts text default null, p_base int default null
) returns table (status text, version int, cascade_id uuid, updated_at timestamptz) language plpgsql as $$
#variable_conflict use_column
declare v_blob blobs%rowtype; v_cascade uuid; v_now timestamptz := now(); v_cause text; v_event text; v_seq bigint;
  v_used bigint; v_reserved bigint; v_quota bigint;
begin
  perform set_config('app.user_id', p_user::text, true);
  select * into v_blob from blobs b where b.user_id = p_user and b.id = p_blob and b.version > 0 for no key update;
  if not found then return query select 'not_found', 0, null::uuid, v_now; return; end if;
  if v_blob.deleted_at is not null and p_operation <> 'restore' then
    return query select 'deleted', v_blob.version, null::uuid, v_now; return;
  end if;
  if v_blob.version <> p_expected then
    return query select 'conflict', v_blob.version, null::uuid, v_blob.updated_at; return;
  end if;
  if p_binary_hash is not null and not studio_touch(p_user, p_binary_hash, p_size) then
    return query select 'unknown_content', v_blob.version, null::uuid, v_blob.updated_at; return;
  end if;
  -- Later than the version before, whichever transaction began first: ?at= relies on it.
  v_now := greatest(clock_timestamp(), v_blob.updated_at + interval '1 microsecond');
  v_cause := case p_operation when 'delete' then 'delete' when 'restore' then 'restore' else 'edit' end;
  v_event := case p_operation when 'delete' then 'blob.deleted' else 'blob.updated' end;

  if p_codec is not null then
    perform studio_store(p_user, p_document_hash, p_document_size, p_stored_size, p_codec, p_body, p_location);
    insert into snapshots (user_id, blob_id, version, document_hash)
      values (p_user, p_blob, v_blob.version + 1, p_document_hash);
  end if;
  update blobs b set version = b.version + 1, document_hash = p_document_hash, content_hash = p_content_hash,
      cutoff_hash = p_cutoff_hash, meta_hash = p_meta_hash, size = p_size, title = p_title, preview = p_preview,
      tags = p_tags, storage_type = case when p_external then 'url' else 'inline' end, updated_at = v_now,
      kept_version = case when p_codec is null then b.kept_version else b.version + 1 end,
      patch_bytes = case when p_codec is null then b.patch_bytes + octet_length(p_patch) else 0 end,
      deleted_at = case p_operation when 'delete' then v_now when 'restore' then null else b.deleted_at end
    where b.user_id = p_user and b.id = p_blob;
  v_cascade := studio_fold(p_user, p_blob, p_cascade, v_cause, p_actor, p_title);
  insert into deltas as d (user_id, id, blob_id, from_version, to_version, operation, patch, inverse, document_hash,
      content_hash, cutoff_hash, meta_hash, binary_hash, actor, previous_delta, cascade_id, idempotency_key, created_at,
      applied_at, conflicts, base_version)
    select p_user, p_delta, p_blob, v_blob.version, v_blob.version + 1, p_operation, p_patch, p_inverse,
      p_document_hash, p_content_hash, p_cutoff_hash, p_meta_hash, p_binary_hash, p_actor,
      (select d.id from deltas d where d.user_id = p_user and d.blob_id = p_blob
         and d.to_version = v_blob.version and d.status = 'applied'),
      v_cascade, p_idempotency_key, v_now, v_now, p_conflicts, p_base
    -- A proposal that is being accepted (accept_delta) becomes the applied delta itself.
    on conflict (user_id, id) do update set from_version = excluded.from_version, to_version = excluded.to_version,
      operation = excluded.operation, patch = excluded.patch, inverse = excluded.inverse,
      document_hash = excluded.document_hash, content_hash = excluded.content_hash, cutoff_hash = excluded.cutoff_hash,
      meta_hash = excluded.meta_hash, binary_hash = excluded.binary_hash, actor = excluded.actor,
      previous_delta = excluded.previous_delta, cascade_id = excluded.cascade_id, applied_at = excluded.applied_at,
      conflicts = excluded.conflicts, status = 'applied', resolved_at = excluded.applied_at, resolved_by = excluded.actor
      where d.status = 'pending';
  if not found then raise unique_violation using message = 'delta ' || p_delta || ' is there already'; end if;
  update user_state set event_seq = event_seq + 2, bytes_used = bytes_used + p_size - v_blob.size, updated_at = v_now,
      bytes_reserved = bytes_reserved - p_reserved,
      blob_count = blob_count + case p_operation when 'delete' then -1 when 'restore' then 1 else 0 end
    where user_id = p_user returning event_seq, bytes_used, bytes_reserved, bytes_quota
    into v_seq, v_used, v_reserved, v_quota;
  if not found then raise exception 'user % has no state', p_user; end if;
  if v_quota is not null then
    perform studio_charge(p_user, p_size - v_blob.size - p_reserved, v_used, v_reserved, v_quota);
  end if;
  with told as (insert into outbox (user_id, first_seq, last_seq) values (p_user, v_seq - 1, v_seq))
  insert into events (user_id, seq, id, type, subject, key, data) values
    (p_user, v_seq - 1, studio_uuid7(), v_event, 'blobs/' || p_blob, v_blob.schema_id,
      jsonb_build_object('blob_id', p_blob, 'user_id', p_user, 'version', v_blob.version + 1,
        'schema_id', v_blob.schema_id, 'size', p_size, 'delta_id', p_delta, 'cascade_id', v_cascade,
        'provider_id', v_blob.provider_id)),
    (p_user, v_seq, studio_uuid7(), 'delta.applied', 'deltas/' || p_delta, p_blob::text,
      jsonb_build_object('blob_id', p_blob, 'user_id', p_user, 'delta_id', p_delta, 'operation', p_operation,
        'from_version', v_blob.version, 'to_version', v_blob.version + 1, 'cascade_id', v_cascade));
  status := 'applied'; version := v_blob.version + 1; cascade_id := v_cascade; updated_at := v_now; return next;
end $$;
