"""Buckets over HTTP: made, nested, filled, deleted; every change an event, membership a cause."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import httpx2

from domain.buckets import NESTING_MAX
from domain.ids import new_id
from tests.api.requests import MERGE_PATCH, make, problem
from tests.conftest import BASE, Person, client_of

Count = Callable[[UUID], Awaitable[dict[str, int]]]


async def bucket(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"{BASE}/buckets", json={"name": "The Storm", **body})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def events(client: httpx2.AsyncClient, kind: str) -> list[dict[str, Any]]:
    answer = await client.get(f"{BASE}/events", params={"type": kind})
    return [event["data"] for event in answer.json()["data"]]


async def test_a_bucket_is_made_read_and_listed(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{BASE}/buckets", json={"name": "The Storm", "type": "book", "metadata": {"a": 1.0}})
    made = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (201, '"v1"')
    assert answer.headers["location"] == f"{BASE}/buckets/{made['id']}"
    assert (made["name"], made["type"], made["metadata"], made["blob_count"]) == ("The Storm", "book", {"a": 1.0}, 0)
    assert (await client.get(f"{BASE}/buckets/{made['id']}")).json() == made
    assert (await client.get(f"{BASE}/buckets", params={"type": "book"})).json()["data"] == [made]
    assert (await client.get(f"{BASE}/buckets", params={"type": "other"})).json()["data"] == []
    assert [data["bucket_id"] for data in await events(client, "bucket.created")] == [made["id"]]


async def test_the_pages_of_a_list_hold_every_bucket_once(client: httpx2.AsyncClient) -> None:
    made = [(await bucket(client, name=f"bucket {n}"))["id"] for n in range(5)]
    seen: list[str] = []
    url: str | None = f"{BASE}/buckets?limit=2"
    while url:
        answer = await client.get(url)
        seen += [row["id"] for row in answer.json()["data"]]
        url = answer.headers["link"].split(">")[0][1:] if "link" in answer.headers else None
    assert seen == made


async def test_every_fault_of_a_new_bucket_is_named_and_nothing_is_written(
    client: httpx2.AsyncClient, user: Person, count_rows: Count
) -> None:
    before = await count_rows(user.user_id)
    found = problem(
        await client.post(f"{BASE}/buckets", json={"name": "", "type": "A B"}), 422, "invalid_request", "/name"
    )
    assert "/type" in [fault["pointer"] for fault in found["errors"]]
    problem(await client.post(f"{BASE}/buckets", json={"nme": "x"}), 422, "invalid_request", "/nme")
    problem(await client.post(f"{BASE}/buckets", json={"name": 7}), 422, "wrong_type", "/name")
    problem(await client.post(f"{BASE}/buckets", json={"name": "x", "parent_id": "7"}), 422, "invalid_id", "/parent_id")
    unknown = {"name": "x", "parent_id": str(new_id())}
    problem(await client.post(f"{BASE}/buckets", json=unknown), 422, "invalid_request", "/parent_id")
    problem(
        await client.post(f"{BASE}/buckets", content=b"{", headers={"content-type": "application/json"}),
        400,
        "unparsable_body",
    )
    problem(
        await client.post(f"{BASE}/buckets", content=b"a", headers={"content-type": "text/plain"}),
        415,
        "unsupported_media_type",
    )
    assert await count_rows(user.user_id) == before


async def test_a_bucket_is_renamed_and_its_metadata_replaced_or_merged(client: httpx2.AsyncClient) -> None:
    made = await bucket(client, metadata={"a": 1, "b": 2})
    url = f"{BASE}/buckets/{made['id']}"
    renamed = await client.patch(url, json={"name": "The Calm", "metadata": {"c": 3}})
    assert (renamed.status_code, renamed.headers["etag"]) == (200, '"v2"')
    assert (renamed.json()["name"], renamed.json()["metadata"]) == ("The Calm", {"c": 3})
    merged = await client.patch(
        url, content=b'{"metadata": {"c": null, "d": 4}}', headers={"content-type": MERGE_PATCH, "if-match": '"v2"'}
    )
    assert merged.json()["metadata"] == {"d": 4}
    same = await client.patch(url, json={"name": "The Calm"})
    assert (same.status_code, same.headers["etag"]) == (200, '"v3"')
    assert [data["changed"] for data in await events(client, "bucket.updated")] == [["metadata", "name"], ["metadata"]]


async def test_changing_a_bucket_obeys_preconditions(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/buckets/{(await bucket(client))['id']}"
    merge = {"content-type": MERGE_PATCH}
    body = b'{"name": "x"}'
    problem(await client.patch(url, content=body, headers=merge), 428, "precondition_required")
    refused = await client.patch(url, content=body, headers={**merge, "if-match": '"v9"'})
    stale = problem(refused, 412, "precondition_failed")
    assert (stale["current_version"], stale["current_etag"]) == (1, '"v1"')
    problem(await client.patch(url, json={"name": "x"}, headers={"if-match": '"v2"'}), 412, "precondition_failed")
    problem(await client.delete(url, headers={"if-match": '"v2"'}), 412, "precondition_failed")
    answer = await client.patch(url, content=b"[]", headers={"content-type": "application/json-patch+json"})
    problem(answer, 415, "unsupported_media_type")
    assert "merge-patch" in answer.headers["accept-patch"]
    assert (await client.get(url, headers={"if-none-match": '"v1"'})).status_code == 304


async def test_a_bucket_may_not_stand_below_itself(client: httpx2.AsyncClient) -> None:
    top = await bucket(client)
    middle = await bucket(client, parent_id=top["id"])
    below = await bucket(client, parent_bucket_id=middle["id"])
    for parent in (top, middle, below):
        answer = await client.patch(f"{BASE}/buckets/{top['id']}", json={"parent_id": parent["id"]})
        problem(answer, 422, "cycle", "/parent_id")
    assert (await client.get(f"{BASE}/buckets/{top['id']}")).json()["child_bucket_ids"] == [middle["id"]]
    moved = await client.patch(f"{BASE}/buckets/{below['id']}", json={"parent_id": None})
    assert moved.json()["parent_id"] is None
    assert len(await events(client, "bucket.structure_changed")) == 1


async def test_buckets_nest_up_to_the_limit_and_a_moved_tree_counts_whole(client: httpx2.AsyncClient) -> None:
    chain = [await bucket(client)]
    for _ in range(NESTING_MAX - 1):
        chain.append(await bucket(client, parent_id=chain[-1]["id"]))
    answer = await client.post(f"{BASE}/buckets", json={"name": "x", "parent_id": chain[-1]["id"]})
    problem(answer, 422, "too_deep", "/parent_id")
    top = await bucket(client)
    answer = await client.patch(f"{BASE}/buckets/{chain[0]['id']}", json={"parent_id": top["id"]})
    problem(answer, 422, "too_deep", "/parent_id")


async def test_blobs_stand_in_the_order_of_their_positions(client: httpx2.AsyncClient) -> None:
    book = await bucket(client, type="book")
    url = f"{BASE}/buckets/{book['id']}/blobs"
    blobs = [(await make(client, content=f"chapter {n} of the book"))["id"] for n in range(3)]
    for blob in blobs:
        answer = await client.post(url, json={"blob_id": blob})
        assert answer.status_code == 201, answer.text
        assert answer.headers["location"] == f"{url}/{blob}"
        assert answer.headers["link"] == f'<{BASE}/cascades/{answer.json()["cascade_id"]}>; rel="cascade"'
    assert [row["blob_id"] for row in (await client.get(url)).json()["data"]] == blobs
    moved = await client.put(f"{url}/{blobs[2]}", json={"position": 0})
    assert (moved.status_code, moved.json()["position"]) == (200, 0)
    first = (await client.get(url, params={"limit": 1})).json()
    assert [row["blob_id"] for row in first["data"]] == [blobs[2]]
    rest = (await client.get(url, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert ([row["blob_id"] for row in rest["data"]], rest["has_more"]) == (blobs[:2], False)
    assert (await client.get(f"{BASE}/buckets/{book['id']}")).json()["blob_count"] == 3


async def test_membership_is_a_cause_that_folds_until_it_is_planned(client: httpx2.AsyncClient) -> None:
    book, blob = await bucket(client, type="book"), await make(client)
    url = f"{BASE}/buckets/{book['id']}/blobs/{blob['id']}"
    added = (await client.put(url)).json()
    again = (await client.put(url)).json()
    removed = await client.delete(url)
    assert (removed.status_code, again["cascade_id"]) == (204, None)
    assert added["cascade_id"] in removed.headers["link"]
    cascade = (await client.get(f"{BASE}/cascades/{added['cascade_id']}")).json()
    assert (cascade["cause"], cascade["target_id"], cascade["label"]) == ("bucket", book["id"], "The Storm")
    assert len(await events(client, "bucket.blob_added")) == 1
    assert [data["blob_id"] for data in await events(client, "bucket.blob_removed")] == [blob["id"]]
    problem(await client.delete(url), 404, "not_found")


async def test_a_bucket_takes_no_unknown_and_no_deleted_blob(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/buckets/{(await bucket(client))['id']}/blobs"
    problem(await client.post(url, json={"blob_id": str(new_id())}), 404, "not_found", "/blob_id")
    problem(await client.post(url, json={"blob_id": "7"}), 422, "invalid_id", "/blob_id")
    problem(await client.post(url, json={}), 422, "missing_field", "/blob_id")
    blob = await make(client)
    problem(await client.put(f"{url}/{blob['id']}", json={"position": -1}), 422, "invalid_value", "/position")
    await client.delete(f"{BASE}/blobs/{blob['id']}")
    problem(await client.put(f"{url}/{blob['id']}"), 404, "not_found", "/blob_id")
    assert (await client.get(url)).json()["data"] == []


async def test_deleting_a_bucket_keeps_its_blobs_and_lifts_its_children(client: httpx2.AsyncClient) -> None:
    top, blob = await bucket(client), await make(client)
    middle = await bucket(client, parent_id=top["id"])
    below = await bucket(client, parent_id=middle["id"])
    await client.put(f"{BASE}/buckets/{middle['id']}/blobs/{blob['id']}")
    assert (await client.delete(f"{BASE}/buckets/{middle['id']}")).status_code == 204
    problem(await client.get(f"{BASE}/buckets/{middle['id']}"), 404, "not_found")
    problem(await client.get(f"{BASE}/buckets/{middle['id']}/blobs"), 404, "not_found")
    assert (await client.get(f"{BASE}/buckets/{below['id']}")).json()["parent_id"] == top["id"]
    assert (await client.get(f"{BASE}/blobs/{blob['id']}")).status_code == 200
    assert [data["bucket_id"] for data in await events(client, "bucket.deleted")] == [middle["id"]]


async def test_the_same_request_twice_makes_one_bucket(client: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "a-bucket"}
    first = await client.post(f"{BASE}/buckets", json={"name": "x"}, headers=headers)
    second = await client.post(f"{BASE}/buckets", json={"name": "x"}, headers=headers)
    assert first.content == second.content
    assert second.headers["idempotency-replayed"] == "true"
    assert len((await client.get(f"{BASE}/buckets")).json()["data"]) == 1
    problem(await client.post(f"{BASE}/buckets", json={"name": "y"}, headers=headers), 422, "idempotency_key_reused")


async def test_somebody_elses_bucket_is_not_there(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient, user: Person, count_rows: Count
) -> None:
    mine, theirs = await bucket(client), await make(stranger)
    blob = await make(client)
    before = await count_rows(user.user_id)
    url = f"{BASE}/buckets/{mine['id']}"
    problem(await stranger.get(url), 404, "not_found")
    problem(await stranger.patch(url, json={"name": "x"}), 404, "not_found")
    problem(await stranger.delete(url), 404, "not_found")
    problem(await stranger.get(f"{url}/blobs"), 404, "not_found")
    problem(await stranger.post(f"{url}/blobs", json={"blob_id": theirs["id"]}), 404, "not_found")
    problem(await stranger.put(f"{url}/blobs/{blob['id']}"), 404, "not_found")
    problem(await client.put(f"{url}/blobs/{theirs['id']}"), 404, "not_found")
    problem(await stranger.post(f"{BASE}/buckets", json={"name": "x", "parent_id": mine["id"]}), 422, "invalid_request")
    assert (await stranger.get(f"{BASE}/buckets")).json()["data"] == []
    assert await count_rows(user.user_id) == before


async def test_reading_needs_the_scope_to_read_and_writing_that_to_write(
    app: Any, make_user: Callable[..., Awaitable[Person]]
) -> None:
    reader = await make_user(("blobs:read",))
    async with client_of(app, reader.headers) as client:
        assert (await client.get(f"{BASE}/buckets")).status_code == 200
        found = problem(await client.post(f"{BASE}/buckets", json={"name": "x"}), 403, "missing_scope")
        assert found["required_scope"] == "blobs:write"
    writer = await make_user(("blobs:write",))
    async with client_of(app, writer.headers) as client:
        problem(await client.get(f"{BASE}/buckets"), 403, "missing_scope")


async def test_merges_of_different_members_at_once_all_hold(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/buckets/{(await bucket(client))['id']}"
    headers = {"content-type": MERGE_PATCH, "if-match": "*"}
    answers = await asyncio.gather(
        *(client.patch(url, content=f'{{"metadata": {{"m{n}": {n}}}}}'.encode(), headers=headers) for n in range(6))
    )
    assert [answer.status_code for answer in answers] == [200] * 6
    assert (await client.get(url)).json()["metadata"] == {f"m{n}": n for n in range(6)}


async def test_an_unknown_bucket_is_told_before_a_wrong_body(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/buckets/{new_id()}/blobs"
    problem(await client.post(url, json={"blob": 7}), 404, "not_found")
    problem(await client.put(f"{url}/{new_id()}", json={"place": 7}), 404, "not_found")
