"""Whatever is lost in Temporal, PostgreSQL knows what is open: it is rung, or lost and run again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from tests.workflows.conftest import CALL, INLINE, Studio, TextService
from tests.workflows.test_provider_runs import create, runs, until
from workflows.contracts import RECONCILE_SCHEDULE_ID


@pytest_asyncio.fixture
async def closed(text_service: TextService) -> AsyncIterator[TextService]:
    """The service takes calls and does not answer until the test opens its gate."""
    text_service.gate.clear()
    yield text_service
    text_service.gate.set()


async def delete(temporal: Client, workflow_id: str) -> None:
    """Let Temporal forget a workflow, as after a restore of its database."""
    await temporal.workflow_service.delete_workflow_execution(
        DeleteWorkflowExecutionRequest(
            namespace=temporal.namespace, workflow_execution=WorkflowExecution(workflow_id=workflow_id)
        )
    )

    async def gone() -> bool:
        try:
            await temporal.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            return error.status == RPCStatusCode.NOT_FOUND
        return False

    await until(gone)


async def reconcile(temporal: Client) -> None:
    """Let the schedule run now, and wait for its pass."""
    handle = temporal.get_schedule_handle(RECONCILE_SCHEDULE_ID)
    before = (await handle.describe()).info.num_actions
    await handle.trigger()

    async def done() -> bool:
        info = (await handle.describe()).info
        return info.num_actions > before and not info.running_actions

    await until(done)


async def long_ago(admin: Any, studio: Studio) -> None:
    """As if everything of this user had been rung, and every lease been given, hours ago."""
    user = studio.user.user_id
    await admin.execute("update cascades set rung_at = now() - interval '2 hours' where user_id = $1", user)
    await admin.execute(
        "update runs set lease_until = now() - interval '1 hour' where user_id = $1 and status = 'running'", user
    )


async def test_a_cascade_whose_workflow_was_terminated_goes_on_when_its_run_ends(
    studio: Studio, temporal: Client, closed: TextService
) -> None:
    await studio.provider("calls", "in-v1", "mid-v1", CALL)
    await studio.provider("below", "mid-v1", "out-v1", INLINE, origin="any")
    before = len(closed.calls)
    blob = await create(studio)
    await closed.asked(before + 1)
    handle = temporal.get_workflow_handle(f"cascade:{blob['cascade_id']}")
    await handle.terminate("lost")
    closed.gate.set()
    graph = await studio.settled(blob["id"])
    assert {node["state"] for node in graph["nodes"]} == {"source", "fresh"}
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "completed"
    await handle.result()  # the newest run with this id, which records its end after PostgreSQL
    assert (await handle.describe()).status == WorkflowExecutionStatus.COMPLETED
    assert len(closed.calls) == before + 1


async def test_a_cascade_that_waits_for_a_time_and_is_forgotten_is_rung_by_reconcile(
    studio: Studio, temporal: Client, admin: Any
) -> None:
    await studio.provider("later", "in-v1", "out-v1", INLINE, debounce={"quiet": "10m", "max_wait": "20m"})
    blob = await create(studio)

    async def waits() -> bool:
        graph = await studio.get(f"/cascades/{blob['cascade_id']}")
        return bool(graph["status"] == "running")

    await until(waits)
    await delete(temporal, f"cascade:{blob['cascade_id']}")
    await admin.execute("update derivations set run_after = now() where user_id = $1", studio.user.user_id)
    await long_ago(admin, studio)
    await reconcile(temporal)
    await studio.settled(blob["id"])
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "completed"


async def test_a_run_that_temporal_has_forgotten_is_lost_and_run_again(
    studio: Studio, temporal: Client, admin: Any, closed: TextService
) -> None:
    await studio.provider("forgotten", "in-v1", "out-v1", CALL)
    before = len(closed.calls)
    blob = await create(studio)
    await closed.asked(before + 1)
    [run] = await runs(studio)
    await delete(temporal, f"cascade:{blob['cascade_id']}")
    await delete(temporal, run["temporal"]["workflow_id"])
    # Its lease is not over: it might be alive.
    await reconcile(temporal)
    assert [found["status"] for found in await runs(studio)] == ["running"]
    await long_ago(admin, studio)
    await reconcile(temporal)
    await closed.asked(before + 2)
    closed.gate.set()
    graph = await studio.settled(blob["id"])
    assert {node["state"] for node in graph["nodes"]} == {"source", "fresh"}
    first, second = await runs(studio)
    assert (first["status"], second["status"]) == ("lost", "settled")
    assert second["attempt"] == 2
    made = next(node for node in graph["nodes"] if node["provider_id"] == "forgotten")
    assert (made["version"], (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"]) == (1, "completed")


async def test_a_run_that_is_alive_is_left_alone_even_if_its_lease_is_over(
    studio: Studio, temporal: Client, admin: Any, closed: TextService
) -> None:
    await studio.provider("alive", "in-v1", "out-v1", CALL)
    before = len(closed.calls)
    blob = await create(studio)
    await closed.asked(before + 1)
    await long_ago(admin, studio)
    await reconcile(temporal)
    closed.gate.set()
    await studio.settled(blob["id"])
    assert [found["status"] for found in await runs(studio)] == ["settled"]
    assert len(closed.calls) == before + 1
