"""Users and keys over HTTP: who one is, keys that allow less and end sooner, and users that admins make."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest_asyncio

from domain.ids import ApiKeyId, new_id
from domain.keys import SCOPES, USER_SCOPES, mint_key
from storage.api_keys import ApiKeys
from storage.database import Database
from tests.api.requests import problem
from tests.conftest import BASE, Person, client_of

Count = Callable[[UUID], Awaitable[dict[str, int]]]


@pytest_asyncio.fixture
async def chief(app: Any, make_user: Callable[..., Awaitable[Person]]) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with every scope."""
    person = await make_user(SCOPES)
    async with client_of(app, person.headers) as made:
        yield made


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def key_of(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{BASE}/api-keys", json=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_token_is_validated_as_the_seed_says(client: httpx2.AsyncClient, user: Person) -> None:
    answer = await client.get("/api/v1/validate-token")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["user_id"], found["roles"], found["expires_at"]) == (str(user.user_id), ["user"], None)
    assert (await client.get(f"{BASE}/validate-token")).json() == found
    me = (await client.get(f"{BASE}/me")).json()
    assert (me["user_id"], me["name"], set(me["scopes"])) == (
        str(user.user_id),
        f"user-{user.user_id}",
        set(USER_SCOPES),
    )


async def test_without_a_valid_key_nothing_is_answered(app: Any, user: Person) -> None:
    async with client_of(app) as nobody:
        url = f"{BASE}/validate-token"
        problem(await nobody.get(url), 401, "missing_credentials")
        problem(await nobody.get(url, headers={"authorization": "Basic abc"}), 401, "missing_credentials")
        problem(await nobody.get(url, headers=bearer(user.key[:-1] + "x")), 401, "invalid_credentials")
        problem(await nobody.get(url, headers=bearer(mint_key(bytes(32)))), 401, "invalid_credentials")
        problem(await nobody.post(f"{BASE}/buckets", json={"name": "x"}), 401, "missing_credentials")


async def test_a_key_is_shown_once_and_stored_only_as_a_hash(
    client: httpx2.AsyncClient, admin: Any, user: Person
) -> None:
    made = await key_of(client, name="reader", scopes=["blobs:read"])
    assert made["api_key"].startswith(made["prefix"])
    listed = (await client.get(f"{BASE}/api-keys")).json()["data"]
    assert [row["name"] for row in listed] == ["first", "reader"]
    assert not any("api_key" in row for row in listed)
    stored = await admin.fetch("select * from api_keys where user_id = $1", user.user_id)
    assert made["api_key"] not in str(stored)
    events = (await client.get(f"{BASE}/events")).text
    assert made["api_key"] not in events


async def test_a_new_key_allows_at_most_what_the_old_one_does(client: httpx2.AsyncClient, app: Any) -> None:
    reader = await key_of(client, scopes=["blobs:read"])
    async with client_of(app, bearer(reader["api_key"])) as weak:
        assert (await weak.get(f"{BASE}/buckets")).status_code == 200
        problem(await weak.post(f"{BASE}/buckets", json={"name": "x"}), 403, "missing_scope")
        refused = problem(await weak.post(f"{BASE}/api-keys", json={"scopes": ["blobs:write"]}), 403, "missing_scope")
        assert refused["required_scope"] == "blobs:write"
        assert (await key_of(weak))["scopes"] == ["blobs:read"]
    problem(await client.post(f"{BASE}/api-keys", json={"scopes": ["admin"]}), 403, "missing_scope")
    problem(await client.post(f"{BASE}/api-keys", json={"scopes": ["fly"]}), 422, "invalid_value", "/scopes/0")
    problem(await client.post(f"{BASE}/api-keys", json={"scopes": []}), 422, "invalid_value", "/scopes")
    problem(await client.post(f"{BASE}/api-keys", json={"name": 7}), 422, "wrong_type", "/name")


async def test_a_key_ends_when_it_says_and_no_later_than_its_maker(client: httpx2.AsyncClient, app: Any) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    made = await key_of(client, expires_at=soon.isoformat())
    assert datetime.fromisoformat(made["expires_at"]) == soon
    async with client_of(app, bearer(made["api_key"])) as brief:
        found = (await brief.get(f"{BASE}/validate-token")).json()
        assert datetime.fromisoformat(found["expires_at"]) == soon
        assert (await key_of(brief))["expires_at"] == made["expires_at"]
        later = {"expires_at": (soon + timedelta(hours=1)).isoformat()}
        problem(await brief.post(f"{BASE}/api-keys", json=later), 422, "invalid_value", "/expires_at")
    for wrong in ("yesterday", "2020-01-01T00:00:00Z", "2030-01-01T00:00:00"):
        answer = await client.post(f"{BASE}/api-keys", json={"expires_at": wrong})
        problem(answer, 422, "invalid_value", "/expires_at")


