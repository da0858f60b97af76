"""Pace through the real worker: a burst of edits is one run on the newest version, and people go before bulk."""

from __future__ import annotations

from temporalio.client import Client

from storage.database import Database
from tests.workflows.conftest import CALL, INLINE, Studio
from tests.workflows.test_provider_runs import create, until
from workflows.starter import BULK, INTERACTIVE

EDITS = 20


async def test_twenty_edits_in_a_few_seconds_are_one_run_on_the_newest_version(
    studio: Studio, database: Database
) -> None:
    await studio.provider("patient", "in-v1", "out-v1", INLINE, debounce={"quiet": 2, "max_wait": 30})
    blob = await create(studio)
    newest = blob["cascade_id"]
    cascades = {newest}
    for number in range(EDITS):
        patch = {"delta": {"operation": "update", "patch": {"data": {"text": f"edit {number}"}}}}
        answer = await studio.http.patch(f"/api/v1/studio/blobs/{blob['id']}", json=patch)
        newest = answer.json()["cascade_id"]
        cascades.add(newest)

    async def over() -> bool:
        return bool((await studio.get(f"/cascades/{newest}"))["status"] == "completed")

    await until(over)
    runs = await database.rows(
        studio.user.user_id,
        "select r.status, (x->>'version')::int as version from runs r, jsonb_array_elements(r.inputs) x"
        " where r.user_id = $1", studio.user.user_id,
    )  # fmt: skip
    assert [tuple(run) for run in runs] == [("settled", EDITS + 1)]
    shown = await studio.get(f"/cascades/{newest}")
    assert shown["edits"] == EDITS + 1
    assert {found["id"] for found in shown["supersedes"]} >= cascades - {newest}
    for cascade in cascades - {newest}:
        found = await studio.get(f"/cascades/{cascade}")
        assert found["superseded_by"] is not None


async def test_what_people_wait_for_is_started_before_bulk_and_by_turns_of_users(
    studio: Studio, temporal: Client
) -> None:
    await studio.provider("calls", "in-v1", "out-v1", CALL)
    edit = (await create(studio))["cascade_id"]
    item = {"op": "create", "schema_id": "in-v1", "data": {"text": "b"}}
    batch = (await studio.post("/blobs/batch", {"items": [item]}))["cascade_id"]
    user, priorities = str(studio.user.user_id), {}
    for cascade in (edit, batch):

        async def over(cascade: str = cascade) -> bool:
            return bool((await studio.get(f"/cascades/{cascade}"))["status"] == "completed")

        await until(over)
        [run] = (await studio.get(f"/runs?cascade_id={cascade}"))["data"]
        for workflow in (f"cascade:{cascade}", run["temporal"]["workflow_id"]):
            told = (await temporal.get_workflow_handle(workflow).describe()).raw_description
            found = told.workflow_execution_info.priority
            priorities[workflow] = (found.priority_key, found.fairness_key)
        assert len(priorities) in {2, 4}  # the run is a child, which inherits
    assert list(priorities.values()) == [(INTERACTIVE, user)] * 2 + [(BULK, user)] * 2
    assert INTERACTIVE < BULK
