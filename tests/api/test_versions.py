"""Time travel: reading a blob as it was, and going back to that."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx2
import pytest

from storage.contents import Contents
from storage.database import Database
from tests.api.requests import edit, make, problem
from tests.api.schedule import claim, plan_all, schedule_of
from tests.conftest import BASE, Person
from tests.storage.engine import Engine
from tests.storage.engine import schedule_of as engine_schedule

NOWHERE = "01890a5d-ac96-774b-bcce-b302099a8057"


async def revert(client: httpx2.AsyncClient, blob_id: str, version: Any, **headers: str) -> httpx2.Response:
    return await client.post(f"{BASE}/blobs/{blob_id}/revert", json={"version": version}, headers=headers)


async def test_a_revert_is_a_new_version_that_cascades_and_everything_in_between_stays(
    client: httpx2.AsyncClient,
) -> None:
    made = await make(client, content="one", title="First", tags=["a"])
    await edit(client, made["id"], content="two", title="Second", tags=[])
    answer = await revert(client, made["id"], 1)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"v3"')
    assert 'rel="cascade"' in answer.headers["link"]
    back = answer.json()
    assert [back[name] for name in ("version", "content", "title", "tags")] == [3, "one", "First", ["a"]]
    assert (await client.get(f"{BASE}/blobs/{made['id']}?version=2")).json()["content"] == "two"
    deltas = (await client.get(f"{BASE}/blobs/{made['id']}/deltas")).json()["data"]
    assert [delta["operation"] for delta in deltas] == ["create", "update", "revert"]
    assert deltas[2]["inverse"] != []


async def test_a_revert_to_what_it_is_changes_nothing(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="one")
    answer = await revert(client, made["id"], 1)
    assert (answer.status_code, answer.json()["version"], "link" in answer.headers) == (200, 1, False)


@pytest.mark.parametrize(
    ("body", "status", "code", "pointer"),
    [
        ({"version": 9}, 422, "unknown_version", "/version"),
        ({"version": 0}, 422, "invalid_request", "/version"),
        ({"version": "1"}, 422, "invalid_request", "/version"),
        ({}, 422, "invalid_request", "/version"),
        ({"version": 1, "colour": 1}, 422, "invalid_request", "/colour"),
    ],
    ids=["unknown", "zero", "text", "missing", "more"],
)
async def test_a_revert_to_what_never_was_writes_nothing(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, body: Any, status: int, code: str, pointer: str
) -> None:
    made = await make(client)
    before = await count_rows(user.user_id)
    answer = await client.post(f"{BASE}/blobs/{made['id']}/revert", json=body)
    found = problem(answer, status, answer.json()["code"], pointer)
    assert code in {found["code"], "invalid_request"}
    assert await count_rows(user.user_id) == before


async def test_a_revert_honours_if_match_and_says_what_changed(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="one")
    await edit(client, made["id"], content="two")
    found = problem(await revert(client, made["id"], 1, **{"If-Match": '"v1"'}), 412, "precondition_failed")
    assert [change["version"] for change in found["changes"]] == [2]
    assert (await revert(client, made["id"], 1, **{"If-Match": '"v2"'})).json()["version"] == 3


async def test_a_deleted_blob_is_restored_with_its_last_document(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="one")
    url = f"{BASE}/blobs/{made['id']}"
    await client.delete(url)
    problem(await revert(client, made["id"], 1), 410, "deleted")
    answer = await client.post(f"{url}/restore")
    assert (answer.status_code, answer.json()["version"], answer.json()["content"]) == (200, 3, "one")
    assert (await client.get(url)).json()["version"] == 3
    again = await client.post(f"{url}/restore")
    assert (again.status_code, again.json()["version"]) == (200, 3)
    problem(await client.post(f"{BASE}/blobs/{NOWHERE}/restore"), 404, "not_found")


async def test_a_write_repeated_with_its_key_is_done_once(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="one")
    await edit(client, made["id"], content="two")
    first, again = [await revert(client, made["id"], 1, **{"Idempotency-Key": "back"}) for _ in range(2)]
    assert (first.content, again.headers["idempotency-replayed"]) == (again.content, "true")


async def test_a_blob_that_nobody_derives_cannot_be_reset(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    problem(await client.post(f"{BASE}/blobs/{made['id']}/reset"), 409, "no_machine_version")


async def test_a_reset_takes_a_derived_blob_back_to_what_the_machine_wrote(
    client: httpx2.AsyncClient, user: Person, database: Database, contents: Contents, admin: Any, database_urls: Any
) -> None:
    engine = Engine(
        client,
        user,
        engine_schedule(database, contents),
        database,
        contents,
        admin,
        database_urls["DATABASE_ADMIN_URL"],
    )
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1", "a")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, "my own words")
    answer = await client.post(f"{BASE}/blobs/{output}/reset")
    assert (answer.status_code, answer.json()["data"], answer.json()["version"]) == (200, {"text": "a!"}, 3)
    assert (await client.post(f"{BASE}/blobs/{output}/reset")).json()["version"] == 3
    await engine.rest()


async def test_what_stood_at_an_instant_is_what_was_read_then(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="one")
    url = f"{BASE}/blobs/{made['id']}"
    two = await edit(client, made["id"], content="two")
    three = await edit(client, made["id"], content="three")
    await client.delete(url)
    for blob, text in ((made, "one"), (two, "two"), (three, "three")):
        then = await client.get(url, params={"at": blob["updated_at"]})
        assert (then.status_code, then.json()["content"], then.headers["etag"]) == (200, text, f'"v{blob["version"]}"')
        zulu = blob["updated_at"].replace("+00:00", "Z")
        assert (await client.get(f"{url}/content", params={"at": zulu})).text == text
        # A plus sign that nobody escaped is a blank on arrival.
        assert (await client.get(f"{url}?at={blob['updated_at']}")).json()["content"] == text
    assert (await client.get(url, params={"at": "2999-01-01T00:00:00Z"})).json()["version"] == 4
    problem(await client.get(url, params={"at": "2001-01-01T00:00:00+01:00"}), 404, "not_found")


@pytest.mark.parametrize(
    "instant",
    [
        "yesterday",
        "2026-11-20",
        "2026-11-20T17:36:07",
        "2026-02-30T00:00:00Z",
        "2026-11-20T25:00:00Z",
        "",
        "1763660167",
    ],
)
async def test_what_is_no_instant_is_named(client: httpx2.AsyncClient, instant: str) -> None:
    made = await make(client)
    for path in ("", "/content"):
        answer = await client.get(f"{BASE}/blobs/{made['id']}{path}", params={"at": instant})
        problem(answer, 422, "invalid_value", "/query/at")


async def test_version_and_at_are_not_given_together(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    answer = await client.get(f"{BASE}/blobs/{made['id']}?version=1&at=2999-01-01T00:00:00Z")
    problem(answer, 422, "invalid_value", "/query/at")


async def test_a_reverted_source_derives_again(
    client: httpx2.AsyncClient, user: Person, database: Database, contents: Contents
) -> None:
    schedule = schedule_of(database, contents)
    made = await make(client, schema_id="text-input-v1", data={"content": "The ship sailed."})
    await edit(client, made["id"], data={"content": "The ship sank."})
    await plan_all(database, schedule, user.user_id)
    answer = await revert(client, made["id"], 1)
    cascade = UUID(answer.json()["cascade_id"])
    await plan_all(database, schedule, user.user_id)
    assert await claim(schedule, user.user_id, cascade)