async def test_an_expired_key_is_told_from_an_unknown_one(app: Any, database: Database, user: Person) -> None:
    key = mint_key(bytes(range(32)))
    past = datetime.now(UTC) - timedelta(seconds=1)
    await ApiKeys(database).create(
        user.user_id, ApiKeyId(new_id()), key, name="old", scopes=["blobs:read"], expires_at=past
    )
    async with client_of(app, bearer(key)) as old:
        problem(await old.get(f"{BASE}/me"), 401, "expired_credentials")


async def test_a_revoked_key_stops_working_at_once(client: httpx2.AsyncClient, app: Any) -> None:
    made = await key_of(client)
    async with client_of(app, bearer(made["api_key"])) as used:
        assert (await used.get(f"{BASE}/me")).status_code == 200
        for _ in range(2):
            assert (await client.delete(f"{BASE}/api-keys/{made['id']}")).status_code == 204
        problem(await used.get(f"{BASE}/me"), 401, "expired_credentials")
    listed = (await client.get(f"{BASE}/api-keys")).json()["data"]
    assert [row["revoked_at"] is None for row in listed] == [True, False]
    problem(await client.delete(f"{BASE}/api-keys/{new_id()}"), 404, "not_found")
    problem(await client.delete(f"{BASE}/api-keys/seven"), 422, "invalid_id", "/path/key_id")


async def test_a_repeated_request_for_a_key_answers_the_same_key(
    client: httpx2.AsyncClient, admin: Any, user: Person
) -> None:
    headers = {"idempotency-key": "one-key"}
    first = await client.post(f"{BASE}/api-keys", json={"name": "k"}, headers=headers)
    second = await client.post(f"{BASE}/api-keys", json={"name": "k"}, headers=headers)
    assert first.json() == second.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert len((await client.get(f"{BASE}/api-keys")).json()["data"]) == 2
    kept = await admin.fetch("select body from idempotency_keys where user_id = $1", user.user_id)
    assert first.json()["api_key"].encode() not in b"".join(row["body"] for row in kept)
    other = await key_of(client)
    again = await client.post(f"{BASE}/api-keys", json={"name": "k"}, headers={**headers, **bearer(other["api_key"])})
    assert (again.status_code, again.json()["id"] == first.json()["id"]) == (201, False)


async def test_somebody_elses_key_is_not_there(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    made = await key_of(client)
    problem(await stranger.delete(f"{BASE}/api-keys/{made['id']}"), 404, "not_found")
    assert made["id"] not in (await stranger.get(f"{BASE}/api-keys")).text


async def test_an_admin_makes_users_who_can_work_at_once(chief: httpx2.AsyncClient, app: Any) -> None:
    name = f"ada-{new_id()}"
    answer = await chief.post(f"{BASE}/users", json={"name": name})
    made = answer.json()
    assert (answer.status_code, made["roles"], "admin" in made["scopes"]) == (201, ["user"], False)
    async with client_of(app, bearer(made["api_key"])) as ada:
        assert (await ada.get(f"{BASE}/me")).json()["user_id"] == made["user_id"]
        assert (await ada.post(f"{BASE}/blobs", json={"content": "hello there"})).status_code == 201
        problem(await ada.post(f"{BASE}/users", json={"name": "x"}), 403, "missing_scope")
    problem(await chief.post(f"{BASE}/users", json={"name": name}), 409, "already_exists", "/name")
    second = (await chief.post(f"{BASE}/users", json={"name": f"{name}-2", "admin": True})).json()
    assert (second["roles"], "admin" in second["scopes"]) == (["admin"], True)


async def test_a_user_that_cannot_be_made_leaves_nothing(
    chief: httpx2.AsyncClient, client: httpx2.AsyncClient, admin: Any
) -> None:
    before = await admin.fetchval("select count(*) from users")
    problem(await client.post(f"{BASE}/users", json={"name": "x"}), 403, "missing_scope")
    problem(await chief.post(f"{BASE}/users", json={}), 422, "missing_field", "/name")
    problem(await chief.post(f"{BASE}/users", json={"name": "a\nb"}), 422, "invalid_value", "/name")
    problem(await chief.post(f"{BASE}/users", json={"name": "x", "age": 3}), 422, "unknown_field", "/age")
    assert await admin.fetchval("select count(*) from users") == before
