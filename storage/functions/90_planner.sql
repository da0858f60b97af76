-- What the planner should assume of these tables: a user is never a handful of rows.
--
-- Without statistics it takes any user for one row, so (user_id) alone looks as good an index condition as (user_id, id),
-- joins probe all rows of the user once for each row, and the plans are kept while a first cascade fills the tables: 200
-- nodes took 25 s instead of 1. The same would befall a large user among many small ones. So: one user is a tenth of a
-- table, for ever (n_distinct, read by ANALYZE) and from the start (PostgreSQL 18 can be told; older ones learn it from
-- their first autoanalyze).
do $$
declare t record;
begin
  for t in
    select c.oid::regclass as name, c.relname, n.nspname, a.attname from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attname = 'user_id' and not a.attisdropped
    where c.relkind = 'r' and n.nspname = 'public' and pg_get_userbyid(c.relowner) = current_user
      and not coalesce('n_distinct=10' = any(a.attoptions), false)
  loop
    execute format('alter table %s alter column user_id set (n_distinct = 10)', t.name);
    if to_regproc('pg_restore_attribute_stats') is not null
        and not exists (select from pg_stats s where s.schemaname = t.nspname and s.tablename = t.relname) then
      perform pg_restore_attribute_stats('schemaname', t.nspname::text, 'relname', t.relname::text, 'attname', 'user_id',
        'inherited', false, 'null_frac', 0::real, 'n_distinct', 10::real);
    end if;
  end loop;
end $$;
