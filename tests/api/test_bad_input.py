"""Hostile and hurried requests: a clear problem each, and nothing written, whatever was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx2
import orjson
import pytest

from domain.canonical import DEPTH_MAX, JSON_BYTES_MAX
from domain.patches import OPERATIONS_MAX
from tests.api.requests import JSON_PATCH, MERGE_PATCH, edit, envelope, make, problem
from tests.conftest import BASE, Person

Count = Callable[[UUID], Awaitable[dict[str, int]]]
ANY_VERSION = {"if-match": "*"}


@asynccontextmanager
async def nothing_written(admin: Any, user: Person, count_rows: Count) -> AsyncIterator[None]:
    """Hold every table of the user against what it was: rows, versions, the sequence of events, the bytes used."""

    async def seen() -> tuple[Any, ...]:
        state = "select event_seq, blob_count, bytes_used, bytes_reserved from user_state where user_id = $1"
        blobs = "select id, version, document_hash, updated_at from blobs where user_id = $1 order by id"
        return (
            await count_rows(user.user_id),
            await admin.fetchrow(state, user.user_id),
            await admin.fetch(blobs, user.user_id),
        )

    before = await seen()
    yield
    assert await seen() == before


async def data(client: httpx2.AsyncClient, value: Any) -> str:
    made = await make(client, data=value, content_type="application/json")
    return f"{BASE}/blobs/{made['id']}"


def copied(source: str, path: str) -> dict[str, Any]:
    return {"op": "copy", "from": source, "path": path}


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


LONG_TEXT = {"text": "x" * 1_000_000, "list": []}
BOMBS: list[tuple[str, Any, list[Any], int, str]] = [
    ("operations beyond the limit", {"a": 1}, [copied("/data/a", "/data/b")] * (OPERATIONS_MAX + 1), 413, "too_many"),
    ("a list that doubles itself", [1], [copied("/data", "/data/-")] * 40, 413, "content_too_large"),
    ("an object within itself", {"a": 1}, [copied("/data", "/data/a")] * OPERATIONS_MAX, 413, "too_deep"),
    ("members that double", {}, [copied("/data", f"/data/{n}") for n in range(60)], 413, "content_too_large"),
    ("a long text many times over", LONG_TEXT, [copied("/data/text", "/data/list/-")] * 900, 413, "content_too_large"),
    ("a value nested too deeply", {}, [{"op": "add", "path": "/data/a", "value": nested(DEPTH_MAX)}], 413, "too_deep"),
    (
        "a depth reached step by step",
        {},
        [{"op": "add", "path": "/data" + "/a" * depth, "value": {}} for depth in range(1, DEPTH_MAX + 40)],
        413,
        "too_deep",
    ),
    ("an endless path", {}, [{"op": "remove", "path": "/data" + "/a" * 100_000}], 422, "path_not_found"),
    ("an index of many digits", [1], [{"op": "remove", "path": "/data/" + "9" * 100_000}], 422, "path_not_found"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "operations", "status", "code"),
    [case[1:] for case in BOMBS],
    ids=[case[0].replace(" ", "-") for case in BOMBS],
)
async def test_a_patch_that_would_explode_is_refused(
    client: httpx2.AsyncClient,
    user: Person,
    admin: Any,
    count_rows: Count,
    document: Any,
    operations: list[Any],
    status: int,
    code: str,
) -> None:
    url = await data(client, document)
    async with nothing_written(admin, user, count_rows):
        answer = await client.patch(url, json=operations, headers=ANY_VERSION | {"content-type": JSON_PATCH})
        problem(answer, status, code)


async def test_as_many_operations_as_the_limit_says_are_one_delta(client: httpx2.AsyncClient) -> None:
    url = await data(client, [])
    operations = [{"op": "add", "path": "/data/-", "value": number} for number in range(OPERATIONS_MAX)]
    answer = await client.patch(url, json=operations, headers=ANY_VERSION | {"content-type": JSON_PATCH})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert answer.json()["data"] == list(range(OPERATIONS_MAX))


MERGE_BOMBS: list[tuple[str, bytes, int, str]] = [
    ("nested too deeply", b'{"data": ' + b'{"a":' * 70 + b"1" + b"}" * 71, 413, "too_deep"),
    ("nested beyond what a parser takes", b'{"data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 413, "too_deep"),
    ("an integer of 65 bits", b'{"data": 18446744073709551616}', 422, "number_out_of_range"),
    ("a negative one of 65 bits", b'{"data": -9223372036854775809}', 422, "number_out_of_range"),
    ("an integer of 100,000 digits", b'{"data": ' + b"9" * 100_000 + b"}", 422, "number_out_of_range"),
    ("beyond the largest double", b'{"data": 1e400}', 422, "number_out_of_range"),
    ("a hundred thousand nines of an exponent", b'{"data": 1e' + b"9" * 100_000 + b"}", 422, "number_out_of_range"),
    ("not a number", b'{"data": NaN}', 400, "unparsable_body"),
    ("infinity", b'{"data": -Infinity}', 400, "unparsable_body"),
    ("half a surrogate pair", b'{"data": "\\ud800"}', 400, "unparsable_body"),
    ("a control character", b'{"data": "\x01"}', 400, "unparsable_body"),
    ("another encoding", '{"data": "é"}'.encode("latin-1"), 400, "unparsable_body"),
    ("UTF-16", '{"data": 1}'.encode("utf-16"), 400, "unparsable_body"),
    ("a byte order mark", b'\xef\xbb\xbf{"data": 1}', 400, "unparsable_body"),
    ("two texts", b'{"data": 1} {}', 400, "unparsable_body"),
    ("a comment", b'{"data": 1 /* one */}', 400, "unparsable_body"),
    ("a trailing comma", b'{"data": [1,]}', 400, "unparsable_body"),
    ("a member twice", b'{"data": 1, "data": 2}', 400, "unparsable_body"),
    ("nothing", b"", 400, "unparsable_body"),
    ("nothing but space", b" \n\t", 400, "unparsable_body"),
]  # fmt: skip


@pytest.mark.parametrize("form", [MERGE_PATCH, "application/json"])
@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [case[1:] for case in MERGE_BOMBS],
    ids=[case[0].replace(" ", "-") for case in MERGE_BOMBS],
)
async def test_a_body_that_is_no_json_of_ours_is_refused(
    client: httpx2.AsyncClient,
    user: Person,
    admin: Any,
    count_rows: Count,
    form: str,
    raw: bytes,
    status: int,
    code: str,
) -> None:
    url = await data(client, {"a": 1})
    body = (
        raw if form == MERGE_PATCH or not raw.strip() else b'{"delta": {"operation": "update", "patch": ' + raw + b"}}"
    )
    async with nothing_written(admin, user, count_rows):
        problem(await client.patch(url, content=body, headers=ANY_VERSION | {"content-type": form}), status, code)


BROKEN = [
    (b'{"content": ', 12),
    (b'{"content" "x"}', 11),
    (b'{"content": "x}', 15),
    (b"[1, 2", 5),
    (b"{'content': 1}", 1),
    (b'{"content": tru}', 12),
    (b'{"content": "\xc3\xa9", }', 18),
]


@pytest.mark.parametrize(("raw", "offset"), BROKEN, ids=[str(raw) for raw, _ in BROKEN])
async def test_broken_json_is_400_and_says_where(
    client: httpx2.AsyncClient, user: Person, admin: Any, count_rows: Count, raw: bytes, offset: int
) -> None:
    url = await data(client, {"a": 1})
    writes = [
        ("POST", f"{BASE}/blobs", "application/json"),
        ("POST", f"{BASE}/buckets", "application/json"),
        ("PATCH", url, "application/json"),
        ("PATCH", url, JSON_PATCH),
        ("PATCH", url, MERGE_PATCH),
        ("PUT", f"{url}/content", "application/json"),
        ("PUT", f"{BASE}/providers/summarizer/instance", "application/json"),
    ]
    async with nothing_written(admin, user, count_rows):
        for method, path, media in writes:
            answer = await client.request(method, path, content=raw, headers=ANY_VERSION | {"content-type": media})
            found = problem(answer, 400, "unparsable_body")
            said = int(found["detail"].rpartition("at offset ")[2].rstrip("."))
            assert 0 <= offset - said <= 2, found["detail"]


async def test_a_patch_of_another_type_is_415_and_names_those_accepted(
    client: httpx2.AsyncClient, user: Person, admin: Any, count_rows: Count
) -> None:
    url = await data(client, {"a": 1})
    async with nothing_written(admin, user, count_rows):
        for media in ("text/plain", "application/xml", "application/json-patch", "application/octet-stream"):
            answer = await client.patch(url, content=b"[]", headers=ANY_VERSION | {"content-type": media})
            problem(answer, 415, "unsupported_media_type")
            accepted = [name.strip() for name in answer.headers["accept-patch"].split(",")]
            assert {JSON_PATCH, MERGE_PATCH, "application/json"} <= set(accepted)


async def moved_on(client: httpx2.AsyncClient, made: dict[str, Any], found: dict[str, Any], version: int) -> None:
    """Check what a stale writer is told: where the blob is now, and an address that says what happened since."""
    assert (found["current_version"], found["current_etag"]) == (version, f'"v{version}"')
    deltas = (await client.get(found["deltas_url"])).json()["data"]
    assert [delta["to_version"] for delta in deltas] == list(range(2, version + 1))
    assert found["deltas_url"].startswith(f"{BASE}/blobs/{made['id']}/")


async def test_a_stale_writer_hears_where_the_blob_is_now_and_what_happened(
    client: httpx2.AsyncClient, user: Person, admin: Any, count_rows: Count
) -> None:
    made = await make(client)
    for text in ("two", "three"):
        await edit(client, made["id"], content=text)
    url = f"{BASE}/blobs/{made['id']}"
    stale = {"if-match": '"v1"'}
    patch = [{"op": "replace", "path": "/content", "value": "mine"}]
    body: dict[str, Any] = envelope(content="mine")
    body["delta"]["from_version"] = 1
    async with nothing_written(admin, user, count_rows):
        answers = [
            (412, await client.patch(url, json=patch, headers=stale | {"content-type": JSON_PATCH})),
            (412, await client.patch(url, json={"content": "mine"}, headers=stale | {"content-type": MERGE_PATCH})),
            (412, await client.put(f"{url}/content", content=b"mine", headers=stale | {"content-type": "text/plain"})),
            (412, await client.delete(url, headers=stale)),
            (409, await client.patch(url, json=body)),
        ]
        for status, answer in answers:
            found = problem(answer, status, "precondition_failed" if status == 412 else "version_conflict")
            assert answer.headers["etag"] == '"v3"'
            await moved_on(client, made, found, 3)


async def test_an_edit_whose_base_is_gone_is_refused(
    client: httpx2.AsyncClient, user: Person, admin: Any, count_rows: Count
) -> None:
    """A version that never was, a text that is another one now, a blob that is deleted."""
    made = await make(client, content="The quick brown fox")
    await edit(client, made["id"], content="A slow brown fox")
    url = f"{BASE}/blobs/{made['id']}"
    never = envelope(content="mine")
    never["delta"]["from_version"] = 99
    guarded = [
        {"op": "test", "path": "/content", "value": "The quick brown fox"},
        {"op": "replace", "path": "/content", "value": "mine"},
    ]
    async with nothing_written(admin, user, count_rows):
        problem(await client.patch(url, json=never), 409, "version_conflict")
        beyond = {"if-match": '"v99"', "content-type": MERGE_PATCH}
        problem(await client.patch(url, json={"content": "mine"}, headers=beyond), 412, "precondition_failed")
        answer = await client.patch(url, json=guarded, headers=ANY_VERSION | {"content-type": JSON_PATCH})
        problem(answer, 409, "test_failed", "/0/value")
    await client.delete(url)
    async with nothing_written(admin, user, count_rows):
        for body, headers in (
            (guarded, {"if-match": '"v1"', "content-type": JSON_PATCH}),
            ({"content": "mine"}, {"if-match": '"v3"', "content-type": MERGE_PATCH}),
            (envelope(content="mine"), {}),
        ):
            answer = await client.patch(url, json=body, headers=headers)
            assert problem(answer, 410, "deleted")["current_version"] == 3
    assert (await client.get(url, params={"version": 1})).json()["content"] == "The quick brown fox"


async def test_of_fifty_writers_on_one_version_one_wins_and_the_others_hear_what_changed(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    made = await make(client, content="one")
    await edit(client, made["id"], content="two")
    await edit(client, made["id"], content="three")
    url = f"{BASE}/blobs/{made['id']}"
    headers = {"if-match": '"v3"', "content-type": MERGE_PATCH}
    answers = await asyncio.gather(
        *(client.patch(url, json={"content": f"writer {number}"}, headers=headers) for number in range(50))
    )
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code == 412]
    assert (len(won), len(lost)) == (1, 49)
    for answer in lost:
        found = problem(answer, 412, "precondition_failed")
        assert (found["current_version"], found["current_etag"], answer.headers["etag"]) == (4, '"v4"', '"v4"')
        assert found["deltas_url"] == f"{url}/deltas?from_version=3"
    deltas = (await client.get(f"{url}/deltas", params={"from_version": 3})).json()["data"]
    assert [(delta["to_version"], delta["operation"]) for delta in deltas] == [(4, "update")]
    now = (await client.get(url)).json()
    assert (now["version"], now["content"]) == (4, won[0].json()["content"])
    written = "select count(*) from deltas where user_id = $1 and status = 'applied'"
    assert await admin.fetchval(written, user.user_id) == 4


LISTS: dict[str, Callable[[int], Any]] = {
    "blobs": lambda number: {"content": f"text {number}"},
    "buckets": lambda number: {"name": f"bucket {number}"},
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", sorted(LISTS))
async def test_a_thousand_rows_made_while_paging_neither_hide_nor_double_one(
    client: httpx2.AsyncClient, name: str
) -> None:
    async def made(number: int) -> str:
        answer = await client.post(f"{BASE}/{name}", json=LISTS[name](number))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    before = {await made(number) for number in range(60)}
    seen: list[str] = []
    rest = list(range(60, 1060))
    url: str | None = f"{BASE}/{name}?limit=4"
    while url is not None:
        page = await client.get(url)
        assert page.status_code == 200, page.text
        seen += [row["id"] for row in page.json()["data"]]
        cursor = page.json()["next_cursor"]
        url = None if cursor is None else f"{BASE}/{name}?limit=4&cursor={cursor}"
        now, rest = rest[:80], rest[80:]
        await asyncio.gather(*(made(number) for number in now))
        if before <= set(seen) and not rest:
            break
    assert before <= set(seen)
    assert len(seen) == len(set(seen))
    assert not rest


async def test_a_document_beyond_the_limit_is_refused_however_it_grew(
    client: httpx2.AsyncClient, user: Person, admin: Any, count_rows: Count
) -> None:
    half = "x" * (JSON_BYTES_MAX // 2 - 1000)
    url = await data(client, {"a": half})
    async with nothing_written(admin, user, count_rows):
        patch = orjson.dumps([{"op": "add", "path": "/data/b", "value": half}, copied("/data/a", "/data/c")])
        answer = await client.patch(url, content=patch, headers=ANY_VERSION | {"content-type": JSON_PATCH})
        assert problem(answer, 413, "content_too_large")["limit_bytes"] == JSON_BYTES_MAX
