"""What a user may store: refused before anything is written, however many ask at once; shrinking always passes."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from domain.keys import SCOPES
from tests.api.requests import MERGE_PATCH, envelope, make, problem
from tests.conftest import BASE, Person, client_of
from tests.storage import invariants


@pytest_asyncio.fixture
async def limit(app: Any, make_user: Any, user: Person) -> Any:
    """Say, as an admin, how much ``user`` may store."""
    chief = await make_user(SCOPES)

    async def put(quota: int | None) -> Any:
        async with client_of(app, chief.headers) as as_chief:
            answer = await as_chief.put(f"{BASE}/users/{user.user_id}/limits", json={"bytes_quota": quota})
        assert answer.status_code == 200, answer.text
        return answer.json()

    return put


async def quota(client: httpx2.AsyncClient) -> Any:
    return (await client.get(f"{BASE}/me/quota")).json()


async def test_a_new_user_has_no_limit_and_sees_what_is_used(client: httpx2.AsyncClient, user: Person) -> None:
    await make(client, content="x" * 100)
    assert await quota(client) == {"bytes_used": 100, "bytes_reserved": 0, "bytes_quota": None, "bytes_free": None}
    state = (await client.get(f"{BASE}/me/state")).json()
    assert (state["user_id"], state["blob_count"], state["bytes_used"]) == (str(user.user_id), 1, 100)


async def test_a_create_that_does_not_fit_is_refused_and_leaves_nothing(
    client: httpx2.AsyncClient, user: Person, limit: Any, count_rows: Any, admin: Any
) -> None:
    assert (await limit(1000))["bytes_quota"] == 1000
    await make(client, content="x" * 900)
    before = await count_rows(user.user_id)
    answer = await client.post(f"{BASE}/blobs", json={"content": "y" * 101}, headers={"idempotency-key": "a"})
    refused = problem(answer, 403, "storage_quota_exceeded")
    assert {name: refused[name] for name in ("used", "reserved", "quota", "needed", "retryable")} == {
        "used": 900, "reserved": 0, "quota": 1000, "needed": 101, "retryable": False,
    }  # fmt: skip
    assert await count_rows(user.user_id) == before
    assert (await quota(client))["bytes_free"] == 100
    await make(client, content="y" * 100)
    await invariants.check(admin, user.user_id)


async def test_a_large_document_that_does_not_fit_is_not_even_put_into_the_object_store(
    client: httpx2.AsyncClient, limit: Any, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(client, content="x")
    await limit(1000)
    put: list[str] = []
    store = app.state.ports.contents._objects
    kept = type(store).put

    async def counted(self: Any, location: str, data: bytes) -> None:
        put.append(location)
        await kept(self, location, data)

    monkeypatch.setattr(type(store), "put", counted)
    text = "".join(f"{number:x}" for number in range(500_000))
    problem(await client.post(f"{BASE}/blobs", json={"content": text}), 403, "storage_quota_exceeded")
    patched = await client.patch(f"{BASE}/blobs/{made['id']}", json=envelope(content=text))
    problem(patched, 403, "storage_quota_exceeded")
    items = [{"op": "create", "content": text}, {"op": "update", "id": made["id"], "patch": {"content": text}}]
    for item in items:
        answer = await client.post(f"{BASE}/blobs/batch", json={"items": [item]})
        problem(answer, 403, "storage_quota_exceeded")
    assert put == []


async def test_what_shrinks_or_goes_passes_even_beyond_the_quota(
    client: httpx2.AsyncClient, user: Person, limit: Any, admin: Any
) -> None:
    first, second = await make(client, content="x" * 500), await make(client, content="y" * 500)
    await limit(10)
    shorter = await client.patch(f"{BASE}/blobs/{first['id']}", json=envelope(content="x" * 400))
    retitled = await client.patch(f"{BASE}/blobs/{first['id']}", json=envelope(title="T"))
    assert (shorter.status_code, retitled.status_code) == (200, 200)
    longer = await client.patch(f"{BASE}/blobs/{first['id']}", json=envelope(content="x" * 401))
    assert problem(longer, 403, "storage_quota_exceeded")["needed"] == 1
    assert (await client.delete(f"{BASE}/blobs/{second['id']}")).status_code == 204
    # The history of what is deleted stays readable, so its bytes stay counted.
    assert (await quota(client))["bytes_used"] == 900
    await limit(None)
    await make(client, content="z" * 1000)
    await invariants.check(admin, user.user_id)


async def test_a_put_of_content_counts_too(client: httpx2.AsyncClient, limit: Any) -> None:
    made = await make(client, content="x" * 50)
    await limit(60)
    headers = {"content-type": "text/plain", "if-match": '"v1"'}
    answer = await client.put(f"{BASE}/blobs/{made['id']}/content", content=b"x" * 61, headers=headers)
    problem(answer, 403, "storage_quota_exceeded")
    answer = await client.put(f"{BASE}/blobs/{made['id']}/content", content=b"x" * 60, headers=headers)
    assert answer.status_code == 200


async def test_a_batch_over_the_quota_is_refused_whole_or_item_by_item(
    client: httpx2.AsyncClient, user: Person, limit: Any, count_rows: Any, admin: Any
) -> None:
    await limit(250)
    items = [{"op": "create", "content": "x" * size} for size in (100, 100, 100, 50)]
    before = await count_rows(user.user_id)
    refused = problem(await client.post(f"{BASE}/blobs/batch", json={"items": items}), 403, "storage_quota_exceeded")
    assert refused["errors"][0]["pointer"] == "/items/2"
    assert await count_rows(user.user_id) == before
    answer = await client.post(f"{BASE}/blobs/batch", json={"atomic": False, "items": items})
    assert [found["status"] for found in answer.json()["results"]] == [201, 201, 403, 201]
    assert answer.json()["results"][2]["problem"]["needed"] == 100
    assert (await quota(client))["bytes_free"] == 0
    await invariants.check(admin, user.user_id)


async def test_a_hundred_writers_at_once_cannot_exceed_the_quota(
    client: httpx2.AsyncClient, user: Person, limit: Any, admin: Any
) -> None:
    edited = [(await make(client, content="x"))["id"] for _ in range(20)]
    await limit(20 + 1000)

    async def create(turn: int) -> int:
        return (await client.post(f"{BASE}/blobs", json={"content": f"{turn:02}" * 25})).status_code

    async def edit(turn: int) -> int:
        patch = {"content": "y" * 51}
        headers = {"content-type": MERGE_PATCH, "if-match": '"v1"'}
        answer = await client.patch(f"{BASE}/blobs/{edited[turn]}", json=patch, headers=headers)
        return answer.status_code

    async def batch(turn: int) -> int:
        items = [{"op": "create", "content": "z" * 25} for _ in range(2)]
        answer = await client.post(f"{BASE}/blobs/batch", json={"items": items})
        return {200: 201}.get(answer.status_code, answer.status_code)

    found = await asyncio.gather(
        *(create(turn) for turn in range(60)), *(edit(turn) for turn in range(20)), *(batch(turn) for turn in range(20))
    )
    assert set(found) <= {200, 201, 403, 503}, found
    # Fifty bytes each: exactly twenty of them fit.
    assert sum(status in {200, 201} for status in found) == 20
    assert (await quota(client))["bytes_used"] == 1020
    await invariants.check(admin, user.user_id)


async def test_each_of_many_batches_takes_what_room_is_left(
    client: httpx2.AsyncClient, user: Person, limit: Any, admin: Any
) -> None:
    await limit(1000)

    async def batch(turn: int) -> list[int]:
        items = [{"op": "create", "content": f"{turn}" * 10} for _ in range(20)]
        answer = await client.post(f"{BASE}/blobs/batch", json={"atomic": False, "items": items})
        assert answer.status_code in {200, 503}, answer.text
        return [result["status"] for result in answer.json().get("results", [])]

    made = sum(status == 201 for batch_ in await asyncio.gather(*map(batch, range(8))) for status in batch_)
    assert made * 10 == (await quota(client))["bytes_used"] <= 1000
    await invariants.check(admin, user.user_id)


async def test_what_an_upload_reserves_is_not_free_for_others(
    client: httpx2.AsyncClient, user: Person, limit: Any, admin: Any
) -> None:
    await limit(1000)
    body = {"content_type": "application/octet-stream", "size": 800}
    begun = await client.post(f"{BASE}/uploads", json=body)
    assert begun.status_code == 201, begun.text
    assert await quota(client) == {"bytes_used": 0, "bytes_reserved": 800, "bytes_quota": 1000, "bytes_free": 200}
    refused = problem(await client.post(f"{BASE}/uploads", json=body), 403, "storage_quota_exceeded")
    assert [refused[name] for name in ("used", "reserved", "quota", "needed")] == [0, 800, 1000, 800]
    answer = await client.post(f"{BASE}/blobs", json={"content": "x" * 201})
    assert problem(answer, 403, "storage_quota_exceeded")["reserved"] == 800
    await invariants.check(admin, user.user_id)


async def test_who_comes_near_the_quota_is_warned_once(client: httpx2.AsyncClient, limit: Any) -> None:
    await limit(1000)

    async def warnings() -> list[Any]:
        events = (await client.get(f"{BASE}/events?type=quota.warning")).json()["data"]
        return [event["data"] for event in events]

    await make(client, content="x" * 899)
    assert await warnings() == []
    await make(client, content="x")
    await make(client, content="x" * 50)
    await client.post(f"{BASE}/blobs/batch", json={"items": [{"op": "create", "content": "x" * 20}]})
    [warning] = await warnings()
    assert (warning["used"], warning["quota"]) == (900, 1000)


@pytest.mark.parametrize("how", ["stream", "declared", "undeclared"])
async def test_bytes_that_come_near_the_quota_warn_once(client: httpx2.AsyncClient, limit: Any, how: str) -> None:
    await limit(200_000)
    body, octets = b"\0" * 190_000, {"content-type": "application/octet-stream"}
    if how == "stream":
        made = await client.post(f"{BASE}/blobs", content=body, headers=octets)
    else:
        begin = {"content_type": octets["content-type"]} | ({"size": len(body)} if how == "declared" else {})
        upload = (await client.post(f"{BASE}/uploads", json=begin)).json()
        part = await client.put(f"{BASE}/uploads/{upload['id']}/parts/1", content=body, headers=octets)
        assert part.status_code == 204, part.text
        made = await client.post(f"{BASE}/uploads/{upload['id']}/complete")
    assert made.status_code == 201, made.text
    await make(client, content="x")
    [event] = (await client.get(f"{BASE}/events?type=quota.warning")).json()["data"]
    assert event["data"]["used"] + event["data"]["reserved"] == 190_000


@pytest.mark.parametrize(
    "body", [{}, {"bytes_quota": -1}, {"bytes_quota": "x"}, {"bytes_quota": 2**63}, {"bytes_quota": 1, "more": 1}],
    ids=["nothing", "negative", "text", "too-large", "unknown-field"],
)  # fmt: skip
async def test_a_limit_that_is_none_is_422(app: Any, make_user: Any, user: Person, body: Any) -> None:
    chief = await make_user(SCOPES)
    async with client_of(app, chief.headers) as as_chief:
        answer = await as_chief.put(f"{BASE}/users/{user.user_id}/limits", json=body)
    assert answer.status_code == 422, answer.text


async def test_only_admins_limit_users_that_exist(client: httpx2.AsyncClient, app: Any, make_user: Any) -> None:
    own = (await client.get(f"{BASE}/me")).json()["user_id"]
    answer = await client.put(f"{BASE}/users/{own}/limits", json={"bytes_quota": None})
    problem(answer, 403, "missing_scope")
    chief = await make_user(SCOPES)
    async with client_of(app, chief.headers) as as_chief:
        answer = await as_chief.put(f"{BASE}/users/{UUID(int=4)}/limits", json={"bytes_quota": 1})
        problem(answer, 404, "not_found")
