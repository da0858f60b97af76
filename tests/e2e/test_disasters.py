"""One of the two stores loses what it knew, in the middle of cascades: what the other knows leads to the same end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from storage.invariants import ALWAYS, AT_REST, HISTORY
from tests.e2e.audit import Auditor
from tests.e2e.catalogue import GRAPH
from tests.e2e.people import Person
from tests.e2e.service import Rule, TestService
from tests.e2e.studio import Studio
from tests.e2e.waiting import eventually


@pytest.mark.timeout(240)
async def test_temporal_that_has_lost_its_database_is_told_again_by_postgresql(
    person: Person, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    await person.register(GRAPH)
    with service.ruled(Rule(person.name, delay_seconds=0.15)):
        root = await person.root(await person.bucket())
        await person.mark(root["id"], "before")
        await auditor.in_the_middle(person)
        studio.freeze("temporal")
        for file in studio.state.folder("temporal").glob("temporal.db*"):
            file.unlink()
        killed = studio.kill("temporal")
        await person.mark(root["id"], "while it is away")
        await studio.restarted("temporal", killed)
        await person.mark(root["id"], "after")
    await auditor.at_rest(person)
    await auditor.everything_holds(person)
    temporal = await auditor.temporal()

    async def scheduled() -> set[str]:
        return {found.id async for found in await temporal.list_schedules()} & {"reconcile", "housekeeping"}

    async def both() -> bool:
        return await scheduled() == {"reconcile", "housekeeping"}

    await eventually(both, "a worker that lives on makes the schedules again")


@asynccontextmanager
async def nobody_connected(admin: asyncpg.Connection, name: str) -> AsyncIterator[None]:
    """Nobody but a superuser's own commands touches the database for the block; whoever comes is refused."""
    await admin.execute(f'alter database "{name}" with allow_connections false')
    try:
        gone = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1"

        async def alone() -> bool:
            return bool(await admin.fetchval(gone, name) == 0)

        await eventually(alone, "everybody has left the database")
        yield
    finally:
        await admin.execute(f'alter database "{name}" with allow_connections true')


@pytest.mark.timeout(240)
async def test_postgresql_restored_from_a_backup_goes_on_under_a_newer_temporal(
    person: Person, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    """Temporal's workflows remember plans and runs that the database has never heard of; what was acknowledged since
    the backup is gone, and nothing else."""
    await person.register(GRAPH)
    parts = urlsplit(studio.endpoints["database_admin_url"])
    name = parts.path.lstrip("/")
    admin = await asyncpg.connect(urlunsplit(parts._replace(path="/postgres")))
    try:
        with service.ruled(Rule(person.name, delay_seconds=0.15)):
            root = await person.root(await person.bucket())
            await person.mark(root["id"], "before the backup")
            await auditor.in_the_middle(person)
            async with nobody_connected(admin, name):
                await admin.execute(f'create database "{name}_backup" template "{name}"')
            await person.mark(root["id"], "after the backup")
            await auditor.in_the_middle(person)
            async with nobody_connected(admin, name):
                await admin.execute(f'alter database "{name}" rename to "{name}_lost"')
                try:
                    await admin.execute(f'alter database "{name}_backup" rename to "{name}"')
                finally:
                    await admin.execute(f'drop database "{name}_lost"')
            person.workload.marks[root["id"]].remove("after the backup")
            await person.mark(root["id"], "after the restore")
        await auditor.at_rest(person)
        assert not await auditor.broken(person, ALWAYS | HISTORY | AT_REST)
        await auditor.all_is_fresh(person)
        await auditor.history_replays(person)
        await auditor.lanes_equal_what_they_are_made_from(person)
        await auditor.generations_do_not_mix(person)
        await auditor.nothing_acknowledged_is_lost(person)
    finally:
        await admin.close()
