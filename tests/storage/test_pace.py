"""Debounce, supersede and priority, a user's own and the provider's: what they do to plan, claim and settle."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.facts import MAX_WAIT_SECONDS
from tests.storage.engine import Engine

QUIET, LONGEST = timedelta(seconds=10), timedelta(seconds=25)
DEBOUNCE = {"quiet": 10, "max_wait": 25}


async def pace(engine: Engine, slug: str, **policies: Any) -> None:
    await engine.ask("PUT", f"/providers/{slug}/instance", policies, **{"if-match": "*"})


async def slow(engine: Engine, **more: Any) -> UUID:
    """A provider that waits for quiet, and a blob that it has derived from, at rest."""
    await engine.provider("slow", "in-v1", "out-v1", **more)
    blob = await engine.create("in-v1", "v1")
    await engine.rest()
    await pace(engine, "slow", debounce=DEBOUNCE)
    await engine.rest()
    return blob


async def caused(engine: Engine, cascade: UUID) -> datetime:
    found: datetime = (await engine.cascade(cascade))["caused_at"]
    return found


async def later(engine: Engine, **by: float) -> None:
    """Let time pass, as far as this user's schedule can tell."""
    moved = "- make_interval(secs => $2)"
    seconds = timedelta(**by).total_seconds()
    await engine.admin.execute(
        f"update derivations set run_after = run_after {moved}, dirty_since = dirty_since {moved} where user_id = $1",  # noqa: S608
        engine.user.user_id, seconds,
    )  # fmt: skip
    await engine.admin.execute(
        f"update cascades set created_at = created_at {moved}, caused_at = caused_at {moved} where user_id = $1",  # noqa: S608
        engine.user.user_id, seconds,
    )  # fmt: skip


async def test_model_and_functions_have_the_same_patience(engine: Engine) -> None:
    assert await engine.admin.fetchval("select studio_patience()") == timedelta(seconds=MAX_WAIT_SECONDS)


async def test_quiet_counts_from_the_last_edit_and_the_longest_wait_from_the_first(engine: Engine) -> None:
    blob = await slow(engine)
    first = await engine.edit(blob, "v2")
    await engine.plan(first)
    started = (await engine.cascade(first))["created_at"]
    assert (await engine.derivation("slow"))["run_after"] == started + QUIET
    await later(engine, seconds=9)
    second = await engine.edit(blob, "v3")
    await engine.plan(second)
    assert (await engine.derivation("slow"))["run_after"] == await caused(engine, second) + QUIET
    assert (await engine.claim(first)).status == "superseded"
    await later(engine, seconds=9)
    third = await engine.edit(blob, "v4")
    await engine.plan(third)
    dirty = (await engine.derivation("slow"))["dirty_since"]
    assert (await engine.derivation("slow"))["run_after"] == dirty + LONGEST
    assert not (await engine.claim(third)).runs
    await later(engine, seconds=8)
    [run] = (await engine.claim(third)).runs
    assert await engine.finish(run.run_id) == "settled"
    assert await engine.text(await engine.output("slow")) == "v4!"


async def test_an_edit_that_is_folded_before_the_plan_starts_the_quiet_again(engine: Engine) -> None:
    blob = await slow(engine)
    cascade = await engine.edit(blob, "v2")
    await later(engine, seconds=5)
    assert await engine.edit(blob, "v3") == cascade
    await engine.plan(cascade)
    row = await engine.cascade(cascade)
    assert row["caused_at"] > row["created_at"] + timedelta(seconds=4)
    assert (await engine.derivation("slow"))["run_after"] == row["caused_at"] + QUIET


