-- Many blobs at once: one transaction and one round trip, whatever the number. Everything that one batch writes belongs to
-- one cascade (cause batch); create_blob and append_delta do the same for one blob each.

drop type if exists batch_item cascade;
create type batch_item as (
  n int, op text, blob_id uuid, delta_id uuid, expected int, content_type text, schema_id text, patch text, inverse text,
  document_hash text, content_hash text, cutoff_hash text, meta_hash text, binary_hash text, size bigint,
  document_size bigint, stored_size bigint, codec text, body bytea, location text, external boolean, title text,
  preview text, tags text, parent_id uuid, bucket_ids text, old_size bigint, verdict text, version int, about uuid
);

-- Who says that an item cannot be written: 'ok', or why not, with the current version or what it is about.
create or replace function studio_batch_verdicts(p_user uuid, p_items batch_item[]) returns batch_item[]
language sql stable as $$
  select array_agg((x.n, x.op, x.blob_id, x.delta_id, x.expected, x.content_type, coalesce(b.schema_id, x.schema_id),
      x.patch, x.inverse, x.document_hash, x.content_hash, x.cutoff_hash, x.meta_hash, x.binary_hash, x.size,
      x.document_size, x.stored_size, x.codec, x.body, x.location, x.external, x.title, x.preview, x.tags, x.parent_id,
      x.bucket_ids, coalesce(b.size, 0), v.verdict, coalesce(b.version, 0), v.about)::batch_item order by x.n)
  from unnest(p_items) x
  left join lateral (select * from blobs where user_id = p_user and id = x.blob_id and version > 0 offset 0) b on true
  left join lateral (select p.id from (select x.parent_id as id) p where x.parent_id is not null and not exists (
    select from blobs where user_id = p_user and id = x.parent_id and version > 0)) m on true
  left join lateral (select k.id::uuid as id from jsonb_array_elements_text(x.bucket_ids::jsonb) k(id)
    where not exists (select from buckets where user_id = p_user and id = k.id::uuid and deleted_at is null)
    limit 1) u on true
  cross join lateral (select case
      when x.op = 'create' and b.id is not null then case when exists (
          select from deltas d where d.user_id = p_user and d.blob_id = x.blob_id and d.to_version = 1
            and d.status = 'applied' and d.document_hash = x.document_hash)
        then case when b.deleted_at is null then 'exists' else 'deleted' end else 'key_reused' end
      when x.op = 'create' and m.id is not null then 'unknown_parent'
      when x.op = 'create' and u.id is not null then 'unknown_bucket'
      when x.op <> 'create' and b.id is null then 'not_found'
      when x.op <> 'create' and b.deleted_at is not null then 'deleted'
      when x.op <> 'create' and b.version <> x.expected then 'conflict'
      when x.binary_hash is not null and not exists (select from contents c
        where c.user_id = p_user and c.hash = x.binary_hash and c.size = x.size) then 'unknown_content'
      else 'ok' end as verdict, coalesce(m.id, u.id) as about) v
$$;

-- In their order, items that have no room any more are over_quota. Others may take the room until the end of the
-- transaction: studio_charge has the last word.
create or replace function studio_batch_room(p_user uuid, p_items batch_item[]) returns batch_item[]
language plpgsql stable as $$
declare v_left bigint; v_growth bigint;
begin
  select bytes_quota - bytes_used - bytes_reserved into v_left from user_state where user_id = p_user;
  if v_left is null then return p_items; end if;
  for i in 1..cardinality(p_items) loop
    continue when p_items[i].verdict <> 'ok';
    v_growth := p_items[i].size - p_items[i].old_size;
    if v_growth > 0 and v_growth > v_left then
      p_items[i].verdict := 'over_quota';
    else
      v_left := v_left - v_growth;
    end if;
  end loop;
  return p_items;
end $$;

