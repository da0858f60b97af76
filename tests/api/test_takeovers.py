"""What is left of a keyed request whose process died, stood still, or failed; and that it is never done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx2
import pytest
import pytest_asyncio
from starlette.responses import Response

from api.idempotency import Attempt
from domain.errors import StudioError, Unavailable
from domain.keys import SCOPES
from storage.idempotency import LEASE_SECONDS
from tests.api.requests import envelope, make, problem
from tests.api.writes import EFFECTS, WRITES, effect, keyed, said, served
from tests.conftest import BASE, Person, client_of


@pytest_asyncio.fixture
async def chief(app: Any, make_user: Any) -> Any:
    """Somebody whose key allows everything."""
    return await make_user(SCOPES)


@pytest_asyncio.fixture
async def all_scopes(app: Any, chief: Person) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app, chief.headers) as made:
        yield made


@pytest_asyncio.fixture
async def other_chief(app: Any, make_user: Any) -> Any:
    """Somebody else whose key allows everything."""
    return await make_user(SCOPES)


@pytest_asyncio.fixture
async def other_scopes(app: Any, other_chief: Person) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app, other_chief.headers) as made:
        yield made


OTHERWISE = ("blobs_", "contents_", "deltas_", "uploads_", "users_", "api_keys_revoke")
LOCKED = sorted(
    {name for name in WRITES if not name.startswith(OTHERWISE) and not name.endswith("_validate")} | {"blobs_batch"}
)
"""What works under the user's lock, on which a test can hold it up."""


@pytest.mark.parametrize("operation", LOCKED)
async def test_of_a_slow_attempt_and_its_successor_one_has_an_effect(
    all_scopes: httpx2.AsyncClient,
    chief: Person,
    other_scopes: httpx2.AsyncClient,
    other_chief: Person,
    admin: Any,
    database_urls: Any,
    operation: str,
) -> None:
    expected = await effect(admin, other_chief, other_scopes, operation)
    call = await WRITES[operation](all_scopes)
    before = await admin.fetchval(EFFECTS, chief.user_id)
    claims = "select holder from idempotency_keys where user_id = $1 and key = 'slow' and completed_at is null"
    holder = await asyncpg.connect(database_urls["DATABASE_ADMIN_URL"])
    async with holder.transaction():
        await holder.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", str(chief.user_id))
        slow = asyncio.create_task(call.send(all_scopes, "slow"))
        await blocked(admin, 1)
        first = await admin.fetchval(claims, chief.user_id)
        await forget_answer(admin, chief)
        successor = asyncio.create_task(call.send(all_scopes, "slow"))
        await changed(admin, claims, chief, first)
    await holder.close()
    overtaken, answer = await slow, await successor
    problem(overtaken, 409, "idempotency_key_in_flight")
    assert int(overtaken.headers["retry-after"]) >= 1
    assert answer.is_success, answer.text
    assert said(await call.send(all_scopes, "slow")) == said(answer)
    assert await admin.fetchval(EFFECTS, chief.user_id) - before == expected


async def changed(admin: Any, query: str, person: Person, before: Any) -> None:
    """Wait until a value of the person's is another one."""
    async with asyncio.timeout(10):
        while True:
            if await admin.fetchval(query, person.user_id) != before:
                return
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    "failure", [RuntimeError("a bug"), Unavailable("away"), StudioError("broken", code="integrity")]
)
async def test_what_failed_is_done_again_at_once_and_its_error_is_not_repeated(
    app: Any, client: httpx2.AsyncClient, failure: Exception
) -> None:
    done: list[Attempt] = []

    async def work(attempt: Attempt) -> Response:
        done.append(attempt)
        if len(done) == 1:
            raise failure
        return Response("fine", 201)

    async with served(app, work):
        assert (await client.post("/trial", headers=keyed())).status_code >= 500
        answers = [await client.post("/trial", headers=keyed()) for _ in range(2)]
    assert [(answer.status_code, answer.text) for answer in answers] == [(201, "fine")] * 2
    assert ["idempotency-replayed" in answer.headers for answer in answers] == [False, True]
    assert len(done) == 2
    assert done[0].id("blob") == done[1].id("blob")


