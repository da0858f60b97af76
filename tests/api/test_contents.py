"""Content by itself: of any size, exactly the bytes."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio

from api.contents import BrokenOff
from domain.signatures import Grant, query
from storage.objects import Objects
from tests.api.requests import edit, make, problem
from tests.conftest import BASE, client_of, objects_of

PLAIN = {"content-type": "text/plain", "if-match": "*"}


async def test_text_comes_as_its_bytes_and_data_as_canonical_json(client: httpx2.AsyncClient) -> None:
    text = await make(client, content="Grüße\n")
    answer = await client.get(f"{BASE}/blobs/{text['id']}/content")
    assert (answer.content, answer.headers["content-type"]) == ("Grüße\n".encode(), "text/plain; charset=utf-8")
    data = await make(client, data={"b": 1.0, "a": [None]})
    answer = await client.get(f"{BASE}/blobs/{data['id']}/content")
    assert (answer.content, answer.headers["content-type"]) == (b'{"a":[null],"b":1.0}', "application/json")


async def test_content_beyond_100_kb_is_only_at_its_own_address(client: httpx2.AsyncClient) -> None:
    edge = await make(client, content="x" * 102_400)
    assert edge["content"] == "x" * 102_400
    large = await make(client, content="y" * 102_401)
    assert "content" not in large
    assert large["preview"] == "y" * 500
    assert (await client.get(large["content_url"])).content == b"y" * 102_401
    listed = (await client.get(f"{BASE}/blobs?limit=1")).json()["data"][0]
    # The address is signed anew each time; everything else is the same.
    assert {**listed, "content_url": ""} == {**large, "content_url": ""}


async def test_content_beyond_the_threshold_lives_in_s3_and_comes_back_whole(
    client: httpx2.AsyncClient, admin: Any
) -> None:
    big = "z" * 2_000_000
    made = await make(client, content=big)
    assert made["storage_type"] == "url"
    row = await admin.fetchrow(
        "select c.body, c.location from contents c join blobs b on b.document_hash = c.hash where b.id = $1",
        made["id"],
    )
    assert row["body"] is None
    assert row["location"]
    assert (await client.get(made["content_url"])).text == big
    changed = await edit(client, made["id"], title="Now titled")
    assert (changed["title"], changed["size"]) == ("Now titled", 2_000_000)
    small = await edit(client, made["id"], content="small again")
    assert small["storage_type"] == "inline"
    assert (await client.get(f"{BASE}/blobs/{made['id']}/content?version=1")).text == big


async def test_put_replaces_the_content_and_keeps_the_rest(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="one", title="T", tags=["a"], metadata={"k": 1})
    answer = await client.put(f"{BASE}/blobs/{made['id']}/content", content=b"two", headers=PLAIN)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"v2"')
    changed = answer.json()
    assert (changed["content"], changed["title"], changed["tags"], changed["metadata"]) == ("two", "T", ["a"], {"k": 1})
    data = await make(client, data={"a": 1})
    headers = {"content-type": "application/json", "if-match": '"v1"'}
    replaced = await client.put(f"{BASE}/blobs/{data['id']}/content", content=b"[1]", headers=headers)
    assert replaced.json()["data"] == [1]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"x", {"content-type": "text/plain"}, 428, "precondition_required"),
        (b"x", {"content-type": "text/plain", "if-match": '"v9"'}, 412, "precondition_failed"),
        (b"x", {"content-type": "image/png", "if-match": "*"}, 415, "unsupported_media_type"),
        (b"\xff", PLAIN, 400, "unparsable_body"),
    ],
)
async def test_a_bad_put_is_refused_and_writes_nothing(
    client: httpx2.AsyncClient,
    user: Any,
    count_rows: Any,
    content: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
) -> None:
    made = await make(client)
    before = await count_rows(user.user_id)
    problem(await client.put(f"{BASE}/blobs/{made['id']}/content", content=content, headers=headers), status, code)
    assert await count_rows(user.user_id) == before


async def test_an_entity_tag_saves_the_download(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    answer = await client.get(f"{BASE}/blobs/{made['id']}/content", headers={"if-none-match": '"v1"'})
    assert (answer.status_code, answer.content) == (304, b"")


async def test_the_content_of_a_deleted_blob_is_gone_but_for_its_versions(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="kept")
    await client.delete(f"{BASE}/blobs/{made['id']}")
    problem(await client.get(f"{BASE}/blobs/{made['id']}/content"), 410, "deleted")
    assert (await client.get(f"{BASE}/blobs/{made['id']}/content?version=1")).text == "kept"


async def test_content_that_does_not_fit_its_hash_is_never_served(client: httpx2.AsyncClient, admin: Any) -> None:
    made = await make(client, content="the truth")
    await admin.execute(
        "update contents set body = convert_to(replace(convert_from(body, 'UTF8'), 'truth', 'lies!'), 'UTF8')"
        " where hash = (select document_hash from blobs where id = $1)",
        made["id"],
    )
    problem(await client.get(f"{BASE}/blobs/{made['id']}"), 500, "integrity")


# --- bytes of any type -----------------------------------------------------------------------------------------

OCTETS = "application/octet-stream"
PNG = b"\x89PNG\r\n\x1a\n"


async def raw(client: httpx2.AsyncClient, data: Any, content_type: str = OCTETS, **query: Any) -> httpx2.Response:
    return await client.post(f"{BASE}/blobs", content=data, params=query, headers={"content-type": content_type})


async def stored(client: httpx2.AsyncClient, data: Any, content_type: str = OCTETS, **query: Any) -> dict[str, Any]:
    answer = await raw(client, data, content_type, **query)
    assert answer.status_code == 201, answer.text
    blob: dict[str, Any] = answer.json()
    return blob


async def in_pieces(data: bytes, size: int = 300_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


async def nothing_stays(admin: Any, objects: Objects, user: Any) -> None:
    """No blob, no content, no object, no reservation, no open upload."""
    left = await admin.fetchrow(
        "select (select count(*) from contents where user_id = $1) as contents,"
        " (select count(*) from blobs where user_id = $1) as blobs,"
        " (select count(*) from uploads where user_id = $1 and status = 'open') as uploads,"
        " (select bytes_used + bytes_reserved from user_state where user_id = $1) as bytes",
        user.user_id,
    )
    assert dict(left) == {"contents": 0, "blobs": 0, "uploads": 0, "bytes": 0}
    assert await objects.list(f"{user.user_id}/") == []


@pytest_asyncio.fixture
async def objects(database_urls: Any) -> AsyncIterator[Objects]:
    store = objects_of(database_urls)
    yield store
    await store.close()


@pytest.mark.parametrize("size", [0, 1, 2**20, 2**20 + 1, 2**23, 2**23 + 1, 20_000_000])
async def test_a_body_that_is_the_content_comes_back_whole(client: httpx2.AsyncClient, size: int) -> None:
    data = os.urandom(size)
    for body in (data, in_pieces(data)):  # with a declared size, and without
        blob = await stored(client, body, title="Bytes", tag=["a", "b"], metadata='{"k": 1}')
        assert (blob["size"], blob["content_hash"], blob["binary"]["hash"]) == (size, sha256(data), sha256(data))
        assert (blob["title"], blob["tags"], blob["metadata"]) == ("Bytes", ["a", "b"], {"k": 1})
        got = await client.get(f"{BASE}/blobs/{blob['id']}/content")
        assert (got.content, got.headers["content-type"]) == (data, OCTETS)
        assert got.headers["content-disposition"] == "attachment"
        assert got.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in got.headers["content-security-policy"]


async def test_a_text_body_becomes_an_ordinary_text(client: httpx2.AsyncClient) -> None:
    text = await stored(client, "Grüße".encode(), "text/markdown")
    assert (text["content"], text["content_type"]) == ("Grüße", "text/markdown")
    data = await stored(client, b'{"type": "Point"}', "application/geo+json")
    assert data["data"] == {"type": "Point"}
    latin = await stored(client, "Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1")
    assert latin["binary"]["size"] == 5


async def test_a_text_within_the_bound_only_as_bytes_is_kept_as_bytes(
    client: httpx2.AsyncClient, user: Any, objects: Objects
) -> None:
    book = b'"' * (10 * 2**20)  # as JSON each of them is two
    blob = await stored(client, book, "text/plain")
    assert blob["binary"] == {"hash": sha256(book), "size": len(book)}
    assert (await client.get(blob["content_url"])).content == book
    assert len(await objects.list(f"{user.user_id}/")) == 1


async def test_put_replaces_bytes_by_bytes_of_the_same_type(client: httpx2.AsyncClient, user: Any, admin: Any) -> None:
    old, new = PNG + os.urandom(2_000_000), PNG + os.urandom(3_000_000)
    blob = await stored(client, old, "image/png", title="T")
    url = f"{BASE}/blobs/{blob['id']}/content"
    answer = await client.put(url, content=new, headers={"content-type": "image/png", "if-match": '"v1"'})
    assert (answer.status_code, answer.json()["version"], answer.json()["title"]) == (200, 2, "T")
    assert (await client.get(answer.json()["content_url"])).content == new
    assert (await client.get(f"{url}?version=1")).content == old
    used = await admin.fetchval("select bytes_used from user_state where user_id = $1", user.user_id)
    assert used == len(new)
    for body, headers, status, code in (
        (new, {"content-type": "image/png"}, 428, "precondition_required"),
        (new, {"content-type": "image/png", "if-match": '"v1"'}, 412, "precondition_failed"),
        (new, {"content-type": "image/gif", "if-match": "*"}, 415, "unsupported_media_type"),
        (b"<html>", {"content-type": "image/png", "if-match": "*"}, 422, "content_type_mismatch"),
    ):
        problem(await client.put(url, content=body, headers=headers), status, code)
    assert (await client.get(f"{BASE}/blobs/{blob['id']}")).json()["version"] == 2


@pytest.mark.parametrize(
    ("data", "content_type", "query", "headers", "status", "code"),
    [
        (b"<html>" * 9, "image/png", {}, {}, 422, "content_type_mismatch"),
        (b"<svg>" + b" " * 9_000_000, "image/jpeg", {}, {}, 422, "content_type_mismatch"),
        (b"\xff\xfe", "text/plain", {}, {}, 400, "unparsable_body"),
        (b"{", "application/geo+json", {}, {}, 400, "unparsable_body"),
        (b"x", OCTETS, {}, {"content-digest": f"sha-256=:{'A' * 43}=:"}, 400, "digest_mismatch"),
        (b"x" * 9_000_000, OCTETS, {}, {"content-digest": f"sha-256=:{'A' * 43}=:"}, 400, "digest_mismatch"),
        (b"x", OCTETS, {}, {"content-digest": "sha-256=x"}, 400, "invalid_header"),
        (b"x", OCTETS, {"title": "x" * 501}, {}, 422, None),
        (b"x", OCTETS, {"metadata": "{"}, {}, 422, None),
        (b"x", OCTETS, {"metadata": "[1]"}, {}, 422, None),
        (b"x" * 9_000_000, OCTETS, {"schema_id": "nowhere-v1"}, {}, 422, "unknown_schema"),
        (b"x" * 9_000_000, OCTETS, {"parent_id": str(UUID(int=9))}, {}, 422, None),
        (b"x" * 9_000_000, OCTETS, {"bucket_id": str(UUID(int=9))}, {}, 422, None),
        (b"x" * 9_000_000, "text-without-slash", {}, {}, 422, None),
        (b"x" * 9_000_000, "image/x-raw", {"schema_id": "text-input-v1"}, {}, 422, "schema_violation"),
    ],
    ids=lambda value: (value if isinstance(value, str) else repr(value))[:24],
)
async def test_bytes_that_are_refused_leave_nothing(
    client: httpx2.AsyncClient,
    user: Any,
    admin: Any,
    objects: Objects,
    data: bytes,
    content_type: str,
    query: dict[str, str],
    headers: dict[str, str],
    status: int,
    code: str | None,
) -> None:
    answer = await client.post(
        f"{BASE}/blobs", content=data, params=query, headers={"content-type": content_type, **headers}
    )
    problem(answer, status, code or answer.json()["code"])
    await nothing_stays(admin, objects, user)


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "undeclared"])
async def test_bytes_beyond_the_quota_are_refused(
    client: httpx2.AsyncClient, user: Any, admin: Any, objects: Objects, *, declared: bool
) -> None:
    await admin.execute("update user_state set bytes_quota = 10000000 where user_id = $1", user.user_id)
    data = b"x" * 20_000_000
    problem(await raw(client, data if declared else in_pieces(data)), 403, "storage_quota_exceeded")
    await nothing_stays(admin, objects, user)


async def test_a_body_that_breaks_off_leaves_nothing_behind(
    client: httpx2.AsyncClient, user: Any, admin: Any, objects: Objects
) -> None:
    async def torn() -> AsyncIterator[bytes]:
        yield b"x" * 17_000_000
        # Two parts are in the store now, and reserved.
        assert await admin.fetchval("select reserved from uploads where user_id = $1", user.user_id)
        raise ConnectionError

    assert (await raw(client, torn())).status_code == 500
    await nothing_stays(admin, objects, user)


async def test_a_keyed_stream_is_done_once(client: httpx2.AsyncClient, user: Any, count_rows: Any) -> None:
    data = os.urandom(2_000_000)
    digest = base64.b64encode(hashlib.sha256(data).digest()).decode()
    headers = {"content-type": OCTETS, "idempotency-key": "one", "content-digest": f"sha-256=:{digest}:"}
    first = await client.post(f"{BASE}/blobs", content=data, headers=headers)
    before = await count_rows(user.user_id)
    again = await client.post(f"{BASE}/blobs", content=data, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert await count_rows(user.user_id) == before


# --- ranges ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["text", "inline", "object"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def of_kind(client: httpx2.AsyncClient, kind: str) -> tuple[str, bytes]:
    data = {"text": b"0123456789" * 100, "inline": os.urandom(1000), "object": os.urandom(3 * 2**20 + 17)}[kind]
    blob = await stored(client, data, "text/plain" if kind == "text" else OCTETS)
    return f"{BASE}/blobs/{blob['id']}/content", data


async def test_one_range_is_answered_by_its_bytes(client: httpx2.AsyncClient, kind: str) -> None:
    url, data = await of_kind(client, kind)
    size = len(data)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=5-", 5, size),
        ("bytes=-7", size - 7, size),
        (f"bytes=-{size + 5}", 0, size),
        (f"bytes={size - 1}-{size + 100}", size - 1, size),
        (f"bytes=10-{size - 10}", 10, size - 9),
    ):
        answer = await client.get(url, headers={"range": asked})
        assert (answer.status_code, answer.content) == (206, data[start:end])
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert answer.headers["content-length"] == str(end - start)
        assert "content-digest" not in answer.headers
        assert answer.headers["repr-digest"]


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=5-1", "lines=1-2", "bytes=", "bytes=a-b", "bytes=--1", "x"])
async def test_what_is_not_one_range_is_answered_by_the_whole(client: httpx2.AsyncClient, asked: str) -> None:
    url, data = await of_kind(client, "inline")
    answer = await client.get(url, headers={"range": asked})
    assert (answer.status_code, answer.content, answer.headers["accept-ranges"]) == (200, data, "bytes")


async def test_a_range_outside_is_refused_with_the_size(client: httpx2.AsyncClient, kind: str) -> None:
    url, data = await of_kind(client, kind)
    for asked in (f"bytes={len(data)}-", "bytes=-0", "bytes=99999999999-"):
        answer = await client.get(url, headers={"range": asked})
        problem(answer, 416, "range_not_satisfiable")
        assert answer.headers["content-range"] == f"bytes */{len(data)}"


async def test_if_range_takes_the_version_and_nothing_else(client: httpx2.AsyncClient) -> None:
    url, data = await of_kind(client, "inline")
    for tag, status in (('"v1"', 206), ('"v2"', 200), ('W/"v1"', 200), ("Fri, 20 Nov 2026 20:00:00 GMT", 200)):
        answer = await client.get(url, headers={"range": "bytes=0-0", "if-range": tag})
        assert (answer.status_code, len(answer.content)) == (status, 1 if status == 206 else len(data))


async def test_head_says_what_get_would_and_reads_nothing(
    client: httpx2.AsyncClient, objects: Objects, admin: Any
) -> None:
    url, data = await of_kind(client, "object")
    location = await admin.fetchval("select location from contents where hash = $1", sha256(data))
    await objects.delete(location)
    answer = await client.head(url)
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, str(len(data)), b"")
    answer = await client.head(url, headers={"range": "bytes=1-2"})
    assert (answer.status_code, answer.headers["content-length"]) == (206, "2")


# --- integrity -------------------------------------------------------------------------------------------------


async def test_corrupt_bytes_are_never_sent(client: httpx2.AsyncClient, objects: Objects, admin: Any) -> None:
    url, data = await of_kind(client, "object")
    location = await admin.fetchval("select location from contents where hash = $1", sha256(data))
    spoilt = bytearray(data)
    spoilt[2 * 2**20 + 5] ^= 1  # in the third megabyte
    await objects.put(location, bytes(spoilt))
    got = bytearray()

    async def read() -> None:
        async with client.stream("GET", url) as answer:
            async for piece in answer.aiter_bytes():
                got.extend(piece)

    with pytest.raises(BrokenOff):  # on a socket: the connection is closed
        await read()
    assert data.startswith(bytes(got))
    assert len(got) <= 2 * 2**20
    # What does not touch it is still read; what begins with it is a problem.
    assert (await client.get(url, headers={"range": "bytes=0-99"})).content == data[:100]
    assert (await client.get(url, headers={"range": "bytes=-5"})).content == data[-5:]
    problem(await client.get(url, headers={"range": f"bytes={2 * 2**20}-"}), 500, "integrity")
    await objects.delete(location)
    problem(await client.get(url), 500, "integrity")


# --- signed addresses ------------------------------------------------------------------------------------------


@pytest_asyncio.fixture
async def nobody(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody without a key."""
    async with client_of(app) as made:
        yield made


