-- Quotas: what a user has (bytes_used) and has been promised (bytes_reserved) stays within bytes_quota. Whoever makes
-- it grow has the row of user_state locked and asks here, so that no number of parallel writes exceeds it.

-- SQLSTATE STQ01 is Forbidden storage_quota_exceeded to our callers (storage/database.py); the transaction has no effect.
-- What only shrinks, or uses what was reserved, always passes.
create or replace function studio_charge(
  p_user uuid, p_growth bigint, p_used bigint, p_reserved bigint, p_quota bigint
) returns void language plpgsql as $$
begin
  if p_growth <= 0 or p_quota is null then return; end if;
  if p_used + p_reserved > p_quota then
    raise exception 'The storage quota of user % is used up', p_user using errcode = 'STQ01',
      detail = jsonb_build_object('used', p_used, 'reserved', p_reserved, 'quota', p_quota, 'needed', p_growth);
  end if;
  perform studio_warn(p_user, p_growth, p_used, p_reserved, p_quota);
end $$;

-- One event when used and reserved together pass nine tenths upwards. Whoever uses what was reserved does not pass them
-- again: the reservation (storage/uploads.py) asks here itself.
create or replace function studio_warn(
  p_user uuid, p_growth bigint, p_used bigint, p_reserved bigint, p_quota bigint
) returns void language plpgsql as $$
begin
  if p_used + p_reserved >= p_quota * 0.9 and p_used + p_reserved - p_growth < p_quota * 0.9 then
    perform studio_emit(p_user, jsonb_build_array(jsonb_build_object('type', 'quota.warning', 'subject',
      'users/' || p_user, 'key', p_user, 'data', jsonb_build_object('user_id', p_user, 'used', p_used, 'reserved',
        p_reserved, 'quota', p_quota))));
  end if;
end $$;
