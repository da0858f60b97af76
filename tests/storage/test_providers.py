"""Providers and instances in PostgreSQL: revisions, activations, and whose they are."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio

from domain.definitions import Definition, parse_definition
from domain.errors import NotFound, VersionConflict
from domain.ids import SYSTEM_USER, instance_id, provider_key
from domain.providers import Provider, parse_provider
from storage.database import Database
from storage.definitions import Definitions
from storage.instances import Instances
from storage.providers import Providers
from storage.schemas import Schemas
from tests.api.test_workflows import SHOUT
from tests.conftest import Person

ACTOR = "user:test"
Make = Callable[..., Provider]


@pytest.fixture
def providers(database: Database) -> Providers:
    return Providers(database)


@pytest_asyncio.fixture
async def definition(database: Database, user: Person) -> Definition:
    schemas = await Schemas(database).known(user.user_id, ["blob-v1"])
    made = parse_definition(SHOUT, services=(), schemas=schemas.get)
    await Definitions(database).register(user.user_id, made, "source")
    return made


@pytest.fixture
def make(definition: Definition) -> Make:
    def made(**changes: Any) -> Provider:
        raw = {"id": "shout", "workflow_id": definition.id, **changes}
        return parse_provider(raw, workflows={definition.id: definition}.get, schemas=lambda _: None)

    return made


async def test_a_provider_comes_back_as_it_was_registered(providers: Providers, user: Person, make: Make) -> None:
    provider = make(
        name="Shout", supported_types=["text/*"], trigger_patterns=["^x"], origin="any", priority=2,
        debounce={"quiet": "2s", "max_wait": "10s"}, settings={"tone": "dry"}, on_delete="delete",
    )  # fmt: skip
    stored, cascade = await providers.register(user.user_id, provider, actor=ACTOR)
    assert cascade is not None
    assert stored.provider == provider
    assert (await providers.find(user.user_id, "shout")).provider.to_json() == provider.to_json()
    assert stored.key == provider_key(user.user_id, "shout")


async def test_what_discovery_matches_on_stands_in_columns(
    providers: Providers, user: Person, make: Make, admin: Any
) -> None:
    provider = make(supported_types=["text/*"], debounce={"quiet": "2s"}, reads=["title"])
    stored, _ = await providers.register(user.user_id, provider, actor=ACTOR)
    row = await admin.fetchrow("select * from providers where id = $1", stored.key)
    assert (row["slug"], row["content_types"], row["origin"], row["anchor"]) == ("shout", ["text/*"], "person", "blob")
    assert (row["execution"], row["reads_meta"], row["debounce_ms"], row["debounce_max_ms"]) == (
        "inline", True, 2000, 20_000,
    )  # fmt: skip
    assert row["definition_digest"] == provider.definition_digest
    outputs = '[{"slot": "shouted", "schema_id": "blob-v1", "content_type": "application/json"}]'
    assert await admin.fetchval("select $1::jsonb = $2::jsonb", row["outputs"], outputs)


async def test_many_registrations_at_once_make_one_provider(providers: Providers, user: Person, make: Make) -> None:
    provider = make()
    results = await asyncio.gather(*(providers.register(user.user_id, provider, actor=ACTOR) for _ in range(6)))
    assert sum(cascade is not None for _, cascade in results) == 1
    assert {stored.revision for stored, _ in results} == {1}


async def test_an_instance_is_changed_once_per_version(
    providers: Providers, database: Database, user: Person, make: Make
) -> None:
    stored, _ = await providers.register(user.user_id, make(), actor=ACTOR)
    instances = Instances(database)
    before = await instances.get(user.user_id, stored.key, default_active=False, defaults={})
    assert before.id == instance_id(user.user_id, stored.key)

    async def switch(n: int) -> object:
        return await instances.put(
            user.user_id, stored.key, slug="shout", name="Shout", before=before, active=False, settings={"n": n},
            policies=before.policies, expected={before.version}, actor=ACTOR,
        )  # fmt: skip

    results = await asyncio.gather(*(switch(n) for n in range(4)), return_exceptions=True)
    assert sum(isinstance(result, VersionConflict) for result in results) == 3


async def test_nobody_registers_for_somebody_else(
    providers: Providers, database: Database, user: Person, other: Person, make: Make
) -> None:
    stored, _ = await providers.register(user.user_id, make(), actor=ACTOR)
    with pytest.raises(NotFound):
        await providers.find(other.user_id, str(stored.key))
    with pytest.raises(NotFound):
        await providers.delete(other.user_id, stored, actor=ACTOR)
    built_in = await providers.find(user.user_id, "summarizer")
    assert built_in.owner_id == SYSTEM_USER
    with pytest.raises(NotFound):
        await providers.delete(user.user_id, built_in, actor=ACTOR)
    async with database.transaction(other.user_id) as connection:
        done = await connection.execute("update providers set active = false where id = $1", stored.key)
        assert done == "UPDATE 0"
