"""Runs over HTTP: what ran, on which inputs, into what, how it ended; and the dead letters."""

from typing import Any
from uuid import UUID

import httpx2
import pytest

from domain.ids import new_id
from storage.contents import Contents
from storage.database import Database
from storage.schedule import PostgresSchedule
from tests.api.requests import make, problem
from tests.api.schedule import claim, plan_all, schedule_of
from tests.api.test_cascades import DRAFT
from tests.conftest import BASE, Person


@pytest.fixture
def schedule(database: Database, contents: Contents) -> PostgresSchedule:
    return schedule_of(database, contents)


async def started(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> tuple[dict[str, Any], str]:
    """A draft whose expansion runs: the blob, and the run's id."""
    blob = await make(client, **DRAFT, title="Chapter 1")
    await plan_all(database, schedule, user.user_id)
    (run,) = await claim(schedule, user.user_id, blob["cascade_id"])
    return blob, str(run)


async def test_a_run_names_its_inputs_its_outputs_and_its_workflow(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blob, run_id = await started(client, user, database, schedule)
    run = (await client.get(f"{BASE}/runs/{run_id}")).json()
    assert (run["id"], run["provider_id"], run["status"], run["attempt"]) == (run_id, "text-expansion", "running", 1)
    assert run["cascade_id"] == blob["cascade_id"]
    assert run["anchor"] == {"kind": "blob", "id": blob["id"]}
    assert "Chapter 1" in run["label"]
    assert [(item["blob_id"], item["version"]) for item in run["inputs"]] == [(blob["id"], 1)]
    assert run["inputs"][0]["hash"].startswith("sha256:")
    assert [(item["slot"], item["version"]) for item in run["outputs"]] == [("create-output-blob", None)]
    assert run["temporal"]["workflow_id"] == f"run:text-expansion:{run_id}"
    assert (run["steps"], run["ended_at"], run["duration_ms"], run["error"]) == ([], None, None, None)


async def test_the_steps_of_a_run_are_shown_in_their_order(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    _, run_id = await started(client, user, database, schedule)
    run = (await client.get(f"{BASE}/runs/{run_id}")).json()["id"]
    await schedule.begin_step(user.user_id, UUID(run), "expand-text", 2, "api-call")
    await schedule.begin_step(user.user_id, UUID(run), "analyze-style", 1, "api-call")
    await schedule.fail_step(user.user_id, UUID(run), "expand-text", "service_rejected", "No such model.")
    steps = (await client.get(f"{BASE}/runs/{run_id}")).json()["steps"]
    assert [(step["step_id"], step["status"]) for step in steps] == [
        ("analyze-style", "running"),
        ("expand-text", "failed"),
    ]
    assert steps[1]["error"] == {"code": "service_rejected", "detail": "No such model."}


async def test_runs_are_filtered_by_blob_provider_status_and_cascade(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blob, run_id = await started(client, user, database, schedule)
    other, other_run = await started(client, user, database, schedule)
    output = (await client.get(f"{BASE}/runs/{run_id}")).json()["outputs"][0]["blob_id"]

    async def found(**filters: str) -> list[str]:
        answer = await client.get(f"{BASE}/runs", params=filters)
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()["data"]]

    assert await found() == [other_run, run_id]
    assert await found(blob_id=blob["id"]) == [run_id]
    assert await found(blob_id=output) == [run_id]
    assert await found(cascade_id=other["cascade_id"]) == [other_run]
    assert await found(provider_id="text-expansion") == [other_run, run_id]
    assert await found(provider_id="summarizer") == []
    assert await found(status="running") == [other_run, run_id]
    assert await found(status="failed") == []
    first = (await client.get(f"{BASE}/runs", params={"limit": 1})).json()
    assert await found(limit="1", cursor=first["next_cursor"]) == [run_id]
    problem(await client.get(f"{BASE}/runs", params={"status": "done"}), 422, "invalid_value", "/query/status")
    problem(await client.get(f"{BASE}/runs", params={"colour": "red"}), 422, "unknown_field", "/query/colour")
    problem(await client.get(f"{BASE}/runs", params={"blob_id": "7"}), 422, "invalid_id", "/query/blob_id")


async def test_a_run_that_failed_for_good_says_why_and_is_a_dead_letter_once(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blob, run_id = await started(client, user, database, schedule)
    for _ in range(2):
        await schedule.fail(
            user.user_id, UUID(run_id), code="service_rejected", detail="No such model.", usage={"tokens": 3}
        )
    run = (await client.get(f"{BASE}/runs/{run_id}")).json()
    assert (run["status"], run["error"]["code"], run["usage"]) == ("failed", "service_rejected", {"tokens": 3})
    assert run["duration_ms"] >= 0
    letters = (await client.get(f"{BASE}/dead-letters")).json()["data"]
    assert [(row["run_id"], row["code"], row["detail"]) for row in letters] == [
        (run_id, "service_rejected", "No such model.")
    ]
    assert letters[0]["inputs"][0]["blob_id"] == blob["id"]
    health = (await client.get(f"{BASE}/providers/text-expansion/health")).json()
    assert (health["status"], health["runs"], health["failed"]) == ("failing", 1, 1)
    assert health["last_error"]["code"] == "service_rejected"


async def test_somebody_elses_runs_are_not_there(
    client: httpx2.AsyncClient,
    stranger: httpx2.AsyncClient,
    user: Person,
    database: Database,
    schedule: PostgresSchedule,
) -> None:
    blob, run_id = await started(client, user, database, schedule)
    problem(await stranger.get(f"{BASE}/runs/{run_id}"), 404, "not_found")
    assert (await stranger.get(f"{BASE}/runs")).json()["data"] == []
    assert (await stranger.get(f"{BASE}/runs", params={"blob_id": blob["id"]})).json()["data"] == []
    assert (await stranger.get(f"{BASE}/dead-letters")).json()["data"] == []
    problem(await client.get(f"{BASE}/runs/{new_id()}"), 404, "not_found")
    problem(await client.get(f"{BASE}/runs/seven"), 422, "invalid_id", "/path/run_id")
