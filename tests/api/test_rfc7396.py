"""Merge Patch over HTTP: the whole appendix A of RFC 7396 on documents at ``/data``, by media type and by envelope."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from domain.canonical import canonical
from tests.api.requests import MERGE_PATCH, make, problem
from tests.conftest import BASE, Person

APPENDIX_A: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]
"""But for the row whose patch is null: within an object null removes, see below."""
MORE: list[tuple[Any, Any, Any]] = [
    ({"a": 1}, {"b": None}, {"a": 1}),
    ({"a": {"b": {"c": {"d": 1}}}}, {"a": {"b": {"c": {"d": None, "e": 2}}}}, {"a": {"b": {"c": {"e": 2}}}}),
    ({"a": [None, {"x": 1}]}, {"a": [None, {"x": None}]}, {"a": [None, {"x": None}]}),
    ({"a": 1}, {"a": {}}, {"a": {}}),
    ({"a": {"b": 1}}, {"a": {}}, {"a": {"b": 1}}),
    ({"a": {"b": None}}, {"a": {"c": 1}}, {"a": {"b": None, "c": 1}}),
    ({"": 1, "a/b": 2, "~": 3}, {"": None, "a/b": 4, "~": None}, {"a/b": 4}),
    ("text", {"a": None}, {}),
    (1, 1.0, 1.0),
    ({"a": 2**63}, {"b": -0.0}, {"a": 2**63, "b": -0.0}),
]


def request(form: str, patch: Any) -> dict[str, Any]:
    """The same change in either form."""
    if form == "envelope":
        return {"json": {"delta": {"operation": "update", "patch": patch}}}
    return {"json": patch, "headers": {"content-type": MERGE_PATCH, "if-match": '"v1"'}}


@pytest.mark.parametrize("form", ["media type", "envelope"])
@pytest.mark.parametrize(
    ("document", "patch", "after"),
    [*APPENDIX_A, *MORE],
    ids=[f"A-{number}" for number in range(len(APPENDIX_A))] + [f"more-{number}" for number in range(len(MORE))],
)
async def test_a_merge_patch_applies_as_the_rfc_says(
    client: httpx2.AsyncClient, form: str, document: Any, patch: Any, after: Any
) -> None:
    made = await make(client, data=document, content_type="application/json", title="Before")
    url = f"{BASE}/blobs/{made['id']}"
    answer = await client.patch(url, **request(form, {"data": patch}))
    assert answer.status_code == 200, answer.text
    assert answer.json()["version"] == (1 if canonical(document) == canonical(after) else 2)
    assert (await client.get(f"{url}/content")).content == canonical(after)
    assert (await client.get(f"{url}/content", params={"version": 1})).content == canonical(document)
    assert answer.json()["title"] == "Before"


@pytest.mark.parametrize("form", ["media type", "envelope"])
async def test_null_removes_so_that_the_body_cannot_become_null(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, form: str
) -> None:
    """The appendix's remaining row, ``{"a": "foo"}`` and ``null``: here a document would be left without a body."""
    made = await make(client, data={"a": "foo"}, content_type="application/json")
    before = await count_rows(user.user_id)
    answer = await client.patch(f"{BASE}/blobs/{made['id']}", **request(form, {"data": None}))
    inside = "/delta/patch" if form == "envelope" else ""
    found = problem(answer, 422, "invalid_request", f"{inside}/data")
    assert [fault["code"] for fault in found["errors"]] == ["missing_field"]
    assert await count_rows(user.user_id) == before


@pytest.mark.parametrize("form", ["media type", "envelope"])
@pytest.mark.parametrize("patch", [["c"], None, "bar", 1, True], ids=["array", "null", "text", "number", "true"])
async def test_a_document_stays_an_object(
    client: httpx2.AsyncClient, user: Person, count_rows: Any, form: str, patch: Any
) -> None:
    made = await make(client, data={"a": "foo"}, content_type="application/json")
    before = await count_rows(user.user_id)
    answer = await client.patch(f"{BASE}/blobs/{made['id']}", **request(form, patch))
    # httpx sends no body at all for json=None, which is no JSON text.
    assert answer.status_code == (400 if patch is None and form == "media type" else 422)
    assert await count_rows(user.user_id) == before


@pytest.mark.parametrize("form", ["media type", "envelope"])
async def test_null_gives_a_field_its_default_and_leaves_the_others(client: httpx2.AsyncClient, form: str) -> None:
    body = {"title": "Before", "tags": ["a"], "metadata": {"k": {"n": 1}, "l": 2}}
    made = await make(client, data=1, content_type="application/json", **body)
    patch = {"title": None, "tags": ["b"], "metadata": {"k": {"n": None}}}
    answer = await client.patch(f"{BASE}/blobs/{made['id']}", **request(form, patch))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["title"], found["tags"], found["metadata"]) == ("", ["b"], {"k": {}, "l": 2})


@pytest.mark.parametrize("form", ["media type", "envelope"])
async def test_what_is_immutable_may_be_repeated_but_not_changed(client: httpx2.AsyncClient, form: str) -> None:
    made = await make(client, data=1, content_type="application/json")
    inside = "/delta/patch" if form == "envelope" else ""
    url = f"{BASE}/blobs/{made['id']}"
    assert (await client.patch(url, **request(form, {"content_type": "application/json"}))).status_code == 200
    for patch in ({"content_type": "text/plain"}, {"content_type": None}, {"schema_id": "text-v1"}):
        name = next(iter(patch))
        problem(await client.patch(url, **request(form, patch)), 422, "immutable_field", f"{inside}/{name}")
    assert (await client.get(url)).json()["version"] == 1
