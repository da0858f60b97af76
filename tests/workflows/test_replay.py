"""Recorded histories replay on today's code. A failure here means that a workflow's commands changed: put the change
behind ``workflow.patched()``, or running workflows will stop. ``STUDIO_RECORD_HISTORIES=1`` records new ones.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from tests.workflows.conftest import CALL, INLINE, Studio, TextService
from workflows.cascades import Cascade
from workflows.housekeeping import Housekeeping, Reconcile
from workflows.runs import ProviderRun

HISTORIES = Path(__file__).parent / "histories"
RECORDED = sorted(HISTORIES.glob("*.json"))


def recorded(path: Path) -> WorkflowHistory:
    return WorkflowHistory.from_json(path.stem, path.read_text())


def replayer() -> Replayer:
    return Replayer(
        workflows=[Cascade, ProviderRun, Reconcile, Housekeeping],
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_all_modules()
        ),
    )


def _without_paths(history: str) -> str:
    """Stack traces name files of whoever recorded; the file's own name is enough."""
    return re.sub(r'File \\"[^"]*/', r'File \\"', history)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
async def test_a_recorded_history_replays(path: Path) -> None:
    await replayer().replay_workflow(recorded(path))


def test_there_are_recorded_histories() -> None:
    names = {"cascade-with-children", "cascade-inline", "run-settled", "run-failed", "housekeeping"}
    assert {path.stem for path in RECORDED} >= names


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
        handle = temporal.get_workflow_handle(workflow_id)
        # A failed run fails as recorded: its failure is what replays.
        history = await handle.fetch_history()
        await replayer().replay_workflow(history)
        if os.environ.get("STUDIO_RECORD_HISTORIES"):
            (HISTORIES / f"{name}.json").write_text(_without_paths(history.to_json()) + "\n")
