-- Reading: any version is the nearest one that is kept whole, and the patches since. The caller verifies the hash.

-- The version a blob was at, at an instant; 0: it was not there yet. Versions are in the order of time (append_delta), so
-- this halves: fifteen probes for ten thousand versions, and no index more to write at every edit.
create or replace function studio_version_at(p_user uuid, p_blob uuid, p_at timestamptz) returns int
language plpgsql stable as $$
declare v_low int := 0; v_high int; v_middle int;
begin
  select version into v_high from blobs where user_id = p_user and id = p_blob;
  while v_low < v_high loop
    v_middle := (v_low + v_high + 1) / 2;
    if (select applied_at from deltas where user_id = p_user and blob_id = p_blob and to_version = v_middle
          and status = 'applied') <= p_at then
      v_low := v_middle;
    else
      v_high := v_middle - 1;
    end if;
  end loop;
  return coalesce(v_low, 0);
end $$;

-- How to come by the documents of these blobs at these versions: the content of the nearest kept one, then patches.
create or replace function read_states(p_user uuid, p_blobs uuid[], p_versions int[]) returns table (
  blob_id uuid, version int, document_hash text, operation text, kept_version int, hash text, size bigint, codec text,
  body bytea, location text, patches text[]
) language plpgsql as $$
#variable_conflict use_column
begin
  perform set_config('app.user_id', p_user::text, true);
  return query
    select d.blob_id, d.to_version, d.document_hash, d.operation, s.version, c.hash, c.size, c.codec, c.body, c.location,
      case when s.version = d.to_version then '{}' else array(
        select p.patch from deltas p where p.user_id = p_user and p.blob_id = d.blob_id and p.status = 'applied'
          and p.to_version > s.version and p.to_version <= d.to_version order by p.to_version) end
    from unnest(p_blobs, p_versions) x(blob_id, version)
    cross join lateral (select * from deltas where user_id = p_user and blob_id = x.blob_id and to_version = x.version
      and status = 'applied' offset 0) d
    cross join lateral (select * from snapshots where user_id = p_user and blob_id = x.blob_id and version <= x.version
      order by version desc limit 1) s
    left join contents c on c.user_id = p_user and c.hash = s.document_hash;
end $$;

-- Reading one blob in one round trip: at its current version, as it was at another one, or at an instant.
create or replace function read_blob(p_user uuid, p_blob uuid, p_version int, p_at timestamptz default null)
returns table (
  id uuid, version int, current_version int, content_type text, schema_id text, created_by text, provider_id text,
  root_id uuid, depth int, processing_meta jsonb, created_at timestamptz, updated_at timestamptz,
  deleted_at timestamptz, document_hash text, content_hash text, cascade_id uuid, parent_ids uuid[],
  storage_type text, kept_version int, patch_bytes bigint, hash text, size bigint, codec text, body bytea, location text,
  patches text[], volatile text[]
) language plpgsql as $$
#variable_conflict use_column
begin
  -- Within one statement a setting would come too late for row-level security.
  perform set_config('app.user_id', p_user::text, true);
  if p_at is not null then p_version := studio_version_at(p_user, p_blob, p_at); end if;
  return query
    select b.id, d.to_version, b.version, b.content_type, b.schema_id, b.created_by, b.provider_id, b.root_id,
      b.depth, b.processing_meta, b.created_at,
      case when d.to_version = b.version then b.updated_at else d.applied_at end, b.deleted_at,
      d.document_hash, d.content_hash, d.cascade_id,
      array(select p from (
          select i.blob_id p, i.position n from derivation_outputs o
            join derivation_inputs i on i.user_id = o.user_id and i.derivation_id = o.derivation_id
            where o.user_id = p_user and o.blob_id = b.id
          union all
          select m.parent_id, 0 from manual_edges m where m.user_id = p_user and m.child_id = b.id) x
        order by n, p),
      b.storage_type, b.kept_version, b.patch_bytes, c.hash, c.size, c.codec, c.body, c.location,
      case when s.version = d.to_version then '{}' else array(
        select p.patch from deltas p where p.user_id = p_user and p.blob_id = b.id and p.status = 'applied'
          and p.to_version > s.version and p.to_version <= d.to_version order by p.to_version) end,
      coalesce((select o.volatile from derivation_outputs o where o.user_id = p_user and o.blob_id = b.id), '{}')
    from blobs b
    -- One probe of a whole key. CASE: to row-level security coalesce() is something that may leak, which it keeps out of
    -- index conditions, and every delta of the blob would be visited.
    cross join lateral (select * from deltas where user_id = p_user and blob_id = b.id and status = 'applied'
      and to_version = case when p_version is null then b.version else p_version end offset 0) d
    cross join lateral (select * from snapshots where user_id = p_user and blob_id = b.id and version <= d.to_version
      order by version desc limit 1) s
    left join contents c on c.user_id = b.user_id and c.hash = s.document_hash
    where b.user_id = p_user and b.id = p_blob and b.version > 0;
end $$;
