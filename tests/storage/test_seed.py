"""What a database holds before anybody uses it, and that seeding again harms nothing."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from domain.errors import Invalid
from domain.ids import SYSTEM_USER
from domain.keys import SCOPES, USER_SCOPES, key_hash
from migrations.catalogue import write_catalogue
from migrations.seed import first_user_id, seed
from settings import Settings, load_settings
from storage.catalog import builtin_catalogue
from storage.database import prepare

TABLES = ("users", "user_state", "api_keys", "installation", "schemas", "definitions", "providers")


@pytest_asyncio.fixture
async def fresh(make_database: Callable[..., Awaitable[Mapping[str, str]]]) -> Mapping[str, str]:
    """A database of this test alone."""
    return await make_database()


def settings_of(environment: Mapping[str, str], **keys: str) -> Settings:
    plain = {name: value for name, value in environment.items() if not name.endswith("_API_KEY")}
    return load_settings({**plain, **keys})


async def rows_of(environment: Mapping[str, str]) -> dict[str, list[Any]]:
    connection = await asyncpg.connect(environment["DATABASE_ADMIN_URL"])
    try:
        return {table: await connection.fetch(f"select * from {table} order by 1, 2") for table in TABLES}  # noqa: S608
    finally:
        await connection.close()


async def test_seeding_again_changes_nothing(fresh: Mapping[str, str]) -> None:
    keys = {"STUDIO_DEV_API_KEY": "dev-key-of-the-test", "STUDIO_ADMIN_API_KEY": "admin-key-of-the-test"}
    await seed(settings_of(fresh, **keys))
    before = await rows_of(fresh)
    await seed(settings_of(fresh, **keys))
    assert await rows_of(fresh) == before
    assert len(before["installation"]) == 1
    assert len(before["installation"][0]["secret"]) == 32


async def test_the_first_users_have_the_keys_of_the_environment(fresh: Mapping[str, str]) -> None:
    await seed(settings_of(fresh, STUDIO_DEV_API_KEY="first-dev-key", STUDIO_ADMIN_API_KEY="first-admin-key"))
    await seed(settings_of(fresh, STUDIO_DEV_API_KEY="second-dev-key", STUDIO_ADMIN_API_KEY="first-admin-key"))
    rows = await rows_of(fresh)
    by_hash = {row["key_hash"]: row for row in rows["api_keys"]}
    first, second = by_hash[key_hash("first-dev-key")], by_hash[key_hash("second-dev-key")]
    assert first["revoked_at"] is not None
    assert (second["revoked_at"], second["user_id"], tuple(second["scopes"])) == (
        None,
        first_user_id("dev"),
        USER_SCOPES,
    )
    chief = by_hash[key_hash("first-admin-key")]
    assert (chief["user_id"], tuple(chief["scopes"])) == (first_user_id("admin"), SCOPES)
    assert {row["name"]: list(row["roles"]) for row in rows["users"]} == {
        "system": ["system"], "dev": ["user"], "admin": ["admin"],
    }  # fmt: skip


async def test_one_key_for_two_users_is_refused_and_nothing_is_kept(fresh: Mapping[str, str]) -> None:
    before = await rows_of(fresh)
    with pytest.raises(Invalid):
        await seed(settings_of(fresh, STUDIO_DEV_API_KEY="the-same", STUDIO_ADMIN_API_KEY="the-same"))
    assert await rows_of(fresh) == before


async def test_the_built_in_catalogue_is_published_by_the_system(fresh: Mapping[str, str]) -> None:
    rows = await rows_of(fresh)
    for table in ("schemas", "definitions", "providers"):
        assert {(row["owner_id"], row["published"]) for row in rows[table]} == {(SYSTEM_USER, True)}
    digests = {row["digest"] for row in rows["definitions"]}
    assert {row["definition_digest"] for row in rows["providers"]} <= digests


async def test_a_built_in_schema_that_changed_becomes_a_version_and_is_pinned(fresh: Mapping[str, str]) -> None:
    catalogue = builtin_catalogue({"ai-service"})
    changed = replace(catalogue.schemas["expanded-text-v1"], strict_mode=True)
    newer = replace(catalogue, schemas={**catalogue.schemas, "expanded-text-v1": changed})
    before = await rows_of(fresh)
    connection = await asyncpg.connect(fresh["DATABASE_ADMIN_URL"])
    await prepare(connection)
    try:
        for _ in range(2):
            async with connection.transaction():
                await connection.execute("set local role studio_app")
                await connection.execute("select studio_enter($1)", SYSTEM_USER)
                await write_catalogue(connection, newer)
    finally:
        await connection.close()
    after = await rows_of(fresh)
    versions = sorted(row["version"] for row in after["schemas"] if row["slug"] == "expanded-text-v1")
    assert versions == ["1.0.0", "1.0.1"]
    assert [row for row in before["schemas"] if row not in after["schemas"]] == []
    expansion = [row for row in after["definitions"] if row["slug"] == "wf-text-expansion"]
    assert sorted(row["version"] for row in expansion) == [1, 2]
    newest = max(expansion, key=lambda row: row["version"])
    (provider,) = [row for row in after["providers"] if row["slug"] == "text-expansion"]
    assert (provider["definition_digest"], provider["version"]) == (newest["digest"], 2)
    (other,) = [row for row in after["providers"] if row["slug"] == "outline-generator"]
    assert other["version"] == 1
