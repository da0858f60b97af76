"""A burst of edits through the real worker: one run, on the newest version, after the quiet that its user asked for."""

from __future__ import annotations

from storage.database import Database
from tests.workflows.conftest import INLINE, Studio
from tests.workflows.test_provider_runs import create, until

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
