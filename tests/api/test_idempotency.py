"""The same request twice is done once and answered twice alike."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from starlette.responses import Response

from api.idempotency import Attempt
from domain.idempotency import KeyUse
from domain.keys import SCOPES
from storage.database import Database
from storage.idempotency import IdempotencyKeys
from tests.api.requests import make, problem
from tests.api.writes import WRITES, keyed, said, served
from tests.conftest import BASE, Person, client_of

SOMEBODY = "01890a5d-ac96-774b-bcce-b302099a8057"
DIGEST = {"content-digest": "sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"}
"""Of the body ``{}``."""


@pytest_asyncio.fixture
async def chief(app: Any, make_user: Any) -> Any:
    """Somebody whose key allows everything."""
    return await make_user(SCOPES)


@pytest_asyncio.fixture
async def all_scopes(app: Any, chief: Person) -> AsyncIterator[httpx2.AsyncClient]:
    async with client_of(app, chief.headers) as made:
        yield made


async def unguarded(
    app: Any, client: httpx2.AsyncClient, person: Person, admin: Any, keys: IdempotencyKeys
) -> set[str]:
    """The operations that write without asking what became of their key: it was used for another request before."""
    principal = await admin.fetchval("select id from api_keys where user_id = $1", person.user_id)
    found = set()
    for route in app.routes:
        for method in sorted(getattr(route, "methods", None) or ()):
            if method in {"GET", "HEAD", "OPTIONS"}:
                continue
            name, key = f"{method} {route.path}", str(uuid4())
            use = KeyUse(
                user_id=person.user_id, principal=principal, route=name, key=key, fingerprint="another", holder=uuid4()
            )  # fmt: skip
            await keys.begin(use)
            path = re.sub(r"\{(number|version|n)\}", "1", route.path)
            path = re.sub(r"\{[a-z_]+\}", SOMEBODY, path)
            headers = keyed(key) | DIGEST | {"if-match": "*", "content-type": "application/json"}
            answer = await client.request(method, path, content=b"{}", headers=headers)
            if answer.status_code != 422 or answer.json()["code"] != "idempotency_key_reused":
                found.add(f"{name}: {answer.status_code} {answer.text[:200]}")
    return found


async def test_every_route_that_is_not_a_read_asks_what_became_of_its_key(
    app: Any, all_scopes: httpx2.AsyncClient, chief: Person, admin: Any, database: Database
) -> None:
    keys = IdempotencyKeys(database)
    assert await unguarded(app, all_scopes, chief, admin, keys) == set()

    async def careless() -> None:
        """Write without ``once``."""

    app.add_api_route(f"{BASE}/careless", careless, methods=["DELETE"])
    try:
        found = await unguarded(app, all_scopes, chief, admin, keys)
    finally:
        app.router.routes.pop()
    assert [name.partition(":")[0] for name in found] == [f"DELETE {BASE}/careless"]


UNCOUNTED = frozenset(
    {name for name in WRITES if name.endswith(("_validate", "_get"))}
    | {"api_keys_revoke", "users_create", "users_put_limits", "uploads_abort"}
)
"""What adds no row of the user's own."""


@pytest.mark.parametrize("operation", sorted(WRITES))
async def test_every_write_is_done_once_and_answered_twice_alike(
    all_scopes: httpx2.AsyncClient, chief: Person, count_rows: Any, operation: str
) -> None:
    call = await WRITES[operation](all_scopes)
    untouched = await count_rows(chief.user_id)
    first = await call.send(all_scopes, "one-key")
    assert first.is_success, first.text
    after = await count_rows(chief.user_id)
    assert operation in UNCOUNTED or after != untouched
    again = await call.send(all_scopes, '"one-key"')
    assert said(again) == said(first)
    assert again.headers["idempotency-replayed"] == "true"
    assert await count_rows(chief.user_id) == after


