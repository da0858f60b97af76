-- What the planner should believe of these tables: any user has a tenth of each, an id names one row.
--
-- Without statistics it takes a user for one row, and with them any user who is not among the most common ones. Then
-- (user_id) alone looks as good an index condition as (user_id, id), joins visit every row of the user for each row they
-- look for, and the plans are kept while a cascade fills the tables: 200 nodes took 25 s instead of one. So user_id has
-- no statistics that ANALYZE could find, but the ones given here; those of other keys only serve until the first ANALYZE.
-- PostgreSQL before 18 cannot be told and believes in a two-hundredth, which is right for tables that are not small.
do $$
declare t record;
begin
  for t in
    select c.relname, n.nspname, a.attname, a.attname = 'user_id' as of_user,
      a.attname in ('id', 'hash') as of_row, a.attstattarget
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relkind = 'r' and n.nspname = 'public' and pg_get_userbyid(c.relowner) = current_user
      and (a.attname in ('user_id', 'id', 'hash') or a.attname like '%\_id' and a.atttypid = 'uuid'::regtype)
  loop
    if t.of_user and t.attstattarget is distinct from 0 then
      execute format('alter table %I.%I alter column user_id set statistics 0', t.nspname, t.relname);
    end if;
    if to_regproc('pg_restore_attribute_stats') is not null
        and (t.of_user or not exists (
          select from pg_stats s
          where s.schemaname = t.nspname and s.tablename = t.relname and s.attname = t.attname)) then
      perform pg_restore_attribute_stats('schemaname', t.nspname::text, 'relname', t.relname::text,
        'attname', t.attname::text, 'inherited', false, 'null_frac', 0::real,
        'n_distinct', (case when t.of_user then 10 when t.of_row then -1 else -0.5 end)::real);
    end if;
  end loop;
end $$;

-- The moves are alike for every user: planned once a session, not at each call. Planning took longer than doing.
alter function plan_cascade set plan_cache_mode = force_generic_plan;
alter function claim_runs set plan_cache_mode = force_generic_plan;
alter function settle_runs set plan_cache_mode = force_generic_plan;
alter function fail_run set plan_cache_mode = force_generic_plan;
alter function lose_run set plan_cache_mode = force_generic_plan;
alter function create_blob set plan_cache_mode = force_generic_plan;
alter function append_delta set plan_cache_mode = force_generic_plan;
alter function read_blob set plan_cache_mode = force_generic_plan;
alter function load_works set plan_cache_mode = force_generic_plan;
alter function read_works set plan_cache_mode = force_generic_plan;
