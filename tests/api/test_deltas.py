"""A blob's history over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import jsonpatch
import pytest

from tests.api.requests import edit, make, problem
from tests.conftest import BASE

DELTA_FIELDS = {
    "id", "blob_id", "from_version", "to_version", "operation", "patch", "inverse", "status", "actor", "provider_id",
    "run_id", "cascade_id", "caused_by", "previous_delta", "created_at", "applied_at", "document_hash",
    "content_hash", "machine_hash", "base_hash", "conflicts", "inputs", "error", "base_version", "resolved_at",
    "resolved_by",
}  # fmt: skip


async def test_deltas_tell_who_did_what_and_lead_from_one_version_to_the_next(
    client: httpx2.AsyncClient, user: object
) -> None:
    made = await make(client, data={"a": 1})
    await edit(client, made["id"], data={"b": 2})
    deltas = (await client.get(f"{BASE}/blobs/{made['id']}/deltas")).json()["data"]
    assert [(d["operation"], d["from_version"], d["to_version"]) for d in deltas] == [
        ("create", 0, 1),
        ("update", 1, 2),
    ]
    assert all(delta.keys() == DELTA_FIELDS for delta in deltas)
    assert deltas[1]["previous_delta"] == deltas[0]["id"]
    assert {delta["actor"] for delta in deltas} == {f"user:{user.user_id}"}  # type: ignore[attr-defined]
    one = await client.get(f"{BASE}/deltas/{deltas[1]['id']}")
    assert one.json() == deltas[1]


async def test_a_client_can_replay_the_deltas_itself(client: httpx2.AsyncClient) -> None:
    made = await make(client, data={"a": 1}, title="T")
    await edit(client, made["id"], data={"b": [1, 2]})
    await edit(client, made["id"], data={"a": None}, title="U")
    deltas = (await client.get(f"{BASE}/blobs/{made['id']}/deltas")).json()["data"]
    document: Any = None
    for delta in deltas:
        document = jsonpatch.apply_patch(document, delta["patch"])
    assert (document["data"], document["title"]) == ({"b": [1, 2]}, "U")
    for delta in reversed(deltas[1:]):
        document = jsonpatch.apply_patch(document, delta["inverse"])
    assert (document["data"], document["title"]) == ({"a": 1}, "T")


async def test_history_and_versions_are_pages_oldest_first(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    for n in range(5):
        await edit(client, made["id"], content=f"edit {n}")
    for listing in ("history", "versions", "deltas"):
        seen: list[int] = []
        url = f"{BASE}/blobs/{made['id']}/{listing}?limit=4"
        while url:
            page = await client.get(url)
            seen += [row.get("version", row.get("to_version")) for row in page.json()["data"]]
            url = page.headers["link"].partition(">")[0].lstrip("<") if "link" in page.headers else ""
        assert seen == [1, 2, 3, 4, 5, 6]


async def test_one_version_reads_like_the_blob_at_that_version(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    await edit(client, made["id"], content="two")
    by_path = await client.get(f"{BASE}/blobs/{made['id']}/versions/1")
    by_query = await client.get(f"{BASE}/blobs/{made['id']}?version=1")
    assert by_path.json() == by_query.json()
    assert by_path.json()["content_url"].endswith("?version=1")
    assert by_path.headers["etag"] == '"v1"'
    problem(await client.get(f"{BASE}/blobs/{made['id']}/versions/9"), 404, "not_found")
    problem(await client.get(f"{BASE}/blobs/{made['id']}/versions/0"), 404, "not_found")
    problem(await client.get(f"{BASE}/blobs/{made['id']}/versions/x"), 422, "invalid_value", "/path/version")


@pytest.mark.parametrize(
    ("query", "code", "pointer"),
    [
        ("status=maybe", "invalid_value", "/query/status"),
        ("from_version=-1", "invalid_value", "/query/from_version"),
        ("limit=0", "invalid_value", "/query/limit"),
        ("limit=201", "invalid_value", "/query/limit"),
        ("colour=1", "unknown_field", "/query/colour"),
    ],
)
async def test_a_bad_query_names_its_parameter(client: httpx2.AsyncClient, query: str, code: str, pointer: str) -> None:
    made = await make(client)
    problem(await client.get(f"{BASE}/blobs/{made['id']}/deltas?{query}"), 422, code, pointer)


async def test_an_unknown_delta_is_404(client: httpx2.AsyncClient) -> None:
    problem(await client.get(f"{BASE}/deltas/01890a5d-ac96-774b-bcce-b302099a8057"), 404, "not_found")