async def test_work_that_takes_its_time_is_not_taken_over(
    app: Any, client: httpx2.AsyncClient, user: Person, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.idempotency.RENEW_SECONDS", 0.01)
    gate, begun = asyncio.Event(), asyncio.Event()

    async def work(_: Attempt) -> Response:
        begun.set()
        await gate.wait()
        return Response("fine")

    leased = "select leased_at from idempotency_keys where user_id = $1"
    async with served(app, work), asyncio.timeout(10):
        slow = asyncio.create_task(client.post("/trial", headers=keyed()))
        await begun.wait()
        before = await admin.fetchval(leased, user.user_id)
        await changed(admin, leased, user, before)
        problem(await client.post("/trial", headers=keyed()), 409, "idempotency_key_in_flight")
        gate.set()
        assert (await slow).text == "fine"


async def forget_answer(admin: Any, user: Any) -> None:
    """What a kill between commit and storing the answer leaves behind, after the lease."""
    await admin.execute(
        "update idempotency_keys set status = null, headers = null, body = null, completed_at = null,"
        " leased_at = now() - make_interval(secs => $2) where user_id = $1",
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
    assert said(again) == said(first)
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
        assert said(again) == said(first)
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


@pytest.mark.parametrize(
    "operation",
    ["blobs_create", "blobs_update", "blobs_delete", "blobs_revert", "blobs_restore", "contents_put", "deltas_append"],
)
async def test_a_blob_write_taken_over_while_it_is_under_way_answers_twice_alike(
    client: httpx2.AsyncClient, admin: Any, user: Any, database_urls: Any, operation: str
) -> None:
    """Their derived ids meet: the second finds what the first did."""
    call = await WRITES[operation](client)
    deltas = "select count(*) from deltas where user_id = $1"
    before = await admin.fetchval(deltas, user.user_id)
    holder = await asyncpg.connect(database_urls["DATABASE_ADMIN_URL"])
    async with holder.transaction():
        await holder.execute("select from user_state where user_id = $1 for update", user.user_id)
        first = asyncio.create_task(call.send(client, "slow"))
        await blocked(admin, 1)
        await forget_answer(admin, user)
        second = asyncio.create_task(call.send(client, "slow"))
        await blocked(admin, 2)
    await holder.close()
    answers = [await first, await second, await call.send(client, "slow")]
    assert answers[0].is_success, answers[0].text
    assert [said(answer) for answer in answers] == [said(answers[0])] * 3
    assert await admin.fetchval(deltas, user.user_id) == before + 1


@pytest.mark.parametrize("folded", [False, True])
async def test_processing_asked_for_again_by_a_retry_is_not_done_twice(
    client: httpx2.AsyncClient, admin: Any, user: Any, count_rows: Any, *, folded: bool
) -> None:
    made = await make(client)
    url, body = f"{BASE}/providers/text-expansion/process", {"blob_id": made["id"]}
    if folded:
        assert (await client.post(url, json=body)).status_code == 202
    first = await client.post(url, json=body, headers=keyed())
    # Planned meanwhile: nothing is left into which a second cause would fold.
    await admin.execute("update cascades set planned_at = now(), status = 'running' where user_id = $1", user.user_id)
    before = await count_rows(user.user_id)
    await forget_answer(admin, user)
    again = await client.post(url, json=body, headers=keyed())
    assert (again.status_code, again.json()["cascade_id"]) == (202, first.json()["cascade_id"])
    assert set(again.json()) == set(first.json())
    assert await count_rows(user.user_id) == before


async def test_who_takes_over_a_request_that_waits_finds_what_was_asked(
    client: httpx2.AsyncClient, admin: Any, user: Any
) -> None:
    """``Prefer: wait`` holds the answer back, not the effect: both hear of one cascade."""
    body = {"blob_id": (await make(client))["id"]}
    asked = "select count(*) from cascades where user_id = $1 and cause = 'process'"

    def process(seconds: int) -> Any:
        headers = keyed() | {"prefer": f"wait={seconds}"}
        return client.post(f"{BASE}/providers/text-expansion/process", json=body, headers=headers)

    waiting = asyncio.create_task(process(30))
    await changed(admin, asked, user, 0)
    problem(await process(30), 409, "idempotency_key_in_flight")
    await forget_answer(admin, user)
    taken_over = await process(0)
    assert (taken_over.status_code, taken_over.json()["status"]) == (202, "pending")
    await admin.execute("update cascades set status = 'completed' where user_id = $1", user.user_id)
    overtaken = await waiting
    assert (overtaken.status_code, overtaken.json()["id"]) == (202, taken_over.json()["id"])
    assert overtaken.headers["preference-applied"] == "wait=30"
    again = await process(30)
    assert (said(again), again.headers["idempotency-replayed"]) == (said(taken_over), "true")
    assert await admin.fetchval(asked, user.user_id) == 1


async def test_a_request_under_way_is_409_until_its_lease_is_over(
    client: httpx2.AsyncClient, user: Any, admin: Any
) -> None:
    first = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    await admin.execute(
        "update idempotency_keys set status = null, completed_at = null, leased_at = now() where user_id = $1",
        user.user_id,
    )
    waiting = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    problem(waiting, 409, "idempotency_key_in_flight")
    await forget_answer(admin, user)
    assert (await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())).json() == first.json()
