"""Budgets over HTTP: whole micro-dollars, versions, whose they are."""

from __future__ import annotations

from typing import Any

import httpx2

from domain.keys import SCOPES
from tests.api.requests import problem
from tests.conftest import BASE, Person, client_of

URL = f"{BASE}/budget"


async def put(client: httpx2.AsyncClient, limit: Any, match: str = "*") -> httpx2.Response:
    return await client.put(URL, json={"limit": limit}, headers={"if-match": match})


async def test_without_a_budget_nothing_is_limited(client: httpx2.AsyncClient) -> None:
    found = await client.get(URL)
    assert found.headers["etag"] == '"v1"'
    assert found.json() == {
        "id": None, "limit": None, "spent": 0, "reserved": 0, "remaining": None, "unit": "micro_usd", "managed": False,
        "blocked": {"derivations": 0, "needed": 0}, "version": 1, "updated_at": None,
    }  # fmt: skip
    problem(await client.post(f"{URL}/top-up", json={"amount": 1}), 409, "no_budget")


async def test_a_limit_is_set_raised_and_taken_away(client: httpx2.AsyncClient) -> None:
    problem(await client.put(URL, json={"limit": 5}), 428, "precondition_required")
    made = await put(client, 5_000_000, '"v1"')
    assert (made.json()["limit"], made.headers["etag"]) == (5_000_000, '"v2"')
    problem(await put(client, 1, '"v1"'), 412, "precondition_failed")
    raised = (await client.post(f"{URL}/top-up", json={"amount": 1_000_000})).json()
    assert (raised["limit"], raised["remaining"], raised["resumed"], raised["cascade_id"]) == (
        6_000_000,
        6_000_000,
        0,
        None,
    )
    assert (await put(client, None)).json()["limit"] is None
    events = (await client.get(f"{BASE}/events?type=budget.topped_up")).json()["data"]
    assert [event["data"]["limit"] for event in events] == [6_000_000, None]


async def test_amounts_are_whole_and_bounded(client: httpx2.AsyncClient) -> None:
    for wrong in (-1, 1.5, "5", 10**16):
        assert (await put(client, wrong)).status_code == 422
    await put(client, 10**15)
    problem(await client.post(f"{URL}/top-up", json={"amount": 1}), 422, "invalid_request", "/amount")
    assert (await client.post(f"{URL}/top-up", json={"amount": 0})).status_code == 422


async def test_what_an_admin_has_set_only_an_admin_changes(
    app: Any, client: httpx2.AsyncClient, user: Person, make_user: Any
) -> None:
    chief = await make_user(SCOPES)
    async with client_of(app, chief.headers) as as_chief:
        limits = f"{BASE}/users/{user.user_id}/limits"
        answer = await as_chief.put(limits, json={"budget_limit": 7})
        assert (answer.json()["budget"]["limit"], answer.json()["budget"]["managed"]) == (7, True)
        problem(await put(client, 100), 403, "budget_managed")
        problem(await client.post(f"{URL}/top-up", json={"amount": 1}), 403, "budget_managed")
        assert (await as_chief.put(limits, json={"budget_limit": None})).is_success
    assert (await put(client, 100)).json()["managed"] is False


async def test_charges_are_listed_and_filtered(client: httpx2.AsyncClient) -> None:
    assert (await client.get(f"{URL}/charges?limit=1")).json() == {"data": [], "next_cursor": None, "has_more": False}
    problem(await client.get(f"{URL}/charges?run_id=x"), 422, "invalid_id", "/query/run_id")
