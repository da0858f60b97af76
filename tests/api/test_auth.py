"""Who may do what: keys, scopes, expiry, and somebody else's things."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from api.app import OPEN_PATHS
from api.auth import CACHE_ENTRIES_MAX, Authenticator
from domain.errors import Unauthenticated
from domain.keys import KEY_SECRET_BYTES, SCOPES, mint_key
from storage.users import KeyHolders, StoredKey
from tests.api.requests import make, problem
from tests.conftest import BASE, client_of

NOBODYS = UUID(int=1)


def unknown_key() -> str:
    return mint_key(bytes(KEY_SECRET_BYTES))


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_credentials"),
        ("", "missing_credentials"),
        ("Basic abc", "missing_credentials"),
        ("Bearer ", "missing_credentials"),
        ("Bearer nonsense", "invalid_credentials"),
        (f"Bearer {unknown_key()}", "invalid_credentials"),
        (f"Bearer {unknown_key()[:-1]}x", "invalid_credentials"),
        (f"Bearer {'x' * 5000}", "invalid_credentials"),
    ],
)
async def test_without_a_valid_key_the_answer_is_401(app: Any, header: str | None, code: str) -> None:
    async with client_of(app, {} if header is None else {"authorization": header}) as anybody:
        answer = await anybody.get(f"{BASE}/blobs")
    problem(answer, 401, code)
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_an_expired_and_a_revoked_key_say_so(app: Any, make_user: Any, admin: Any) -> None:
    for column in ("expires_at", "revoked_at"):
        person = await make_user()
        await admin.execute(
            f"update api_keys set {column} = now() - interval '1 s' where user_id = $1",  # noqa: S608 - two names
            person.user_id,
        )
        async with client_of(app, person.headers) as anybody:
            problem(await anybody.get(f"{BASE}/blobs"), 401, "expired_credentials")


async def test_a_key_expires_even_while_it_is_remembered(app: Any, make_user: Any, admin: Any) -> None:
    person = await make_user()
    await admin.execute("update api_keys set expires_at = now() + interval '0.3 s' where user_id = $1", person.user_id)
    async with client_of(app, person.headers) as anybody:
        assert (await anybody.get(f"{BASE}/blobs")).status_code == 200
        deadline = time.monotonic() + 3
        while (answer := await anybody.get(f"{BASE}/blobs")).status_code == 200:
            assert time.monotonic() < deadline
        problem(answer, 401, "expired_credentials")


async def test_a_revoked_key_stops_working_within_the_cache_period(database: Any, make_user: Any, admin: Any) -> None:
    person = await make_user()
    authenticator = Authenticator(KeyHolders(database), cache_seconds=0.2)
    assert (await authenticator.identify(person.key)).user_id == person.user_id
    await admin.execute("update api_keys set revoked_at = now() where user_id = $1", person.user_id)
    deadline = time.monotonic() + 3

    async def until_refused() -> None:
        while time.monotonic() < deadline:
            await authenticator.identify(person.key)

    with pytest.raises(Unauthenticated):
        await until_refused()


class Counted:
    """A lookup that counts; the only double here, to see that the database is not asked again."""

    def __init__(self) -> None:
        self.asked = 0

    async def by_key_hash(self, digest: bytes) -> StoredKey | None:
        self.asked += 1
        until = datetime.now(UTC) + timedelta(days=1)
        return StoredKey(uuid4(), uuid4(), "somebody", (), frozenset(), until, None)


async def test_a_key_is_looked_up_once_per_period_and_memory_is_bounded() -> None:
    lookup = Counted()
    authenticator = Authenticator(lookup, cache_seconds=60)
    for _ in range(10):
        await authenticator.identify("key")
    assert lookup.asked == 1
    for n in range(CACHE_ENTRIES_MAX + 10):
        await authenticator.identify(f"key {n}")
    assert len(authenticator._known) == CACHE_ENTRIES_MAX


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/blobs", "blobs:read"),
        ("POST", "/blobs", "blobs:write"),
        ("PATCH", f"/blobs/{NOBODYS}", "blobs:write"),
        ("DELETE", f"/blobs/{NOBODYS}", "blobs:write"),
        ("PUT", f"/blobs/{NOBODYS}/content", "blobs:write"),
        ("GET", f"/blobs/{NOBODYS}/dag", "blobs:read"),
        ("GET", f"/deltas/{NOBODYS}", "blobs:read"),
    ],
)
async def test_a_key_without_the_scope_is_403_and_names_it(
    app: Any, make_user: Any, method: str, path: str, scope: str
) -> None:
    person = await make_user(tuple(one for one in SCOPES if one != scope))
    async with client_of(app, person.headers) as limited:
        found = problem(await limited.request(method, BASE + path), 403, "missing_scope")
    assert found["required_scope"] == scope


async def test_somebody_elses_things_do_not_exist_on_any_route_and_verb(
    app: Any, client: httpx2.AsyncClient, stranger: httpx2.AsyncClient, user: Any, count_rows: Any
) -> None:
    blob = await make(client)
    bucket = (await client.post(f"{BASE}/buckets", json={"name": "Mine", "type": "collection"})).json()
    delta = (await client.get(f"{BASE}/blobs/{blob['id']}/deltas")).json()["data"][0]
    own = {
        "blob_id": blob["id"], "bucket_id": bucket["id"], "delta_id": delta["id"], "version": "1",
        "cascade_id": blob["cascade_id"], "code": "x",
    }  # fmt: skip
    before = await count_rows(user.user_id)
    tried = 0
    for path, method in routes(app):
        names = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        if not names or not names <= own.keys() or path in OPEN_PATHS:
            continue
        answer = await stranger.request(
            method,
            path.format(**own),
            json={},
            headers={"if-match": "*"} if method != "GET" else {},
        )
        assert answer.status_code == 404, (method, path, answer.text)
        problem(answer, 404, "not_found")
        tried += 1
    assert tried >= 16
    assert await count_rows(user.user_id) == before


async def test_every_route_but_the_open_ones_asks_who_is_there(app: Any) -> None:
    async with client_of(app) as anybody:
        for path, method in routes(app):
            if path in OPEN_PATHS:
                continue
            answer = await anybody.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, (method, path, answer.status_code)


def routes(app: Any) -> list[tuple[str, str]]:
    """Every path template and method that the application answers."""
    paths = app.openapi()["paths"]
    return [(path, method.upper()) for path, methods in paths.items() for method in methods]


async def test_what_people_decide_about_work_needs_the_scope_for_it(app: Any, make_user: Any) -> None:
    executor = await make_user(("blobs:read", "providers:execute"))
    async with client_of(app, executor.headers) as client:
        paths = [f"runs/{NOBODYS}/{verb}" for verb in ("cancel", "retry", "approve", "reject")]
        paths += [f"cascades/{NOBODYS}/{verb}" for verb in ("cancel", "retry")] + ["budget/top-up"]
        for path in paths:
            answer = await client.post(f"{BASE}/{path}", json={})
            assert problem(answer, 403, "missing_scope")["required_scope"] == "runs:control", path
