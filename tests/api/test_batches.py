"""Many blobs at once: all or nothing, or each by itself; one cascade; once per key."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx2
import pytest

from tests.api.requests import envelope, make, problem
from tests.conftest import BASE, Person
from tests.storage import invariants

URL = f"{BASE}/blobs/batch"


def creates(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"op": "create", "content": f"text {index}", "title": f"T{index}", **more} for index in range(count)]


async def sent(client: httpx2.AsyncClient, items: list[Any], *, atomic: bool = True, **headers: str) -> Any:
    answer = await client.post(URL, json={"atomic": atomic, "items": items}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def read(client: httpx2.AsyncClient, blob_id: str) -> Any:
    return (await client.get(f"{BASE}/blobs/{blob_id}")).json()


async def test_a_batch_creates_updates_and_deletes_with_one_cascade(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    first, second = await make(client, content="one"), await make(client, content="two")
    bucket = (await client.post(f"{BASE}/buckets", json={"name": "B"})).json()["id"]
    answer = await client.post(
        URL,
        json={"items": [
            {"op": "create", "content": "three", "tags": ["sea"], "parent_id": first["id"], "bucket_ids": [bucket]},
            {"op": "update", "id": first["id"], "patch": {"content": "one!"}, "from_version": 1},
            {"op": "delete", "id": second["id"]},
            {"op": "create", "data": {"a": 1}, "bucket_ids": [bucket]},
        ]},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [(found["status"], found["version"], found["etag"]) for found in body["results"]] == [
        (201, 1, '"v1"'), (200, 2, '"v2"'), (204, 2, '"v2"'), (201, 1, '"v1"'),
    ]  # fmt: skip
    assert body["cascade_id"] in answer.headers["link"]
    made = await read(client, body["results"][0]["id"])
    assert (made["content"], made["tags"], made["parent_ids"], made["depth"]) == ("three", ["sea"], [first["id"]], 1)
    assert (await read(client, first["id"]))["content"] == "one!"
    assert (await client.get(f"{BASE}/blobs/{second['id']}")).status_code == 410
    members = (await client.get(f"{BASE}/buckets/{bucket}/blobs")).json()["data"]
    assert [member["blob_id"] for member in members] == [body["results"][0]["id"], body["results"][3]["id"]]
    cascade = (await client.get(f"{BASE}/cascades/{body['cascade_id']}")).json()
    assert (cascade["cause"], cascade["label"], len(cascade["deltas"])) == ("batch", "batch of 4", 4)
    kinds = [event["type"].split(".", 3)[3] for event in (await client.get(f"{BASE}/events?limit=200")).json()["data"]]
    assert kinds.count("blob.created.v1") == 4
    assert kinds.count("blob.deleted.v1") == 1
    await invariants.check(admin, user.user_id)


async def test_a_list_keeps_the_order_of_a_batch(client: httpx2.AsyncClient) -> None:
    await sent(client, creates(30))
    listed = (await client.get(f"{BASE}/blobs?limit=30")).json()["data"]
    assert [blob["title"] for blob in listed] == [f"T{index}" for index in reversed(range(30))]


BAD = [
    ("nothing", "op-missing", {"content": "x"}, "/items/1/op"),
    ("unknown op", "op-unknown", {"op": "move"}, "/items/1/op"),
    ("no object", "not-an-object", 7, "/items/1"),
    ("unknown field", "unknown-field", {"op": "create", "content": "x", "colour": 1}, "/items/1/colour"),
    ("no content", "no-content", {"op": "create"}, "/items/1/content"),
    ("bad tag", "bad-tag", {"op": "create", "content": "x", "tags": [1]}, "/items/1/tags/0"),
    ("schema", "unknown-schema", {"op": "create", "content": "x", "schema_id": "nope-v1"}, "/items/1/schema_id"),
    ("parent", "unknown-parent", {"op": "create", "content": "x", "parent_id": str(UUID(int=5))}, "/items/1/parent_id"),
    ("bucket", "unknown-bucket", {"op": "create", "content": "x", "bucket_ids": [str(UUID(int=5))]},
     "/items/1/bucket_ids/0"),
    ("id", "bad-id", {"op": "update", "id": "x", "patch": {}}, "/items/1/id"),
    ("not found", "not-found", {"op": "delete", "id": str(UUID(int=6))}, "/items/1/id"),
    ("patch", "bad-patch", {"op": "update", "id": str(UUID(int=6)), "patch": [{"op": "fly"}]}, "/items/1/patch/0/op"),
    ("patch type", "patch-a-text", {"op": "update", "id": str(UUID(int=6)), "patch": "x"}, "/items/1/patch"),
    ("content", "unknown-content", {"op": "create", "content_type": "image/png",
     "binary": {"hash": f"sha256:{'0' * 64}", "size": 1}}, "/items/1/binary/hash"),
]  # fmt: skip


@pytest.mark.parametrize(("item", "pointer"), [case[2:] for case in BAD], ids=[case[1] for case in BAD])
async def test_a_bad_item_is_named_and_stops_an_atomic_batch_but_no_other_item(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, admin: Any, item: Any, pointer: str
) -> None:
    before = await count_rows(user.user_id)
    items = [*creates(1), item, *creates(1)]
    refused = await client.post(URL, json={"atomic": True, "items": items})
    assert refused.status_code in {404, 422}, refused.text
    assert refused.json()["errors"][0]["pointer"] == pointer
    assert await count_rows(user.user_id) == before
    results = (await sent(client, items, atomic=False))["results"]
    assert [found["status"] for found in results] == [201, refused.status_code, 201]
    assert results[1]["problem"]["errors"][0]["pointer"] == pointer
    assert results[1]["problem"]["code"] == refused.json()["code"]
    await invariants.check(admin, user.user_id)


async def test_a_patch_that_breaks_its_schema_is_named_at_its_place(client: httpx2.AsyncClient) -> None:
    made = await make(client, data={"content": "The ship sailed."}, schema_id="text-input-v1")
    items = [{"op": "update", "id": made["id"], "patch": {"data": {"content": 7}}}]
    refused = problem(await client.post(URL, json={"items": items}), 422, "schema_violation")
    assert refused["errors"][0]["pointer"] == "/items/0/patch/data/content"


async def test_a_stale_item_stops_an_atomic_batch_and_says_the_version(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    await client.patch(f"{BASE}/blobs/{made['id']}", json=envelope(content="newer"))
    items = [*creates(2), {"op": "update", "id": made["id"], "patch": {"content": "older"}, "from_version": 1}]
    refused = problem(await client.post(URL, json={"items": items}), 409, "version_conflict")
    assert refused["errors"][0]["pointer"] == "/items/2/from_version"
    assert refused["current_version"] == 2
    assert [(change["version"], change["pointers"]) for change in refused["changes"]] == [(2, ["/content"])]
    assert [found["status"] for found in (await sent(client, items, atomic=False))["results"]] == [201, 201, 409]
    assert (await read(client, made["id"]))["content"] == "newer"


async def test_a_deleted_blob_is_gone_for_a_batch_too(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    await client.delete(f"{BASE}/blobs/{made['id']}")
    refused = await client.post(URL, json={"items": [{"op": "delete", "id": made["id"]}]})
    assert problem(refused, 410, "deleted")["errors"][0]["pointer"] == "/items/0/id"


async def test_a_blob_is_named_once_in_a_batch(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    edit = {"op": "update", "id": made["id"], "patch": {"content": "x"}}
    refused = problem(await client.post(URL, json={"items": [edit, edit]}), 422, "duplicate_id")
    assert refused["errors"][0]["pointer"] == "/items/1/id"
    assert [found["status"] for found in (await sent(client, [edit, edit], atomic=False))["results"]] == [200, 422]


async def test_what_changes_nothing_makes_no_version_and_no_cascade(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="same")
    found = await sent(client, [{"op": "update", "id": made["id"], "patch": {"content": "same"}}])
    assert found["cascade_id"] is None
    assert (found["results"][0]["status"], found["results"][0]["version"]) == (200, 1)


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_1_to_1000_items(client: httpx2.AsyncClient, count: int) -> None:
    refused = await client.post(URL, json={"items": creates(count)})
    assert problem(refused, 422, "invalid_value")["errors"][0]["pointer"] == "/items"


async def test_a_thousand_creates_are_one_batch(client: httpx2.AsyncClient, user: Person, admin: Any) -> None:
    found = await sent(client, creates(1000))
    assert {result["status"] for result in found["results"]} == {201}
    assert await admin.fetchval("select count(*) from cascades where user_id = $1", user.user_id) == 1
    await invariants.check(admin, user.user_id)


async def test_a_keyed_item_is_made_once_for_ever(client: httpx2.AsyncClient, user: Person, admin: Any) -> None:
    first = (await sent(client, [*creates(2, tags=["x"]), {"op": "create", "content": "a", "key": "a.md"}]))["results"]
    again = await sent(client, [{"op": "create", "content": "a", "key": "a.md"}, {"op": "create", "content": "b"}])
    assert (again["results"][0]["status"], again["results"][0]["id"]) == (200, first[2]["id"])
    assert again["results"][1]["status"] == 201
    only = await sent(client, [{"op": "create", "content": "a", "key": "a.md"}])
    assert (only["cascade_id"], only["results"][0]["id"]) == (None, first[2]["id"])
    other = await client.post(URL, json={"items": [{"op": "create", "content": "other", "key": "a.md"}]})
    assert problem(other, 422, "idempotency_key_reused")["errors"][0]["pointer"] == "/items/0/key"
    await client.delete(f"{BASE}/blobs/{first[2]['id']}")
    gone = await client.post(URL, json={"items": [{"op": "create", "content": "a", "key": "a.md"}]})
    assert problem(gone, 410, "deleted")["errors"][0]["pointer"] == "/items/0/key"
    await invariants.check(admin, user.user_id)


async def test_the_same_key_in_parallel_batches_makes_one_blob(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    items = [{"op": "create", "content": str(index), "key": f"k{index}"} for index in range(20)]
    found = await asyncio.gather(*(sent(client, items, atomic=bool(turn % 2)) for turn in range(6)))
    assert {tuple(result["id"] for result in batch["results"]) for batch in found} == {
        tuple(result["id"] for result in found[0]["results"])
    }
    assert await admin.fetchval("select count(*) from blobs where user_id = $1", user.user_id) == 20
    assert await admin.fetchval("select count(*) from cascades where user_id = $1", user.user_id) == 1
    await invariants.check(admin, user.user_id)


async def test_a_repeated_batch_is_answered_alike_and_done_once(
    client: httpx2.AsyncClient, user: Person, count_rows: Any
) -> None:
    body = {"atomic": False, "items": [*creates(3), {"op": "nothing"}]}
    first = await client.post(URL, json=body, headers={"idempotency-key": "batch-1"})
    after = await count_rows(user.user_id)
    again = await client.post(URL, json=body, headers={"idempotency-key": "batch-1"})
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert await count_rows(user.user_id) == after


async def test_unpinned_edits_of_parallel_batches_and_people_all_count(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    blobs = [(await make(client, data={"n": {}}))["id"] for _ in range(6)]

    async def many(turn: int) -> None:
        order = blobs if turn % 2 else list(reversed(blobs))
        items = [{"op": "update", "id": blob, "patch": {"data": {"n": {f"b{turn}": turn}}}} for blob in order]
        while True:
            answer = await client.post(URL, json={"items": items})
            if answer.status_code == 200:
                return
            assert answer.status_code == 409, answer.text

    async def one(turn: int) -> None:
        patch = {"data": {"n": {f"p{turn}": turn}}}
        answer = await client.patch(f"{BASE}/blobs/{blobs[turn]}", json=envelope(**patch))
        assert answer.status_code == 200, answer.text

    await asyncio.gather(*(many(turn) for turn in range(5)), *(one(turn) for turn in range(6)))
    for place, blob in enumerate(blobs):
        found = (await read(client, blob))["data"]["n"]
        assert found == {f"b{turn}": turn for turn in range(5)} | {f"p{place}": place}
    await invariants.check(admin, user.user_id)


async def test_somebody_elses_blobs_do_not_exist_for_a_batch(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient
) -> None:
    made = await make(client)
    items = [
        {"op": "update", "id": made["id"], "patch": {"title": "x"}},
        {"op": "delete", "id": made["id"]},
        {"op": "create", "content": "x", "parent_id": made["id"]},
    ]
    found = [(await sent(stranger, [item], atomic=False))["results"][0]["status"] for item in items]
    assert found == [404, 404, 422]
    body = (await stranger.post(f"{BASE}/blobs/batch-get", json={"ids": [made["id"]]})).json()
    assert (body["data"], body["unknown"]) == ([], [made["id"]])


async def test_many_are_read_by_their_ids_unknown_and_deleted_ones_listed(client: httpx2.AsyncClient) -> None:
    blobs = [await make(client, content=str(index)) for index in range(3)]
    await client.patch(f"{BASE}/blobs/{blobs[0]['id']}", json=envelope(content="newer"))
    await client.delete(f"{BASE}/blobs/{blobs[1]['id']}")
    unknown = str(UUID(int=9))
    ids = [blobs[2]["id"], unknown, blobs[1]["id"], blobs[0]["id"], blobs[0]["id"], blobs[1]["id"], blobs[2]["id"]]
    versions = [None, None, None, None, 1, 1, 7]
    body = (await client.post(f"{BASE}/blobs/batch-get", json={"ids": ids, "versions": versions})).json()
    assert [(blob["id"], blob["version"], blob["content"]) for blob in body["data"]] == [
        (blobs[2]["id"], 1, "2"), (blobs[0]["id"], 2, "newer"), (blobs[0]["id"], 1, "0"), (blobs[1]["id"], 1, "1"),
    ]  # fmt: skip
    assert (body["unknown"], body["deleted"], body["left_off"]) == ([unknown, blobs[2]["id"]], [blobs[1]["id"]], [])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"ids": []}, "/ids"),
        ({"ids": [str(UUID(int=1))] * 201}, "/ids"),
        ({"ids": ["x"]}, "/ids/0"),
        ({"ids": [str(UUID(int=1))], "versions": []}, "/versions"),
        ({"ids": [str(UUID(int=1))], "versions": [0]}, "/versions/0"),
    ],
    ids=["none", "too-many", "bad-id", "too-few-versions", "version-0"],
)
async def test_a_bad_list_of_ids_is_422(client: httpx2.AsyncClient, body: Any, pointer: str) -> None:
    answer = await client.post(f"{BASE}/blobs/batch-get", json=body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_what_one_answer_cannot_carry_is_left_off_and_can_be_asked_for_again(client: httpx2.AsyncClient) -> None:
    ids = [(await make(client, content=str(turn) * 3_000_000))["id"] for turn in range(4)]
    body = (await client.post(f"{BASE}/blobs/batch-get", json={"ids": ids})).json()
    rest = (await client.post(f"{BASE}/blobs/batch-get", json={"ids": body["left_off"]})).json()
    assert body["left_off"]
    assert [blob["id"] for blob in [*body["data"], *rest["data"]]] == ids
