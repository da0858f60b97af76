-- Housekeeping of contents (storage/housekeeping.py). Each function is one transaction and looks at one user.
--
-- Who makes a reference touches the row in the same transaction (studio_store, studio_touch, the inserts of create_blob
-- and settle_runs), or at least locks it, and a reader of this file must keep it so. Then a collector cannot take what is
-- being re-used: a row that a writer holds is skipped; what a writer has made since is seen by the second look, which
-- begins when the row is locked; and a writer that comes later waits for the row, finds it gone and stores it anew.

-- Delete rows that nothing refers to and nobody touched for the grace; answer which, and the objects they named.
create or replace function collect_contents(p_user uuid, p_grace interval, p_limit int)
returns table (hash text, stored_size bigint, location text) language plpgsql as $$
#variable_conflict use_column
declare v_old text[];
begin
  perform set_config('app.user_id', p_user::text, true);
  with named as materialized (select r.hash from content_references r where r.user_id = p_user),
  old as (
    select c.hash from contents c
    where c.user_id = p_user and c.touched_at < now() - p_grace
      and not exists (select from named n where n.hash = c.hash)
    limit p_limit for update of c skip locked)
  select array_agg(old.hash) into v_old from old;
  if v_old is null then return; end if;
  return query
    with named as materialized (select r.hash from content_references r where r.user_id = p_user)
    delete from contents c where c.user_id = p_user and c.hash = any(v_old)
      and not exists (select from named n where n.hash = c.hash)
    returning c.hash, c.stored_size, c.location;
end $$;

-- Which of these objects no content and no open upload names.
create or replace function unnamed_objects(p_user uuid, p_locations text[]) returns table (location text)
language plpgsql as $$
#variable_conflict use_column
begin
  perform set_config('app.user_id', p_user::text, true);
  return query
    select x.location from unnest(p_locations) x(location)
    where not exists (select from contents c where c.user_id = p_user and c.location = x.location)
      and not exists (select from uploads u where u.user_id = p_user and u.location = x.location and u.status = 'open');
end $$;

-- A body went to the object store: the row names the object instead, unless it was read or taken since.
create or replace function move_to_cold(p_user uuid, p_hash text, p_location text, p_accessed timestamptz)
returns boolean language plpgsql as $$
begin
  perform set_config('app.user_id', p_user::text, true);
  update contents set tier = 'cold', location = p_location, body = null, moved_at = now()
    where user_id = p_user and hash = p_hash and body is not null and accessed_at = p_accessed;
  return found;
end $$;

-- An object's bytes come back into the row, unless it names another one by now. moved_at: only what was moved comes back;
-- what was never in a row is an object because it is large, or because a provider wants it so.
create or replace function move_to_warm(p_user uuid, p_hash text, p_location text, p_body bytea)
returns boolean language plpgsql as $$
begin
  perform set_config('app.user_id', p_user::text, true);
  update contents set tier = 'warm', location = null, body = p_body, moved_at = null
    where user_id = p_user and hash = p_hash and location = p_location;
  return found;
end $$;

-- Forget what steps of runs that ended long ago put out: nothing goes on from there any more.
create or replace function drop_step_outputs(p_user uuid, p_kept interval, p_limit int) returns int
language plpgsql as $$
declare v_dropped int;
begin
  perform set_config('app.user_id', p_user::text, true);
  with old as (
    select s.run_id, s.step_id from runs r join run_steps s on s.user_id = r.user_id and s.run_id = r.id
    where r.user_id = p_user and r.ended_at < now() - p_kept and s.output_hash is not null
    limit p_limit for update of s skip locked)
  update run_steps s set output_hash = null from old
    where s.user_id = p_user and s.run_id = old.run_id and s.step_id = old.step_id;
  get diagnostics v_dropped = row_count;
  return v_dropped;
end $$;
