"""A cascade whose history grows long continues as new with its children in flight; each run is carried out once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, WorkflowHandle

import worker
from api.app import create_app
from devstack.stack import Stack
from settings import Settings, load_settings
from storage.database import Database
from tests.conftest import client_of, new_person
from tests.workflows.conftest import CALL, Studio, TextService
from tests.workflows.replays import kept
from workflows.contracts import RING

HISTORY_MAX, WINDOW, PROVIDERS = 40, 3, 6
WINDOW_EVENTS_MAX = 60
"""What children of one window, their ends and their doorbells can add before the history is seen to be long."""


@pytest.fixture(scope="module")
def bounded(settings: Settings, engine_stack: Stack) -> Callable[[Mapping[str, str]], Settings]:
    """Settings with a short history and a narrow window, for another database and task queue."""

    def make(urls: Mapping[str, str]) -> Settings:
        names = ("TEMPORAL", "NATS")
        return load_settings(
            {
                **urls,
                **{name: value for name, value in engine_stack.endpoints.items() if name.startswith(names)},
                "STUDIO__SERVICES__TEST__URL": settings.services["test"].url,
                "STUDIO__RELAY__POLL_INTERVAL": "200ms",
                "STUDIO__WORKFLOW__TASK_QUEUE": "long-cascades",
                "STUDIO__CASCADES__HISTORY_MAX": str(HISTORY_MAX),
                "STUDIO__CASCADES__WINDOW": str(WINDOW),
            }
        )

    return make


@pytest_asyncio.fixture
async def narrow(
    make_database: Callable[..., Awaitable[Mapping[str, str]]], bounded: Callable[[Mapping[str, str]], Settings]
) -> AsyncIterator[tuple[Studio, Database]]:
    """A Studio of its own with these settings."""
    urls = await make_database()
    settings = bounded(urls)
    database = await Database.connect(urls["DATABASE_URL"], size_max=2)
    application = create_app(settings)
    async with worker.running(settings), application.router.lifespan_context(application):
        person = await new_person(database)
        async with client_of(application, person.headers) as http:
            yield Studio(http, person), database
    await database.close()


async def histories_of(temporal: Client, workflow_id: str, run_id: str | None) -> list[list[Any]]:
    """The history of this run of a workflow, and of every one that it continued as."""
    histories = []
    while run_id:
        handle: WorkflowHandle[Any, Any] = temporal.get_workflow_handle(workflow_id, run_id=run_id)
        events = list((await handle.fetch_history()).events)
        histories.append(events)
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return histories


async def test_work_in_flight_outlives_the_history_that_began_it(
    narrow: tuple[Studio, Database], temporal: Client, text_service: TextService
) -> None:
    studio, database = narrow
    for number in range(PROVIDERS):
        await studio.provider(f"call-{number}", "in-v1", f"out{number}-v1", CALL)
    before = len(text_service.calls)
    text_service.gate.clear()
    blob = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "a"}, "title": "Draft"})
    await text_service.asked(before + WINDOW)
    handle = temporal.get_workflow_handle(f"cascade:{blob['cascade_id']}")
    first = (await handle.describe()).run_id
    async with asyncio.timeout(20):
        while (await handle.describe()).run_id == first:
            await handle.signal(RING, 0)
    text_service.gate.set()
    await studio.settled(blob["id"])
    await handle.result()

    calls = text_service.calls[before:]
    assert len(calls) == len(set(calls)) == PROVIDERS
    ended = await database.rows(studio.user.user_id, "select status, attempt, count(*) from runs group by 1, 2")
    assert [tuple(row) for row in ended] == [("settled", 1, PROVIDERS)]
    await kept(temporal.get_workflow_handle(handle.id, run_id=first), "cascade-continued")
    histories = await histories_of(temporal, handle.id, first)
    assert len(histories) > 1
    assert max(map(len, histories)) <= HISTORY_MAX + WINDOW_EVENTS_MAX
    # The next run knew what was in flight: it did not try to start again what was there.
    kinds = [event.WhichOneof("attributes") for history in histories for event in history]
    assert kinds.count("start_child_workflow_execution_initiated_event_attributes") == PROVIDERS
    assert "start_child_workflow_execution_failed_event_attributes" not in kinds
