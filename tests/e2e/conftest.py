"""One Studio for all of these tests, one user for each."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from tests.e2e.audit import Auditor
from tests.e2e.people import Client, Person
from tests.e2e.service import TestService
from tests.e2e.studio import Studio

NewPerson = Callable[[], Awaitable[Person]]


@pytest.fixture(scope="session")
def service() -> Iterator[TestService]:
    with TestService() as running:
        yield running


@pytest.fixture(scope="session")
def studio(tmp_path_factory: pytest.TempPathFactory, service: TestService) -> Iterator[Studio]:
    given = os.environ.get("STUDIO_STATE_DIR")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    folder = Path(given) / f"e2e-{worker}" if given else tmp_path_factory.mktemp("e2e")
    running = Studio(folder, service.url)
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest_asyncio.fixture(scope="session")
async def auditor(studio: Studio) -> AsyncIterator[Auditor]:
    made = Auditor(studio)
    yield made
    await made.close()


@pytest_asyncio.fixture
async def new_person(studio: Studio) -> AsyncIterator[NewPerson]:
    """A factory of users."""
    admin = Client(studio.endpoints["api_url"], studio.endpoints["admin_key"])
    people: list[Person] = []

    async def make() -> Person:
        name = f"e2e-{secrets.token_hex(4)}"
        made = (await admin.write("POST", "/users", {"name": name})).json()
        people.append(Person(studio.endpoints["api_url"], UUID(made["user_id"]), name, made["api_key"]))
        return people[-1]

    yield make
    for client in (admin, *people):
        await client.http.aclose()


@pytest_asyncio.fixture
async def person(new_person: NewPerson) -> Person:
    return await new_person()
