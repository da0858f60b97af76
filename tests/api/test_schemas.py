"""Schemas over HTTP: registered, found, versioned, held against values."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx2
import pytest

from domain.ids import new_id
from tests.api.requests import make, problem
from tests.conftest import BASE, Person, client_of

Count = Callable[[UUID], Awaitable[dict[str, int]]]

NOTE = {
    "name": "note",
    "version": "1.0.0",
    "definition": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string", "maxLength": 9}}},
}


async def register(client: httpx2.AsyncClient, status: int = 201, **changes: Any) -> dict[str, Any]:
    answer = await client.post(f"{BASE}/schemas", json={**NOTE, **changes})
    assert answer.status_code == status, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_schema_is_registered_once_and_found_by_all_its_names(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{BASE}/schemas", json=NOTE)
    made = answer.json()
    assert (answer.status_code, made["slug"], made["version"]) == (201, "note-v1", "1.0.0")
    assert answer.headers["location"] == f"{BASE}/schemas/note-v1"
    assert await register(client, 200) == made
    for name in ("note-v1", "schema-note-v1", made["id"]):
        assert (await client.get(f"{BASE}/schemas/{name}")).json() == made
    assert (await client.get(f"/api/v1/schemas/{made['id']}")).json() == made
    tag = (await client.get(f"{BASE}/schemas/note-v1")).headers["etag"]
    assert (await client.get(f"{BASE}/schemas/note-v1", headers={"if-none-match": tag})).status_code == 304
    events = (await client.get(f"{BASE}/events", params={"type": "schema.registered"})).json()["data"]
    assert [event["data"]["schema_id"] for event in events] == ["note-v1"]


async def test_versions_are_immutable_and_the_newest_is_found(client: httpx2.AsyncClient) -> None:
    await register(client, version="1.9.0")
    await register(client, version="1.10.0")
    await register(client, name="note", version="2.0.0")
    changed = await client.post(f"{BASE}/schemas", json={**NOTE, "version": "1.9.0", "definition": {}})
    problem(changed, 409, "already_exists", "/version")
    assert (await client.get(f"{BASE}/schemas/note-v1")).json()["version"] == "1.10.0"
    versions = (await client.get(f"{BASE}/schemas/note-v1/versions")).json()["data"]
    assert [row["version"] for row in versions] == ["1.10.0", "1.9.0"]
    assert (await client.get(f"{BASE}/schemas/note-v2")).json()["version"] == "2.0.0"


async def test_the_built_in_schemas_are_listed_beside_ones_own(client: httpx2.AsyncClient) -> None:
    await register(client)
    listed = (await client.get(f"{BASE}/schemas", params={"limit": 200})).json()["data"]
    by_slug = {row["slug"]: row["built_in"] for row in listed}
    assert by_slug["note-v1"] is False
    assert {slug for slug, built_in in by_slug.items() if built_in} >= {"text-input-v1", "expanded-text-v1", "blob-v1"}
    assert [row["slug"] for row in listed] == sorted(by_slug)
    problem(await client.get(f"{BASE}/schemas", params={"type": "x"}), 422, "invalid_value", "/query/type")


async def test_a_value_is_held_against_a_schema(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/schemas/schema-text-input-v1/validate"
    good = {"data": {"content": "The ship sailed into the storm."}}
    assert (await client.post(url, json=good)).json() == {"valid": True, "errors": [], "schema_id": "text-input-v1"}
    bad = (await client.post(url, json={"data": {"content": "x", "style": "loud", "metadata": []}})).json()
    assert bad["valid"] is False
    assert {error["pointer"] for error in bad["errors"]} == {"/content", "/style", "/metadata"}
    assert all(error["detail"] and error["code"] for error in bad["errors"])
    assert (await client.post(url, json={"data": None})).json()["valid"] is False
    problem(await client.post(url, json={}), 422, "missing_field", "/data")
    problem(await client.post(f"{BASE}/schemas/nope-v1/validate", json=good), 404, "not_found")
    problem(await client.post(url, json={"data": 2**70}), 422, "number_out_of_range")


async def test_strict_mode_is_off_unless_asked_for_and_closes_every_object(client: httpx2.AsyncClient) -> None:
    await register(client)
    extra = {"data": {"text": "x", "more": 1}}
    assert (await client.post(f"{BASE}/schemas/note-v1/validate", json=extra)).json()["valid"] is True
    await register(client, name="strict-note", strict_mode=True)
    closed = (await client.post(f"{BASE}/schemas/strict-note-v1/validate", json=extra)).json()
    assert [(error["pointer"], error["code"]) for error in closed["errors"]] == [("/more", "unknown_field")]


async def test_required_fields_hold_for_values_and_for_blobs(client: httpx2.AsyncClient) -> None:
    await register(client, name="titled", required_fields=["title"])
    answer = (await client.post(f"{BASE}/schemas/titled-v1/validate", json={"data": {"text": "x"}})).json()
    assert [(error["pointer"], error["code"]) for error in answer["errors"]] == [("/title", "missing_field")]
    blob = await client.post(f"{BASE}/blobs", json={"schema_id": "titled-v1", "data": {"text": "x"}})
    problem(blob, 422, "schema_violation", "/data/title")


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"definition": {"$ref": "https://example.com/a.json"}}, "/definition/$ref", "remote_ref"),
        ({"definition": {"type": "strnig"}}, "/definition/type", "invalid_schema"),
        ({"definition": 7}, "/definition", None),
        ({"definition": None}, "/definition", "missing_field"),
        ({"name": "No Such Name"}, "/name", None),
        ({"version": "one"}, "/version", None),
        ({"type": "inputt"}, "/type", "invalid_value"),
        ({"colour": "red"}, "/colour", "unknown_field"),
        ({"examples": [{"text": 7}]}, "/examples/0/text", "schema_violation"),
        ({"definition": {"type": "string", "pattern": "("}}, "/definition/pattern", None),
    ],
)
async def test_a_schema_that_is_not_one_is_refused_at_its_place(
    client: httpx2.AsyncClient, user: Person, count_rows: Count, change: Any, pointer: str, code: str | None
) -> None:
    before = await count_rows(user.user_id)
    found = problem(await client.post(f"{BASE}/schemas", json={**NOTE, **change}), 422, "invalid_schema")
    faults = {fault["pointer"]: fault["code"] for fault in found["errors"]}
    assert pointer in faults
    assert code is None or faults[pointer] == code
    assert await count_rows(user.user_id) == before
    problem(await client.get(f"{BASE}/schemas/note-v1"), 404, "not_found")


async def test_a_body_that_cannot_be_read_is_no_schema(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/schemas"
    problem(await client.post(url, content=b"{", headers={"content-type": "application/json"}), 400, "unparsable_body")
    problem(
        await client.post(url, content=b"a: 1", headers={"content-type": "text/plain"}), 415, "unsupported_media_type"
    )
    problem(await client.post(url, json=[]), 422, "invalid_schema")


async def test_ones_own_schema_comes_before_the_published_one_for_oneself_alone(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient
) -> None:
    published = (await client.get(f"{BASE}/schemas/text-input-v1")).json()
    mine = await register(client, name="text-input", version="1.0.0", definition={"type": "object"})
    assert (await client.get(f"{BASE}/schemas/text-input-v1")).json()["id"] == mine["id"]
    assert (await client.get(f"{BASE}/schemas/{published['id']}")).json() == published
    assert (await stranger.get(f"{BASE}/schemas/text-input-v1")).json() == published
    problem(await stranger.get(f"{BASE}/schemas/{mine['id']}"), 404, "not_found")
    problem(await stranger.post(f"{BASE}/schemas/{mine['id']}/validate", json={"data": 1}), 404, "not_found")


async def test_somebody_elses_schema_is_not_there(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    await register(client)
    problem(await stranger.get(f"{BASE}/schemas/note-v1"), 404, "not_found")
    problem(await stranger.get(f"{BASE}/schemas/note-v1/versions"), 404, "not_found")
    assert "note-v1" not in json.dumps((await stranger.get(f"{BASE}/schemas?limit=200")).json())
    problem(await stranger.post(f"{BASE}/blobs", json={"schema_id": "note-v1", "data": {}}), 422, "unknown_schema")
    assert (await register(stranger))["built_in"] is False


async def test_a_new_version_of_a_schema_governs_blobs_at_once(client: httpx2.AsyncClient) -> None:
    await register(client, definition=True)
    await make(client, schema_id="note-v1", data={"text": "much too long"})
    await register(client, version="1.1.0")
    blob = await make(client, schema_id="note-v1", data={"text": "short"})
    assert blob["schema_id"] == "note-v1"
    long = await client.post(f"{BASE}/blobs", json={"schema_id": "schema-note-v1", "data": {"text": "much too long"}})
    problem(long, 422, "schema_violation", "/data/text")


async def test_registering_needs_its_scope(app: Any, make_user: Callable[..., Awaitable[Person]]) -> None:
    reader = await make_user(("blobs:read",))
    async with client_of(app, reader.headers) as client:
        found = problem(await client.post(f"{BASE}/schemas", json=NOTE), 403, "missing_scope")
        assert found["required_scope"] == "providers:write"
        problem(await client.get(f"{BASE}/schemas/{new_id()}"), 404, "not_found")