async def test_a_streamed_body_is_named_by_its_digest_and_not_read(app: Any, client: httpx2.AsyncClient) -> None:
    received: list[bytes] = []

    async def work(_: Attempt) -> Response:
        return Response("fine")

    async def body() -> AsyncIterator[bytes]:
        received.append(b"{}")
        yield b"{}"

    async with served(app, work, streamed=True):
        url, digest = "/trial", DIGEST["content-digest"]
        undigested = await client.post(url, content=b"{}", headers=keyed())
        problem(undigested, 400, "invalid_header", "/header/content-digest")
        assert (await client.post(url, content=b"{}")).status_code == 200  # nothing is compared without a key
        first = await client.post(url, content=b"{}", headers=keyed() | DIGEST)
        assert "idempotency-replayed" not in first.headers
        again = await client.post(url, content=b"{}", headers=keyed() | DIGEST)
        assert (again.text, again.headers["idempotency-replayed"]) == ("fine", "true")
        for headers, sent in (({"content-digest": digest.replace("R", "S")}, b"{}"), (DIGEST, b"{ }")):
            other = await client.post(url, content=sent, headers=keyed() | headers)
            problem(other, 422, "idempotency_key_reused")


async def test_two_headers_of_one_name_are_repeated_as_two(app: Any, client: httpx2.AsyncClient) -> None:
    async def work(_: Attempt) -> Response:
        answer = Response("fine", headers={"link": "<a>"})
        answer.headers.append("link", "<b>")
        return answer

    async with served(app, work):
        answers = [await client.post("/trial", headers=keyed()) for _ in range(2)]
    assert [answer.headers.get_list("link") for answer in answers] == [["<a>", "<b>"]] * 2
    assert answers[1].headers["content-length"] == "4"


async def test_a_key_counts_for_one_api_key(
    app: Any, client: httpx2.AsyncClient, user: Person, count_rows: Any
) -> None:
    other = (await client.post(f"{BASE}/api-keys", json={"name": "second"})).json()["api_key"]
    first = await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    async with client_of(app, {"authorization": f"Bearer {other}"}) as second:
        theirs = await second.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    assert (theirs.status_code, theirs.json()["id"] == first.json()["id"]) == (201, False)
    assert (await count_rows(user.user_id))["blobs"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "headers"),
    [
        ("POST", f"{BASE}/blobs", {"content": "twice"}, {}),
        ("POST", f"{BASE}/blobs", {"content": "once"}, {"if-match": "*"}),
        ("POST", f"{BASE}/blobs", {"content": "once"}, {"content-type": "application/json; charset=utf-8"}),
        ("POST", "/api/v1/blobs", {"content": "once"}, {}),  # answers blob_id as well
    ],
    ids=["body", "if-match", "media type", "spelling of the path"],
)
async def test_whatever_else_decides_about_the_answer_makes_another_request(
    client: httpx2.AsyncClient, method: str, path: str, body: Any, headers: dict[str, str]
) -> None:
    asked = datetime.now(UTC)
    await client.post(f"{BASE}/blobs", json={"content": "once"}, headers=keyed())
    answer = await client.request(method, path, json=body, headers=keyed() | headers)
    used = problem(answer, 422, "idempotency_key_reused")["first_used_at"]
    assert abs((datetime.fromisoformat(used) - asked).total_seconds()) < 60


async def test_another_query_makes_another_request(client: httpx2.AsyncClient) -> None:
    path = f"{BASE}/blobs/{(await make(client))['id']}/content"
    headers = keyed() | {"if-match": '"v1"', "content-type": "text/plain"}
    first = await client.put(path, content=b"once", headers=headers)
    assert first.status_code == 200, first.text
    again = await client.put(f"{path}?on_conflict=merge", content=b"once", headers=headers)
    problem(again, 422, "idempotency_key_reused")


async def test_a_body_beyond_the_limit_is_refused_with_a_key_as_without(
    app: Any, client: httpx2.AsyncClient, user: Person, count_rows: Any
) -> None:
    made = await make(client)
    before = await count_rows(user.user_id)
    large = b" " * (app.state.body_max + 1)
    for method, path in (("POST", "/blobs"), ("DELETE", f"/blobs/{made['id']}")):
        answer = await client.request(method, BASE + path, content=large, headers=keyed())
        problem(answer, 413, "body_too_large")
    assert await count_rows(user.user_id) == before


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


async def test_a_key_that_cannot_be_read_is_400(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{BASE}/blobs", json={"content": "x"}, headers=keyed("with space"))
    problem(answer, 400, "invalid_header", "/header/idempotency-key")
