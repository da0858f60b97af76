"""Cascades over HTTP: what was caused, how far it has come, what was folded in."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx2
import pytest

from api.app import create_app
from domain.ids import new_id
from settings import load_settings
from storage.contents import Contents
from storage.database import Database
from storage.schedule import PostgresSchedule
from tests.api.requests import edit, make, problem
from tests.api.schedule import claim, plan_all, schedule_of
from tests.conftest import BASE, Person, client_of
from workflows.contracts import cascade_workflow_id

DRAFT = {"schema_id": "text-input-v1", "data": {"content": "The ship sailed into the storm."}}


@pytest.fixture
def schedule(database: Database, contents: Contents) -> PostgresSchedule:
    return schedule_of(database, contents)


async def get(client: httpx2.AsyncClient, cascade_id: str) -> dict[str, Any]:
    answer = await client.get(f"{BASE}/cascades/{cascade_id}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_cascade_says_its_cause_and_what_was_folded_into_it(client: httpx2.AsyncClient) -> None:
    blob = await make(client, **DRAFT)
    changed = await edit(client, blob["id"], title="Chapter 1")
    assert changed["cascade_id"] == blob["cascade_id"]
    cascade = await get(client, blob["cascade_id"])
    assert (cascade["id"], cascade["cause"], cascade["status"]) == (blob["cascade_id"], "create", "pending")
    assert (cascade["target_id"], cascade["roots"]) == (blob["id"], [blob["id"]])
    assert [(delta["operation"], delta["to_version"]) for delta in cascade["deltas"]] == [("create", 1), ("update", 2)]
    assert (cascade["runs"], cascade["planned_at"], cascade["ended_at"], cascade["superseded_by"]) == (
        [],
        None,
        None,
        None,
    )
    assert cascade["counts"] == dict.fromkeys(
        ("total", "settled", "running", "pending", "failed", "blocked", "cut_off", "taken_over"), 0
    )
    assert cascade["temporal"]["workflow_id"] == cascade_workflow_id(blob["cascade_id"])


async def test_counts_follow_the_schedule_down_to_failed_and_blocked(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blob = await make(client, **DRAFT)
    await plan_all(database, schedule, user.user_id)
    counts = (await get(client, blob["cascade_id"]))["counts"]
    total = counts["total"]
    assert total >= 3  # expansion, style, grammar at least
    assert counts == {**dict.fromkeys(counts, 0), "total": total, "pending": total}
    (run,) = await claim(schedule, user.user_id, blob["cascade_id"])
    cascade = await get(client, blob["cascade_id"])
    assert cascade["counts"] == {**counts, "pending": total - 1, "running": 1}
    assert [(row["id"], row["provider_id"], row["status"]) for row in cascade["runs"]] == [
        (str(run), "text-expansion", "running")
    ]
    await schedule.fail(user.user_id, run, code="service_rejected", detail="No such model.", usage={})
    await claim(schedule, user.user_id, blob["cascade_id"])
    cascade = await get(client, blob["cascade_id"])
    assert cascade["counts"] == {**dict.fromkeys(counts, 0), "total": total, "failed": 1, "blocked": total - 1}
    assert (cascade["status"], cascade["ended_at"] is None) == ("partial", False)
    listed = (await client.get(f"{BASE}/cascades")).json()["data"]
    assert listed[0]["counts"] == cascade["counts"]
    later = await edit(client, blob["id"], data={"content": "The ship sailed out of the storm."})
    await plan_all(database, schedule, user.user_id)
    ended = await get(client, blob["cascade_id"])  # how it ended is history, whoever makes it good
    assert (ended["status"], ended["counts"]) == ("partial", cascade["counts"])
    assert (await get(client, later["cascade_id"]))["counts"]["pending"] == total


async def test_an_edit_that_comes_later_supersedes_in_words_and_in_numbers(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blob = await make(client, **DRAFT)
    await plan_all(database, schedule, user.user_id)
    later = await edit(client, blob["id"], data={"content": "The ship sailed out of the storm."})
    assert later["cascade_id"] != blob["cascade_id"]
    await plan_all(database, schedule, user.user_id)
    await claim(schedule, user.user_id, blob["cascade_id"])
    first = await get(client, blob["cascade_id"])
    assert (first["superseded_by"], first["status"]) == (later["cascade_id"], "superseded")
    total = first["counts"]["total"]
    assert first["counts"] == {**dict.fromkeys(first["counts"], 0), "total": total, "taken_over": total}
    assert (await get(client, later["cascade_id"]))["counts"]["pending"] == first["counts"]["total"]


async def test_the_list_is_newest_first_paged_and_filtered(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blobs = [await make(client, content=f"text number {n}") for n in range(3)]
    expected = [blob["cascade_id"] for blob in reversed(blobs)]
    first = (await client.get(f"{BASE}/cascades", params={"limit": 2})).json()
    second = (await client.get(f"{BASE}/cascades", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [row["id"] for row in first["data"] + second["data"]] == expected
    assert (first["has_more"], second["has_more"]) == (True, False)
    of_one = (await client.get(f"{BASE}/cascades", params={"blob_id": blobs[1]["id"]})).json()["data"]
    assert [row["id"] for row in of_one] == [blobs[1]["cascade_id"]]
    await plan_all(database, schedule, user.user_id)
    await claim(schedule, user.user_id, expected[0])
    done = (await client.get(f"{BASE}/cascades", params={"status": "completed"})).json()["data"]
    assert [row["id"] for row in done] == [expected[0]]
    problem(await client.get(f"{BASE}/cascades", params={"status": "done"}), 422, "invalid_value", "/query/status")
    problem(await client.get(f"{BASE}/cascades", params={"cursor": "x"}), 400, "invalid_cursor")


async def test_waiting_ends_when_the_cascade_closes_or_the_time_is_over(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blob = await make(client)
    url = f"{BASE}/cascades/{blob['cascade_id']}"
    late = await client.get(url, headers={"prefer": "wait=0"})
    assert (late.json()["status"], late.headers["preference-applied"]) == ("pending", "wait=0")
    await plan_all(database, schedule, user.user_id)
    await claim(schedule, user.user_id, blob["cascade_id"])
    closed = await client.get(url, headers={"prefer": "wait=30"})
    assert closed.json()["status"] == "completed"
    assert "preference-applied" not in (await client.get(url)).headers


async def test_somebody_elses_cascade_is_not_there(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    blob = await make(client)
    problem(await stranger.get(f"{BASE}/cascades/{blob['cascade_id']}"), 404, "not_found")
    assert (await stranger.get(f"{BASE}/cascades")).json()["data"] == []
    assert (await stranger.get(f"{BASE}/cascades", params={"blob_id": blob["id"]})).json()["data"] == []
    problem(await client.get(f"{BASE}/cascades/{new_id()}"), 404, "not_found")
    problem(await client.get(f"{BASE}/cascades/seven"), 422, "invalid_id", "/path/cascade_id")
    assert UUID(blob["cascade_id"]).version == 7


async def test_a_cascade_links_to_its_workflow_where_people_can_look(
    user: Person, database_urls: Mapping[str, str]
) -> None:
    given = {**database_urls, "TEMPORAL_UI_URL": "http://temporal.test:8233/", "TEMPORAL_NAMESPACE": "memmie-studio"}
    application = create_app(load_settings(given))
    async with application.router.lifespan_context(application), client_of(application, user.headers) as client:
        blob = await make(client)
        workflow = cascade_workflow_id(blob["cascade_id"])
        link = f"http://temporal.test:8233/namespaces/memmie-studio/workflows/{workflow}"
        assert (await get(client, blob["cascade_id"]))["temporal"] == {"workflow_id": workflow, "ui_url": link}