async def test_a_chain_of_debounced_providers_waits_once(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", debounce=DEBOUNCE)
    await engine.provider("two", "mid-v1", "out-v1", origin="any", debounce=DEBOUNCE)
    await engine.plan_all()
    await engine.create("in-v1")
    cascade = await engine.latest()
    await engine.plan(cascade)
    assert (await engine.derivation("one"))["run_after"] == (await engine.derivation("two"))["run_after"]
    await later(engine, seconds=10)
    await engine.advance(cascade)
    assert await engine.runs() == ["settled", "settled"]


async def test_what_is_asked_for_by_name_waits_for_no_debounce(engine: Engine) -> None:
    blob = await slow(engine)
    cascade = await engine.edit(blob, "v2")
    await engine.plan(cascade)
    asked = await engine.ask("POST", "/providers/slow/process", {"blob_id": str(blob)})
    await engine.plan(UUID(asked["cascade_id"]))
    [run] = (await engine.claim(UUID(asked["cascade_id"]))).runs
    assert await engine.finish(run.run_id) == "settled"
    assert await engine.text(await engine.output("slow")) == "v2!"


async def test_a_change_of_pace_reruns_nothing_and_reaches_what_waits_and_runs(engine: Engine) -> None:
    blob = await slow(engine, execution="workflow", supersede="finish")
    ran = len(await engine.runs())
    cascade = await engine.edit(blob, "v2")
    await engine.plan(cascade)
    await engine.claim(cascade)
    await engine.ring(cascade)
    await pace(engine, "slow", debounce={"quiet": 0})
    await engine.plan(await engine.latest())
    assert (await engine.derivation("slow"))["run_after"] is None
    assert await engine.ring(cascade) == [cascade]
    assert len((await engine.claim(cascade)).runs) == 1
    await pace(engine, "slow", supersede="cancel")
    await engine.plan(await engine.latest())
    assert (await engine.derivation("slow"))["owner_cascade_id"] == cascade
    newest = await engine.edit(blob, "v3")
    await engine.plan(newest)
    assert (await engine.runs())[ran:] == ["superseded"]
    await engine.rest()
    assert (await engine.runs())[ran:] == ["superseded", "settled"]
    await pace(engine, "slow", debounce=None, supersede=None)
    await engine.rest()
    assert (await engine.derivation("slow"))["supersede"] == "finish"
    assert len(await engine.runs()) == ran + 2


async def test_steady_edits_after_a_run_count_the_longest_wait_anew(engine: Engine) -> None:
    blob = await slow(engine, execution="workflow", supersede="finish")
    first = await engine.edit(blob, "v2")
    await engine.plan(first)
    await later(engine, seconds=30)
    [run] = (await engine.claim(first)).runs
    second = await engine.edit(blob, "v3")
    await engine.plan(second)
    await engine.finish(run.run_id)
    [started] = [
        row["started_at"] for row in await engine.rows("select * from runs where user_id = $1 and id = $2", run.run_id)
    ]
    found = await engine.derivation("slow")
    assert (found["dirty_since"], found["run_after"]) == (started, await caused(engine, second) + QUIET)


async def test_twenty_edits_in_a_burst_are_one_run_on_the_newest_version_and_all_are_listed(engine: Engine) -> None:
    blob = await slow(engine)
    ran = len(await engine.runs())
    cascades = []
    for number in range(20):
        cascades.append(await engine.edit(blob, f"edit {number}"))
        if number % 3 == 2:  # some are planned before the next comes, some are folded
            await engine.plan(cascades[-1])
    await engine.plan_all()
    newest = cascades[-1]
    for cascade in dict.fromkeys(cascades[:-1]):
        if cascade != newest:
            assert (await engine.claim(cascade)).status == "superseded"
    await later(engine, seconds=25)
    [run] = (await engine.claim(newest)).runs
    await engine.finish(run.run_id)
    assert len(await engine.runs()) == ran + 1
    [read] = await engine.rows(
        "select (x->>'version')::int as version from runs, jsonb_array_elements(inputs) x"
        " where user_id = $1 and id = $2", run.run_id,
    )  # fmt: skip
    assert read["version"] == 21
    assert await engine.text(await engine.output("slow")) == "edit 19!"
    shown = await engine.ask("GET", f"/cascades/{newest}")
    listed = sum(found["edits"] for found in shown["supersedes"])
    assert (listed + len(shown["deltas"]), shown["edits"]) == (20, 20)
    assert {found["id"] for found in shown["supersedes"]} == {str(c) for c in cascades if c != newest}
    before = await engine.ask("GET", f"/cascades/{cascades[0]}")
    assert before["superseded_by"] is not None


@pytest.mark.parametrize(
    ("debounce", "pointer"),
    [
        ({"quiet": 5, "max_wait": 1}, "/debounce/max_wait"),
        ({"quiet": -1}, "/debounce/quiet"),
        ({"max_wait": 1}, "/debounce/quiet"),
        ({"quiet": 1, "wait": 2}, "/debounce/wait"),
    ],
)
async def test_a_pace_that_makes_no_sense_is_refused(engine: Engine, debounce: dict[str, Any], pointer: str) -> None:
    await engine.provider("slow", "in-v1", "out-v1")
    answer = await engine.http.put(
        "/api/v1/studio/providers/slow/instance", json={"debounce": debounce}, headers={"if-match": "*"}
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


async def test_an_instance_shows_its_pace_and_null_leaves_it_to_the_provider(engine: Engine) -> None:
    await engine.provider("slow", "in-v1", "out-v1", debounce={"quiet": "2s"})
    shown = await engine.ask("GET", "/providers/slow/instance")
    assert (shown["debounce"], shown["supersede"]) == ({"quiet": 2.0, "max_wait": 20.0}, "cancel")
    await pace(engine, "slow", debounce={"quiet": 0.5}, supersede="finish")
    shown = await engine.ask("GET", "/providers/slow/instance")
    assert (shown["debounce"], shown["supersede"]) == ({"quiet": 0.5, "max_wait": 5.0}, "finish")
    await pace(engine, "slow", debounce=None, supersede=None)
    shown = await engine.ask("GET", "/providers/slow/instance")
    assert (shown["debounce"], shown["supersede"]) == ({"quiet": 2.0, "max_wait": 20.0}, "cancel")
