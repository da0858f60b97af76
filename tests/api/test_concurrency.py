"""Many writers at once, over a real socket: nobody's words are lost, whatever the policy."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import uvicorn

from tests.api.requests import MERGE_PATCH, edit, envelope, make, problem
from tests.conftest import BASE, Person

WRITERS = 50
STORY = "The ship sailed at dawn.\n\nThe storm came at noon.\n\nNobody slept that night."


@pytest_asyncio.fixture(scope="session")
async def api_url(app: Any) -> AsyncIterator[str]:
    """The application behind a socket of its own."""
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_config=None)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    serving = asyncio.create_task(server.main_loop())
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving
    await server.shutdown()


@pytest_asyncio.fixture
async def http(api_url: str, user: Person) -> AsyncIterator[httpx2.AsyncClient]:
    """A client over the socket, with a connection for each writer."""
    limits = httpx2.Limits(max_connections=WRITERS)
    async with httpx2.AsyncClient(base_url=api_url, headers=user.headers, limits=limits, timeout=60) as made:
        yield made


async def put(http: httpx2.AsyncClient, blob_id: str, text: str, version: int, policy: str | None = None) -> Any:
    """Replace a blob's text, of which ``version`` was known."""
    query = "" if policy is None else f"?on_conflict={policy}"
    headers = {"If-Match": f'"v{version}"', "content-type": "text/plain"}
    return await http.put(f"{BASE}/blobs/{blob_id}/content{query}", content=text.encode(), headers=headers)


async def text_of(http: httpx2.AsyncClient, blob_id: str) -> str:
    return str((await http.get(f"{BASE}/blobs/{blob_id}")).json()["content"])


async def deltas_of(http: httpx2.AsyncClient, blob_id: str, status: str) -> list[dict[str, Any]]:
    answer = await http.get(f"{BASE}/blobs/{blob_id}/deltas?status={status}&limit=200")
    return list(answer.json()["data"])


# --- reject ---------------------------------------------------------------------------------------------------------


