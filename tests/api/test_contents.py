"""Content by itself: of any size, exactly the bytes."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.api.requests import edit, make, problem
from tests.conftest import BASE

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
