"""What the tests of the schedule share."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from devstack.stack import Stack
from storage.contents import Contents
from storage.database import Database
from tests.conftest import Person, client_of
from tests.storage.engine import Engine, schedule_of
from tests.storage.schedule_lockstep import MakeDatabase, new_oracle, opened
from tests.storage.shelf import shelf

__all__ = ["shelf"]


@pytest_asyncio.fixture
async def engine(
    app: Any, user: Person, database: Database, contents: Contents, admin: Any, database_urls: Mapping[str, str]
) -> AsyncIterator[Engine]:
    """A user of this test alone, whose schedule the test moves by hand."""
    async with client_of(app, user.headers) as http:
        schedule = schedule_of(database, contents)
        yield Engine(http, user, schedule, database, contents, admin, database_urls["DATABASE_ADMIN_URL"])


@pytest.fixture
def asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An S3 server that is not there is asked once: the pauses between three times are seconds."""
    monkeypatch.setattr("storage.objects._ATTEMPTS_MAX", 1)


@pytest.fixture(scope="session")
def outside() -> Mapping[str, str]:
    """The environment without anything that would replace a server of the stack."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "DATABASE_", "NATS_"))}


@pytest.fixture(scope="session")
def nats_urls(tmp_path_factory: pytest.TempPathFactory, outside: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """NATS, started once for this process."""
    with Stack(tmp_path_factory.mktemp("nats"), services=("nats",), environ=outside) as running:
        yield dict(running.endpoints)


@pytest_asyncio.fixture(scope="session")
async def oracle_database(make_database: MakeDatabase) -> str:
    """A database that goes by the clock of scenarios."""
    return await new_oracle(make_database)


@pytest_asyncio.fixture
async def oracle(oracle_database: str) -> AsyncIterator[Any]:
    """A superuser's connection to it."""
    async with opened(oracle_database) as found:
        yield found