async def test_of_fifty_writers_on_one_version_one_wins_and_the_others_hear_what_changed(
    http: httpx2.AsyncClient, user: Person
) -> None:
    made = await make(http, content=STORY)
    answers = await asyncio.gather(*(put(http, made["id"], f"{STORY}\n\nWriter {n}.", 1) for n in range(WRITERS)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * (WRITERS - 1)
    for answer in answers:
        if answer.status_code == 412:
            found = problem(answer, 412, "precondition_failed")
            [change] = found["changes"]
            assert (change["version"], change["operation"], change["actor"]) == (2, "update", f"user:{user.user_id}")
            assert (change["pointers"], change["provider_id"]) == (["/content"], None)
            assert change["at"].endswith("+00:00")
            assert found["deltas_url"].endswith(f"/blobs/{made['id']}/deltas?from_version=1")
    assert len(await deltas_of(http, made["id"], "any")) == 2


async def test_a_stale_envelope_hears_the_newest_twenty_changes_newest_last(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="0")
    for n in range(25):
        await edit(client, made["id"], content=f"{n + 1}", title=f"T{n}")
    body = {"delta": {"operation": "update", "patch": {"content": "mine"}, "from_version": 3}}
    found = problem(await client.patch(f"{BASE}/blobs/{made['id']}", json=body), 409, "version_conflict")
    assert [change["version"] for change in found["changes"]] == list(range(7, 27))
    assert found["changes"][-1]["pointers"] == ["/content", "/title"]


# --- merge ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["end", "beginning", "between"])
async def test_fifty_writers_who_each_add_a_paragraph_all_find_it_in_the_document(
    http: httpx2.AsyncClient, place: str
) -> None:
    made = await make(http, content=STORY)

    def with_mine(n: int) -> str:
        mine, paragraphs = f"Writer {n} was here.", STORY.split("\n\n")
        paragraphs.insert({"end": 3, "beginning": 0, "between": 1}[place], mine)
        return "\n\n".join(paragraphs)

    answers = await asyncio.gather(*(put(http, made["id"], with_mine(n), 1, "merge") for n in range(WRITERS)))
    assert {answer.status_code for answer in answers} == {200}
    assert not [answer.json() for answer in answers if "conflicts" in answer.json()]
    paragraphs = (await text_of(http, made["id"])).split("\n\n")
    assert sorted(paragraphs) == sorted([*STORY.split("\n\n"), *(f"Writer {n} was here." for n in range(WRITERS))])
    assert len(await deltas_of(http, made["id"], "applied")) == WRITERS + 1


async def test_fifty_writers_who_each_set_a_field_all_find_it_in_the_document(http: httpx2.AsyncClient) -> None:
    made = await make(http, data={"shared": 0})

    async def write(n: int) -> httpx2.Response:
        headers = {"If-Match": '"v1"', "content-type": MERGE_PATCH}
        url = f"{BASE}/blobs/{made['id']}?on_conflict=merge"
        return await http.patch(url, json={"data": {f"field-{n}": n}}, headers=headers)

    answers = await asyncio.gather(*(write(n) for n in range(WRITERS)))
    assert {answer.status_code for answer in answers} == {200}
    data = (await http.get(f"{BASE}/blobs/{made['id']}")).json()["data"]
    assert data == {"shared": 0, **{f"field-{n}": n for n in range(WRITERS)}}


async def test_two_writers_of_one_paragraph_both_keep_their_words(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    await put(client, made["id"], STORY.replace("The storm", "The great storm"), 1)
    answer = await put(client, made["id"], STORY.replace("at noon", "in the evening"), 1, "merge")
    assert (answer.status_code, answer.json()["version"], "conflicts" in answer.json()) == (200, 3, False)
    assert answer.json()["content"] == STORY.replace("The storm came at noon", "The great storm came in the evening")


async def test_two_writers_of_one_word_get_a_conflict_as_data_that_accepting_resolves(
    client: httpx2.AsyncClient,
) -> None:
    made = await make(client, content=STORY)
    await put(client, made["id"], STORY.replace("noon", "night"), 1)
    answer = await put(client, made["id"], STORY.replace("noon", "dusk").replace("dawn", "six"), 1, "merge")
    written = answer.json()
    [conflict] = written["conflicts"]
    assert (conflict["base"], conflict["ours"], conflict["theirs"]) == ("noon", "night", "dusk")
    assert written["content"][conflict["start"] : conflict["end"]] == "night"
    assert written["content"] == STORY.replace("noon", "night").replace("dawn", "six")
    [offer] = await deltas_of(client, made["id"], "proposed")
    assert (offer["id"], offer["base_version"], offer["conflicts"]) == (
        written["proposed_delta"], 1, written["conflicts"],
    )  # fmt: skip
    [_, _, applied] = await deltas_of(client, made["id"], "applied")
    assert (applied["conflicts"], applied["base_version"]) == (written["conflicts"], 1)
    accepted = await client.post(f"{BASE}/deltas/{offer['id']}/accept")
    assert (accepted.status_code, accepted.headers["etag"], accepted.json()["status"]) == (200, '"v4"', "applied")
    assert await text_of(client, made["id"]) == STORY.replace("noon", "dusk").replace("dawn", "six")
    assert await deltas_of(client, made["id"], "proposed") == []


async def test_a_write_that_only_conflicts_makes_no_version_but_is_kept(client: httpx2.AsyncClient) -> None:
    made = await make(client, content="noon")
    await put(client, made["id"], "night", 1)
    answer = await put(client, made["id"], "dusk", 1, "merge")
    assert (answer.status_code, answer.json()["version"], answer.json()["content"]) == (200, 2, "night")
    [offer] = await deltas_of(client, made["id"], "proposed")
    assert offer["id"] == answer.json()["proposed_delta"]
    assert "dusk" in str(offer["patch"])


async def test_the_envelope_asks_for_a_merge_too(client: httpx2.AsyncClient) -> None:
    made = await make(client, data={"a": 1, "b": 1})
    await edit(client, made["id"], data={"a": 2})
    body = envelope(data={"b": 2})
    body["delta"] |= {"from_version": 1, "on_conflict": "merge"}
    answer = await client.patch(f"{BASE}/blobs/{made['id']}", json=body)
    assert (answer.status_code, answer.json()["data"]) == (200, {"a": 2, "b": 2})
    body["delta"]["on_conflict"] = "shout"
    problem(await client.patch(f"{BASE}/blobs/{made['id']}", json=body), 422, "invalid_value", "/delta/on_conflict")
    bad = await put(client, made["id"], "{}", 1, "shout")
    assert bad.status_code in {415, 422}


async def test_a_merge_that_the_schema_refuses_is_one_conflict_and_the_document_stays_valid(
    client: httpx2.AsyncClient,
) -> None:
    definition = {"type": "object", "maxProperties": 2, "x-on-conflict": "merge"}
    registered = await client.post(f"{BASE}/schemas", json={"name": "pair", "definition": definition})
    assert registered.status_code == 201, registered.text
    made = await make(client, data={"a": 1}, schema_id="pair-v1")
    for name in ("b", "c"):
        headers = {"If-Match": '"v1"', "content-type": MERGE_PATCH}
        answer = await client.patch(f"{BASE}/blobs/{made['id']}", json={"data": {name: 1}}, headers=headers)
        assert answer.status_code == 200, answer.text
    assert answer.json()["data"] == {"a": 1, "b": 1}
    assert answer.json()["conflicts"]
    [offer] = await deltas_of(client, made["id"], "proposed")
    accepted = await client.post(f"{BASE}/deltas/{offer['id']}/accept")
    assert accepted.status_code == 200, accepted.text
    assert (await client.get(f"{BASE}/blobs/{made['id']}")).json()["data"] == {"a": 1, "c": 1}


# --- last write wins ------------------------------------------------------------------------------------------------


async def test_the_last_write_wins_and_what_it_overwrote_stays_as_a_rejected_delta(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY, title="A", tags=["x"])
    await edit(client, made["id"], content="First.", tags=["y"])
    headers = {"If-Match": '"v1"', "content-type": MERGE_PATCH}
    url = f"{BASE}/blobs/{made['id']}?on_conflict=last_write_wins"
    answer = (await client.patch(url, json={"content": "Last.", "title": "B"}, headers=headers)).json()
    assert (answer["version"], answer["content"], answer["title"], answer["tags"]) == (3, "Last.", "B", ["y"])
    [lost] = await deltas_of(client, made["id"], "rejected")
    assert (lost["id"], "First." in str(lost["patch"])) == (answer["rejected_delta"], True)
    assert lost["resolved_at"] is not None
    assert [conflict["pointer"] for conflict in answer["conflicts"]] == ["/content"]
    problem(await client.post(f"{BASE}/deltas/{lost['id']}/accept"), 409, "already_decided")


# --- bases that do not exist, retries --------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["merge", "last_write_wins"])
async def test_a_base_that_never_was_is_refused_and_nothing_is_written(
    client: httpx2.AsyncClient, user: Any, count_rows: Any, policy: str
) -> None:
    made = await make(client, content=STORY)
    before = await count_rows(user.user_id)
    problem(await put(client, made["id"], "x", 9, policy), 422, "unknown_version", "/header/if-match")
    body = {"delta": {"operation": "update", "patch": {"content": "x"}, "from_version": 9, "on_conflict": policy}}
    url = f"{BASE}/blobs/{made['id']}"
    problem(await client.patch(url, json=body), 422, "unknown_version", "/delta/from_version")
    assert await count_rows(user.user_id) == before


async def test_a_merge_repeated_with_its_key_answers_the_same_and_is_done_once(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    await put(client, made["id"], STORY.replace("noon", "night"), 1)
    headers = {"If-Match": '"v1"', "content-type": "text/plain", "Idempotency-Key": "merge-once"}
    url, body = f"{BASE}/blobs/{made['id']}/content?on_conflict=merge", STORY.replace("noon", "dusk").encode()
    first, again = [await client.put(url, content=body, headers=headers) for _ in range(2)]
    assert again.content == first.content
    assert len(await deltas_of(client, made["id"], "any")) == 3


# --- nothing is lost ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
async def test_every_token_that_a_random_writer_inserts_is_somewhere(client: httpx2.AsyncClient, seed: int) -> None:
    """Writers of text with any policy but reject: in the document, in a proposed delta or in a rejected one."""
    chance = random.Random(seed)
    made = await make(client, content=STORY)
    versions = [STORY]
    tokens: list[str] = []

    async def write(n: int, known: int, text: str, policy: str) -> None:
        answer = await put(client, made["id"], text, known, policy)
        assert answer.status_code == 200, answer.text

    for turn in range(4):
        batch = []
        for n in range(5):
            token = f"token{turn}x{n}"
            tokens.append(token)
            known = chance.randint(max(1, len(versions) - 3), len(versions))
            policy = chance.choice(["merge", "last_write_wins"])
            batch.append(write(n, known, scribbled(chance, versions[known - 1], token), policy))
        await asyncio.gather(*batch)
        rows = await deltas_of(client, made["id"], "applied")
        versions = [
            (await client.get(f"{BASE}/blobs/{made['id']}?version={row['to_version']}")).json()["content"]
            for row in rows
        ]
    kept = versions[-1] + str(await deltas_of(client, made["id"], "proposed"))
    kept += str(await deltas_of(client, made["id"], "rejected")) + " ".join(versions)
    assert [token for token in tokens if token not in kept] == []
    lost = [token for token in tokens if token not in versions[-1]]
    aside = str(await deltas_of(client, made["id"], "proposed")) + str(await deltas_of(client, made["id"], "rejected"))
    assert [token for token in lost if token not in aside] == []


def scribbled(chance: random.Random, text: str, token: str) -> str:
    """A text with a token of one's own somewhere: a new paragraph, a word more, a word instead of another."""
    paragraphs = text.split("\n\n")
    place = chance.randrange(len(paragraphs))
    words = paragraphs[place].split(" ")
    roll = chance.random()
    if roll < 0.3:
        paragraphs.insert(place, f"A paragraph of {token}.")
    elif roll < 0.6:
        words.insert(chance.randrange(len(words) + 1), token)
        paragraphs[place] = " ".join(words)
    else:
        fixed = [index for index, word in enumerate(words) if "token" not in word] or [0]
        index = chance.choice(fixed)
        words[index] = token if "token" not in words[index] else f"{words[index]} {token}"
        paragraphs[place] = " ".join(words)
    return "\n\n".join(paragraphs)


@pytest.mark.parametrize("how", ["content", "upload", "delete", "revert"])
async def test_every_stale_write_says_what_changed(client: httpx2.AsyncClient, how: str) -> None:
    octets = {"content-type": "application/octet-stream"}
    blob = (await client.post(f"{BASE}/blobs", content=b"\0", headers=octets)).json()
    url, stale = f"{BASE}/blobs/{blob['id']}", {"if-match": '"v1"'}
    moved = await client.put(f"{url}/content", content=b"\1", headers=octets | stale)
    assert moved.status_code == 200, moved.text
    if how == "content":
        answer = await client.put(f"{url}/content", content=b"\2", headers=octets | stale)
    elif how == "upload":
        begin = {"content_type": octets["content-type"], "blob_id": blob["id"]}
        answer = await client.post(f"{BASE}/uploads", json=begin, headers=stale)
    elif how == "delete":
        answer = await client.delete(url, headers=stale)
    else:
        answer = await client.post(f"{url}/{how}", json={"version": 1}, headers=stale)
    found = problem(answer, 412, "precondition_failed")
    assert [change["version"] for change in found["changes"]] == [2]
