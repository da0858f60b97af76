"""``studio admin verify``: exit status, words and JSON. (``housekeep`` is shown where a worker runs.)"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from api.app import create_app
from settings import load_settings
from storage.database import Database
from tests.cli.conftest import Studio
from tests.conftest import BASE, Person, client_of, new_person

VARIABLES = ("DATABASE_URL", "DATABASE_RELAY_URL", "S3_ENDPOINT", "S3_BUCKET", "S3_ACCESS_KEY", "S3_SECRET_KEY")


@pytest.fixture
def settings_in_environment(database_urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    for name in VARIABLES:
        monkeypatch.setenv(name, database_urls[name])
    return database_urls


async def created(studio: Studio) -> str:
    made = await studio("blob", "create", "--title", "Note", "--content", "words " * 300, "--json")
    assert made.status == 0, made.err
    return str(made.json["id"])


@pytest.mark.usefixtures("settings_in_environment")
async def test_a_sound_user_ends_with_0(studio: Studio, user: Person) -> None:
    await created(studio)
    ended = await studio("admin", "verify", "--user", str(user.user_id), "--json")
    assert ended.status == 0, ended.err
    assert ended.json["users"] == 1
    assert ended.json["looks"]["blob"] == 1
    assert ended.json["findings"] == []
    assert "user 1 of 1" in ended.err


async def damaged(environment: Mapping[str, str]) -> tuple[Person, str]:
    """Somebody in this database, and a blob of theirs whose content is not what it was."""
    application = create_app(load_settings(environment))
    database = await Database.connect(environment["DATABASE_URL"])
    try:
        user = await new_person(database)
        async with application.router.lifespan_context(application), client_of(application, user.headers) as http:
            made = await http.post(f"{BASE}/blobs", json={"title": "Note", "content": "words " * 300})
            assert made.status_code == 201, made.text
    finally:
        await database.close()
    connection = await asyncpg.connect(environment["DATABASE_ADMIN_URL"])
    try:
        await connection.execute("update contents set body = 'x' where user_id = $1", user.user_id)
    finally:
        await connection.close()
    return user, str(made.json()["id"])


async def test_findings_end_with_1_and_are_named(
    studio: Studio, make_database: Callable[..., Awaitable[Mapping[str, str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = await make_database()  # everybody is verified: here they are few
    for name in VARIABLES:
        monkeypatch.setenv(name, environment[name])
    user, blob = await damaged(environment)
    ended = await studio("admin", "verify", "--json")
    assert ended.status == 1
    assert ended.json["users"] > 1
    finding, *_ = [found for found in ended.json["findings"] if found["blob"] == blob]
    assert finding == {
        "user": str(user.user_id), "blob": blob, "version": 1, "what": "version",
        "expected": finding["expected"], "found": finding["found"],
    }  # fmt: skip
    assert finding["expected"].startswith("sha256:")
    words = await studio("admin", "verify", "--user", str(user.user_id), "--no-json")
    assert words.status == 1
    assert f"blob {blob} v1" in words.out
    assert "findings" in words.err
    other = await studio("admin", "verify", "--user", str(UUID(int=1)), "--json")
    assert (other.status, other.out) == (6, "")
    assert f"There is no user {UUID(int=1)}" in other.err


async def test_it_finds_the_running_stack_like_every_command(
    studio: Studio, user: Person, database_urls: Mapping[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in (*VARIABLES, "STUDIO_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".studio").mkdir()
    known = {"database_url": "DATABASE_URL", "database_admin_url": "DATABASE_ADMIN_URL", "s3_endpoint": "S3_ENDPOINT",
             "s3_bucket": "S3_BUCKET", "s3_access_key": "S3_ACCESS_KEY", "s3_secret_key": "S3_SECRET_KEY"}  # fmt: skip
    values = {"api_url": "http://127.0.0.1:1", **{name: database_urls[variable] for name, variable in known.items()}}
    (tmp_path / ".studio" / "endpoints.json").write_text(json.dumps(values))
    await created(studio)
    ended = await studio("admin", "verify", "--user", str(user.user_id), "--json")
    assert (ended.status, ended.json["looks"]["blob"]) == (0, 1), ended.err


async def test_without_settings_it_says_what_is_missing(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "STUDIO_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    ended = await studio("admin", "verify")
    assert ended.status == 1
    assert "DATABASE_URL" in ended.err
