"""The schema's history leads to the tables, and back."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from migrations.__main__ import alembic_config, migrate
from settings import load_settings
from storage.tables import metadata


def differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(
        connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": metadata}
    )
    return list(compare_metadata(context, metadata))


async def compared(url: str) -> list[Any]:
    engine = create_async_engine(url.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(differences)
    finally:
        await engine.dispose()


async def tables(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "select table_name from information_schema.tables where table_schema = 'public' order by 1"
        )
        return [row["table_name"] for row in rows]
    finally:
        await connection.close()


async def shape(url: str) -> list[Any]:
    """Columns, indexes, constraints, policies and grants: what two equal databases have in common."""
    connection = await asyncpg.connect(url)
    queries = (
        """select table_name, column_name, data_type, is_nullable, column_default from information_schema.columns
           where table_schema = 'public' order by 1, 2""",
        "select tablename, indexname, indexdef from pg_indexes where schemaname = 'public' order by 1, 2",
        """select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
           where connamespace = 'public'::regnamespace order by 1, 2""",
        "select tablename, policyname, roles::text, cmd, qual, with_check from pg_policies order by 1, 2",
        """select table_name, grantee, privilege_type from information_schema.role_table_grants
           where table_schema = 'public' order by 1, 2, 3""",
        """select proname, pg_get_function_arguments(oid) from pg_proc
           where pronamespace = 'public'::regnamespace order by 1, 2""",
    )
    try:
        return [[tuple(row) for row in await connection.fetch(query)] for query in queries]
    finally:
        await connection.close()


async def test_the_migrations_make_exactly_the_tables(database_urls: Any) -> None:
    assert await compared(database_urls["DATABASE_ADMIN_URL"]) == []


async def test_up_down_and_up_again_end_where_they_began(make_database: Any) -> None:
    environment = await make_database(empty=True)
    url = environment["DATABASE_ADMIN_URL"]
    # Alembic's environment runs its own event loop.
    await asyncio.to_thread(migrate, load_settings(environment))
    first = await shape(url)
    config = alembic_config(url)
    config.attributes["downgrade"] = True
    await asyncio.to_thread(command.downgrade, config, "base")
    assert await tables(url) == ["alembic_version"]
    await asyncio.to_thread(migrate, load_settings(environment))
    assert await shape(url) == first


async def test_migrating_twice_changes_nothing(make_database: Any) -> None:
    environment = await make_database()
    url = environment["DATABASE_ADMIN_URL"]

    async def content() -> list[Any]:
        connection = await asyncpg.connect(url)
        try:
            names = ("installation", "users", "schemas", "definitions", "providers", "api_keys")
            return [[tuple(r) for r in await connection.fetch(f"select * from {n} order by 1, 2")] for n in names]  # noqa: S608
        finally:
            await connection.close()

    before, rows = await shape(url), await content()
    await asyncio.to_thread(migrate, load_settings(environment))
    assert await shape(url) == before
    assert await content() == rows


async def test_the_users_dev_and_admin_hold_the_keys_of_the_environment(app: Any, database_urls: Any) -> None:
    from tests.conftest import BASE, client_of  # noqa: PLC0415 - only this test speaks HTTP

    for variable, scope in (("STUDIO_DEV_API_KEY", False), ("STUDIO_ADMIN_API_KEY", True)):
        async with client_of(app, {"authorization": f"Bearer {database_urls[variable]}"}) as client:
            answer = await client.get(f"{BASE}/validate-token")
        assert answer.status_code == 200, answer.text
        assert ("admin" in answer.json()["roles"]) is scope
