"""Queries at the edge of what there is: instants, numbers, signatures."""

from __future__ import annotations

import httpx2
import pytest

from tests.api.requests import make, problem
from tests.conftest import BASE

OCTETS = {"content-type": "application/octet-stream"}


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"], ids=["before", "after"])
async def test_an_instant_outside_of_our_time_is_refused(client: httpx2.AsyncClient, at: str) -> None:
    made = await make(client)
    problem(await client.get(f"{BASE}/blobs/{made['id']}", params={"at": at}), 422, "invalid_value", "/query/at")


@pytest.mark.parametrize(("at", "status"), [("0001-01-01T00:00:00Z", 404), ("9999-12-31T23:59:59Z", 200)])
async def test_the_first_and_the_last_instant_are_instants(client: httpx2.AsyncClient, at: str, status: int) -> None:
    made = await make(client)
    assert (await client.get(f"{BASE}/blobs/{made['id']}", params={"at": at})).status_code == status


@pytest.mark.parametrize(
    ("metadata", "code"),
    [('{"a":123456789012345678901234567890}', "number_out_of_range"), ('{"a":1e400}', "number_out_of_range"),
     ("{", "invalid_value"), ('{"a":"\\ud800"}', "invalid_value")],
    ids=["long", "infinite", "no-json", "half-a-character"],
)  # fmt: skip
async def test_metadata_of_a_query_is_read_as_strictly_as_a_body(
    client: httpx2.AsyncClient, metadata: str, code: str
) -> None:
    answer = await client.post(f"{BASE}/blobs", params={"metadata": metadata}, content=b"x", headers=OCTETS)
    found = answer.json()
    assert (answer.status_code, found["errors"][0]["pointer"]) == (422, "/query/metadata"), found
    assert found["errors"][0]["code"] == code


@pytest.mark.parametrize(
    "query",
    ["version=1&user=x&expires=1&signature=%ff", "signature=", "version=%C2%B2&user=x&expires=%C2%B2&signature=x"],
    ids=["no-text", "nothing", "superscript"],
)
async def test_an_odd_signature_opens_nothing(client: httpx2.AsyncClient, query: str) -> None:
    made = await make(client)
    problem(await client.get(f"{BASE}/blobs/{made['id']}/content?{query}"), 403, "signature_invalid")


@pytest.mark.parametrize("headers", [OCTETS, {"content-type": "application/json"}], ids=["raw", "json"])
async def test_a_create_does_not_lose_a_misspelt_parameter(client: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    answer = await client.post(f"{BASE}/blobs?tagg=film", content=b'{"content": "x"}', headers=headers)
    problem(answer, 422, "unknown_field", "/query/tagg")
    assert (await client.get(f"{BASE}/blobs")).json()["data"] == []


async def test_what_a_json_body_says_is_no_parameter(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{BASE}/blobs?tag=film", json={"content": "x"})
    problem(answer, 422, "unknown_field", "/query/tag")


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
async def test_no_write_ignores_a_parameter_that_it_does_not_have(client: httpx2.AsyncClient, method: str) -> None:
    made = await make(client)
    answer = await client.request(method, f"{BASE}/blobs/{made['id']}?verson=1")
    problem(answer, 422, "unknown_field", "/query/verson")
