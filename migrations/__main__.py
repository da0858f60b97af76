"""``python -m migrations``: roles, schema history, functions, built-in catalogue, first users; then exit.

Runs as the admin of the database (CREATEROLE suffices); everything else runs as studio_app or studio_relay.
Safe to repeat and to run from several replicas at once.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

import asyncpg
from alembic import command
from alembic.config import Config

from domain.errors import Invalid
from migrations.seed import seed
from settings import Settings, load_settings

_ROLES = """
do $$ begin
  if not exists (select from pg_roles where rolname = 'studio_owner') then
    create role studio_owner nologin nosuperuser nobypassrls;
  end if;
  if not exists (select from pg_roles where rolname = 'studio_app') then
    create role studio_app login nosuperuser nobypassrls;
  end if;
  if not exists (select from pg_roles where rolname = 'studio_relay') then
    create role studio_relay login nosuperuser nobypassrls;
  end if;
  execute format('grant studio_owner to %I', current_user);
  execute format('grant create, usage on schema public to studio_owner');
  grant usage on schema public to studio_app, studio_relay;
  -- Plans are kept while tables grow: one made for a small table must not read all of a large one. Everything is keyed,
  -- and whole keys are probed: of a table of two pages a bitmap of all the user's rows looks cheaper than one row.
  alter role studio_app set enable_seqscan = off;
  alter role studio_app set enable_bitmapscan = off;
  alter role studio_app set random_page_cost = 1.1;
  alter role studio_app set jit = off;
  -- What the relay marks may be lost with the server: it is delivered again, under the same id.
  alter role studio_relay set synchronous_commit = off;
end $$;
"""


def alembic_config(url: str) -> Config:
    """Alembic's configuration for the database at ``url`` (``postgresql://…``)."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    parts = urlsplit(url)
    config.set_main_option("sqlalchemy.url", urlunsplit(parts._replace(scheme="postgresql+asyncpg")).replace("%", "%%"))
    return config


async def make_roles(url: str, passwords: dict[str, str]) -> None:
    """Create the three roles if missing and set the passwords given (role → password)."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(7264537)")
            await connection.execute(_ROLES)
            for role in sorted(passwords.keys() & {"studio_app", "studio_relay"}):
                password = passwords[role]
                literal = await connection.fetchval("select quote_literal($1::text)", password)
                await connection.execute(f"alter role {role} password {literal}")
    finally:
        await connection.close()


def migrate(settings: Settings) -> None:
    """Bring the database up to this code; see the module. Passwords of the roles are those of their URLs."""
    metadata = settings.storage.metadata
    if metadata.admin_url is None:
        raise Invalid("DATABASE_ADMIN_URL is not set.", code="missing_field")
    url = metadata.admin_url.get_secret_value()
    passwords = {
        str(parts.username): unquote(parts.password)
        for parts in (urlsplit(u.get_secret_value()) for u in (metadata.url, metadata.relay_url) if u)
        if parts.password
    }
    asyncio.run(make_roles(url, passwords))
    command.upgrade(alembic_config(url), "head")
    asyncio.run(seed(settings))


if __name__ == "__main__":
    migrate(load_settings())
    sys.stdout.write("The database is up to date.\n")
