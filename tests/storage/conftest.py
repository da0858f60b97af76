"""What the tests of the schedule share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest_asyncio

from storage.contents import Contents
from storage.database import Database
from tests.conftest import Person, client_of
from tests.storage.engine import Engine, schedule_of


@pytest_asyncio.fixture
async def engine(
    app: Any, user: Person, database: Database, contents: Contents, admin: Any, database_urls: Mapping[str, str]
) -> AsyncIterator[Engine]:
    """A user of this test alone, whose schedule the test moves by hand."""
    async with client_of(app, user.headers) as http:
        schedule = schedule_of(database, contents)
        yield Engine(http, user, schedule, database, contents, admin, database_urls["DATABASE_ADMIN_URL"])
