"""Blobs over HTTP: made, read, changed, deleted, listed."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import httpx2
import pytest

from domain.documents import Document, content_hash
from tests.api.requests import JSON_PATCH, MERGE_PATCH, edit, envelope, make, problem
from tests.conftest import BASE

BLOB_FIELDS = {
    "id", "version", "content_type", "schema_id", "content_url", "content_hash", "size", "title", "preview", "tags",
    "metadata", "created_by", "provider_id", "parent_ids", "root_id", "depth", "storage_type", "processing_meta",
    "cascade_id", "created_at", "updated_at",
}  # fmt: skip
STORM = "The ship sailed into the storm."
UNKNOWN = "01890a5d-ac96-774b-bcce-b302099a8057"


async def test_a_created_blob_answers_exactly_the_fields_of_the_contract(client: httpx2.AsyncClient) -> None:
    seed = {"content": "The quick brown fox", "type": "text/plain", "metadata": {}}
    answer = await client.post(f"{BASE}/blobs", json=seed)
    assert answer.status_code == 201
    blob = answer.json()
    assert blob.keys() == BLOB_FIELDS | {"content"}
    assert (blob["version"], blob["content"], blob["size"]) == (1, "The quick brown fox", 19)
    assert (blob["schema_id"], blob["created_by"], blob["depth"]) == ("text-v1", "user", 0)
    assert blob["content_hash"] == content_hash(Document.parse({"content": "The quick brown fox"}))
    assert answer.headers["location"] == f"{BASE}/blobs/{blob['id']}"
    assert answer.headers["etag"] == '"v1"'
    assert answer.headers["link"] == f'<{BASE}/cascades/{blob["cascade_id"]}>; rel="cascade"'


async def test_data_may_be_any_json_null_included(client: httpx2.AsyncClient) -> None:
    values: list[Any] = [None, 0, False, "", [], {}, {"a": [1.0, 1]}, "a\u0000b"]
    for data in values:
        blob = await make(client, data=data)
        assert blob["data"] == data
        assert blob["content_type"] == "application/json"
        assert (await client.get(f"{BASE}/blobs/{blob['id']}")).json() == blob


async def test_nul_characters_and_the_shape_of_numbers_survive(client: httpx2.AsyncClient) -> None:
    raw = b'{"data": {"nul": "a\\u0000b", "one": 1.0, "big": 18446744073709551615}}'
    made = await client.post(f"{BASE}/blobs", content=raw, headers={"content-type": "application/json"})
    assert made.status_code == 201, made.text
    stored = await client.get(f"{BASE}/blobs/{made.json()['id']}/content")
    assert stored.content == b'{"big":18446744073709551615,"nul":"a\\u0000b","one":1.0}'
    text = await make(client, content="a\u0000b")
    assert (await client.get(f"{BASE}/blobs/{text['id']}/content")).content == b"a\x00b"


async def test_post_patch_and_get_answer_the_same_blob(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json() == made
    patched = await client.patch(f"{BASE}/blobs/{made['id']}", json=envelope(content="The quick brown fox jumps"))
    assert patched.status_code == 200
    assert patched.headers["etag"] == '"v2"'
    assert patched.json().keys() == BLOB_FIELDS | {"content"}
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json() == patched.json()


async def test_the_alias_route_answers_blob_id_as_well(client: httpx2.AsyncClient) -> None:
    body = {"processor_id": "user-input", "schema_id": "schema-text-input-v1", "data": {"content": STORM}}
    made = await client.post("/api/v1/blobs", json=body)
    assert made.status_code == 201, made.text
    assert made.json()["blob_id"] == made.json()["id"]
    assert made.json()["schema_id"] == "text-input-v1"
    read = await client.get(f"/api/v1/blobs/{made.json()['id']}")
    assert read.json() == made.json()


async def test_an_edit_right_after_a_create_folds_into_its_cascade(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    changed = await edit(client, made["id"], content="again")
    assert changed["cascade_id"] == made["cascade_id"]


async def test_each_media_type_of_patch_gives_a_new_version(client: httpx2.AsyncClient) -> None:
    made = await make(client, data={"a": 1, "b": [1, 2]})
    url = f"{BASE}/blobs/{made['id']}"
    by_rfc6902 = await client.patch(
        url,
        json=[{"op": "replace", "path": "/data/a", "value": 2, "ignored": True}],
        headers={"content-type": JSON_PATCH, "if-match": '"v1"'},
    )
    assert (by_rfc6902.status_code, by_rfc6902.json()["data"]) == (200, {"a": 2, "b": [1, 2]})
    by_rfc7396 = await client.patch(
        url, json={"data": {"b": None}, "title": "T"}, headers={"content-type": MERGE_PATCH, "if-match": "*"}
    )
    assert (by_rfc7396.status_code, by_rfc7396.json()["data"], by_rfc7396.json()["title"]) == (200, {"a": 2}, "T")
    assert (await edit(client, made["id"], tags=["x"]))["version"] == 4


async def test_a_patch_that_changes_nothing_keeps_the_version(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    again = await client.patch(f"{BASE}/blobs/{made['id']}", json=envelope(content="The quick brown fox"))
    assert (again.status_code, again.json()) == (200, made)


async def test_if_none_match_answers_304_without_a_body(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    for tag in ('"v1"', 'W/"v1"', '"v9", "v1"', "*"):
        answer = await client.get(f"{BASE}/blobs/{made['id']}", headers={"if-none-match": tag})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", '"v1"')
    assert (await client.get(f"{BASE}/blobs/{made['id']}", headers={"if-none-match": '"v2"'})).status_code == 200


async def test_head_answers_what_get_does_without_a_body(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    got = await client.get(f"{BASE}/blobs/{made['id']}")
    head = await client.head(f"{BASE}/blobs/{made['id']}")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", got.headers["etag"])
    assert head.headers["content-length"] == got.headers["content-length"]


async def test_old_versions_stay_readable_and_version_zero_does_not_exist(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    await edit(client, made["id"], content="two")
    first = await client.get(f"{BASE}/blobs/{made['id']}?version=1")
    assert (first.json()["content"], first.headers["etag"]) == ("The quick brown fox", '"v1"')
    for version in (0, 3):
        problem(await client.get(f"{BASE}/blobs/{made['id']}?version={version}"), 404, "not_found")
    problem(await client.get(f"{BASE}/blobs/{made['id']}?version=x"), 422, "invalid_value", "/query/version")


async def test_a_deleted_blob_is_gone_but_for_its_versions(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    url = f"{BASE}/blobs/{made['id']}"
    deleted = await client.delete(url)
    assert (deleted.status_code, deleted.content, deleted.headers["etag"]) == (204, b"", '"v2"')
    gone = problem(await client.get(url), 410, "deleted")
    assert gone["current_version"] == 2
    problem(await client.delete(url), 410, "deleted")
    problem(await client.patch(url, json=envelope(content="x")), 410, "deleted")
    assert (await client.get(f"{url}?version=1")).json()["content"] == "The quick brown fox"
    operations = [row["operation"] for row in (await client.get(f"{url}/history")).json()["data"]]
    assert operations == ["create", "delete"]
    assert made["id"] not in [blob["id"] for blob in (await client.get(f"{BASE}/blobs")).json()["data"]]


async def test_delete_honours_if_match(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    url = f"{BASE}/blobs/{made['id']}"
    problem(await client.delete(url, headers={"if-match": '"v7"'}), 412, "precondition_failed")
    assert (await client.delete(url, headers={"if-match": '"v1"'})).status_code == 204


async def test_a_stale_version_is_412_by_header_and_409_by_envelope(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    await edit(client, made["id"], content="two")
    url = f"{BASE}/blobs/{made['id']}"
    by_header = await client.patch(
        url, json={"content": "x"}, headers={"content-type": MERGE_PATCH, "if-match": '"v1"'}
    )
    stale = {"delta": {"operation": "update", "patch": {"content": "x"}, "from_version": 1}}
    by_envelope = await client.patch(url, json=stale)
    for found in (problem(by_header, 412, "precondition_failed"), problem(by_envelope, 409, "version_conflict")):
        assert (found["current_version"], found["current_etag"]) == (2, '"v2"')
        changes = (await client.get(found["deltas_url"])).json()["data"]
        assert [delta["to_version"] for delta in changes] == [2]


async def test_of_twenty_writers_on_one_version_exactly_one_wins(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    headers = {"content-type": MERGE_PATCH, "if-match": '"v1"'}
    answers = await asyncio.gather(
        *(
            client.patch(f"{BASE}/blobs/{made['id']}", json={"content": f"writer {n}"}, headers=headers)
            for n in range(20)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 19
    winner = next(answer.json() for answer in answers if answer.status_code == 200)
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json() == winner


async def test_twenty_envelopes_without_a_version_all_apply(client: httpx2.AsyncClient) -> None:
    made = await make(client, data={})
    answers = await asyncio.gather(*(edit(client, made["id"], data={f"k{n}": n}) for n in range(20)))
    assert sorted(answer["version"] for answer in answers) == list(range(2, 22))
    last = (await client.get(f"{BASE}/blobs/{made['id']}")).json()
    assert last["data"] == {f"k{n}": n for n in range(20)}


async def test_parents_and_buckets_of_a_new_blob_are_recorded(client: httpx2.AsyncClient) -> None:
    parent = await make(client)
    bucket = (await client.post(f"{BASE}/buckets", json={"name": "Book"})).json()
    child = await make(client, content="child", parent_id=parent["id"], bucket_ids=[bucket["id"]])
    assert (child["parent_ids"], child["root_id"], child["depth"]) == ([parent["id"]], parent["id"], 1)
    assert (await client.get(f"{BASE}/blobs/{child['id']}")).json() == child
    members = (await client.get(f"{BASE}/blobs?bucket_id={bucket['id']}")).json()["data"]
    assert [blob["id"] for blob in members] == [child["id"]]


async def test_pages_miss_and_double_nothing_while_blobs_are_added(client: httpx2.AsyncClient) -> None:
    made = {(await make(client, content=f"{n}"))["id"] for n in range(9)}
    seen: list[str] = []
    url = f"{BASE}/blobs?limit=4"
    while url:
        page = await client.get(url)
        seen += [blob["id"] for blob in page.json()["data"]]
        await make(client, content="in between")
        assert page.json()["has_more"] == (page.json()["next_cursor"] is not None)
        url = page.headers["link"].partition(">")[0].lstrip("<") if page.json()["has_more"] else ""
    assert len(seen) == len(set(seen))
    assert made <= set(seen)


async def test_lists_are_filtered(client: httpx2.AsyncClient) -> None:
    tagged = await make(client, content="tagged", tags=["draft"])
    noted = await make(client, schema_id="text-input-v1", data={"content": STORM})

    async def found(query: str) -> list[str]:
        return [blob["id"] for blob in (await client.get(f"{BASE}/blobs?{query}")).json()["data"]]

    assert await found("tag=draft") == [tagged["id"]]
    assert await found("schema_id=schema-text-input-v1") == [noted["id"]]
    assert await found("provider_id=text-expansion") == []
    assert await found("processor_id=text-expansion") == []


async def test_a_cursor_is_bound_to_its_list_and_filters(client: httpx2.AsyncClient) -> None:
    for n in range(3):
        await make(client, content=f"{n}")
    cursor = (await client.get(f"{BASE}/blobs?limit=1")).json()["next_cursor"]
    for query in (f"tag=x&cursor={cursor}", f"cursor={cursor[:-2]}AA", "cursor=%00", "cursor="):
        problem(await client.get(f"{BASE}/blobs?{query}"), 400, "invalid_cursor")


LONG = "x" * 501
BAD_CREATES: list[tuple[Any, int, str, str]] = [
    ({"content": "x", "colour": 1}, 422, "unknown_field", "/colour"),
    ({"content": 5}, 422, "wrong_type", "/content"),
    ({}, 422, "missing_field", ""),
    ([], 422, "wrong_type", ""),
    ({"content": "x", "type": "image/png"}, 422, "invalid_value", "/content_type"),
    ({"content": "x", "type": 3}, 422, "wrong_type", "/type"),
    ({"data": {}, "content_type": "text/plain"}, 422, "invalid_value", "/data"),
    ({"content": "x", "title": LONG}, 422, "invalid_value", "/title"),
    ({"content": "x", "tags": "no"}, 422, "wrong_type", "/tags"),
    ({"content": "x", "metadata": []}, 422, "wrong_type", "/metadata"),
    ({"content": "x", "parent_id": "nope"}, 422, "invalid_id", "/parent_id"),
    ({"content": "x", "parent_id": UNKNOWN}, 422, "invalid_request", "/parent_id"),
    ({"content": "x", "bucket_ids": [UNKNOWN]}, 422, "invalid_request", "/bucket_ids/0"),
    ({"content": "x", "bucket_ids": ["nope"]}, 422, "invalid_id", "/bucket_ids/0"),
    ({"content": "x", "schema_id": "no-such-v1"}, 422, "unknown_schema", "/schema_id"),
    ({"data": {}, "schema_id": "text-input-v1"}, 422, "schema_violation", "/data/content"),
    ({"data": {"content": 1}, "schema_id": "text-input-v1"}, 422, "schema_violation", "/data/content"),
    ({"content": "x", "content_url": "redis://expanded:1"}, 422, "unknown_field", "/content_url"),
]


@pytest.mark.parametrize(("body", "status", "code", "pointer"), BAD_CREATES, ids=lambda value: str(value)[:40])
async def test_a_bad_create_names_the_field_and_writes_nothing(
    client: httpx2.AsyncClient, user: Any, count_rows: Any, body: Any, status: int, code: str, pointer: str
) -> None:
    before = await count_rows(user.user_id)
    answer = await client.post(f"{BASE}/blobs", json=body)
    found = answer.json()
    assert answer.status_code == status, found
    assert code in {found["code"], *(fault["code"] for fault in found["errors"])}, found
    problem(answer, status, found["code"], pointer or None)
    assert await count_rows(user.user_id) == before


BAD_BODIES: list[tuple[bytes, str, int, str]] = [
    (b'{"content": ', "application/json", 400, "unparsable_body"),
    (b"", "application/json", 400, "unparsable_body"),
    (b"\xff\xfe", "application/json", 400, "unparsable_body"),
    (b"content=x", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
    (b"--x--", "multipart/form-data; boundary=x", 415, "unsupported_media_type"),
    (b'{"data": 18446744073709551616}', "application/json", 422, "number_out_of_range"),
    (b'{"data": NaN}', "application/json", 400, "unparsable_body"),
    (b'{"data": ' + b"[" * 65 + b"]" * 65 + b"}", "application/json", 413, "too_deep"),
]


@pytest.mark.parametrize(("raw", "media", "status", "code"), BAD_BODIES, ids=lambda value: str(value)[:30])
async def test_a_body_that_cannot_be_read_is_refused_and_writes_nothing(
    client: httpx2.AsyncClient, user: Any, count_rows: Any, raw: bytes, media: str, status: int, code: str
) -> None:
    before = await count_rows(user.user_id)
    problem(await client.post(f"{BASE}/blobs", content=raw, headers={"content-type": media}), status, code)
    assert await count_rows(user.user_id) == before


async def test_an_oversized_body_is_413_and_says_the_limit(
    client: httpx2.AsyncClient, app: Any, user: Any, count_rows: Any
) -> None:
    before = await count_rows(user.user_id)
    limit = app.state.body_max
    body = b'{"content": "' + b"x" * limit + b'"}'

    async def streamed() -> Any:
        for start in range(0, len(body), 1 << 20):
            yield body[start : start + (1 << 20)]

    headers = {"content-type": "application/json"}
    declared = problem(await client.post(f"{BASE}/blobs", content=body, headers=headers), 413, "body_too_large")
    chunked = await client.post(f"{BASE}/blobs", content=streamed(), headers=headers)
    problem(chunked, 413, "body_too_large")
    assert declared["limit_bytes"] == limit
    assert await count_rows(user.user_id) == before


BAD_PATCHES: list[tuple[Any, dict[str, str], int, str, str | None]] = [
    ([{"op": "replace", "path": "/nope", "value": 1}], {"content-type": JSON_PATCH}, 422, "path_not_found", "/0/path"),
    ([{"op": "frob", "path": "/content"}], {"content-type": JSON_PATCH}, 422, "invalid_operation", "/0/op"),
    ({"op": "add"}, {"content-type": JSON_PATCH}, 422, "invalid_request", ""),
    ([{"op": "test", "path": "/content", "value": "no"}], {"content-type": JSON_PATCH}, 409, "test_failed", None),
    ({"content": 5}, {"content-type": MERGE_PATCH}, 422, "invalid_request", "/content"),
    ({"colour": 5}, {"content-type": MERGE_PATCH}, 422, "invalid_request", "/colour"),
    ({"content_type": "text/html"}, {"content-type": MERGE_PATCH}, 422, "immutable_field", "/content_type"),
    ({"schema_id": "x-v1"}, {"content-type": MERGE_PATCH}, 422, "immutable_field", "/schema_id"),
    ({"delta": {"patch": {}, "x": 1}}, {"content-type": "application/json"}, 422, "invalid_request", "/delta/x"),
    ({"blob": 1}, {"content-type": "application/json"}, 422, "invalid_request", "/delta"),
    ("hello", {"content-type": "text/plain"}, 415, "unsupported_media_type", None),
    ({"content": "x"}, {"content-type": MERGE_PATCH, "if-match": "v1"}, 400, "invalid_header", "/header/if-match"),
    ({"content": "x"}, {"content-type": MERGE_PATCH, "if-match": 'W/"v1"'}, 412, "precondition_failed", None),
]


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "pointer"), BAD_PATCHES, ids=lambda value: str(value)[:40]
)
async def test_a_bad_patch_names_the_place_and_writes_nothing(
    client: httpx2.AsyncClient,
    user: Any,
    count_rows: Any,
    body: Any,
    headers: dict[str, str],
    status: int,
    code: str,
    pointer: str | None,
) -> None:
    made = await make(client)
    before = await count_rows(user.user_id)
    answer = await client.patch(f"{BASE}/blobs/{made['id']}", json=body, headers={"if-match": "*"} | headers)
    problem(answer, status, code, pointer)
    if status == 415:
        assert JSON_PATCH in answer.headers["accept-patch"]
    assert await count_rows(user.user_id) == before
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json() == made


@pytest.mark.parametrize("media", [JSON_PATCH, MERGE_PATCH])
async def test_the_rfc_media_types_require_if_match(client: httpx2.AsyncClient, media: str) -> None:
    made = await make(client)
    body: Any = [] if media == JSON_PATCH else {}
    answer = await client.patch(f"{BASE}/blobs/{made['id']}", json=body, headers={"content-type": media})
    problem(answer, 428, "precondition_required")


async def test_a_patch_that_breaks_the_schema_is_refused(
    client: httpx2.AsyncClient, user: Any, count_rows: Any
) -> None:
    made = await make(client, schema_id="text-input-v1", data={"content": STORM})
    before = await count_rows(user.user_id)
    answer = await client.patch(f"{BASE}/blobs/{made['id']}", json=envelope(data={"content": 5}))
    problem(answer, 422, "schema_violation", "/delta/patch/data/content")
    assert await count_rows(user.user_id) == before


async def test_checks_come_in_the_order_of_the_contract(client: httpx2.AsyncClient, app: Any) -> None:
    url = f"{BASE}/blobs/{UNKNOWN}"
    too_large = b"x" * (app.state.body_max + 1)
    anonymous = await client.patch(url, content=too_large, headers={"authorization": ""})
    assert anonymous.status_code == 401
    assert (await client.patch(url, content=too_large)).status_code == 404
    known = f"{BASE}/blobs/{(await make(client))['id']}"
    assert (await client.patch(known, content=too_large, headers={"content-type": "text/plain"})).status_code == 415
    as_patch = {"content-type": MERGE_PATCH}
    assert (await client.patch(known, content=too_large, headers=as_patch)).status_code == 413
    assert (await client.patch(known, content=b"{", headers=as_patch)).status_code == 400
    assert (await client.patch(known, content=b"[]", headers=as_patch)).status_code == 422
    assert (await client.patch(known, content=b'{"x": 1}', headers=as_patch)).status_code == 428
    stale = as_patch | {"if-match": '"v9"'}
    assert (await client.patch(known, content=b'{"x": 1}', headers=stale)).status_code == 412
    current = as_patch | {"if-match": '"v1"'}
    assert (await client.patch(known, content=b'{"x": 1}', headers=current)).status_code == 422


async def test_unknown_blobs_and_bad_ids_are_told_apart(client: httpx2.AsyncClient) -> None:
    problem(await client.get(f"{BASE}/blobs/{UNKNOWN}"), 404, "not_found")
    problem(await client.get(f"{BASE}/blobs/nope"), 422, "invalid_id", "/path/blob_id")


async def test_prefer_wait_holds_the_answer_until_the_cascade_closes(client: httpx2.AsyncClient, admin: Any) -> None:
    made = await make(client)

    async def close() -> None:
        await asyncio.sleep(0.05)
        await admin.execute("update cascades set status = 'completed' where id = $1", made["cascade_id"])

    closing = asyncio.create_task(close())
    answer = await client.patch(
        f"{BASE}/blobs/{made['id']}", json=envelope(content="x"), headers={"prefer": "respond-async, wait=20"}
    )
    await closing
    assert (answer.status_code, answer.headers["preference-applied"]) == (200, "wait=20")
    assert answer.elapsed.total_seconds() < 10
    short = await client.post(f"{BASE}/blobs", json={"content": "y"}, headers={"prefer": "wait=1"})
    assert (short.status_code, short.headers["preference-applied"]) == (201, "wait=1")
    assert 0.9 < short.elapsed.total_seconds() < 5


WORDS = ["content", "data", "type", "content_type", "metadata", "tags", "title", "delta", "patch", "op", "path", "x"]
SCALARS: list[Any] = [
    None, True, False, 0, -1, 2**63, 1e308, "", "a\u0000b", "text/plain", "application/json", "\U0001f30a", "/data",
    "text-v1", "\u0000", UNKNOWN, "x" * 600,
]  # fmt: skip


def anything(chance: random.Random, depth: int = 0) -> Any:
    """Some JSON that looks a little like what we expect."""
    roll = chance.random()
    if depth > 3 or roll < 0.4:
        return chance.choice(SCALARS)
    if roll < 0.6:
        return [anything(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return {chance.choice(WORDS): anything(chance, depth + 1) for _ in range(chance.randint(0, 5))}


@pytest.mark.parametrize("seed", range(3))
async def test_no_body_whatever_causes_a_server_error(client: httpx2.AsyncClient, seed: int) -> None:
    chance = random.Random(seed)
    made = await make(client, data={"a": 1})
    for _ in range(60):
        body = json.dumps(anything(chance))
        as_json = {"content-type": "application/json"}
        created = await client.post(f"{BASE}/blobs", content=body, headers=as_json)
        assert created.status_code in {201, 413, 422}, (body, created.text)
        media = chance.choice([JSON_PATCH, MERGE_PATCH, "application/json"])
        headers = {"content-type": media, "if-match": "*"}
        patched = await client.patch(f"{BASE}/blobs/{made['id']}", content=body, headers=headers)
        assert patched.status_code in {200, 409, 413, 422}, (body, media, patched.text)
    state = await client.get(f"{BASE}/blobs/{made['id']}")
    assert state.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/blobs?tag=%00",
        "/blobs?schema_id=%00",
        "/blobs?bucket_id=%00",
        "/blobs/%00",
        f"/blobs/{UNKNOWN}/versions/{'9' * 5000}",
        f"/blobs/{UNKNOWN}?version={'9' * 5000}",
        "/deltas/%ff",
        "/blobs?limit=1e3",
        "/blobs?limit=%D9%A1",
    ],
)
async def test_no_path_or_query_whatever_causes_a_server_error(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(BASE + path)
    assert answer.status_code in {404, 422}, answer.text
    problem(answer, answer.status_code, answer.json()["code"])