create or replace function studio_batch_create(
  p_user uuid, p_cascade uuid, p_actor text, p_key text, p_now timestamptz, p_items batch_item[]
) returns void language plpgsql as $$
begin
  -- A microsecond apart, so that lists keep the order of the batch.
  insert into blobs (user_id, id, content_type, schema_id, version, document_hash, content_hash, cutoff_hash,
      meta_hash, size, title, preview, tags, created_by, root_id, depth, storage_type, created_at, updated_at,
      kept_version)
    select p_user, x.blob_id, x.content_type, x.schema_id, 1, x.document_hash, x.content_hash, x.cutoff_hash,
      x.meta_hash, x.size, x.title, x.preview, array(select jsonb_array_elements_text(x.tags::jsonb)), 'user',
      coalesce(b.root_id, x.blob_id), coalesce(b.depth + 1, 0), case when x.external then 'url' else 'inline' end,
      p_now + x.n * interval '1 microsecond', p_now + x.n * interval '1 microsecond', 1
    from unnest(p_items) x
    left join lateral (select root_id, depth from blobs where user_id = p_user and id = x.parent_id offset 0) b on true
    -- By id: of two batches with the same keys one waits for the other, whatever their order.
    order by x.blob_id;
  insert into deltas (user_id, id, blob_id, from_version, to_version, operation, document_hash, content_hash,
      cutoff_hash, meta_hash, binary_hash, actor, cascade_id, idempotency_key, created_at, applied_at)
    select p_user, x.delta_id, x.blob_id, 0, 1, 'create', x.document_hash, x.content_hash, x.cutoff_hash, x.meta_hash,
      x.binary_hash, p_actor, p_cascade, p_key || ' ' || x.n, p_now + x.n * interval '1 microsecond',
      p_now + x.n * interval '1 microsecond'
    from unnest(p_items) x;
  insert into manual_edges (user_id, parent_id, child_id)
    select p_user, x.parent_id, x.blob_id from unnest(p_items) x where x.parent_id is not null;
  insert into bucket_blobs (user_id, bucket_id, blob_id, position)
    select p_user, k.id::uuid, x.blob_id, coalesce(last.position, 0)
        + (row_number() over (partition by k.id order by x.n))::int
    from unnest(p_items) x cross join lateral jsonb_array_elements_text(x.bucket_ids::jsonb) k(id)
    left join lateral (select max(m.position) as position from bucket_blobs m
      where m.user_id = p_user and m.bucket_id = k.id::uuid and m.inherited_from is null offset 0) last on true;
end $$;

create or replace function studio_batch_change(
  p_user uuid, p_cascade uuid, p_actor text, p_key text, p_now timestamptz, p_items batch_item[]
) returns void language plpgsql as $$
begin
  insert into deltas (user_id, id, blob_id, from_version, to_version, operation, patch, inverse, document_hash,
      content_hash, cutoff_hash, meta_hash, binary_hash, actor, previous_delta, cascade_id, idempotency_key, created_at,
      applied_at)
    select p_user, x.delta_id, x.blob_id, x.version, x.version + 1, x.op, x.patch, x.inverse, x.document_hash,
      x.content_hash, x.cutoff_hash, x.meta_hash, x.binary_hash, p_actor,
      (select d.id from deltas d where d.user_id = p_user and d.blob_id = x.blob_id and d.to_version = x.version
         and d.status = 'applied'),
      p_cascade, p_key || ' ' || x.n, b.later, b.later
    from unnest(p_items) x
    -- Later than the version before, whichever transaction began first: ?at= relies on it.
    cross join lateral (select greatest(p_now, updated_at + interval '1 microsecond') as later from blobs
      where user_id = p_user and id = x.blob_id offset 0) b;
  update blobs b set version = b.version + 1, document_hash = x.document_hash, content_hash = x.content_hash,
      cutoff_hash = x.cutoff_hash, meta_hash = x.meta_hash, size = x.size, title = x.title, preview = x.preview,
      tags = array(select jsonb_array_elements_text(x.tags::jsonb)),
      storage_type = case when x.external then 'url' else 'inline' end,
      updated_at = greatest(p_now, b.updated_at + interval '1 microsecond'),
      kept_version = case when x.codec is null then b.kept_version else b.version + 1 end,
      patch_bytes = case when x.codec is null then b.patch_bytes + octet_length(x.patch) else 0 end,
      deleted_at = case x.op when 'delete' then p_now else b.deleted_at end
    from unnest(p_items) x where b.user_id = p_user and b.id = x.blob_id;
end $$;

create or replace function studio_batch_events(p_user uuid, p_cascade uuid, p_items batch_item[]) returns void
language plpgsql as $$
declare v_events jsonb;
begin
  select jsonb_agg(e.item order by e.n, e.ord) into v_events from (
    select x.n, 1, jsonb_build_object('type', 'blob.' || case x.op when 'create' then 'created' when 'delete'
        then 'deleted' else 'updated' end, 'subject', 'blobs/' || x.blob_id, 'key', x.schema_id, 'data',
      jsonb_build_object('blob_id', x.blob_id, 'user_id', p_user, 'version', x.version + 1, 'schema_id', x.schema_id,
        'size', x.size, 'delta_id', x.delta_id, 'cascade_id', p_cascade) || case x.op when 'create' then
      jsonb_build_object('content_type', x.content_type, 'parent_id', x.parent_id, 'bucket_ids', x.bucket_ids::jsonb,
        'storage_type', case when x.external then 'url' else 'inline' end)
      else jsonb_build_object('provider_id', b.provider_id) end)
    from unnest(p_items) x
    left join lateral (select provider_id from blobs where user_id = p_user and id = x.blob_id offset 0) b on true
    union all
    select x.n, 2, jsonb_build_object('type', 'delta.applied', 'subject', 'deltas/' || x.delta_id, 'key', x.blob_id,
      'data', jsonb_build_object('blob_id', x.blob_id, 'user_id', p_user, 'delta_id', x.delta_id, 'operation', x.op,
        'from_version', x.version, 'to_version', x.version + 1, 'cascade_id', p_cascade))
    from unnest(p_items) x) e(n, ord, item);
  perform studio_emit(p_user, v_events,
    (select count(*) filter (where op = 'create') - count(*) filter (where op = 'delete') from unnest(p_items))::int,
    (select sum(size - old_size) from unnest(p_items))::bigint);
