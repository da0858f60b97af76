from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from storage.database import Database
from tests.workflows.conftest import CALL, INLINE, Studio, TextService
from workflows.contracts import CascadeInput


def by_provider(graph: dict[str, Any]) -> dict[str | None, dict[str, Any]]:
    return {node["provider_id"]: node for node in graph["nodes"]}


async def create(studio: Studio, schema: str, text: str = "a") -> Any:
    return await studio.post("/blobs", {"schema_id": schema, "data": {"text": text}, "title": "Draft"})


async def test_an_edit_flows_through_inline_and_workflow_providers(studio: Studio, text_service: TextService) -> None:
    await studio.provider("first", "in-v1", "mid-v1", INLINE)
    await studio.provider("second", "mid-v1", "out-v1", CALL)
    await studio.provider("third", "out-v1", "end-v1", INLINE)
    blob = await create(studio, "in-v1")
    nodes = by_provider(await studio.settled(blob["id"]))
    assert {node["state"] for node in nodes.values()} == {"source", "fresh"}
    end = await studio.get(f"/blobs/{nodes['third']['blob_id']}")
    assert end["data"] == {"text": "<a!>!"}
    assert end["title"] == "Draft"
    await studio.http.patch(
        f"/api/v1/studio/blobs/{blob['id']}", json={"delta": {"operation": "update", "patch": {"data": {"text": "b"}}}}
    )
    await studio.settled(blob["id"])
    end = await studio.get(f"/blobs/{end['id']}")
    assert (end["data"], end["version"]) == ({"text": "<b!>!"}, 2)


async def test_an_edit_that_changes_nothing_below_is_cut_off(studio: Studio, database: Database) -> None:
    same = {"id": "same", "type": "computation", "operations": [{"text": "'constant'"}, {"n": "len($.data.text)"}]}
    await studio.provider("flat", "in-v1", "flat-v1", same)
    await studio.provider("after", "flat-v1", "end-v1", INLINE)
    blob = await create(studio, "in-v1")
    await studio.settled(blob["id"])
    await studio.http.patch(
        f"/api/v1/studio/blobs/{blob['id']}", json={"delta": {"operation": "update", "patch": {"data": {"text": "b"}}}}
    )
    nodes = by_provider(await studio.settled(blob["id"]))
    assert (nodes["flat"]["version"], nodes["after"]["version"]) == (1, 1)
    runs = await database.rows(studio.user.user_id, "select provider_id, count(*) from runs group by 1 order by 1")
    assert [tuple(row) for row in runs] == [("after", 1), ("flat", 2)]


async def test_a_service_that_recovers_is_asked_again_under_the_same_key(
    studio: Studio, text_service: TextService
) -> None:
    await studio.provider("caller", "in-v1", "out-v1", CALL)
    before = len(text_service.calls)
    text_service.answers[:] = [503, 429]
    blob = await create(studio, "in-v1")
    nodes = by_provider(await studio.settled(blob["id"]))
    keys = text_service.calls[before:]
    assert nodes["caller"]["state"] == "fresh"
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_a_failed_run_blocks_what_is_below_and_nothing_else(
    studio: Studio, text_service: TextService, database: Database, temporal: Client
) -> None:
    await studio.provider("breaks", "in-v1", "mid-v1", CALL)
    await studio.provider("below", "mid-v1", "end-v1", INLINE)
    await studio.provider("beside", "in-v1", "side-v1", INLINE)
    text_service.answers[:] = [400]
    blob = await create(studio, "in-v1")
    nodes = by_provider(await studio.settled(blob["id"]))
    assert {name: node["state"] for name, node in nodes.items()} == {
        None: "source", "breaks": "failed", "below": "blocked", "beside": "fresh",
    }  # fmt: skip
    assert nodes["below"]["blocked_by"] == [nodes["breaks"]["blob_id"]]
    cascade = await studio.get(f"/cascades/{blob['cascade_id']}")
    assert cascade["status"] == "partial"
    run = (await studio.get(f"/runs?cascade_id={blob['cascade_id']}&status=failed"))["data"][0]
    assert run["error"]["code"] == "service_rejected"
    found = await temporal.get_workflow_handle(run["temporal"]["workflow_id"]).describe()
    assert found.status == WorkflowExecutionStatus.FAILED
    letters = await database.rows(studio.user.user_id, "select code from dead_letters")
    assert [row["code"] for row in letters] == ["service_rejected"]


async def test_what_a_person_reads_in_temporal(studio: Studio, temporal: Client) -> None:
    await studio.provider("named", "in-v1", "out-v1", CALL)
    blob = await create(studio, "in-v1")
    await studio.settled(blob["id"])
    run = (await studio.get(f"/runs?cascade_id={blob['cascade_id']}"))["data"][0]
    handle = temporal.get_workflow_handle(run["temporal"]["workflow_id"])
    found = await handle.describe()
    attributes = {pair.key.name: pair.value for pair in found.typed_search_attributes}
    assert attributes == {
        "StudioUser": str(studio.user.user_id),
        "StudioBlob": blob["id"],
        "StudioProvider": "named",
        "StudioCascade": blob["cascade_id"],
        "StudioOutcome": "settled",
    } | {name: value for name, value in attributes.items() if not name.startswith("Studio")}
    assert await found.static_summary() == "Named 'Draft' v1"
    history = await handle.fetch_history()
    scheduled = [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert scheduled == ["ask-service"]
    assert b'"text"' not in history.to_json().encode()


async def events_of(temporal: Client, workflow_id: str, kind: str) -> int:
    """How often an event of this kind stands in the history of the newest run of a workflow."""
    history = await temporal.get_workflow_handle(workflow_id).fetch_history()
    return sum(event.HasField(f"{kind}_event_attributes") for event in history.events)  # type: ignore[arg-type]


async def more_events(temporal: Client, workflow_id: str, kind: str, than: int) -> None:
    """Wait until the history has more events of this kind."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(RPCError):  # the relay may not have started it yet
                if await events_of(temporal, workflow_id, kind) > than:
                    return
            await asyncio.sleep(0.01)


async def test_a_cascade_started_again_asks_once_for_each_child_that_runs_already(
    studio: Studio, text_service: TextService, temporal: Client
) -> None:
    await studio.provider("slow", "in-v1", "out-v1", CALL)
    text_service.answers[:] = [503, 503]  # three seconds in which the child is under way
    blob = await create(studio, "in-v1")
    cascade = f"cascade:{blob['cascade_id']}"
    await more_events(temporal, cascade, "child_workflow_execution_started", 0)
    await temporal.get_workflow_handle(cascade).terminate("as if it were lost")
    cause = CascadeInput(user_id=str(studio.user.user_id), cascade_id=blob["cascade_id"])
    again = await temporal.start_workflow("Cascade", cause, id=cascade, task_queue="studio-providers")
    for ring in range(1, 4):
        looked = await events_of(temporal, cascade, "marker_recorded")
        await again.signal("ring", ring)
        await more_events(temporal, cascade, "marker_recorded", looked)
    await studio.settled(blob["id"])
    await again.result()
    assert await events_of(temporal, cascade, "start_child_workflow_execution_failed") == 1
    assert len((await studio.get(f"/runs?cascade_id={blob['cascade_id']}"))["data"]) == 1
