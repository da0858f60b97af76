"""Schemas in PostgreSQL: immutable, versioned, one's own before the published ones."""

import asyncio

import pytest

from domain.errors import Conflict, NotFound
from domain.ids import SYSTEM_USER
from domain.schemas import Schema, parse_schema
from storage.database import Database
from storage.schemas import Schemas
from tests.conftest import Person


def note(version: str = "1.0.0", **changes: object) -> Schema:
    raw = {"name": "note", "version": version, "definition": {"type": "object"}, **changes}
    return parse_schema(raw)


@pytest.fixture
def schemas(database: Database) -> Schemas:
    return Schemas(database)


async def test_a_schema_comes_back_as_it_was_registered(schemas: Schemas, user: Person) -> None:
    schema = parse_schema(
        {
            "name": "full",
            "version": "2.1.0",
            "definition": {"type": "object", "properties": {"n": {"const": 1.0}}},
            "description": "All there is",
            "strict_mode": True,
            "required_fields": ["n"],
            "examples": [{"n": 1.0}],
            "type": "output",
            "provider_id": "someone",
            "compatible_with": ["note-v1"],
            "deprecated": True,
        }
    )
    stored, is_new = await schemas.register(user.user_id, schema)
    assert (is_new, stored.schema.to_json()) == (True, schema.to_json())
    assert (await schemas.find(user.user_id, "full-v2")).schema.to_json() == schema.to_json()


async def test_a_version_registered_by_many_at_once_is_stored_once(schemas: Schemas, user: Person) -> None:
    found = await asyncio.gather(*(schemas.register(user.user_id, note()) for _ in range(8)))
    assert sorted(is_new for _, is_new in found) == [False] * 7 + [True]
    assert len({stored.id for stored, _ in found}) == 1


async def test_words_may_be_registered_again_but_not_another_meaning(schemas: Schemas, user: Person) -> None:
    await schemas.register(user.user_id, note())
    assert (await schemas.register(user.user_id, note(description="other words")))[1] is False
    with pytest.raises(Conflict):
        await schemas.register(user.user_id, note(strict_mode=True))


async def test_many_schemas_are_read_at_once_own_and_newest_first(schemas: Schemas, user: Person) -> None:
    for version in ("1.2.0", "1.10.0", "1.9.0"):
        await schemas.register(user.user_id, note(version))
    old = (await schemas.register(user.user_id, note("1.2.0")))[0]
    mine = parse_schema({"name": "text-input", "definition": {"title": "mine"}})
    await schemas.register(user.user_id, mine)
    known = await schemas.known(user.user_id, ["schema-note-v1", "text-input-v1", "nope-v1", str(old.id)])
    assert known["note-v1"].version == "1.10.0"
    assert known["text-input-v1"].definition == {"title": "mine"}
    assert known[str(old.id)].version == "1.2.0"
    assert "nope-v1" not in known


async def test_reading_by_id_finds_that_version(schemas: Schemas, user: Person, other: Person) -> None:
    stored, _ = await schemas.register(user.user_id, note())
    assert (await schemas.find(user.user_id, str(stored.id))).schema.version == "1.0.0"
    with pytest.raises(NotFound):
        await schemas.find(other.user_id, str(stored.id))


async def test_published_schemas_are_everybodys_and_nobody_else_can_write_them(
    schemas: Schemas, database: Database, user: Person
) -> None:
    published = await schemas.find(user.user_id, "text-v1")
    assert (published.owner_id, published.published) == (SYSTEM_USER, True)
    async with database.transaction(user.user_id) as connection:
        assert await connection.execute("update schemas set active = false where id = $1", published.id) == "UPDATE 0"
        assert await connection.execute("delete from schemas where id = $1", published.id) == "DELETE 0"
