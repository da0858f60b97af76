"""Events over HTTP: CloudEvents in their order, a cursor that resumes, and never somebody else's."""

import base64
from typing import Any

import httpx2
import pytest

from domain.cursors import event_cursor
from domain.ids import new_id
from tests.api.requests import edit, make, problem
from tests.conftest import BASE, Person


async def page(client: httpx2.AsyncClient, **params: Any) -> dict[str, Any]:
    answer = await client.get(f"{BASE}/events", params=params)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_event_is_a_cloud_event_without_content(client: httpx2.AsyncClient, user: Person) -> None:
    blob = await make(client, content="a secret sentence")
    created, applied = (await page(client))["data"]
    assert created["specversion"] == "1.0"
    assert created["type"] == "ai.memmie.studio.blob.created.v1"
    assert created["source"] == f"/users/{user.user_id}/studio"
    assert created["subject"] == f"blobs/{blob['id']}"
    assert created["time"].endswith("Z")
    assert (created["datacontenttype"], created["userid"]) == ("application/json", str(user.user_id))
    assert created["correlationid"] == blob["cascade_id"]
    assert (created["data"]["blob_id"], created["data"]["version"]) == (blob["id"], 1)
    assert applied["type"] == "ai.memmie.studio.delta.applied.v1"
    assert "secret" not in str(created) + str(applied)


async def test_a_cursor_goes_on_where_it_stopped_however_much_later(client: httpx2.AsyncClient) -> None:
    blob = await make(client)
    first = await page(client, limit=1)
    assert (len(first["data"]), first["has_more"]) == (1, True)
    second = await page(client, limit=1, cursor=first["next_cursor"])
    assert (len(second["data"]), second["has_more"]) == (1, False)
    nothing = await page(client, cursor=second["next_cursor"])
    assert (nothing["data"], nothing["has_more"], nothing["next_cursor"]) == ([], False, second["next_cursor"])
    await edit(client, blob["id"], title="later")
    new = await page(client, cursor=nothing["next_cursor"])
    assert [event["type"].split(".")[-3:-1] for event in new["data"]] == [["blob", "updated"], ["delta", "applied"]]
    whole = [event["id"] for event in (await page(client))["data"]]
    assert [event["id"] for event in first["data"] + second["data"] + new["data"]] == whole
    sequences = [int(event["sequence"]) for event in (await page(client))["data"]]
    assert sequences == list(range(1, 5))


async def test_a_cursor_resumes_under_other_filters_and_limits(client: httpx2.AsyncClient) -> None:
    blob = await make(client)
    cursor = (await page(client, limit=1))["next_cursor"]
    await edit(client, blob["id"], title="later")
    updated = await page(client, cursor=cursor, type="blob.updated")
    assert len(updated["data"]) == 1
    full = await page(client, cursor=cursor, type="ai.memmie.studio.blob.updated.v1")
    assert full["data"] == updated["data"]


async def test_types_and_subjects_filter(client: httpx2.AsyncClient) -> None:
    one, two = await make(client), await make(client)
    created = await page(client, type="blob.created")
    assert [event["data"]["blob_id"] for event in created["data"]] == [one["id"], two["id"]]
    answer = await client.get(f"{BASE}/events", params=[("type", "blob.created"), ("type", "delta.applied")])
    assert len(answer.json()["data"]) == 4
    of_two = await page(client, subject=f"blobs/{two['id']}")
    assert [event["data"]["blob_id"] for event in of_two["data"]] == [two["id"]]
    problem(await client.get(f"{BASE}/events", params={"type": "blob.eaten"}), 422, "invalid_value", "/query/type")
    problem(await client.get(f"{BASE}/events", params={"colour": "red"}), 422, "unknown_field", "/query/colour")
    problem(await client.get(f"{BASE}/events", params={"limit": "0"}), 422, "invalid_value", "/query/limit")


async def test_a_cursor_of_another_installation_asks_to_start_again(
    client: httpx2.AsyncClient, user: Person, app: Any
) -> None:
    secret = app.state.ports.cursors.secret
    elsewhere = event_cursor(new_id(), secret, user.user_id, 1)
    found = problem(await client.get(f"{BASE}/events", params={"cursor": elsewhere}), 410, "resync_required")
    assert "installation" in found["detail"]
    here = event_cursor(app.state.ports.installation_id, secret, user.user_id, 0)
    assert (await page(client, cursor=here))["data"] == []


@pytest.mark.parametrize("cursor", ["", "x", "%00", "A" * 48, "é" * 48, "A" * 5000])
async def test_a_cursor_that_is_none_is_refused(client: httpx2.AsyncClient, cursor: str) -> None:
    answer = await client.get(f"{BASE}/events", params={"cursor": cursor})
    assert answer.status_code in {400, 410}
    assert answer.json()["code"] in {"invalid_cursor", "resync_required"}


async def test_a_cursor_is_bound_to_its_user_and_cannot_be_moved(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient
) -> None:
    await make(client)
    cursor = (await page(client, limit=1))["next_cursor"]
    problem(await stranger.get(f"{BASE}/events", params={"cursor": cursor}), 400, "invalid_cursor")
    raw = bytearray(base64.urlsafe_b64decode(cursor))
    raw[23] ^= 1
    moved = base64.urlsafe_b64encode(raw).decode()
    problem(await client.get(f"{BASE}/events", params={"cursor": moved}), 400, "invalid_cursor")


async def test_nobody_sees_somebody_elses_events(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    blob = await make(client)
    assert (await page(stranger))["data"] == []
    assert (await page(stranger, subject=f"blobs/{blob['id']}"))["data"] == []
