"""Differences over HTTP, as spans."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from api.shapes import Compared
from tests.api.requests import edit, make, problem
from tests.conftest import BASE

STORY = "The ship sailed at dawn. It was cold.\n\nThe storm came at noon."


async def diff(client: httpx2.AsyncClient, blob_id: str, query: str = "") -> Any:
    answer = await client.get(f"{BASE}/blobs/{blob_id}/diff{query}")
    assert answer.status_code == 200, answer.text
    Compared.model_validate(answer.json())
    return answer.json()


def changed(compared: Any) -> list[tuple[str, str, str]]:
    """What the spans of the only text say, without what is equal."""
    [field] = compared["fields"]
    return [
        (span["op"], span["before"]["text"], span["after"]["text"]) for span in field["spans"] if span["op"] != "equal"
    ]


async def test_a_diff_is_of_the_newest_version_and_the_one_before(client: httpx2.AsyncClient) -> None:
    made = await make(client, content=STORY)
    await edit(client, made["id"], content=STORY.replace("noon", "night"))
    found = await diff(client, made["id"])
    assert (found["left"]["version"], found["right"]["version"], found["unit"], found["equal"]) == (1, 2, "word", False)
    assert found["fields"][0]["pointer"] == "/content"
    assert changed(found) == [("replace", "noon", "night")]
    assert (await diff(client, made["id"], "?from=2&to=2"))["equal"]
    back = await diff(client, made["id"], "?from=2&to=1")
    assert changed(back) == [("replace", "night", "noon")]


@pytest.mark.parametrize(
    ("unit", "before"),
    [("word", "noon"), ("sentence", "The storm came at noon."), ("paragraph", "The storm came at noon.")],
)
async def test_the_unit_says_how_much_a_span_covers(client: httpx2.AsyncClient, unit: str, before: str) -> None:
    made = await make(client, content=STORY)
    await edit(client, made["id"], content=STORY.replace("noon", "night"))
    assert changed(await diff(client, made["id"], f"?unit={unit}"))[0][1] == before


async def test_the_only_version_differs_from_nothing(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    found = await diff(client, made["id"])
    assert (found["equal"], found["left"]["version"], found["right"]["version"]) == (True, 1, 1)


async def test_two_blobs_are_compared_each_at_its_version(client: httpx2.AsyncClient) -> None:
    one = await make(client, data={"a": 1, "b": [1]})
    two = await make(client, data={"a": 2, "b": [1]})
    await edit(client, two["id"], data={"a": 3})
    url = f"{BASE}/compare"
    now = (await client.get(url, params={"left": one["id"], "right": two["id"]})).json()
    then = (await client.get(url, params={"left": one["id"], "right": f"{two['id']}@1"})).json()
    assert [(f["pointer"], f["before"], f["after"]) for f in now["fields"]] == [("/data/a", 1, 3)]
    assert [(f["pointer"], f["before"], f["after"]) for f in then["fields"]] == [("/data/a", 1, 2)]
    assert then["right"] == {"blob_id": two["id"], "version": 1, "title": ""}


@pytest.mark.parametrize(
    ("query", "status", "code", "pointer"),
    [
        ("?unit=letter", 422, "invalid_value", "/query/unit"),
        ("?from=x", 422, "invalid_value", "/query/from"),
        ("?to=0", 422, "invalid_value", "/query/to"),
        ("?to=9", 404, "not_found", None),
        ("?from=9", 404, "not_found", None),
    ],
)
async def test_a_bad_diff_names_its_parameter(
    client: httpx2.AsyncClient, query: str, status: int, code: str, pointer: str | None
) -> None:
    made = await make(client)
    problem(await client.get(f"{BASE}/blobs/{made['id']}/diff{query}"), status, code, pointer)


async def test_a_bad_comparison_names_its_side(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    made = await make(client)
    own = made["id"]
    url = f"{BASE}/compare"
    problem(await client.get(url, params={"left": own}), 422, "missing_field", "/query/right")
    problem(await client.get(url, params={"left": "x", "right": own}), 422, "invalid_id", "/query/left")
    for wrong in (f"{own}@", f"{own}@x"):
        answer = await client.get(url, params={"left": own, "right": wrong})
        problem(answer, 422, "invalid_value", "/query/right")
    problem(await client.get(url, params={"left": own, "right": f"{own}@9"}), 404, "not_found")
    problem(await stranger.get(url, params={"left": own, "right": own}), 404, "not_found")
