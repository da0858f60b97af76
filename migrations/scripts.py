"""Run SQL scripts of several statements over alembic's connection."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.util import await_only

FUNCTIONS = Path(__file__).parent.parent / "storage" / "functions"


_DROP_OLD = """
do $$ declare old regprocedure; begin
  for old in select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and pg_get_userbyid(p.proowner) = 'studio_owner'
      and p.proname not in ('app_user', 'app_key_hash') and p.prorettype <> 'trigger'::regtype
  loop execute format('drop function %s', old); end loop;
end $$;
"""
"""Functions are made anew: replacing one cannot change what it answers. Policies hold on to the two that stay,
triggers to theirs."""


def run_script(connection: Connection, script: str) -> None:
    """Send ``script`` as one simple query: prepared statements, asyncpg's default, hold a single command only."""
    raw = connection.connection.dbapi_connection.driver_connection  # type: ignore[union-attr]
    await_only(raw.execute(script))


def function_scripts() -> list[str]:
    """The schedule's functions in order; each ``create or replace``, applied after every upgrade.

    Tables have a history, functions are code: the newest text is the right one.
    """
    return [_DROP_OLD, *(path.read_text() for path in sorted(FUNCTIONS.glob("*.sql")))]
