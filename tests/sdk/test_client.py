"""The client against the real application, and against what only a failing network does."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from sdk import ApiProblem, Studio
from sdk.problems import NO_ANSWER
from tests.cli.test_catalogue import WORKFLOW
from tests.conftest import Person

URL = "http://studio.test"


@pytest_asyncio.fixture
async def studio(app: Any, user: Person) -> AsyncIterator[Studio]:
    async with Studio(URL, user.key, transport=httpx2.ASGITransport(app=app), retries=0) as client:
        yield client


async def test_a_blob_is_created_read_changed_and_deleted(studio: Studio) -> None:
    made = await studio.create_blob(content="one", title="Storm")
    assert (made.status, made.version, made["title"]) == (201, 1, "Storm")
    assert made.location == f"/api/v1/studio/blobs/{made['id']}"
    assert made.cascade_id == made["cascade_id"]
    merged = await studio.patch_blob(made["id"], {"content": "two"})
    patched = await studio.patch_blob(made["id"], [{"op": "replace", "path": "/title", "value": "Calm"}], if_match=2)
    replaced = await studio.put_content(made["id"], "three", "text/plain", if_match=3)
    assert [answer.version for answer in (merged, patched, replaced)] == [2, 3, 4]
    assert await studio.get_content(made["id"]) == b"three"
    assert await studio.get_content(made["id"], version=1) == b"one"
    assert [row["version"] async for row in studio.history(made["id"])] == [1, 2, 3, 4]
    assert [row["to_version"] async for row in studio.deltas(made["id"], from_version=2)] == [3, 4]
    deleted = await studio.delete_blob(made["id"], if_match=4)
    assert (deleted.status, deleted.body, deleted.version) == (204, None, 5)


async def test_many_blobs_are_written_and_read_at_once(studio: Studio) -> None:
    written = await studio.batch([{"op": "create", "content": "one"}, {"op": "create", "content": "two", "key": "2"}])
    ids = [result["id"] for result in written["results"]]
    assert written.cascade_id == written["cascade_id"]
    edited = await studio.batch([{"op": "update", "id": ids[0], "patch": {"content": "uno"}}, {}], atomic=False)
    assert [result["status"] for result in edited["results"]] == [200, 422]
    read = await studio.batch_get([*ids, ids[0]], versions=[None, None, 1])
    assert [blob["content"] for blob in read["data"]] == ["uno", "two", "one"]


async def test_bytes_become_one_blob_however_often_they_are_sent(studio: Studio) -> None:
    content = bytes(range(256))
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    first, again = [
        await studio.create_raw(content, "application/octet-stream", key="k", digest=digest, title="T", tag=["a", "b"])
        for _ in range(2)
    ]
    assert (first["id"], first["tags"]) == (again["id"], ["a", "b"])
    assert await studio.get_content(first["id"]) == content
    assert (await studio.quota())["bytes_used"] == 256


async def test_a_problem_carries_its_document(studio: Studio) -> None:
    with pytest.raises(ApiProblem) as caught:
        await studio.create_blob(data={"title": 1}, schema_id="concept-v1")
    problem = caught.value
    assert (problem.status, problem.code, problem.retryable) == (422, "schema_violation", False)
    assert [fault["pointer"] for fault in problem.errors] == ["/data/title"]
    assert problem.document["request_id"]
    assert "schema_violation (422)" in str(problem)


async def test_a_stale_version_is_refused_with_the_current_one(studio: Studio) -> None:
    made = await studio.create_blob(content="one")
    await studio.patch_blob(made["id"], {"content": "two"})
    with pytest.raises(ApiProblem) as caught:
        await studio.patch_blob(made["id"], {"content": "three"}, if_match=1)
    assert (caught.value.status, caught.value.document["current_version"]) == (412, 2)


async def test_lists_are_followed_over_their_pages_up_to_a_limit(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdk.transport.PAGE_MAX", 2)
    for number in range(5):
        await studio.create_blob(content=str(number))
    assert [row["content"] async for row in studio.blobs()] == ["4", "3", "2", "1", "0"]
    assert [row["content"] async for row in studio.blobs(limit=3)] == ["4", "3", "2"]
    assert [row async for row in studio.blobs(limit=0)] == []


async def test_buckets_catalogue_runs_cascades_events_are_reached(studio: Studio) -> None:
    bucket = await studio.create_bucket("Tales", type="book")
    blob = await studio.create_blob(content="x")
    added = await studio.add_to_bucket(bucket["id"], blob["id"], position=3)
    assert added["position"] == 3
    assert [row["blob_id"] async for row in studio.bucket_blobs(bucket["id"])] == [blob["id"]]
    assert (await studio.remove_from_bucket(bucket["id"], blob["id"])).cascade_id
    assert [row["id"] async for row in studio.buckets(type="book")] == [bucket["id"]]
    assert "summarizer" in [row["id"] async for row in studio.registered("providers")]
    assert (await studio.get_registered("schemas", "concept-v1"))["schema_id"] == "concept-v1"
    assert (await studio.validate_value("concept-v1", {"title": "The Storm"}))["valid"] is True
    assert (await studio.set_instance("summarizer", active=False))["active"] is False
    debounced = await studio.configure("summarizer", settings={"tone": "warm"}, debounce={"quiet": 2})
    found = (await studio.instance("summarizer")).body
    assert (debounced.body | found, found["settings"]["tone"]) == (debounced.body, "warm")
    with pytest.raises(ApiProblem, match="precondition_failed"):
        await studio.configure("summarizer", settings={"tone": "cold"}, if_match=1)
    assert (await studio.queue(limit=1))["data"] == []
    assert (await studio.get_cascade(blob["cascade_id"]))["target_id"] == blob["id"]
    assert [row["id"] async for row in studio.cascades(blob_id=blob["id"])][-1] == blob["cascade_id"]
    assert [row async for row in studio.runs(blob_id=blob["id"])] == []
    assert (await studio.cancel_cascade(blob["cascade_id"]))["status"] == "cancelled"
    with pytest.raises(ApiProblem, match="nothing_to_retry"):
        await studio.retry_cascade(blob["cascade_id"])
    assert [row async for row in studio.approvals()] == []
    for decide in (studio.cancel_run, studio.retry_run, studio.approve_run, lambda run: studio.reject_run(run, "No.")):
        with pytest.raises(ApiProblem, match="not_found"):
            await decide(blob["id"])
    events = await studio.events(types=["blob.created"])
    assert [event["subject"] for event in events["data"]] == [f"blobs/{blob['id']}"]
    assert (await studio.events(cursor=events["next_cursor"], types=["blob.created"]))["data"] == []
    assert (await studio.dag(blob["id"], depth=1))["root_id"] == blob["id"]
    assert (await studio.me())["user_id"]


async def test_a_yaml_text_is_registered_as_yaml(studio: Studio) -> None:
    assert (await studio.validate("workflows", WORKFLOW))["valid"] is True
    with pytest.raises(ApiProblem) as caught:
        await studio.register("workflows", {"id": "wf-y"})
    assert caught.value.status == 422


def answering(*responses: httpx2.Response | Exception, seen: list[httpx2.Request]) -> httpx2.MockTransport:
    """A network that does this, then that: no real one can be told to."""
    coming = iter(responses)

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        found = next(coming)
        if isinstance(found, Exception):
            raise found
        return found

    return httpx2.MockTransport(handle)


def problem(status: int, *, retryable: bool, **headers: str) -> httpx2.Response:
    body = {"code": "unavailable", "detail": "Not now.", "retryable": retryable, "status": status}
    return httpx2.Response(
        status, content=json.dumps(body), headers={"content-type": "application/problem+json", **headers}
    )


@pytest.fixture
def connected() -> Callable[..., tuple[Studio, list[httpx2.Request]]]:
    def make(*responses: httpx2.Response | Exception) -> tuple[Studio, list[httpx2.Request]]:
        seen: list[httpx2.Request] = []
        return Studio(URL, "key", transport=answering(*responses, seen=seen), retries=2), seen

    return make


async def test_what_may_pass_is_sent_again_under_the_same_idempotency_key(connected: Any) -> None:
    client, seen = connected(
        httpx2.ConnectError("refused"),
        problem(503, retryable=True, **{"retry-after": "0"}),
        httpx2.Response(201, json={"id": "x"}),
    )
    async with client:
        assert (await client.create_blob(content="x"))["id"] == "x"
    keys = {request.headers["idempotency-key"] for request in seen}
    assert (len(seen), len(keys)) == (3, 1)
    assert {request.content for request in seen} == {b'{"content": "x"}'}


async def test_what_will_not_pass_is_sent_once(connected: Any) -> None:
    client, seen = connected(problem(409, retryable=False))
    async with client:
        with pytest.raises(ApiProblem, match="Not now"):
            await client.get_blob("x")
    assert len(seen) == 1


async def test_after_the_last_attempt_the_problem_is_raised(connected: Any) -> None:
    client, seen = connected(*[httpx2.ConnectError("refused")] * 3)
    async with client:
        with pytest.raises(ApiProblem) as caught:
            await client.get_blob("x")
    assert (len(seen), caught.value.status, caught.value.retryable) == (3, NO_ANSWER, True)
    assert URL in caught.value.detail


async def test_an_answer_of_something_else_is_told_apart(connected: Any) -> None:
    client, _ = connected(httpx2.Response(404, text="<html>nginx</html>"))
    async with client:
        with pytest.raises(ApiProblem, match="not of this API") as caught:
            await client.get_blob("x")
    assert (caught.value.status, caught.value.retryable) == (404, False)


async def test_the_key_travels_in_the_header_and_the_wait_in_prefer(connected: Any) -> None:
    client, seen = connected(httpx2.Response(200, json={}))
    async with client:
        await client.get_cascade("x", wait=2.4)
    assert seen[0].headers["authorization"] == "Bearer key"
    assert seen[0].headers["prefer"] == "wait=2"
    assert "idempotency-key" not in seen[0].headers


@pytest.mark.parametrize(
    ("path", "params", "sent"),
    [
        ("/blobs?limit=1&at=a%2Bb", None, b"limit=1&at=a%2Bb"),
        ("/blobs?limit=1", {"tag": "x y", "cursor": None}, b"limit=1&tag=x%20y"),
        ("/blobs?limit=1", {"limit": 2}, b"limit=2"),
        ("/blobs", {"limit": 2}, b"limit=2"),
        ("/api/v1/studio/blobs?limit=1", None, b"limit=1"),
    ],
    ids=["own", "joined", "given-wins", "given", "at-root"],
)
async def test_a_query_in_the_path_is_sent_with_what_else_is_asked(
    connected: Any, path: str, params: dict[str, Any] | None, sent: bytes
) -> None:
    client, seen = connected(httpx2.Response(200, json={}))
    async with client:
        await client.request("GET", path, params=params)
    assert (seen[0].url.query.replace(b"+", b"%20"), seen[0].url.path) == (sent, "/api/v1/studio/blobs")
