-- Deltas that are offered and not applied: a client's side of a conflict, what somebody proposes, what was overwritten.

-- Offer a change (p_status 'proposed'), or record what a later write has taken the place of ('rejected'). p_from is the
-- version that the patch leads from; nothing else changes. p_answers: the delta that it belongs to.
create or replace function propose_delta(
  p_user uuid, p_blob uuid, p_delta uuid, p_from int, p_patch text, p_inverse text, p_document_hash text,
  p_content_hash text, p_cutoff_hash text, p_meta_hash text, p_binary_hash text, p_size bigint, p_actor text,
  p_conflicts text, p_base int, p_status text, p_answers uuid, p_idempotency_key text
) returns text language plpgsql as $$
declare v_deleted boolean; v_said deltas%rowtype;
begin
  perform set_config('app.user_id', p_user::text, true);
  select deleted_at is not null into v_deleted from blobs where user_id = p_user and id = p_blob and version > 0
    for no key update;
  if not found then return 'not_found'; end if;
  if v_deleted then return 'deleted'; end if;
  if p_binary_hash is not null and not studio_touch(p_user, p_binary_hash, p_size) then return 'unknown_content'; end if;
  -- What is left of a proposal is still the words of whoever proposed it; what is overwritten, of who wrote it.
  if p_status = 'rejected' then
    select * into v_said from deltas
      where user_id = p_user and blob_id = p_blob and to_version = p_from - 1 and status = 'applied';
  else
    select * into v_said from deltas where user_id = p_user and id = p_answers and run_id is not null;
  end if;
  insert into deltas (user_id, id, blob_id, from_version, to_version, operation, patch, inverse, document_hash,
      content_hash, cutoff_hash, meta_hash, binary_hash, actor, provider_id, run_id, caused_by, conflicts, base_version,
      status, resolved_at, resolved_by, idempotency_key)
    values (p_user, p_delta, p_blob, p_from, p_from + 1, 'update', p_patch, p_inverse, p_document_hash, p_content_hash,
      p_cutoff_hash, p_meta_hash, p_binary_hash,
      case when p_status = 'rejected' then coalesce(v_said.actor, p_actor)
        else coalesce('provider:' || v_said.provider_id, p_actor) end,
      case when p_status <> 'rejected' then v_said.provider_id end, case when p_status <> 'rejected' then v_said.run_id end,
      p_answers, p_conflicts, p_base, p_status, case when p_status = 'rejected' then clock_timestamp() end,
      case when p_status = 'rejected' then p_actor end, p_idempotency_key)
    on conflict (user_id, id) do nothing;
  if not found then return 'done'; end if;  -- by an earlier attempt of the same request
  return p_status;
end $$;

-- What the world is told of a delta that is not applied; last in lock order.
create or replace function studio_tell_delta(p_user uuid, p_delta uuid, p_event text) returns void
language sql as $$
  select studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', p_event, 'subject', 'deltas/' || d.id,
    'key', d.blob_id, 'data', jsonb_build_object('blob_id', d.blob_id, 'user_id', p_user, 'delta_id', d.id,
      'operation', d.operation, 'from_version', d.from_version, 'provider_id', d.provider_id, 'run_id', d.run_id))))
  from deltas d where d.user_id = p_user and d.id = p_delta
$$;

-- A person takes what was proposed: the row itself becomes the applied delta. status as of append_delta, or 'resolved' if
-- it is not open any more. Whoever does not get 'applied' has to roll back.
create or replace function accept_delta(
  p_user uuid, p_blob uuid, p_expected int, p_delta uuid, p_cascade uuid, p_operation text, p_patch text,
  p_inverse text, p_document_hash text, p_content_hash text, p_cutoff_hash text, p_meta_hash text, p_binary_hash text,
  p_size bigint, p_document_size bigint, p_stored_size bigint, p_codec text, p_body bytea, p_location text,
  p_external boolean, p_title text, p_preview text, p_tags text[], p_actor text, p_idempotency_key text,
  p_reserved bigint, p_conflicts text, p_base int
) returns table (status text, version int, cascade_id uuid, updated_at timestamptz) language plpgsql as $$
#variable_conflict use_column
begin
  perform studio_lock(p_user);
  perform from blobs b where b.user_id = p_user and b.id = p_blob for no key update;
  update deltas d set status = 'pending' where d.user_id = p_user and d.id = p_delta and d.status = 'proposed';
  if not found then return query select 'resolved', 0, null::uuid, now(); return; end if;
  -- Cascades are rung before the event sequence is taken, which is last in lock order.
  perform studio_decided(p_user, p_delta);
  return query select * from append_delta(p_user, p_blob, p_expected, p_delta, p_cascade, p_operation, p_patch, p_inverse,
    p_document_hash, p_content_hash, p_cutoff_hash, p_meta_hash, p_binary_hash, p_size, p_document_size, p_stored_size,
    p_codec, p_body, p_location, p_external, p_title, p_preview, p_tags, p_actor, p_idempotency_key, p_reserved,
    p_conflicts, p_base);
end $$;

-- A person does not take it: the text stays, and whoever waited for the decision goes on. Returns the delta's status as it
-- was; only what was 'proposed' changes.
create or replace function reject_delta(p_user uuid, p_delta uuid, p_actor text) returns text language plpgsql as $$
declare v_status text;
begin
  perform studio_lock(p_user);
  -- The blob before the delta, as everywhere.
  perform from deltas d join blobs b on b.user_id = d.user_id and b.id = d.blob_id
    where d.user_id = p_user and d.id = p_delta for no key update of b;
  select status into v_status from deltas where user_id = p_user and id = p_delta for update;
  if v_status = 'proposed' then
    update deltas set status = 'rejected', resolved_at = clock_timestamp(), resolved_by = p_actor
      where user_id = p_user and id = p_delta;
    perform studio_decided(p_user, p_delta);
    perform studio_tell_delta(p_user, p_delta, 'delta.rejected');
  end if;
  return v_status;
end $$;
