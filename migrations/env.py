"""Alembic's entry: one async connection as the admin, everything made as studio_owner."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from migrations.scripts import function_scripts, run_script
from storage.tables import metadata


def _run(connection: Connection) -> None:
    connection.execute(text("set role studio_owner"))
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
    with context.begin_transaction():
        # One migration at a time, however many replicas start together.
        connection.execute(text("select pg_advisory_xact_lock(7264538)"))
        context.run_migrations()
        if not context.config.attributes.get("downgrade", False):
            run_script(connection, "\n".join(function_scripts()))


async def _online() -> None:
    engine = create_async_engine(str(context.config.get_main_option("sqlalchemy.url")), poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


asyncio.run(_online())
