-- reprocess: a person asks that something runs again although nothing has changed (CASCADES, Moves).

-- What a request to reprocess a blob means: the derivations of one instance that read it; else what makes it, if it is
-- made; else what reads it.
create or replace function studio_reprocessed(p_user uuid, p_blob uuid, p_instance uuid) returns uuid[]
language sql stable as $$
  with maker as (select derivation_id from derivation_outputs where user_id = p_user and blob_id = p_blob offset 0)
  select coalesce(array_agg(x.id), '{}') from (
    select derivation_id as id from maker where p_instance is null
    union
    select i.derivation_id from (select derivation_id from derivation_inputs
      where user_id = p_user and blob_id = p_blob offset 0) i
    cross join lateral (select instance_id from derivations where user_id = p_user and id = i.derivation_id offset 0) d
    where d.instance_id = p_instance or p_instance is null and not exists (select from maker)) x
$$;

-- Plan's part: force what was asked for and, if the whole subtree was, everything below; returns it. All of it runs
-- whatever held it. With force only answers count that are begun from now on. A run that is under way is an answer as well,
-- unless it has to be fresh, or waits for a person.
create or replace function studio_reprocess(p_user uuid, p_cascade cascades) returns uuid[] language plpgsql as $$
declare v_asked uuid[]; v_all uuid[];
begin
  v_asked := case when p_cascade.options ? 'derivation_id' then array[(p_cascade.options->>'derivation_id')::uuid]
    else studio_reprocessed(p_user, p_cascade.target_id, p_cascade.instance_id) end;
  select coalesce(array_agg(d.id), '{}') into v_asked from unnest(v_asked) x(id)
    cross join lateral (select id from derivations where user_id = p_user and id = x.id
      and hold is distinct from 'inactive' and hold is distinct from 'retired' offset 0) d;
  perform studio_drop_runs(p_user, array(select d.id from unnest(v_asked) x(id)
    cross join lateral (select id from derivations
      where user_id = p_user and id = x.id and hold = 'approval' offset 0) d));
  v_all := v_asked;
  if p_cascade.options->>'scope' = 'subtree' then v_all := coalesce(studio_below(p_user, v_asked), '{}'); end if;
  update derivations d set force = true,
      fresh_after = case when (p_cascade.options->>'force')::boolean then greatest(d.fresh_after, p_cascade.created_at)
        else d.fresh_after end,
      hold = case when d.id = any(v_asked) then null else d.hold end,
      hold_detail = case when d.id = any(v_asked) then null else d.hold_detail end
    where d.user_id = p_user and d.id = any(v_all);
  return v_all;
end $$;