async def test_a_signed_address_needs_no_key_and_opens_one_version(
    client: httpx2.AsyncClient, nobody: httpx2.AsyncClient
) -> None:
    data = os.urandom(200_000)
    blob = await stored(client, data, title="one")
    address = blob["content_url"]
    await edit(client, blob["id"], title="two")
    answer = await nobody.get(address)
    assert (answer.status_code, answer.content, answer.headers["etag"]) == (200, data, '"v1"')
    assert (await nobody.get(address, headers={"range": "bytes=0-9"})).content == data[:10]
    await client.delete(f"{BASE}/blobs/{blob['id']}")
    assert (await nobody.get(address)).content == data
    problem(await nobody.get(address.partition("?")[0]), 401, "missing_credentials")
    problem(await nobody.get(f"{BASE}/blobs/{blob['id']}"), 401, "missing_credentials")
    problem(await nobody.put(address, content=b"x", headers={"content-type": OCTETS}), 401, "missing_credentials")


async def test_a_small_content_has_a_plain_address(client: httpx2.AsyncClient) -> None:
    small, large = await stored(client, b"x" * 102_400), await stored(client, b"x" * 102_401)
    assert "?" not in small["content_url"]
    assert "signature=" in large["content_url"]


@pytest.mark.parametrize("name", ["version", "user", "expires", "signature"])
async def test_an_altered_address_opens_nothing(
    client: httpx2.AsyncClient, nobody: httpx2.AsyncClient, other: Any, name: str
) -> None:
    blob = await stored(client, os.urandom(200_000))
    address = httpx2.URL(blob["content_url"])
    values = {"version": "2", "user": str(other.user_id), "expires": "99999999999", "signature": "0" * 64}
    problem(await nobody.get(str(address.copy_set_param(name, values[name]))), 403, "signature_invalid")
    if name != "signature":
        problem(await nobody.get(str(address.copy_remove_param(name))), 403, "signature_invalid")
    another = await stored(client, os.urandom(200_000))
    crossed = f"{BASE}/blobs/{another['id']}/content?{address.query.decode()}"
    problem(await nobody.get(crossed), 403, "signature_invalid")


async def test_an_address_expires(
    client: httpx2.AsyncClient, nobody: httpx2.AsyncClient, user: Any, admin: Any
) -> None:
    blob = await stored(client, os.urandom(200_000))
    secret = await admin.fetchval("select secret from installation")
    grant = Grant(user_id=user.user_id, blob_id=UUID(blob["id"]), version=1, expires=1_700_000_000)
    address = f"{BASE}/blobs/{blob['id']}/content?{query(secret, grant)}"
    problem(await nobody.get(address), 403, "signature_expired")
