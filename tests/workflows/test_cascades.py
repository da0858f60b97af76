from __future__ import annotations

from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus

from storage.database import Database
from tests.workflows.conftest import CALL, INLINE, Studio, TextService


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
