-- Withdrawing: a join has nothing left to read, and its provider says on_delete: delete (CASCADES rule 9). Its outputs
-- go along, and so does what is made of them; all of that is retired, and comes back once the join collects again.

-- What providers did along with people's deltas under a cascade, as events, and how many blobs more that makes. Of
-- p_blobs only the last.
create or replace function studio_along(
  p_user uuid, p_cascade uuid, p_blobs uuid[] default null, out events jsonb, out blobs int
) language sql stable as $$
  select coalesce(jsonb_agg(e.item order by e.id, e.ord), '[]'),
      coalesce(sum(case when e.ord = 2 then 0 when e.operation = 'delete' then -1 else 1 end), 0)
    from (
      select d.id, d.operation, o.ord, case o.ord when 1 then jsonb_build_object('type',
          case d.operation when 'delete' then 'blob.deleted' else 'blob.updated' end, 'subject', 'blobs/' || b.id,
          'key', b.schema_id, 'data', jsonb_build_object('blob_id', b.id, 'user_id', p_user, 'version', d.to_version,
            'schema_id', b.schema_id, 'size', b.size, 'delta_id', d.id, 'cascade_id', p_cascade,
            'provider_id', b.provider_id))
        else jsonb_build_object('type', 'delta.applied', 'subject', 'deltas/' || d.id, 'key', b.id, 'data',
          jsonb_build_object('blob_id', b.id, 'user_id', p_user, 'delta_id', d.id, 'operation', d.operation,
            'from_version', d.from_version, 'to_version', d.to_version, 'cascade_id', p_cascade)) end as item
      from deltas d join blobs b on b.user_id = d.user_id and b.id = d.blob_id cross join (values (1), (2)) o(ord)
      where d.user_id = p_user and d.cascade_id = p_cascade and d.run_id is null and d.provider_id is not null
        and d.status = 'applied' and (p_blobs is null or d.blob_id = any(p_blobs) and d.to_version = b.version)) e
$$;

-- Of derivations that were settled because there was nothing to read. What they used is forgotten: that tells an output
-- that went along from one which a person has brought back since, and which stays.
create or replace function studio_withdraw(p_user uuid, p_cascade uuid, p_derivations uuid[]) returns void
language plpgsql as $$
declare
  v_empty uuid[]; v_gone uuid[]; v_along uuid[]; v_joins uuid[]; v_told record;
  v_patience text := current_setting('lock_timeout');
begin
  select array_agg(d.id) into v_empty from unnest(p_derivations) x(id)
    cross join lateral (select * from derivations where user_id = p_user and id = x.id offset 0) d
    join providers p on p.id = d.provider_id and p.on_delete = 'delete'
    where d.used_digest is not null and d.hold is null and not exists (
      select from derivation_inputs where user_id = p_user and derivation_id = d.id offset 0);
  if v_empty is null then return; end if;
  update derivations set used_digest = null where user_id = p_user and id = any(v_empty);
  select array_agg(b.id) into v_gone from unnest(v_empty) x(id)
    cross join lateral (select blob_id from derivation_outputs
      where user_id = p_user and derivation_id = x.id offset 0) o
    cross join lateral (select id from blobs
      where user_id = p_user and id = o.blob_id and version > 0 and deleted_at is null offset 0) b;
  if v_gone is null then return; end if;
  -- Events of this transaction may have been told already, and who edits one of these now waits for their sequence. One of
  -- us has to go back, long before the server finds a deadlock: we do, for a claim is tried again.
  perform set_config('lock_timeout', '100ms', true);
  perform studio_take_along(p_user, p_cascade, v_gone, 'delete');
  select f.along into v_along from studio_follow_deletions(p_user, p_cascade, v_gone) f;
  perform set_config('lock_timeout', v_patience, true);
  v_gone := v_gone || v_along;
  -- Other joins collected them; theirs is an input less.
  with left_out as (
    delete from derivation_inputs where user_id = p_user and blob_id = any(v_gone) and not required
      returning derivation_id
  ) select array_agg(distinct derivation_id) into v_joins from left_out;
  if v_joins is not null then perform studio_unsettle(p_user, p_cascade, v_joins); end if;
  select * into v_told from studio_along(p_user, p_cascade, v_gone);
  perform studio_emit(p_user, v_told.events, v_told.blobs);
end $$;

-- A join collects again: what went along when it was empty comes back, unless a person deleted some of it. Returns
-- what to look at again, and the blobs that came back.
create or replace function studio_come_back(
  p_user uuid, p_cascade uuid, p_derivation uuid, out direct uuid[], out along uuid[]
) language plpgsql as $$
declare v_back uuid[]; v_more uuid[];
begin
  direct := '{}'; along := '{}';
  if not exists (select from derivations where user_id = p_user and id = p_derivation and hold = 'retired')
    or not exists (select from derivation_inputs where user_id = p_user and derivation_id = p_derivation)
    or exists (select from derivation_outputs o
      join blobs b on b.user_id = o.user_id and b.id = o.blob_id
      join deltas x on x.user_id = b.user_id and x.blob_id = b.id and x.to_version = b.version and x.status = 'applied'
      where o.user_id = p_user and o.derivation_id = p_derivation and b.deleted_at is not null
        and x.provider_id is null) then
    return;
  end if;
  select array_agg(b.id) into v_back from derivation_outputs o
    join blobs b on b.user_id = o.user_id and b.id = o.blob_id
    where o.user_id = p_user and o.derivation_id = p_derivation and b.deleted_at is not null;
  if v_back is null then return; end if;
  perform studio_take_along(p_user, p_cascade, v_back, 'restore');
  select f.direct, f.along into direct, v_more from studio_follow_deletions(p_user, p_cascade, v_back) f;
  along := v_back || v_more;
end $$;
