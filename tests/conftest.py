"""Real servers for every test that wants them: one stack a process, one database a process, one user a test.

Isolation is by user, which row-level security enforces; a test that needs a database of its own takes
``make_database``, a copy of the migrated template.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg
import httpx2
import pytest
import pytest_asyncio
import structlog

from api.app import create_app
from devstack.stack import Stack
from domain.ids import ApiKeyId, UserId, new_id
from domain.keys import KEY_SECRET_BYTES, SCOPES, USER_SCOPES, mint_key
from migrations.__main__ import migrate
from settings import Settings, load_settings
from storage.contents import Contents
from storage.database import Database
from storage.objects import S3Objects
from storage.users import Users

BASE = "/api/v1/studio"
# As in our processes (``logs.py``), no traceback shows its locals: to render 17 MB of a body takes seconds.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
)
DATABASE_VARIABLES = ("DATABASE_URL", "DATABASE_RELAY_URL", "DATABASE_ADMIN_URL")


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """PostgreSQL and S3, started once for this process."""
    given = os.environ.get("STUDIO_STATE_DIR")
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    folder = Path(given) / f"suite-{worker}" if given else tmp_path_factory.mktemp("stack")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "DATABASE_"))}
    with Stack(folder, services=("postgres", "s3"), environ=outside) as running:
        yield running


@pytest.fixture(scope="session")
def migrated(stack: Stack) -> Mapping[str, str]:
    """The environment of a process of ours; its database is migrated and serves as the template of others."""
    environment = dict(stack.endpoints)
    migrate(load_settings(environment))
    return environment


def renamed(url: str, name: str) -> str:
    """The same server's database ``name``."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@pytest_asyncio.fixture(scope="session")
async def make_database(migrated: Mapping[str, str]) -> AsyncIterator[Callable[..., Awaitable[Mapping[str, str]]]]:
    """A factory of databases: copies of the migrated one, or empty with ``empty=True``; dropped at the end."""
    admin = renamed(migrated["DATABASE_ADMIN_URL"], "postgres")
    template = urlsplit(migrated["DATABASE_ADMIN_URL"]).path.lstrip("/")
    made: list[str] = []

    async def make(*, empty: bool = False) -> Mapping[str, str]:
        name = f"studio_test_{secrets.token_hex(6)}"
        connection = await asyncpg.connect(admin)
        try:
            await connection.execute(f"create database {name} template {'template0' if empty else template}")
        finally:
            await connection.close()
        made.append(name)
        return {**migrated, **{variable: renamed(migrated[variable], name) for variable in DATABASE_VARIABLES}}

    yield make
    connection = await asyncpg.connect(admin)
    for name in made:
        await connection.execute(f"drop database if exists {name} with (force)")
    await connection.close()


@pytest_asyncio.fixture(scope="session")
async def database_urls(make_database: Callable[..., Awaitable[Mapping[str, str]]]) -> Mapping[str, str]:
    """The environment with this process's own database."""
    return await make_database()


@pytest.fixture(scope="session")
def settings(database_urls: Mapping[str, str]) -> Settings:
    """The settings of a process that uses this database."""
    return load_settings(database_urls)


@pytest_asyncio.fixture(scope="session")
async def database(database_urls: Mapping[str, str]) -> AsyncIterator[Database]:
    """A pool as the role studio_app."""
    opened = await Database.connect(database_urls["DATABASE_URL"], size_max=8)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(scope="session")
async def admin(database_urls: Mapping[str, str]) -> AsyncIterator[Any]:
    """A superuser's connection, which row-level security does not stop: to look, and to count what was written."""
    connection = await asyncpg.connect(database_urls["DATABASE_ADMIN_URL"])
    yield connection
    await connection.close()


def objects_of(environment: Mapping[str, str]) -> S3Objects:
    """The real object store of the stack."""
    return S3Objects(
        environment["S3_BUCKET"],
        endpoint=environment["S3_ENDPOINT"],
        access_key=environment["S3_ACCESS_KEY"],
        secret_key=environment["S3_SECRET_KEY"],
    )


@pytest_asyncio.fixture(scope="session")
async def contents(database: Database, database_urls: Mapping[str, str]) -> AsyncIterator[Contents]:
    """The content store, with a low threshold: 64 KB stay inline."""
    store = Contents(database, objects_of(database_urls), inline_max=65_536)
    yield store
    await store.close()


@dataclass(frozen=True)
class Person:
    """A user with a key."""

    user_id: UserId
    key: str
    scopes: tuple[str, ...] = USER_SCOPES
    headers: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(scope="session")
def make_user(database: Database) -> Callable[..., Awaitable[Person]]:
    """A factory of users."""
    return lambda scopes=USER_SCOPES: new_person(database, scopes)


async def new_person(
    database: Database, scopes: tuple[str, ...] = USER_SCOPES, *, users: Users | None = None
) -> Person:
    """A new user with a key of these scopes."""
    user_id, key = UserId(new_id()), mint_key(secrets.token_bytes(KEY_SECRET_BYTES))
    users = users or Users(database)
    roles = ["admin"] if scopes == SCOPES else ["user"]
    await users.create(user_id, f"user-{user_id}", roles=roles, scopes=list(scopes), key_id=ApiKeyId(new_id()), key=key)
    return Person(user_id, key, scopes, {"Authorization": f"Bearer {key}"})


@pytest_asyncio.fixture
async def user(make_user: Callable[..., Awaitable[Person]]) -> Person:
    """A user of this test alone."""
    return await make_user()


@pytest_asyncio.fixture
async def other(make_user: Callable[..., Awaitable[Person]]) -> Person:
    """Somebody else."""
    return await make_user()


@pytest_asyncio.fixture(scope="session")
async def app(settings: Settings) -> AsyncIterator[Any]:
    """The application, with its lifespan."""
    application = create_app(settings)
    async with application.router.lifespan_context(application):
        yield application


@asynccontextmanager
async def client_of(application: Any, headers: Mapping[str, str] | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that speaks to the application without a socket."""
    transport = httpx2.ASGITransport(app=application)
    async with httpx2.AsyncClient(transport=transport, base_url="http://studio.test", headers=headers) as made:
        yield made


@pytest_asyncio.fixture
async def client(app: Any, user: Person) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application as ``user``."""
    async with client_of(app, user.headers) as made:
        yield made


@pytest_asyncio.fixture
async def stranger(app: Any, other: Person) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application as somebody else."""
    async with client_of(app, other.headers) as made:
        yield made


@pytest.fixture(scope="session")
def count_rows(admin: Any) -> Callable[[UUID], Awaitable[dict[str, int]]]:
    """Count everything that belongs to a user, by table: equal before and after means that nothing was written."""

    async def count(user_id: UUID) -> dict[str, int]:
        tables = await admin.fetch(
            "select c.table_name from information_schema.columns c join information_schema.tables t"
            " using (table_schema, table_name) where c.table_schema = 'public' and t.table_type = 'BASE TABLE'"
            " and c.column_name = 'user_id' and c.table_name not in ('idempotency_keys') order by 1"
        )
        names = [row["table_name"] for row in tables]
        sums = ", ".join(f"(select count(*) from {name} where user_id = $1) as {name}" for name in names)  # noqa: S608
        return dict(await admin.fetchrow(f"select {sums}", user_id))

    return count
