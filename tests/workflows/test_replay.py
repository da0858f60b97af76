"""Recorded histories of every feature replay on today's code; where one does not, the failure says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client

from tests.workflows.changed import ImpatientCascade, PatchedCascade
from tests.workflows.conftest import CALL, INLINE, Studio, TextService
from tests.workflows.replays import HISTORIES, Unreplayable, kept, recorded, replays

RECORDED = sorted(HISTORIES.glob("*.json"))
CASCADES = [path for path in RECORDED if path.stem.startswith("cascade")]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    await replays(recorded(path), path.stem)


def test_there_are_recorded_histories() -> None:
    names = {
        "cascade-with-children",
        "cascade-inline",
        "cascade-continued",
        "cascade-of-wholes",
        "run-settled",
        "run-whole",
        "run-failed",
        "run-parked",
        "run-resumed",
        "run-cancelled",
        "cascade-cancelled",
        "housekeeping",
    }
    assert {path.stem for path in RECORDED} >= names


@pytest.mark.parametrize("path", CASCADES, ids=lambda path: path.stem)
async def test_commands_that_change_are_noticed_and_the_failure_says_what_to_do(path: Path) -> None:
    with pytest.raises(Unreplayable) as noticed:
        await replays(recorded(path), path.stem, workflows=[ImpatientCascade])
    explained = str(noticed.value)
    assert path.stem in explained
    assert 'if workflow.patched("' in explained
    assert "STUDIO_RECORD_HISTORIES=1" in explained
    assert "ondeterminis" in explained  # and what Temporal says
    await replays(recorded(path), path.stem, workflows=[PatchedCascade])


async def test_histories_made_now_replay(studio: Studio, temporal: Client, text_service: TextService) -> None:
    await studio.provider("calls", "in-v1", "mid-v1", CALL)
    await studio.provider("shouts", "mid-v1", "end-v1", INLINE)
    blob = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "a"}, "title": "Draft"})
    await studio.settled(blob["id"])
    lonely = await studio.post("/blobs", {"schema_id": "mid-v1", "data": {"text": "a"}, "title": "Draft"})
    await studio.settled(lonely["id"])
    text_service.answers[:] = [400]
    failing = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "b"}, "title": "Draft"})
    await studio.settled(failing["id"])
    runs = {
        cause["id"]: (await studio.get(f"/runs?cascade_id={cause['cascade_id']}&provider_id=calls"))["data"][0]
        for cause in (blob, failing)
    }
    made = {
        "cascade-with-children": f"cascade:{blob['cascade_id']}",
        "cascade-inline": f"cascade:{lonely['cascade_id']}",
        "run-settled": runs[blob["id"]]["temporal"]["workflow_id"],
        "run-failed": runs[failing["id"]]["temporal"]["workflow_id"],
    }
    for name, workflow_id in made.items():
        await kept(temporal.get_workflow_handle(workflow_id), name)


async def test_a_run_that_was_carried_out_as_a_whole_replays(studio: Studio, temporal: Client) -> None:
    await studio.provider("whole", "in-v1", "mid-v1", INLINE, execution="workflow")
    blob = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "a"}, "title": "Draft"})
    await studio.settled(blob["id"])
    [run] = (await studio.get(f"/runs?cascade_id={blob['cascade_id']}"))["data"]
    assert (run["status"], [step["status"] for step in (await studio.get(f"/runs/{run['id']}"))["steps"]]) == (
        "settled",
        ["done", "done"],
    )
    history = await kept(temporal.get_workflow_handle(run["temporal"]["workflow_id"]), "run-whole")
    kinds = [event.event_type for event in history.events]
    await kept(temporal.get_workflow_handle(f"cascade:{blob['cascade_id']}"), "cascade-of-wholes")
    assert kinds.count(EventType.EVENT_TYPE_MARKER_RECORDED) == 1
    assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED) == 1
