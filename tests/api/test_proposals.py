"""Deltas over HTTP: appended, proposed, accepted, rejected."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from tests.api.requests import edit, make, problem
from tests.conftest import BASE, Person

STORY = "The ship sailed at dawn.\n\nThe storm came at noon."
NOWHERE = "01890a5d-ac96-774b-bcce-b302099a8057"


async def append(client: httpx2.AsyncClient, blob_id: str, **body: Any) -> httpx2.Response:
    return await client.post(f"{BASE}/blobs/{blob_id}/deltas", json=body)


async def propose(client: httpx2.AsyncClient, blob_id: str, **body: Any) -> dict[str, Any]:
    answer = await append(client, blob_id, proposed=True, **body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{BASE}/deltas/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


async def decide(client: httpx2.AsyncClient, delta: dict[str, Any], how: str, **query: str) -> httpx2.Response:
    return await client.post(f"{BASE}/deltas/{delta['id']}/{how}", params=query)


async def test_an_appended_delta_is_applied_and_answered(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="one")
    answer = await append(client, made["id"], operation="update", patch={"content": "two"}, from_version=1)
    delta = answer.json()
    assert (answer.status_code, answer.headers["etag"], delta["status"], delta["to_version"]) == (
        201, '"v2"', "applied", 2,
    )  # fmt: skip
    assert answer.headers["location"] == f"{BASE}/deltas/{delta['id']}"
    assert 'rel="cascade"' in answer.headers["link"]
    operations = [{"op": "replace", "path": "/content", "value": "three"}]
    assert (await append(client, made["id"], patch=operations)).json()["to_version"] == 3
    same = await append(client, made["id"], patch={"content": "three"})
    assert (same.status_code, same.json()["to_version"]) == (200, 3)
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["content"] == "three"


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({}, 422, "/patch"),
        ({"patch": 7}, 422, "/patch"),
        ({"operation": "delete", "patch": {}}, 422, "/operation"),
        ({"patch": [{"op": "replace", "path": "/nope", "value": 1}]}, 422, "/patch/0/path"),
        ({"patch": [{"op": "dance", "path": "/title"}]}, 422, "/patch/0/op"),
        ({"patch": {"colour": 1}}, 422, "/patch/colour"),
        ({"patch": {"title": 7}, "proposed": True}, 422, "/patch/title"),
        ({"patch": {"title": ""}, "proposed": True}, 422, "/patch"),
        ({"patch": {"title": "T"}, "proposed": True, "from_version": 9}, 422, "/from_version"),
        ({"patch": {"title": "T"}, "from_version": 9, "on_conflict": "merge"}, 422, "/from_version"),
        ({"patch": [{"op": "test", "path": "/title", "value": "T"}]}, 409, "/patch/0/value"),
    ],
    ids=str,
)
async def test_a_bad_delta_names_its_place_and_writes_nothing(
    client: httpx2.AsyncClient, user: Any, count_rows: Any, body: Any, status: int, pointer: str
) -> None:
    made = await make(client)
    before = await count_rows(user.user_id)
    answer = await append(client, made["id"], **body)
    problem(answer, status, answer.json()["code"], pointer)
    assert await count_rows(user.user_id) == before


async def test_a_proposal_changes_nothing_until_it_is_accepted(client: httpx2.AsyncClient, user: Any) -> None:
    made = await make(client, content=STORY)
    delta = await propose(client, made["id"], patch={"content": STORY.replace("noon", "night")})
    assert (delta["status"], delta["from_version"], delta["applied_at"]) == ("proposed", 1, None)
    listed = (await client.get(f"{BASE}/blobs/{made['id']}/deltas?status=proposed")).json()["data"]
    assert listed == [delta]
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json() == made
    answer = await decide(client, delta, "accept")
    assert (answer.status_code, answer.headers["etag"]) == (200, '"v2"')
    assert 'rel="cascade"' in answer.headers["link"]
    applied = answer.json()
    assert (applied["id"], applied["status"], applied["to_version"]) == (delta["id"], "applied", 2)
    assert applied["resolved_by"] == f"user:{user.user_id}"
    assert (await decide(client, delta, "accept")).json() == applied
    problem(await decide(client, delta, "reject"), 409, "already_decided")
    assert "night" in (await client.get(f"{BASE}/blobs/{made['id']}")).json()["content"]


async def test_a_rejected_proposal_stays_in_the_history(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    delta = await propose(client, made["id"], patch={"content": "Nothing of that."})
    rejected = await decide(client, delta, "reject")
    assert (rejected.status_code, rejected.json()["status"]) == (200, "rejected")
    assert (await decide(client, delta, "reject")).json() == rejected.json()
    problem(await decide(client, delta, "accept"), 409, "already_decided")
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["version"] == 1


async def test_a_proposal_of_an_older_version_is_merged_with_what_came_since(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    delta = await propose(client, made["id"], patch={"content": STORY.replace("noon", "night")})
    await edit(client, made["id"], content=STORY.replace("dawn", "six"))
    assert (await decide(client, delta, "accept")).json()["to_version"] == 3
    content = (await client.get(f"{BASE}/blobs/{made['id']}")).json()["content"]
    assert content == STORY.replace("noon", "night").replace("dawn", "six")
    late = await propose(client, made["id"], from_version=1, patch={"title": "Late"})
    assert (late["from_version"], late["base_version"]) == (1, 1)
    assert (await decide(client, late, "accept")).json()["to_version"] == 4


async def test_where_it_clashes_accepting_answers_the_conflicts_and_changes_nothing(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    delta = await propose(client, made["id"], patch={"content": STORY.replace("noon", "night"), "title": "T"})
    await edit(client, made["id"], content=STORY.replace("noon", "dusk"))
    found = problem(await decide(client, delta, "accept"), 409, "merge_conflict")
    assert "last_write_wins" in found["hint"]
    assert "last_write_wins" in found["detail"]
    [conflict] = found["conflicts"]
    assert (conflict["base"], conflict["ours"], conflict["theirs"]) == ("noon", "dusk", "night")
    assert (found["current_version"], found["from_version"]) == (2, 1)
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["version"] == 2
    problem(await decide(client, delta, "accept", on_conflict="shout"), 422, "invalid_value", "/query/on_conflict")


async def test_on_conflict_says_which_side_an_accepted_proposal_takes(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    patch = {"content": STORY.replace("noon", "night"), "title": "T"}
    first, second = [await propose(client, made["id"], patch=patch) for _ in range(2)]
    await edit(client, made["id"], content=STORY.replace("noon", "dusk"))
    merged = (await decide(client, first, "accept", on_conflict="merge")).json()
    assert (merged["to_version"], len(merged["conflicts"])) == (3, 1)
    blob = (await client.get(f"{BASE}/blobs/{made['id']}")).json()
    assert (blob["title"], "dusk" in blob["content"]) == ("T", True)
    offers = (await client.get(f"{BASE}/blobs/{made['id']}/deltas?status=proposed")).json()["data"]
    assert {offer["caused_by"] for offer in offers} == {None, first["id"]}
    assert (await decide(client, second, "accept", on_conflict="last_write_wins")).json()["to_version"] == 4
    assert "night" in (await client.get(f"{BASE}/blobs/{made['id']}")).json()["content"]
    [lost] = (await client.get(f"{BASE}/blobs/{made['id']}/deltas?status=rejected")).json()["data"]
    assert "dusk" in str(lost["patch"])


async def test_a_proposal_that_says_what_is_there_already_is_settled_without_a_version(
    client: httpx2.AsyncClient,
) -> None:
    made = await make(client, content="noon")
    delta = await propose(client, made["id"], patch={"content": "night"})
    await edit(client, made["id"], content="night")
    answer = await decide(client, delta, "accept")
    assert (answer.status_code, answer.json()["status"]) == (200, "rejected")
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["version"] == 2


async def test_somebody_elses_proposals_do_not_exist(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    made = await make(client)
    delta = await propose(client, made["id"], patch={"title": "T"})
    for how in ("accept", "reject"):
        problem(await decide(stranger, delta, how), 404, "not_found")
        problem(await client.post(f"{BASE}/deltas/{NOWHERE}/{how}"), 404, "not_found")
    problem(await append(stranger, made["id"], patch={}, proposed=True), 404, "not_found")
    await client.delete(f"{BASE}/blobs/{made['id']}")
    problem(await decide(client, delta, "accept"), 410, "deleted")
    problem(await append(client, made["id"], patch={"title": "T"}, proposed=True), 410, "deleted")


async def test_a_proposal_repeated_with_its_key_is_made_once(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    answers = [
        await client.post(
            f"{BASE}/blobs/{made['id']}/deltas",
            json={"patch": {"title": "T"}, "proposed": True},
            headers={"Idempotency-Key": "once"},
        )
        for _ in range(2)
    ]
    assert answers[0].content == answers[1].content
    listed = (await client.get(f"{BASE}/blobs/{made['id']}/deltas?status=proposed")).json()["data"]
    assert len(listed) == 1


async def test_however_many_accept_it_at_once_it_is_applied_once(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    delta = await propose(client, made["id"], patch={"title": "T"})
    answers = await asyncio.gather(*(decide(client, delta, "accept") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["version"] == 2


async def test_accepting_while_others_write_loses_neither(client: httpx2.AsyncClient) -> None:
    made = await make(client, data={"a": 0})
    deltas = [await propose(client, made["id"], patch={"data": {f"offer{n}": n}}) for n in range(5)]
    writes = [append(client, made["id"], patch={"data": {f"edit{n}": n}}) for n in range(10)]
    answers = await asyncio.gather(*writes, *(decide(client, delta, "accept") for delta in deltas))
    assert {answer.status_code for answer in answers} == {200, 201}
    data = (await client.get(f"{BASE}/blobs/{made['id']}")).json()["data"]
    assert data == {"a": 0, **{f"offer{n}": n for n in range(5)}, **{f"edit{n}": n for n in range(10)}}


async def test_of_accepting_and_rejecting_at_once_one_happens(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    delta = await propose(client, made["id"], patch={"title": "T"})
    answers = await asyncio.gather(*(decide(client, delta, how) for how in ("accept", "reject") * 5))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [409] * 5
    version = (await client.get(f"{BASE}/blobs/{made['id']}")).json()["version"]
    status = (await client.get(f"{BASE}/deltas/{delta['id']}")).json()["status"]
    assert (version, status) in {(1, "rejected"), (2, "applied")}


async def test_a_retry_finds_its_proposal_though_the_blob_was_deleted(
    client: httpx2.AsyncClient, user: Person, admin: Any
) -> None:
    made = await make(client, content="one")
    headers, body = {"idempotency-key": "lost"}, {"patch": {"title": "T"}, "proposed": True}
    url = f"{BASE}/blobs/{made['id']}/deltas"
    first = await client.post(url, json=body, headers=headers)
    assert first.status_code == 201, first.text
    gone = await client.delete(f"{BASE}/blobs/{made['id']}")
    assert gone.status_code == 204
    # The answer was lost before it was recorded: the attempt died behind its effect.
    await admin.execute("delete from idempotency_keys where user_id = $1 and key = 'lost'", user.user_id)
    again = await client.post(url, json=body, headers=headers)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"]), again.text
