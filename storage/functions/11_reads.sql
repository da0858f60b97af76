-- Reading one blob in one round trip: at its current version, or as it was at another one.
-- body and location say where the whole document is; the caller verifies its hash.
create or replace function read_blob(p_user uuid, p_blob uuid, p_version int) returns table (
  id uuid, version int, current_version int, content_type text, schema_id text, created_by text, provider_id text,
  root_id uuid, depth int, processing_meta jsonb, created_at timestamptz, updated_at timestamptz,
  deleted_at timestamptz, document_hash text, content_hash text, cascade_id uuid, parent_ids uuid[],
  body bytea, location text
) language plpgsql as $$
#variable_conflict use_column
begin
  -- Within one statement a setting would come too late for row-level security.
  perform set_config('app.user_id', p_user::text, true);
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
      c.body, c.location
    from blobs b
    join deltas d on d.user_id = b.user_id and d.blob_id = b.id and d.status = 'applied'
      and d.to_version = coalesce(p_version, b.version)
    left join contents c on c.user_id = b.user_id and c.hash = d.document_hash
    where b.user_id = p_user and b.id = p_blob and b.version > 0;
end $$;
