"""Large content, part by part: resumed, checked, bounded; nothing is left of what does not become a blob."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx2
import pytest

from storage.objects import Objects
from tests.api.requests import make, problem
from tests.conftest import BASE, Person, objects_of

MIB = 2**20
PART = 8 * MIB
OCTETS = "application/octet-stream"
PNG = b"\x89PNG\r\n\x1a\n"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def content_digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def begin(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    headers = body.pop("headers", {})
    answer = await client.post(f"{BASE}/uploads", json={"content_type": OCTETS, **body}, headers=headers)
    assert answer.status_code == 201, answer.text
    begun: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{BASE}/uploads/{begun['id']}"
    return begun


async def send(client: httpx2.AsyncClient, upload: Mapping[str, Any], number: int, data: bytes) -> httpx2.Response:
    return await client.put(f"{upload['parts_url']}/{number}", content=data, headers={"content-type": OCTETS})


async def sent(client: httpx2.AsyncClient, upload: Mapping[str, Any], data: bytes) -> None:
    for number, start in enumerate(range(0, len(data), PART), 1):
        answer = await send(client, upload, number, data[start : start + PART])
        assert answer.status_code == 204, answer.text


async def complete(client: httpx2.AsyncClient, upload: Mapping[str, Any], **headers: str) -> httpx2.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(f"{BASE}/uploads/{upload['id']}/complete", headers=given)


async def uploaded(client: httpx2.AsyncClient, data: bytes, **body: Any) -> dict[str, Any]:
    upload = await begin(client, **body)
    await sent(client, upload, data)
    answer = await complete(client, upload)
    assert answer.status_code == 201, answer.text
    blob: dict[str, Any] = answer.json()
    return blob


async def state(admin: Any, user: Person) -> dict[str, int]:
    return dict(
        await admin.fetchrow(
            "select blob_count, bytes_used, bytes_reserved from user_state where user_id = $1", user.user_id
        )
    )


async def set_quota(admin: Any, user: Person, quota: int) -> None:
    await admin.execute("update user_state set bytes_quota = $2 where user_id = $1", user.user_id, quota)


@pytest.fixture
async def objects(database_urls: Mapping[str, str]) -> AsyncIterator[Objects]:
    store = objects_of(database_urls)
    yield store
    await store.close()


async def keys(objects: Objects, user: Person) -> list[str]:
    return [found.key for found in await objects.list(f"{user.user_id}/")]


# --- whole -----------------------------------------------------------------------------------------------------


async def test_parts_in_any_order_become_one_blob_with_exactly_these_bytes(
    client: httpx2.AsyncClient, user: Person, admin: Any, objects: Objects
) -> None:
    data = os.urandom(2 * PART + 12_345)
    upload = await begin(client, size=len(data), digest=digest(data), title="Film", tags=["a"], metadata={"k": 1})
    assert (upload["part_size"], upload["status"], upload["parts"], upload["received"]) == (PART, "open", [], 0)
    assert (await state(admin, user))["bytes_reserved"] == len(data)
    for number in (3, 1, 2, 1):
        assert (await send(client, upload, number, data[(number - 1) * PART : number * PART])).status_code == 204
    seen = (await client.get(f"{BASE}/uploads/{upload['id']}")).json()
    assert (seen["parts"], seen["received"]) == ([1, 2, 3], len(data))
    answer = await complete(client, upload)
    assert answer.status_code == 201
    blob = answer.json()
    assert (blob["content_hash"], blob["size"], blob["title"]) == (digest(data), len(data), "Film")
    assert (blob["tags"], blob["metadata"], blob["content_type"]) == (["a"], {"k": 1}, OCTETS)
    assert blob["binary"] == {"hash": digest(data), "size": len(data)}
    assert answer.headers["location"] == f"{BASE}/blobs/{blob['id']}"
    assert 'rel="cascade"' in answer.headers["link"]
    got = await client.get(blob["content_url"])
    assert got.content == data
    assert got.headers["content-digest"] == content_digest(data)
    assert await state(admin, user) == {"blob_count": 1, "bytes_used": len(data), "bytes_reserved": 0}
    assert len(await keys(objects, user)) == 1


@pytest.mark.parametrize("size", [0, 1, MIB, MIB + 1, PART, PART + 1])
async def test_every_size_comes_back_whole(client: httpx2.AsyncClient, user: Person, admin: Any, size: int) -> None:
    data = os.urandom(size)
    blob = await uploaded(client, data)
    assert (blob["size"], blob["content_hash"]) == (size, digest(data))
    assert (await client.get(f"{BASE}/blobs/{blob['id']}/content")).content == data
    row = await admin.fetchrow(
        "select body, location, chunks from contents where user_id = $1 and hash = $2", user.user_id, digest(data)
    )
    assert (row["location"] is None, row["body"] is None, row["chunks"] is None) == (
        size <= MIB,
        size > MIB,
        size <= MIB,
    )


async def test_a_text_within_the_bound_becomes_an_ordinary_document(
    client: httpx2.AsyncClient, user: Person, objects: Objects
) -> None:
    text = await uploaded(client, "Grüße\n".encode(), content_type="text/markdown")
    assert (text["content"], text["schema_id"]) == ("Grüße\n", "text-v1")
    data = await uploaded(client, b'{"b": 1, "a": []}', content_type="application/json")
    assert data["data"] == {"a": [], "b": 1}
    book = ("It was a dark night. " * 200_000).encode()
    novel = await uploaded(client, book, content_type="text/plain")
    assert "binary" not in novel
    assert (await client.get(novel["content_url"])).content == book
    # What was sent in parts is not kept beside the document.
    assert len(await keys(objects, user)) <= 1


async def test_a_text_beyond_the_bound_is_kept_as_it_came(client: httpx2.AsyncClient) -> None:
    book = ("It was a dark and stormy night.\n" * 600_000).encode()
    blob = await uploaded(client, book, content_type="text/plain", size=len(book))
    assert blob["binary"] == {"hash": digest(book), "size": len(book)}
    got = await client.get(blob["content_url"])
    assert (got.content, got.headers["content-type"]) == (book, "text/plain")


async def test_the_same_content_twice_is_stored_once(
    client: httpx2.AsyncClient, user: Person, admin: Any, objects: Objects
) -> None:
    data = os.urandom(2 * MIB)
    first, second = await uploaded(client, data), await uploaded(client, data)
    assert first["id"] != second["id"]
    assert len(await keys(objects, user)) == 1
    for blob in (first, second):
        assert (await client.get(blob["content_url"])).content == data
    assert (await state(admin, user))["bytes_used"] == 2 * len(data)


async def test_an_upload_replaces_the_content_of_a_blob(client: httpx2.AsyncClient, user: Person, admin: Any) -> None:
    old, new = os.urandom(2 * MIB), os.urandom(3 * MIB)
    blob = await uploaded(client, old, title="Kept", content_type="image/x-raw")
    match = {"if-match": '"v1"'}
    upload = await begin(client, content_type="image/x-raw", blob_id=blob["id"], size=len(new), headers=match)
    await sent(client, upload, new)
    answer = await complete(client, upload)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"v2"')
    assert (answer.json()["id"], answer.json()["title"]) == (blob["id"], "Kept")
    assert (await client.get(answer.json()["content_url"])).content == new
    assert (await client.get(f"{BASE}/blobs/{blob['id']}/content?version=1")).content == old
    assert await state(admin, user) == {"blob_count": 1, "bytes_used": len(new), "bytes_reserved": 0}
    again = await complete(client, upload)
    assert (again.status_code, again.json()["version"]) == (200, 2)


async def test_replacing_a_content_by_itself_makes_no_version(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    data = os.urandom(2 * MIB)
    blob = await uploaded(client, data)
    upload = await begin(client, blob_id=blob["id"], headers={"if-match": "*"})
    await sent(client, upload, data)
    for _ in range(2):
        answer = await complete(client, upload)
        assert (answer.status_code, answer.json()["version"]) == (200, 1)
    assert (await client.get(blob["content_url"])).content == data
    assert (await state(admin, user))["bytes_reserved"] == 0


async def test_whoever_was_overtaken_hears_it_and_may_name_the_newer_version(client: httpx2.AsyncClient) -> None:
    blob = await uploaded(client, b"one")
    upload = await begin(client, blob_id=blob["id"], headers={"if-match": '"v1"'})
    await sent(client, upload, b"three")
    headers = {"content-type": OCTETS, "if-match": '"v1"'}
    assert (await client.put(f"{BASE}/blobs/{blob['id']}/content", content=b"two", headers=headers)).is_success
    problem(await complete(client, upload), 412, "precondition_failed")
    assert (await complete(client, upload, if_match='"v2"')).json()["version"] == 3


# --- again and at once -----------------------------------------------------------------------------------------


async def test_completing_again_gives_the_same_blob(client: httpx2.AsyncClient, user: Person, count_rows: Any) -> None:
    upload = await begin(client)
    await sent(client, upload, b"x" * 100)
    first = await complete(client, upload)
    before = await count_rows(user.user_id)
    again = await complete(client, upload)
    assert (again.status_code, again.json()) == (201, first.json())
    assert await count_rows(user.user_id) == before


async def test_of_many_completions_at_once_one_makes_the_blob(
    client: httpx2.AsyncClient, user: Person, admin: Any, count_rows: Any, objects: Objects
) -> None:
    data = os.urandom(2 * MIB)
    upload = await begin(client)
    await sent(client, upload, data)
    answers = await asyncio.gather(*(complete(client, upload) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    rows = await count_rows(user.user_id)
    assert (rows["blobs"], rows["deltas"], rows["cascades"]) == (1, 1, 1)
    assert await state(admin, user) == {"blob_count": 1, "bytes_used": len(data), "bytes_reserved": 0}
    assert (await client.get(answers[0].json()["content_url"])).content == data
    assert len(await keys(objects, user)) == 1


async def test_a_hundred_uploads_at_once_do_not_exceed_the_quota(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    await set_quota(admin, user, 10 * MIB)

    async def declared() -> int:
        body = {"content_type": OCTETS, "size": MIB}
        answer = await client.post(f"{BASE}/uploads", json=body)
        if answer.status_code != 201:
            problem(answer, 403, "storage_quota_exceeded")
            return 0
        return int(answer.json()["size"])

    assert sum(await asyncio.gather(*(declared() for _ in range(100)))) == 10 * MIB
    assert await state(admin, user) == {"blob_count": 0, "bytes_used": 0, "bytes_reserved": 10 * MIB}


async def test_undeclared_uploads_reserve_part_by_part(
    client: httpx2.AsyncClient, user: Person, admin: Any, objects: Objects
) -> None:
    await set_quota(admin, user, 3 * MIB)
    uploads = [await begin(client) for _ in range(6)]
    answers = await asyncio.gather(*(send(client, upload, 1, b"x" * MIB) for upload in uploads))
    assert sorted(answer.status_code for answer in answers) == [204, 204, 204, 403, 403, 403]
    assert (await state(admin, user))["bytes_reserved"] == 3 * MIB
    for upload, answer in zip(uploads, answers, strict=True):
        seen = (await client.get(f"{BASE}/uploads/{upload['id']}")).json()
        assert seen["received"] == (MIB if answer.is_success else 0)
        assert (await client.delete(f"{BASE}/uploads/{upload['id']}")).status_code == 204
    assert (await state(admin, user))["bytes_reserved"] == 0
    assert await keys(objects, user) == []


async def test_sending_a_part_again_reserves_it_once(client: httpx2.AsyncClient, user: Person, admin: Any) -> None:
    upload = await begin(client)
    for size in (1000, 3000, 2000):
        assert (await send(client, upload, 1, b"x" * size)).status_code == 204
    assert (await state(admin, user))["bytes_reserved"] == 3000
    blob = (await complete(client, upload)).json()
    assert blob["size"] == 2000
    assert await state(admin, user) == {"blob_count": 1, "bytes_used": 2000, "bytes_reserved": 0}


# --- bad input -------------------------------------------------------------------------------------------------

BEGINNINGS: list[tuple[str, dict[str, Any], int, str, str | None]] = [
    ("no type", {"content_type": None}, 422, "wrong_type", "/content_type"),
    ("odd type", {"content_type": "image"}, 422, "invalid_request", "/content_type"),
    ("negative size", {"size": -1}, 422, "invalid_value", "/size"),
    ("too large", {"size": 10_000 * PART + 1}, 413, "content_too_large", None),
    ("digest", {"digest": "md5:0"}, 422, "invalid_request", "/digest"),
    ("unknown field", {"colour": 1}, 422, "unknown_field", "/colour"),
    ("title", {"title": "x" * 501}, 422, "invalid_request", "/title"),
    ("schema", {"schema_id": "nowhere-v1"}, 422, "unknown_schema", "/schema_id"),
    ("parent", {"parent_id": str(UUID(int=9))}, 422, "not_found", "/parent_id"),
    ("bucket", {"bucket_ids": [str(UUID(int=9))]}, 422, "not_found", "/bucket_ids/0"),
    ("title of another", {"blob_id": str(UUID(int=9)), "title": "T"}, 422, "invalid_value", "/title"),
    ("unknown blob", {"blob_id": str(UUID(int=9))}, 404, "not_found", None),
]


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"), [case[1:] for case in BEGINNINGS], ids=[case[0] for case in BEGINNINGS]
)
async def test_a_beginning_that_cannot_end_well_is_refused(
    client: httpx2.AsyncClient,
    user: Person,
    count_rows: Any,
    body: dict[str, Any],
    status: int,
    code: str,
    pointer: str | None,
) -> None:
    before = await count_rows(user.user_id)
    answer = await client.post(f"{BASE}/uploads", json={"content_type": OCTETS, **body})
    assert answer.status_code == status, answer.text
    found = problem(answer, status, answer.json()["code"] if code == "invalid_request" else code, pointer)
    assert found["code"] not in {"internal", "not_found"} or code == "not_found"
    assert await count_rows(user.user_id) == before


async def test_replacing_needs_the_version_and_the_type(client: httpx2.AsyncClient) -> None:
    blob = await uploaded(client, b"one")
    body = {"content_type": OCTETS, "blob_id": blob["id"]}
    problem(await client.post(f"{BASE}/uploads", json=body), 428, "precondition_required")
    stale = await client.post(f"{BASE}/uploads", json=body, headers={"if-match": '"v7"'})
    problem(stale, 412, "precondition_failed")
    other = await client.post(f"{BASE}/uploads", json={**body, "content_type": "image/png"}, headers={"if-match": "*"})
    problem(other, 422, "immutable_field", "/content_type")


@pytest.mark.parametrize(
    ("number", "size", "status", "code"),
    [
        ("0", PART, 422, "invalid_part"),
        ("-1", PART, 422, "invalid_part"),
        ("x", PART, 422, "invalid_part"),
        ("10001", PART, 422, "invalid_part"),
        ("3", 5, 422, "invalid_part"),  # the declared content has two
        ("1", 5, 422, "invalid_part"),  # not the last, so it is full
        ("2", 6, 422, "invalid_part"),  # more than was declared
        ("2", 4, 422, "invalid_part"),
        ("2", 0, 422, "invalid_part"),
        ("1", PART + 1, 413, "body_too_large"),
    ],
)
async def test_a_part_of_a_declared_content_has_one_number_and_size(
    client: httpx2.AsyncClient, number: str, size: int, status: int, code: str
) -> None:
    upload = await begin(client, size=PART + 5)
    problem(await client.put(f"{upload['parts_url']}/{number}", content=b"x" * size), status, code)
    assert (await client.get(f"{BASE}/uploads/{upload['id']}")).json()["parts"] == []


async def test_a_part_with_another_digest_is_not_stored(client: httpx2.AsyncClient) -> None:
    upload = await begin(client)
    url = f"{upload['parts_url']}/1"
    lying = {"content-digest": content_digest(b"other")}
    problem(await client.put(url, content=b"these", headers=lying), 400, "digest_mismatch")
    problem(await client.put(url, content=b"these", headers={"content-digest": "sha-256=x"}), 400, "invalid_header")
    assert (await client.get(f"{BASE}/uploads/{upload['id']}")).json()["received"] == 0
    assert (await client.put(url, content=b"other", headers=lying)).status_code == 204


async def test_missing_parts_are_named_and_can_still_be_sent(client: httpx2.AsyncClient) -> None:
    data = os.urandom(2 * PART + 3)
    upload = await begin(client, size=len(data))
    await send(client, upload, 2, data[PART : 2 * PART])
    found = problem(await complete(client, upload), 409, "parts_missing")
    assert found["missing"] == [1, 3]
    await sent(client, upload, data)
    assert (await complete(client, upload)).status_code == 201


async def test_a_whole_with_another_digest_leaves_nothing(
    client: httpx2.AsyncClient, user: Person, admin: Any, objects: Objects
) -> None:
    upload = await begin(client, digest=digest(b"what was meant"), size=2 * MIB)
    await sent(client, upload, b"x" * 2 * MIB)
    problem(await complete(client, upload), 400, "digest_mismatch")
    problem(await complete(client, upload), 409, "upload_ended")
    assert await keys(objects, user) == []
    assert await state(admin, user) == {"blob_count": 0, "bytes_used": 0, "bytes_reserved": 0}
    assert await admin.fetchval("select count(*) from contents where user_id = $1", user.user_id) == 0


@pytest.mark.parametrize(
    "lie", [b"<!doctype html><script>", b"<svg onload='x'/>", b"GIF89a"], ids=["html", "svg", "gif"]
)
async def test_content_that_lies_about_its_type_is_refused_with_its_first_part(
    client: httpx2.AsyncClient, lie: bytes
) -> None:
    upload = await begin(client, content_type="image/png")
    problem(await send(client, upload, 1, lie), 422, "content_type_mismatch", "/content_type")
    assert (await send(client, upload, 1, PNG + b"\0" * 100)).status_code == 204
    assert (await complete(client, upload)).status_code == 201


async def test_text_that_is_no_text_and_data_that_is_no_json_leave_nothing(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    for content_type, data in (("text/plain", b"\xff\xfe"), ("application/json", b'{"a": ')):
        upload = await begin(client, content_type=content_type)
        await sent(client, upload, data)
        problem(await complete(client, upload), 400, "unparsable_body")
        assert (await client.get(f"{BASE}/uploads/{upload['id']}")).json()["status"] == "aborted"
    assert (await state(admin, user))["bytes_reserved"] == 0


async def test_a_schema_holds_for_what_comes_by_upload_too(client: httpx2.AsyncClient) -> None:
    upload = await begin(client, content_type="application/json", schema_id="text-input-v1")
    await sent(client, upload, b'{"wrong": 1}')
    problem(await complete(client, upload), 422, "schema_violation")


async def test_an_ended_upload_takes_nothing(client: httpx2.AsyncClient) -> None:
    done, aborted = await begin(client), await begin(client)
    await sent(client, done, b"x")
    await complete(client, done)
    for _ in range(2):
        assert (await client.delete(f"{BASE}/uploads/{aborted['id']}")).status_code == 204
    for upload in (done, aborted):
        problem(await send(client, upload, 1, b"y"), 409, "upload_ended")
    problem(await complete(client, aborted), 409, "upload_ended")
    problem(await client.delete(f"{BASE}/uploads/{done['id']}"), 409, "upload_ended")


async def test_somebody_elses_upload_does_not_exist(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    upload = await begin(client)
    url = f"{BASE}/uploads/{upload['id']}"
    answers = [
        await stranger.get(url),
        await stranger.put(f"{url}/parts/1", content=b"x"),
        await stranger.post(f"{url}/complete"),
        await stranger.delete(url),
        await client.get(f"{BASE}/uploads/{uuid4()}"),
    ]
    for answer in answers:
        problem(answer, 404, "not_found")
    problem(await client.get(f"{BASE}/uploads/nonsense"), 422, "invalid_id")


async def test_uploads_need_the_scope_to_write(
    app: Any, make_user: Callable[..., Awaitable[Person]], client: httpx2.AsyncClient
) -> None:
    reader = await make_user(("blobs:read",))
    answer = await client.post(f"{BASE}/uploads", json={"content_type": OCTETS}, headers=reader.headers)
    problem(answer, 403, "missing_scope")


async def test_a_repeated_beginning_is_the_same_upload(client: httpx2.AsyncClient, user: Person, admin: Any) -> None:
    headers = {"idempotency-key": "begin-1"}
    first = await begin(client, size=MIB, headers=headers)
    again = await begin(client, size=MIB, headers=headers)
    assert again == first
    assert (await state(admin, user))["bytes_reserved"] == MIB


async def test_bytes_of_another_size_than_said_are_not_referred_to(client: httpx2.AsyncClient) -> None:
    blob = await uploaded(client, b"bytes")
    for named, fits in (({**blob["binary"], "size": 1}, False), (blob["binary"], True)):
        answer = await client.post(f"{BASE}/blobs", json={"content_type": OCTETS, "binary": named})
        assert answer.status_code == (201 if fits else 422), answer.text
    await make(client)


async def test_an_upload_may_be_larger_than_two_gigabytes(client: httpx2.AsyncClient) -> None:
    begun = await client.post(f"{BASE}/uploads", json={"content_type": "application/octet-stream", "size": 3 * 2**30})
    assert begun.status_code == 201, begun.text
    assert (await client.delete(f"{BASE}/uploads/{begun.json()['id']}")).status_code == 204
