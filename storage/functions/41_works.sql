-- What runs read, in two round trips: the runs with their outputs, then every document that these name. As functions they
-- keep their plans, which took longer to make than to carry out, and need no transaction around them.

-- The outputs of a derivation as they stand, with the conflicts that nobody has decided about.
drop function if exists studio_outputs_of(uuid, uuid);
create or replace function studio_outputs_of(p_user uuid, p_derivation uuid) returns setof jsonb language sql stable as $$
  select coalesce(jsonb_agg(jsonb_build_object('slot', q.slot, 'blob_id', q.blob_id, 'machine_hash',
      q.machine_hash, 'version', b.version, 'document_hash', b.document_hash, 'deleted', b.deleted_at is not null,
      'disputed', case when b.version = 0 then '{}' else array(select x.conflicts from deltas x
        where x.user_id = p_user and x.blob_id = q.blob_id and x.status = 'proposed' and x.run_id is not null
          and x.conflicts is not null order by x.id) end)), '[]')
    from (select * from derivation_outputs where user_id = p_user and derivation_id = p_derivation offset 0) q
    cross join lateral (select * from blobs where user_id = p_user and id = q.blob_id offset 0) b
$$;

create or replace function load_works(p_user uuid, p_runs uuid[]) returns table (
  id uuid, derivation_id uuid, label text, definition_digest text, settings_digest text, inputs jsonb,
  started_at timestamptz, slug text, owner_id uuid, spec text, on_conflict text, settings text, anchor_kind text,
  anchor_title text, outputs jsonb
) language plpgsql as $$
#variable_conflict use_column
begin
  -- Within one statement a setting would come too late for row-level security.
  perform set_config('app.user_id', p_user::text, true);
  return query
    select r.id, r.derivation_id, r.label, r.definition_digest, r.settings_digest, r.inputs,
      -- As if it had begun so much later: what it waited for people is no time that its work took.
      r.started_at + case r.execution when 'workflow' then studio_waited(p_user, r.id, r.started_at, now()) else '0' end,
      p.slug,
      p.owner_id, p.spec, coalesce(i.on_conflict, p.on_conflict), coalesce(i.settings, '{}'), d.anchor_kind,
      case d.anchor_kind when 'bucket' then k.name else '' end, o.outputs
    from unnest(p_runs) x(id)
    cross join lateral (select * from runs where user_id = p_user and id = x.id and status = 'running' offset 0) r
    cross join lateral (select * from derivations
      where user_id = p_user and id = r.derivation_id and run_id = r.id offset 0) d
    cross join lateral (select * from providers where id = d.provider_id offset 0) p
    left join lateral (select * from instances where user_id = p_user and id = d.instance_id offset 0) i on true
    left join lateral (select name from buckets
      where user_id = p_user and id = d.anchor_id and d.anchor_kind = 'bucket' offset 0) k on true
    cross join lateral studio_outputs_of(p_user, d.id) o(outputs);
end $$;

-- Documents as read_states gives them, and contents by their hashes, which have no blob_id.
create or replace function read_works(p_user uuid, p_blobs uuid[], p_versions int[], p_hashes text[]) returns table (
  blob_id uuid, version int, document_hash text, operation text, kept_version int, hash text, size bigint, codec text,
  body bytea, location text, patches text[]
) language plpgsql as $$
#variable_conflict use_column
begin
  return query select * from read_states(p_user, p_blobs, p_versions);
  return query select null::uuid, null::int, null::text, null::text, null::int, c.hash, c.size, c.codec, c.body,
      c.location, '{}'::text[]
    from unnest(p_hashes) x(hash)
    cross join lateral (select * from contents where user_id = p_user and hash = x.hash offset 0) c;
end $$;
