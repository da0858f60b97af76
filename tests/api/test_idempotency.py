"""The same request twice is done once, whatever dies in between."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import httpx2
import pytest

from storage.idempotency import LEASE_SECONDS, IdempotencyKeys
from tests.api.requests import envelope, make, problem
from tests.conftest import BASE


def keyed(key: str = "k-1") -> dict[str, str]:
    return {"idempotency-key": key}


async def test_a_retry_gets_the_identical_answer_and_writes_nothing(
    client: httpx2.AsyncClient, user: Any, count_rows: Any
) -> None:
    first = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    before = await count_rows(user.user_id)
    for key in ("k-1", '"k-1"'):
        again = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed(key))
        assert (again.status_code, again.content) == (201, first.content)
        for name in ("etag", "location", "link", "content-type"):
            assert again.headers[name] == first.headers[name]
        assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await count_rows(user.user_id) == before


async def test_the_same_key_for_another_request_is_refused(client: httpx2.AsyncClient) -> None:
    await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    for url in (f"{BASE}/blobs", f"{BASE}/blobs?x=1"):
        found = problem(
            await client.post(url, json={"content": "twice" if url.endswith("blobs") else "once"}, headers=keyed()),
            422,
            "idempotency_key_reused",
        )
        assert found["first_used_at"]


async def test_keys_belong_to_one_user_and_one_route(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    first = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    theirs = await stranger.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    assert theirs.json()["id"] != first.json()["id"]
    other_route = await client.delete(f"{BASE}/blobs/{first.json()['id']}", headers=keyed())
    assert other_route.status_code == 204


async def test_of_fifty_parallel_requests_one_writes(client: httpx2.AsyncClient, user: Any, count_rows: Any) -> None:
    answers = await asyncio.gather(
        *(client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed()) for _ in range(50))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    for answer in answers:
        if answer.status_code == 409:
            assert problem(answer, 409, "idempotency_key_in_flight")["retryable"] is True
            assert int(answer.headers["retry-after"]) >= 1
    made = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    rows = await count_rows(user.user_id)
    assert (len(made), rows["blobs"], rows["deltas"], rows["cascades"]) == (1, 1, 1, 1)


async def test_a_refused_request_releases_its_key(client: httpx2.AsyncClient) -> None:
    for _ in range(2):
        bad = await client.post(f"{BASE}/blobs", json={"colour": 1}, headers=keyed())
        problem(bad, 422, bad.json()["code"])
        assert "idempotency-replayed" not in bad.headers
    good = await client.post(f"{BASE}/blobs", json={"content": "x"}, headers=keyed())
    assert good.status_code == 201


async def forget_answer(admin: Any, user: Any) -> None:
    """What a kill between commit and storing the answer leaves behind, after the lease."""
    await admin.execute(
        "update idempotency_keys set status = null, headers = null, body = null, completed_at = null,"
        " created_at = now() - make_interval(secs => $2) where user_id = $1",
        user.user_id, LEASE_SECONDS + 1.0,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["lease over", "row gone"])
async def test_a_create_killed_before_its_answer_was_stored_is_found_by_the_retry(
    client: httpx2.AsyncClient, admin: Any, user: Any, count_rows: Any, how: str
) -> None:
    first = await client.post(f"{BASE}/blobs", json={"content": "once", "title": "T"}, headers=keyed())
    later = await client.patch(f"{BASE}/blobs/{first.json()['id']}", json=envelope(content="edited since"))
    assert later.status_code == 200
    before = await count_rows(user.user_id)
    if how == "row gone":
        await admin.execute("delete from idempotency_keys where user_id = $1", user.user_id)
    else:
        await forget_answer(admin, user)
    again = await client.post(f"{BASE}/blobs", json={"content": "once", "title": "T"}, headers=keyed())
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["etag"] == first.headers["etag"]
    assert await count_rows(user.user_id) == before


async def test_a_patch_a_put_and_a_delete_are_found_by_their_retries(
    client: httpx2.AsyncClient, admin: Any, user: Any, count_rows: Any
) -> None:
    made = await make(client)
    url = f"{BASE}/blobs/{made['id']}"
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("PATCH", url, {"json": envelope(content="two")}),
        ("PUT", f"{url}/content", {"content": b"three", "headers": {"content-type": "text/plain", "if-match": "*"}}),
        ("DELETE", url, {}),
    ]
    for number, (method, path, kwargs) in enumerate(requests):
        kwargs["headers"] = kwargs.get("headers", {}) | keyed(f"key-{number}")
        first = await client.request(method, path, **kwargs)
        assert first.status_code in {200, 204}, first.text
        before = await count_rows(user.user_id)
        await forget_answer(admin, user)
        again = await client.request(method, path, **kwargs)
        assert (again.status_code, again.content, again.headers["etag"], again.headers["link"]) == (
            first.status_code,
            first.content,
            first.headers["etag"],
            first.headers["link"],
        )
        assert await count_rows(user.user_id) == before


async def blocked(admin: Any, count: int) -> None:
    async with asyncio.timeout(10):
        while True:
            waiting = (
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            if await admin.fetchval(waiting) >= count:
                return
            await asyncio.sleep(0.005)


async def test_a_patch_taken_over_while_it_is_under_way_answers_twice_alike(
    client: httpx2.AsyncClient, admin: Any, user: Any, database_urls: Any
) -> None:
    made = await make(client)
    url, body = f"{BASE}/blobs/{made['id']}", [{"op": "add", "path": "/tags/-", "value": "once"}]
    headers = keyed() | {"content-type": "application/json-patch+json", "if-match": '"v1"'}

    def patch() -> Any:
        return asyncio.create_task(client.patch(url, json=body, headers=headers))

    holder = await asyncpg.connect(database_urls["DATABASE_ADMIN_URL"])
    async with holder.transaction():
        await holder.execute("select from blobs where id = $1 for update", UUID(made["id"]))
        first = patch()
        await blocked(admin, 1)
        await forget_answer(admin, user)
        second = patch()
        await blocked(admin, 2)
    await holder.close()
    answers = await asyncio.gather(first, second)
    assert [(answer.status_code, answer.headers["etag"]) for answer in answers] == [(200, '"v2"')] * 2
    assert (await client.get(url)).json()["tags"] == ["once"]


async def test_processing_asked_for_again_by_a_retry_is_not_done_twice(
    client: httpx2.AsyncClient, admin: Any, user: Any, count_rows: Any
) -> None:
    made = await make(client)
    url, body = f"{BASE}/providers/text-expansion/process", {"blob_id": made["id"]}
    first = await client.post(url, json=body, headers=keyed())
    # Planned meanwhile: nothing is left into which a second cause would fold.
    await admin.execute("update cascades set planned_at = now(), status = 'running' where user_id = $1", user.user_id)
    before = await count_rows(user.user_id)
    await forget_answer(admin, user)
    again = await client.post(url, json=body, headers=keyed())
    assert (again.status_code, again.json()["cascade_id"]) == (202, first.json()["cascade_id"])
    assert await count_rows(user.user_id) == before


async def test_a_request_under_way_is_409_until_its_lease_is_over(
    client: httpx2.AsyncClient, database: Any, user: Any, admin: Any
) -> None:
    first = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    await admin.execute(
        "update idempotency_keys set status = null, completed_at = null, created_at = now() where user_id = $1",
        user.user_id,
    )
    waiting = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    problem(waiting, 409, "idempotency_key_in_flight")
    await forget_answer(admin, user)
    assert (await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())).json() == first.json()
    keys = IdempotencyKeys(database)
    assert await keys.begin(user.user_id, "POST /x", "new", "f") is None
    assert await keys.begin(user.user_id, "POST /x", "new", "f") is not None
    await keys.release(user.user_id, "POST /x", "new")
    assert await keys.begin(user.user_id, "POST /x", "new", "f") is None


async def test_a_key_that_cannot_be_read_is_400(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{BASE}/blobs", json={"content": "x"}, headers=keyed("with space"))
    problem(answer, 400, "invalid_header", "/header/idempotency-key")
