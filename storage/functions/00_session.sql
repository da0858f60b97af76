-- Who is asking, and the two things every transaction of ours ends with: events and rung doorbells.

-- Time-ordered ids (RFC 9562). PostgreSQL 18 has them built in; older servers get the same shape.
do $$ begin
  if to_regprocedure('uuidv7()') is not null then
    execute 'create or replace function studio_uuid7() returns uuid language sql volatile parallel safe
             as ''select uuidv7()''';
  else
    execute $f$create or replace function studio_uuid7() returns uuid language sql volatile parallel safe as
      $b$ select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
            placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
            from 1 for 6), 52, 1), 53, 1), 'hex')::uuid $b$ $f$;
  end if;
end $$;

create or replace function studio_enter(p_user uuid) returns void language sql as
$$ select set_config('app.user_id', p_user::text, true) $$;

-- Make this session's plans again once a table of the schedule has doubled. PostgreSQL keeps a plan until the next
-- analyze, and one that was made for ten derivations visits every row of the user for every row it looks for: with a
-- thousand of them a move took minutes, and a minute is what autovacuum waits.
create or replace function studio_replan() returns void language plpgsql as $$
declare
  v_clock float := extract(epoch from clock_timestamp()); v_now bigint[];
  v_then bigint[] := nullif(current_setting('studio.planned_for', true), '')::bigint[];
begin
  -- To ask for the sizes takes longer than most statements of a move.
  if nullif(current_setting('studio.replan_after', true), '')::float - v_clock between 0 and 0.1 then return; end if;
  v_now := array[pg_relation_size('derivations'), pg_relation_size('runs'), pg_relation_size('blobs'),
    pg_relation_size('instances')];
  perform set_config('studio.replan_after', (v_clock + 0.1)::text, false);
  if exists (select from unnest(v_now, v_then) x(now, before) where x.now > 16384 + 2 * coalesce(x.before, 0)) then
    discard plans;
    perform set_config('studio.planned_for', v_now::text, false);
  end if;
end $$;

-- The user lock (CASCADES rule 7): every move of one user's schedule, one after the other.
create or replace function studio_lock(p_user uuid) returns void language plpgsql as $$
begin
  perform set_config('app.user_id', p_user::text, true);
  perform pg_advisory_xact_lock(hashtextextended(p_user::text, 0));
  perform studio_replan();
end $$;

-- Take so many of the user's event sequence, which the caller appends at once; returns the one before the first. The row
-- lock on user_state is held to the end of the transaction, so sequences become visible in order: no reader can skip a
-- late commit. Last in lock order.
create or replace function studio_take_events(p_user uuid, p_count int, p_blobs int default 0, p_bytes bigint default 0)
returns bigint language plpgsql as $$
declare last_seq bigint; v_used bigint; v_reserved bigint; v_quota bigint;
begin
  update user_state set event_seq = event_seq + p_count, blob_count = blob_count + p_blobs,
      bytes_used = bytes_used + p_bytes, updated_at = now()
    where user_id = p_user returning event_seq, bytes_used, bytes_reserved, bytes_quota
    into last_seq, v_used, v_reserved, v_quota;
  if not found then raise exception 'user % has no state', p_user; end if;
  if p_bytes > 0 then perform studio_charge(p_user, p_bytes, v_used, v_reserved, v_quota); end if;
  if p_count > 0 then
    insert into outbox (user_id, first_seq, last_seq) values (p_user, last_seq - p_count + 1, last_seq);
  end if;
  return last_seq - p_count;
end $$;

-- Append events, [{type, subject, key, data}].
create or replace function studio_emit(p_user uuid, p_events jsonb, p_blobs int default 0, p_bytes bigint default 0)
returns void language plpgsql as $$
declare v_before bigint := studio_take_events(p_user, jsonb_array_length(p_events), p_blobs, p_bytes);
begin
  insert into events (user_id, seq, id, type, subject, key, data)
    select p_user, v_before + e.ord, studio_uuid7(), e.item->>'type', e.item->>'subject', e.item->>'key', e.item->'data'
    from jsonb_array_elements(p_events) with ordinality e(item, ord) order by e.ord;
end $$;

-- Ring doorbells: look again. Carries nothing else (CASCADES rule 4).
create or replace function studio_ring(p_user uuid, p_cascades uuid[]) returns void language plpgsql as $$
begin
  update cascades set seq = seq + 1, rung_at = now()
    where user_id = p_user and id in
      (select c.id from cascades c where c.user_id = p_user and c.id = any(p_cascades) order by c.id for update);
end $$;
