"""Decisions, with a real Temporal: approved across a restart, cancelled while a service hangs, ended by operators."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from temporalio.client import Client, WorkflowExecutionStatus

import worker
from settings import Settings
from tests.workflows.conftest import CALL, INLINE, Studio, TextService
from tests.workflows.replays import kept
from tests.workflows.test_provider_runs import create, runs, until
from tests.workflows.test_reconcile import reconcile

REVIEW = {"id": "review", "type": "approval", "prompt": "Is {{ $.text }} fit to be read?"}


@pytest_asyncio.fixture
async def closed(text_service: TextService) -> AsyncIterator[TextService]:
    """The service takes calls and does not answer until the test opens its gate."""
    text_service.gate.clear()
    yield text_service
    text_service.gate.set()


async def ended(temporal: Client, workflow_id: str, status: WorkflowExecutionStatus) -> None:
    """Wait until a workflow has ended so."""
    handle = temporal.get_workflow_handle(workflow_id)

    async def so() -> bool:
        return (await handle.describe()).status == status

    await until(so)


async def is_run(studio: Studio, status: str, number: int = -1) -> Any:
    """Wait until the newest run, or another, has this status; return it."""

    async def so() -> bool:
        found = await runs(studio)
        return bool(found) and bool(found[number]["status"] == status)

    await until(so)
    return (await runs(studio))[number]


async def test_an_approval_outlives_the_worker_and_the_run_goes_on_under_its_id(
    studio: Studio, temporal: Client, text_service: TextService, settings: Settings
) -> None:
    await studio.provider("reviewed", "in-v1", "out-v1", CALL, REVIEW)
    before = len(text_service.calls)
    blob = await create(studio)
    run = await is_run(studio, "parked")
    workflow_id = run["temporal"]["workflow_id"]
    await ended(temporal, workflow_id, WorkflowExecutionStatus.COMPLETED)
    await ended(temporal, f"cascade:{blob['cascade_id']}", WorkflowExecutionStatus.COMPLETED)
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "partial"
    await kept(temporal.get_workflow_handle(workflow_id), "run-parked")
    [waiting] = (await studio.get("/approvals"))["data"]
    assert (waiting["run_id"], waiting["prompt"]) == (run["id"], "Is <a> fit to be read?")
    async with worker.running(settings):  # a second one, which knows nothing of what was
        await studio.post(f"/runs/{run['id']}/approve", {"step_id": "review"})
        await studio.settled(blob["id"])
    [after] = await runs(studio)
    assert (after["id"], after["status"], len(text_service.calls)) == (run["id"], "settled", before + 1)
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "completed"
    history = await kept(temporal.get_workflow_handle(workflow_id), "run-resumed")
    assert b"fit to be read" not in history.to_json().encode()


async def test_a_cancelled_run_ends_its_workflow_though_its_service_never_answers(
    studio: Studio, temporal: Client, closed: TextService
) -> None:
    await studio.provider("hangs", "in-v1", "mid-v1", CALL)
    await studio.provider("below", "mid-v1", "end-v1", INLINE, origin="any")
    before = len(closed.calls)
    blob = await create(studio)
    await closed.asked(before + 1)
    [run] = await runs(studio)
    await studio.post(f"/runs/{run['id']}/cancel", None)
    await ended(temporal, run["temporal"]["workflow_id"], WorkflowExecutionStatus.CANCELED)
    graph = await studio.settled(blob["id"])
    states = {node["provider_id"]: node["state"] for node in graph["nodes"]}
    assert (states["hangs"], states["below"]) == ("cancelled", "blocked")
    await ended(temporal, f"cascade:{blob['cascade_id']}", WorkflowExecutionStatus.COMPLETED)
    closed.gate.set()
    await studio.post(f"/cascades/{blob['cascade_id']}/retry", None)
    graph = await studio.settled(blob["id"])
    assert {node["state"] for node in graph["nodes"]} == {"source", "fresh"}


async def test_whoever_cancels_in_temporal_is_heard(studio: Studio, temporal: Client, closed: TextService) -> None:
    await studio.provider("stops", "in-v1", "out-v1", CALL)
    before = len(closed.calls)
    blob = await create(studio)
    await closed.asked(before + 1)
    [run] = await runs(studio)
    await temporal.get_workflow_handle(run["temporal"]["workflow_id"]).cancel()
    await is_run(studio, "cancelled")
    await ended(temporal, run["temporal"]["workflow_id"], WorkflowExecutionStatus.CANCELED)
    await studio.post(f"/runs/{run['id']}/retry", None)
    await closed.asked(before + 2)
    await temporal.get_workflow_handle(f"cascade:{blob['cascade_id']}").cancel()
    second = await is_run(studio, "cancelled")
    assert second["id"] != run["id"]
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "cancelled"
    await ended(temporal, second["temporal"]["workflow_id"], WorkflowExecutionStatus.CANCELED)
    await kept(temporal.get_workflow_handle(second["temporal"]["workflow_id"]), "run-cancelled")
    await kept(temporal.get_workflow_handle(f"cascade:{blob['cascade_id']}"), "cascade-cancelled")


async def test_what_was_terminated_while_nobody_watched_is_found_without_waiting_for_its_lease(
    studio: Studio, temporal: Client, closed: TextService, admin: Any
) -> None:
    await studio.provider("killed", "in-v1", "out-v1", CALL)
    before = len(closed.calls)
    blob = await create(studio)
    await closed.asked(before + 1)
    [run] = await runs(studio)
    cascade = f"cascade:{blob['cascade_id']}"
    await temporal.get_workflow_handle(cascade).terminate("the cascade's workflow first")
    await temporal.get_workflow_handle(run["temporal"]["workflow_id"]).terminate("then the run's")
    await admin.execute("update cascades set rung_at = now() - interval '3 seconds' where user_id = $1",
                        studio.user.user_id)  # fmt: skip

    async def noticed() -> bool:
        await reconcile(temporal)
        return bool((await runs(studio))[0]["status"] == "failed")

    await until(noticed)
    await studio.settled(blob["id"])
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "partial"
