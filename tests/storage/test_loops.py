"""Loops: none forms through lineage, and what keeps running without one is bounded, with an error that says where."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from storage.schedule import Repeats
from tests.storage.engine import Engine, schedule_of

HOUR_AGO = "update runs set started_at = started_at - interval '61 minutes' where user_id = $1"


async def error_of(engine: Engine, cascade_id: UUID) -> Any:
    found = (await engine.cascade(cascade_id))["error"]
    return None if found is None else orjson.loads(found)


async def made(engine: Engine, *slugs: str) -> dict[str, int]:
    return {slug: len(await engine.outputs(slug)) for slug in slugs}


async def chain(engine: Engine, steps: int) -> None:
    for step in range(steps):
        await engine.provider(f"p{step}", f"s{step}-v1", f"s{step + 1}-v1", origin="any")
    await engine.rest()


# --- through lineage ------------------------------------------------------------------------------------------------


async def test_a_provider_that_matches_its_own_output_makes_one(engine: Engine) -> None:
    await engine.provider("self", "in-v1", "in-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.edit(blob, "b")
    await engine.rest()
    assert await made(engine, "self") == {"self": 1}


async def test_three_that_feed_each_other_end_where_the_first_would_meet_itself(engine: Engine) -> None:
    for source, target in ("ab", "bc", "ca"):
        await engine.provider(f"{source}to{target}", f"{source}-v1", f"{target}-v1", origin="any")
    await engine.create("a-v1")
    await engine.rest()
    assert await made(engine, "atob", "btoc", "ctoa") == {"atob": 1, "btoc": 1, "ctoa": 1}
    await engine.create("b-v1")
    await engine.rest()
    assert await made(engine, "atob", "btoc", "ctoa") == {"atob": 2, "btoc": 2, "ctoa": 2}


async def test_a_join_does_not_collect_what_is_made_of_what_it_made(engine: Engine) -> None:
    await engine.join("book", "part-v1", "book-v1")
    await engine.provider("parts", "book-v1", "part-v1", origin="any")
    book = await engine.bucket()
    blob = await engine.create("part-v1", "a", bucket_ids=[book])
    await engine.rest()
    assert await engine.text(await engine.output("parts")) == "a!"
    await engine.edit(blob, "b")
    await engine.rest()
    assert await engine.text(await engine.output("book")) == "b"
    derivation = await engine.derivation("book")
    inputs = await engine.rows(
        "select blob_id from derivation_inputs where user_id = $1 and derivation_id = $2", derivation["id"]
    )
    assert [row["blob_id"] for row in inputs] == [blob]


# --- bounds of a plan -----------------------------------------------------------------------------------------------


async def test_a_chain_as_long_as_the_bound_is_whole_and_a_longer_one_says_where_it_stopped(engine: Engine) -> None:
    await chain(engine, 3)
    engine.schedule = schedule_of(engine.database, engine.contents, depth_max=3)
    await engine.create("s0-v1")
    assert await error_of(engine, await engine.plan_all()) is None
    await engine.rest()
    await engine.provider("p3", "s3-v1", "s4-v1", origin="any")
    cascade = await engine.plan_all()
    last = str(await engine.output("p2"))
    assert await error_of(engine, cascade) == {
        "code": "too_many", "bound": "depth", "limit": 3,
        "stopped": [{"blob_id": last, "provider_id": "p3", "bound": "depth"}],
    }  # fmt: skip
    while await engine.ring():
        await engine.advance(cascade)
    assert (await engine.cascade(cascade))["status"] == "partial"


async def test_a_chain_through_somebodys_own_writes_is_as_deep_as_the_lineage_they_state(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    engine.schedule = schedule_of(engine.database, engine.contents, depth_max=4)
    parent: UUID | None = None
    errors = []
    for turn in range(4):
        more = {} if parent is None else {"parent_id": str(parent)}
        await engine.create("in-v1", f"{turn}", **more)
        cascade = await engine.plan_all()
        errors.append(await error_of(engine, cascade))
        while await engine.ring():
            await engine.advance(cascade)
        parent = max(await engine.outputs("one"))
        [row] = await engine.rows(
            "select id from blobs where user_id = $1 and provider_id = 'one' order by depth desc limit 1"
        )
        parent = row["id"]
    assert [error and error["bound"] for error in errors] == [None, None, "depth", "depth"]


# --- what keeps running ---------------------------------------------------------------------------------------------


def repeated(engine: Engine, **bounds: Any) -> None:
    engine.schedule = schedule_of(
        engine.database, engine.contents, repeats=Repeats(window=timedelta(hours=1), **bounds)
    )


async def test_what_runs_too_often_is_put_off_until_its_window_has_passed(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1", "0")
    await engine.rest()
    repeated(engine, runs_max=3)
    for turn in range(1, 4):
        cascade = await engine.edit(blob, f"{turn}")
        while await engine.ring():
            found = await engine.advance(cascade)
    derivation = await engine.derivation("one")
    error = await error_of(engine, cascade)
    assert (error["code"], error["bound"], error["per"], error["limit"]) == ("too_many", "runs", "derivation", 3)
    assert error["stopped"] == [{"derivation_id": str(derivation["id"]), "root_id": str(blob), "bound": "runs"}]
    assert (await engine.cascade(cascade))["status"] == "running"
    assert found.due_in_seconds is not None
    assert await engine.text(await engine.output("one")) == "2!"
    await engine.rows(HOUR_AGO)
    await engine.rows("update derivations set run_after = now() where user_id = $1")
    await engine.advance(cascade)
    assert await engine.text(await engine.output("one")) == "3!"
    assert await error_of(engine, cascade) is None
    await engine.rest()
    assert (await engine.cascade(cascade))["status"] == "completed"


async def test_a_newer_edit_takes_over_what_was_put_off_and_is_put_off_as_well(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1", "0")
    await engine.rest()
    repeated(engine, runs_max=1)
    older = await engine.edit(blob, "1")
    await engine.advance(older)
    newer = await engine.edit(blob, "2")
    while await engine.ring():
        await engine.advance(newer)
        await engine.advance(older)
    assert ((await engine.cascade(older))["status"], await error_of(engine, older)) == ("superseded", None)
    assert ((await engine.cascade(newer))["status"], (await error_of(engine, newer))["bound"]) == ("running", "runs")


async def test_what_stems_from_one_root_is_counted_together_and_another_root_goes_on(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    repeated(engine, root_max=2)
    root = await engine.create("in-v1", "0")
    for turn in range(1, 4):
        await engine.create("in-v1", f"{turn}", parent_id=str(root))
    await engine.create("in-v1", "elsewhere")
    cascades = await engine.ring()
    for cascade in cascades:
        await engine.advance(cascade)
    errors = [await error_of(engine, cascade) for cascade in cascades]
    assert [error and error["per"] for error in errors] == [None, None, "root", "root", None]
    assert await engine.runs("one") == ["settled"] * 3
    await engine.rows("update root_runs set since = since - interval '61 minutes' where user_id = $1")
    await engine.rows("update derivations set run_after = now() where user_id = $1")
    for cascade in cascades:
        await engine.advance(cascade)
    assert await engine.runs("one") == ["settled"] * 5
    await engine.rest()