end $$;

-- Write what can be written, and say of each item what became of it: 'ok', or why it was not. p_strict: unless all of
-- them can, nothing is. Of several batches that change blobs, whoever calls holds the user lock: two of them, or one
-- and a plan, would else lock the same rows in two orders.
create or replace function write_batch(
  p_user uuid, p_cascade uuid, p_actor text, p_key text, p_strict boolean, p_n int[], p_op text[], p_blob uuid[],
  p_delta uuid[], p_expected int[], p_content_type text[], p_schema text[], p_patch text[], p_inverse text[],
  p_document_hash text[], p_content_hash text[], p_cutoff_hash text[], p_meta_hash text[], p_binary_hash text[],
  p_size bigint[], p_document_size bigint[], p_stored_size bigint[], p_codec text[], p_body bytea[], p_location text[],
  p_external boolean[], p_title text[], p_preview text[], p_tags text[], p_parent uuid[], p_buckets text[]
) returns table (n int, status text, version int, about uuid) language plpgsql as $$
#variable_conflict use_column
declare v_items batch_item[]; v_made batch_item[]; v_changed batch_item[]; v_all batch_item[]; v_now timestamptz;
begin
  perform set_config('app.user_id', p_user::text, true);
  -- The lock order is blobs by id: an edit of one of them goes first, or waits for us.
  perform from blobs b where b.user_id = p_user and b.id = any(p_blob) order by b.id for no key update;
  -- By hash, as settle does: two who store the same contents take turns. Before anybody looks whether they are there:
  -- what is locked is not collected.
  perform from contents c where c.user_id = p_user and c.hash = any(p_binary_hash) order by c.hash for no key update;
  v_now := clock_timestamp();
  select array_agg((x.n, x.op, x.blob_id, x.delta_id, x.expected, x.content_type, x.schema_id, x.patch, x.inverse,
      x.document_hash, x.content_hash, x.cutoff_hash, x.meta_hash, x.binary_hash, x.size, x.document_size, x.stored_size,
      x.codec, x.body, x.location, x.external, x.title, x.preview, x.tags, x.parent_id, x.bucket_ids, 0, null, 0,
      null)::batch_item) into v_items
    from unnest(p_n, p_op, p_blob, p_delta, p_expected, p_content_type, p_schema, p_patch, p_inverse, p_document_hash,
      p_content_hash, p_cutoff_hash, p_meta_hash, p_binary_hash, p_size, p_document_size, p_stored_size, p_codec, p_body,
      p_location, p_external, p_title, p_preview, p_tags, p_parent, p_buckets) x(n, op, blob_id, delta_id, expected,
        content_type, schema_id, patch, inverse, document_hash, content_hash, cutoff_hash, meta_hash, binary_hash, size,
        document_size, stored_size, codec, body, location, external, title, preview, tags, parent_id, bucket_ids);
  v_items := studio_batch_room(p_user, studio_batch_verdicts(p_user, v_items));
  select array_agg(x::batch_item order by x.n) filter (where x.op = 'create'),
      array_agg(x::batch_item order by x.n) filter (where x.op <> 'create')
    into v_made, v_changed from unnest(v_items) x where x.verdict = 'ok';
  v_all := coalesce(v_made, '{}') || coalesce(v_changed, '{}');
  if cardinality(v_all) > 0 and not (p_strict and exists (
      select from unnest(v_items) x where x.verdict not in ('ok', 'exists'))) then
    update contents set touched_at = v_now where user_id = p_user and hash in (select binary_hash from unnest(v_all));
    insert into contents as c (user_id, hash, size, stored_size, codec, tier, body, location)
      select distinct on (x.document_hash) p_user, x.document_hash, x.document_size, x.stored_size, x.codec,
        case when x.location is null then 'warm' else 'cold' end, x.body, x.location
      from unnest(v_all) x where x.codec is not null order by x.document_hash
      on conflict (user_id, hash) do update set touched_at = now() where c.touched_at < now() - interval '1 minute';
    insert into cascades (user_id, id, cause, actor, label)
      values (p_user, p_cascade, 'batch', p_actor, 'batch of ' || cardinality(v_all));
    if v_made is not null then
      perform studio_batch_create(p_user, p_cascade, p_actor, p_key, v_now, v_made);
    end if;
    if v_changed is not null then
      perform studio_batch_change(p_user, p_cascade, p_actor, p_key, v_now, v_changed);
    end if;
    insert into snapshots (user_id, blob_id, version, document_hash)
      select p_user, x.blob_id, x.version + 1, x.document_hash from unnest(v_all) x where x.codec is not null;
    perform studio_batch_events(p_user, p_cascade, v_all);
  end if;
  return query select x.n, x.verdict, case x.verdict when 'ok' then x.version + 1 else x.version end, x.about
    from unnest(v_items) x order by x.n;
end $$;
