"""Reprocess: one node or everything below runs again although nothing changed; what is below a node is cut off."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.conftest import BASE
from tests.storage.engine import Engine


async def chain(engine: Engine) -> UUID:
    """a is read by one, its output by two, that by three; all at rest."""
    for number, slug in enumerate(("one", "two", "three")):
        await engine.provider(slug, f"r{number}-v1", f"r{number + 1}-v1")
    blob = await engine.create("r0-v1")
    await engine.rest()
    return blob


async def counts(engine: Engine) -> list[int]:
    return [len(await engine.runs(slug)) for slug in ("one", "two", "three")]


@pytest.mark.parametrize(
    ("asks", "again"),
    [
        ({}, [2, 1, 1]),
        ({"scope": "subtree"}, [2, 2, 2]),
        ({"provider_id": "one", "scope": "node"}, [2, 1, 1]),
        ({"scope": "subtree", "force": True}, [2, 2, 2]),
    ],
)
async def test_a_persons_blob_is_reprocessed_by_what_reads_it(
    engine: Engine, asks: dict[str, Any], again: list[int]
) -> None:
    blob = await chain(engine)
    answer = await engine.ask("POST", f"/blobs/{blob}/reprocess", asks)
    assert (answer["cause"], answer["scope"], answer["force"]) == (
        "reprocess", asks.get("scope", "node"), asks.get("force", False)
    )  # fmt: skip
    assert answer["derivation_ids"] == [str((await engine.derivation("one"))["id"])]
    await engine.rest()
    assert await counts(engine) == again
    assert (await engine.cascade(UUID(answer["cascade_id"])))["status"] == "completed"
    rows = await engine.rows("select force, fresh_after from derivations where user_id = $1")
    assert {(row["force"], row["fresh_after"]) for row in rows} == {(False, None)}
    assert await engine.version(await engine.output("three")) == 1


async def test_a_made_blob_is_reprocessed_by_what_makes_it_and_a_derivation_by_itself(engine: Engine) -> None:
    await chain(engine)
    output = await engine.output("two")
    await engine.ask("POST", f"/blobs/{output}/reprocess", {})
    await engine.rest()
    assert await counts(engine) == [1, 2, 1]
    await engine.ask("POST", f"/blobs/{output}/reprocess", {"provider_id": "three"})
    await engine.rest()
    assert await counts(engine) == [1, 2, 2]
    two = (await engine.derivation("two"))["id"]
    await engine.ask("POST", f"/derivations/{two}/reprocess", {"scope": "subtree"})
    await engine.rest()
    assert await counts(engine) == [1, 3, 3]


async def test_what_failed_or_was_made_before_a_fault_was_mended_runs_again(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + $.data.more")
    blob = await engine.create("in-v1")
    await engine.rest()
    assert await engine.runs() == ["failed"]
    await engine.provider("one", "in-v1", "out-v1")
    await engine.ask("POST", f"/blobs/{blob}/reprocess", {"scope": "subtree"})
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "a!"


async def test_a_run_that_is_left_to_finish_is_an_answer_unless_it_has_to_be_fresh(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow", supersede="finish")
    blob = await engine.create("in-v1")
    await engine.rest()
    for force, runs in ((False, 2), (True, 4)):
        await engine.ask("POST", f"/blobs/{blob}/reprocess", {})
        run = await engine.take(await engine.latest())
        answer = await engine.ask("POST", f"/blobs/{blob}/reprocess", {"force": force})
        await engine.plan(UUID(answer["cascade_id"]))
        assert await engine.finish(run) == "settled"
        await engine.rest()
        assert len(await engine.runs()) == runs


async def test_a_run_that_waits_for_a_person_is_no_answer_and_is_dropped(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow", supersede="finish")
    blob = await engine.create("in-v1")
    run = await engine.take(await engine.plan_all())
    assert await engine.schedule.park(engine.user.user_id, run.run_id, "ask", 0, "?") == "parked"
    await engine.ask("POST", f"/blobs/{blob}/reprocess", {})
    await engine.rest()
    assert await engine.runs() == ["superseded", "settled"]


async def test_asking_twice_before_it_is_planned_is_asking_once(engine: Engine) -> None:
    blob = await chain(engine)
    first = await engine.ask("POST", f"/blobs/{blob}/reprocess", {})
    again = await engine.ask("POST", f"/blobs/{blob}/reprocess", {})
    other = await engine.ask("POST", f"/blobs/{blob}/reprocess", {"scope": "subtree"})
    assert first["cascade_id"] == again["cascade_id"] != other["cascade_id"]


async def test_a_key_is_asked_once_and_what_cannot_run_is_refused_with_the_way_out(engine: Engine) -> None:
    blob = await chain(engine)
    key = {"idempotency-key": "k-1"}
    path = f"/blobs/{blob}/reprocess"
    first = await engine.ask("POST", path, {"force": True}, **key)
    await engine.rest()
    assert (await engine.ask("POST", path, {"force": True}, **key))["cascade_id"] == first["cascade_id"]
    refused = {
        f"/blobs/{await engine.output('three')}/reprocess": ({"provider_id": "one"}, 409, "nothing_to_reprocess"),
        f"/blobs/{UUID(int=7)}/reprocess": ({}, 404, "not_found"),
        f"/derivations/{UUID(int=7)}/reprocess": ({}, 404, "not_found"),
        path: ({"scope": "all"}, 422, "invalid_value"),
        f"{path}?scope=node": ({}, 422, "unknown_field"),
    }
    for where, (body, status, code) in refused.items():
        answer = await engine.http.post(f"{BASE}{where}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), where
    await engine.switch("one", active=False)
    await engine.rest()
    answer = await engine.http.post(f"{BASE}{path}", json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "provider_inactive")
    await engine.delete(blob)
    assert (await engine.http.post(f"{BASE}{path}", json={})).status_code == 410
