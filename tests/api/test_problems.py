"""Every error is a problem document, and every code has its page."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from starlette.requests import Request

from api.problems import STATUS_BY_CODE, STATUS_BY_ERROR, problem_response, status_of
from domain.errors import CATALOGUE, Conflict, Fault, NotFound, StudioError, Unavailable, VersionConflict
from tests.api.requests import problem
from tests.conftest import BASE, client_of


async def test_unknown_paths_and_methods_are_problems_too(client: httpx2.AsyncClient) -> None:
    problem(await client.get("/nowhere"), 404, "not_found")
    problem(await client.get(f"{BASE}/blobs/"), 404, "not_found")
    refused = await client.put(f"{BASE}/blobs", json={})
    problem(refused, 405, "method_not_allowed")
    assert refused.headers["allow"] == "GET, HEAD, POST"
    one = await client.post(f"{BASE}/blobs/01890a5d-ac96-774b-bcce-b302099a8057", json={})
    assert one.headers["allow"] == "DELETE, GET, HEAD, PATCH"


@pytest.mark.parametrize("code", sorted(CATALOGUE))
async def test_every_code_has_a_page_for_people_and_programs(client: httpx2.AsyncClient, code: str) -> None:
    for_programs = await client.get(f"/problems/{code}")
    assert for_programs.json() == {
        "code": code,
        "title": CATALOGUE[code].title,
        "hint": CATALOGUE[code].hint,
        "retryable": CATALOGUE[code].retryable,
    }
    for_people = await client.get(f"/problems/{code}", headers={"accept": "text/html"})
    assert for_people.headers["content-type"].startswith("text/html")
    assert code in for_people.text


async def test_the_list_of_codes_is_the_catalogue(client: httpx2.AsyncClient) -> None:
    listed = (await client.get("/problems")).json()["data"]
    assert [entry["code"] for entry in listed] == list(CATALOGUE)
    problem(await client.get("/problems/nonsense"), 404, "not_found")


async def test_the_type_of_a_problem_is_an_address_that_answers(client: httpx2.AsyncClient) -> None:
    found = (await client.get("/nowhere")).json()
    assert (await client.get(found["type"])).json()["code"] == found["code"]


async def test_a_bug_is_500_with_its_request_id_and_without_its_secrets(app: Any, user: Any) -> None:
    async def broken() -> None:
        raise RuntimeError("password=hunter2")

    app.add_api_route("/broken", broken)
    try:
        async with client_of(app, user.headers) as client:
            answer = await client.get("/broken")
    finally:
        app.router.routes.pop()
    found = problem(answer, 500, "internal")
    assert found["retryable"] is True
    assert "hunter2" not in answer.text


def test_every_error_class_has_a_status_and_every_named_code_exists() -> None:
    assert set(StudioError.__subclasses__()) == set(STATUS_BY_ERROR)
    assert set(STATUS_BY_CODE) <= set(CATALOGUE)
    assert status_of(VersionConflict("")) == 409
    assert status_of(VersionConflict("", code="precondition_failed")) == 412
    assert status_of(StudioError("", code="integrity")) == 500


def request() -> Request:
    scope = {
        "type": "http", "method": "GET", "path": "/x", "headers": [(b"host", b"h")], "query_string": b"",
        "scheme": "http", "server": ("h", 80), "root_path": "", "state": {"request_id": "r"},
    }  # fmt: skip
    return Request(scope)


def test_members_become_headers_where_http_has_one() -> None:
    later = problem_response(request(), Conflict("", code="idempotency_key_in_flight", members={"retry_after": 3}))
    assert later.headers["retry-after"] == "3"
    assert problem_response(request(), Unavailable("")).headers["retry-after"] == "1"
    moved = problem_response(request(), VersionConflict("", members={"current_etag": '"v3"'}))
    assert moved.headers["etag"] == '"v3"'
    assert problem_response(request(), NotFound("", faults=[Fault("/a", "not_found", "b")])).status_code == 404
