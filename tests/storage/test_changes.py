"""What changes while runs are under way: the table of ``docs/explanation/cascades.md``, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import BASE
from tests.storage.engine import Engine
from tests.storage.test_failures import published
from tests.storage.test_schedule_plan import holds, joined


async def test_a_source_deleted_under_a_run_fences_it_off_and_a_restore_begins_again(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    run = await engine.take(await engine.edit(blob, "b"))
    late = await engine.decide(run)
    await engine.delete(blob)
    await engine.plan_all()
    assert await engine.settle(late) == ["superseded"]
    await engine.rest()
    assert (await holds(engine), await joined(engine, "two")) == ({"one": "retired", "two": None}, "a!!")
    assert await engine.restore(blob)
    await engine.rest()
    assert await joined(engine, "two") == "b!!", "the edit was there, and nobody had made anything of it"


@pytest.mark.parametrize(("supersede", "ends"), [("cancel", "superseded"), ("finish", "settled")])
async def test_a_member_that_leaves_under_a_run_of_the_join_is_not_in_the_next(
    engine: Engine, supersede: str, ends: str
) -> None:
    await engine.provider("write", "in-v1", "mid-v1")
    await engine.join("book", "mid-v1", "book-v1", execution="workflow", supersede=supersede)
    bucket = await engine.bucket()
    blobs = [await engine.create("in-v1", text, bucket_ids=[bucket]) for text in "ab"]
    await engine.rest()
    cascade = await engine.edit(blobs[0], "A")
    await engine.plan(cascade)
    await engine.advance(cascade)
    [run] = (await engine.claim(cascade)).runs
    late = await engine.decide(run)
    await engine.http.delete(f"{BASE}/buckets/{bucket}/blobs/{blobs[1]}")
    await engine.plan_all()
    assert await engine.settle(late) == [ends]
    assert await joined(engine) == ("A! b!" if ends == "settled" else "a! b!")
    await engine.rest()
    assert await joined(engine) == "A!"


@pytest.mark.parametrize("supersede", ["cancel", "finish"])
async def test_a_definition_of_ones_own_that_changes_under_a_run_is_used_by_the_next(
    engine: Engine, supersede: str
) -> None:
    more: dict[str, Any] = {"execution": "workflow", "supersede": supersede}
    await engine.provider("one", "in-v1", "out-v1", **more)
    await engine.create("in-v1", "a")
    run = await engine.take(await engine.latest())
    late = await engine.decide(run)
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + '?'", **more)
    await engine.plan_all()
    assert await engine.settle(late) == ["superseded" if supersede == "cancel" else "settled"]
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "a?"


async def test_a_definition_of_somebody_elses_that_changes_under_a_run_is_not_what_that_settles(
    engine: Engine,
) -> None:
    owner, digest, spec = await published(engine)
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    run = await engine.take(await engine.edit(blob, "b"))
    newer = "update providers set definition_digest = $1, spec = $2 where owner_id = $3 and slug = 'one'"
    await engine.admin.execute(newer, digest, spec, owner)
    assert await engine.finish(run) == "settled"
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "b!", "it was claimed with the older one"
    for table in ("schemas", "definitions", "providers"):
        await engine.admin.execute(f"update {table} set published = false where published and owner_id = $1", owner)  # noqa: S608


async def test_a_pause_under_a_run_lets_what_waits_below_go_on_and_a_resume_catches_up(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    run = await engine.take(await engine.edit(blob, "b"))
    late = await engine.decide(run)
    assert (await engine.derivation("two"))["unsettled"]
    await engine.switch("one", active=False)
    await engine.plan_all()
    assert await engine.settle(late) == ["superseded"]
    await engine.rest()
    assert (await holds(engine), await joined(engine, "two")) == ({"one": "inactive", "two": None}, "a!!")
    await engine.switch("one", active=True)
    await engine.rest()
    assert await joined(engine, "two") == "b!!"
