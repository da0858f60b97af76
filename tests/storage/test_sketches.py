"""Sketches: inline runs that are recorded by their settlement, and stand there as if they had been claimed before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import pytest

from domain.works import Claim, RunWork, Sketch, Sketching
from tests.storage.engine import Engine, decided

RECORDED = """
select derivation_id, attempt, execution, status, definition_digest, settings_digest, used_digest, inputs, label,
  effects, workflow_id, lease_until, fresh_after, error, usage - 'duration_ms' as usage
from runs where user_id = $1 order by id
"""


async def begun(engine: Engine, cascade: UUID, **more: Any) -> Claim:
    """What the first claim of an advance finds."""
    found = await engine.schedule.claim(
        engine.user.user_id, cascade, **{"window": 100, "sketching": Sketching.BEGIN, **more}
    )
    await engine.check()
    return found


async def settle(engine: Engine, cascade: UUID, sketches: Sequence[Sketch], **more: Any) -> tuple[list[str], Claim]:
    """Evaluate and settle sketches; their verdicts and what was found then."""
    works = await engine.schedule.read_sketches(engine.user.user_id, sketches)
    settlements = [decided(work) for work in works if isinstance(work, RunWork)]
    return await settled(engine, cascade, sketches, settlements, **more)


async def settled(
    engine: Engine, cascade: UUID, sketches: Sequence[Sketch], settlements: Any, **more: Any
) -> tuple[list[str], Claim]:
    prepared = await engine.schedule.prepare(engine.user.user_id, settlements)
    verdicts, found = await engine.schedule.settle_and_claim(
        engine.user.user_id, cascade, prepared, sketches, **{"window": 100, "sketching": Sketching.MORE, **more}
    )
    await engine.check()
    return [verdicts[sketch.run_id] for sketch in sketches], found


async def sketched(engine: Engine, *, supersede: str = "cancel") -> tuple[UUID, UUID, Sketch]:
    """A blob with one provider that wants it, and the sketch of its run."""
    await engine.provider("one", "in-v1", "out-v1", supersede=supersede)
    await engine.rest()
    blob = await engine.create("in-v1")
    cascade = await engine.plan_all()
    [sketch] = (await begun(engine, cascade)).sketches
    return blob, cascade, sketch


async def long_ago(engine: Engine) -> None:
    """Let everything unsettled have waited for more than the patience of rule 6."""
    await engine.rows("update derivations set dirty_since = now() - interval '1 hour' where user_id = $1 and unsettled")


async def test_a_sketch_leaves_what_a_claimed_run_leaves(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.rest()
    told = (
        "select type, key, data - '{run_id,cascade_id,delta_id,version,from_version,to_version,size,attempt,operation}'"
    )
    told += "::text[] as data from events where user_id = $1 and seq > $2 order by seq"
    blob = await engine.create("in-v1")
    await engine.rest()
    seen = []
    for text, sketching in (("b", Sketching.NONE), ("c", Sketching.BEGIN)):
        last = (await engine.rows("select event_seq as seq from user_state where user_id = $1"))[0]["seq"]
        cascade = await engine.edit(blob, text)
        await engine.plan(cascade)
        found = await begun(engine, cascade, sketching=sketching)
        while not found.closed:
            for run in found.runs:
                await engine.finish(run)
            if sketching is Sketching.NONE:
                found = await engine.claim(cascade)
            else:
                verdicts, found = await settle(engine, cascade, found.sketches)
                assert verdicts == ["settled"]
        assert await engine.text(await engine.output("two")) == text + "!!"
        seen.append([dict(row) for row in await engine.rows(told, last)])
    assert seen[0] == seen[1]
    claimed, sketches = (await engine.rows(RECORDED))[-4:-2], (await engine.rows(RECORDED))[-2:]
    differ = {"attempt", "used_digest", "inputs", "effects", "label"}
    for one, other in zip(claimed, sketches, strict=True):
        assert {name for name in one.keys() if one[name] != other[name]} <= differ  # noqa: SIM118 - a Record
        assert other["attempt"] == one["attempt"] + 1
        versions = [[item["version"] for item in orjson.loads(row["inputs"])] for row in (one, other)]
        assert versions[1] == [version + 1 for version in versions[0]]
        assert orjson.loads(one["effects"]) == orjson.loads(other["effects"])
    await engine.rest()


async def test_nothing_of_a_sketch_is_on_record_and_who_has_it_is_not_given_it_again(engine: Engine) -> None:
    _, cascade, sketch = await sketched(engine)
    assert await engine.runs() == []
    again = await begun(engine, cascade, sketching=Sketching.MORE, busy=[sketch.derivation_id])
    assert (again.sketches, again.running, again.closed) == ((), 1, False)
    assert [other.derivation_id for other in (await begun(engine, cascade, sketching=Sketching.MORE)).sketches] == [
        sketch.derivation_id
    ]
    await engine.rest()


async def test_a_second_settlement_says_settled_and_writes_nothing(engine: Engine) -> None:
    _, cascade, sketch = await sketched(engine)
    assert (await settle(engine, cascade, [sketch]))[0] == ["settled"]
    before = await engine.rows("select * from events where user_id = $1")
    assert (await settle(engine, cascade, [sketch]))[0] == ["settled"]
    assert await engine.rows("select * from events where user_id = $1") == before
    assert await engine.runs() == ["settled"]
    await engine.rest()


@pytest.mark.parametrize("supersede", ["cancel", "finish"])
async def test_what_an_edit_has_moved_past_is_not_recorded_and_is_found_again(engine: Engine, supersede: str) -> None:
    blob, cascade, sketch = await sketched(engine, supersede=supersede)
    second = await engine.edit(blob, "b")
    await engine.plan(second)
    verdicts, found = await settle(engine, cascade, [sketch])
    assert (verdicts, found.sketches) == (["superseded"], ())
    assert await engine.runs() == []
    [newer] = (await begun(engine, second)).sketches
    assert (await settle(engine, second, [newer]))[0] == ["settled"]
    assert await engine.text(await engine.output("one")) == "b!"
    await engine.rest()


async def test_what_has_waited_for_long_settles_what_it_has_read_and_runs_again(engine: Engine) -> None:
    blob, cascade, sketch = await sketched(engine)
    await engine.plan(await engine.edit(blob, "b"))
    await long_ago(engine)
    assert (await settle(engine, cascade, [sketch]))[0] == ["settled"]
    assert await engine.text(await engine.output("one")) == "a!"
    assert (await engine.derivation("one"))["unsettled"]
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "b!"
    assert await engine.runs() == ["settled", "settled"]


async def test_an_output_that_a_person_edits_meanwhile_is_sketched_again_at_once(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", also={"note": "'n'"})
    await engine.rest()
    blob = await engine.create("in-v1")
    await engine.rest()
    cascade = await engine.edit(blob, "b")
    await engine.plan(cascade)
    [sketch] = (await begun(engine, cascade)).sketches
    await engine.edit(await engine.output("one"), data={"note": "mine"})
    verdicts, found = await settle(engine, cascade, [sketch])
    assert verdicts == ["moved"]
    assert (await settle(engine, cascade, found.sketches))[0] == ["settled"]
    shown = (await engine.ask("GET", f"/blobs/{await engine.output('one')}"))["data"]
    assert shown == {"text": "b!", "note": "mine"}
    await engine.rest()


@pytest.mark.parametrize("meanwhile", ["claimed", "settled", "cancelled", "switched off", "deleted"])
async def test_a_sketch_that_has_lost_its_derivation_does_nothing(engine: Engine, meanwhile: str) -> None:
    blob, cascade, sketch = await sketched(engine)
    if meanwhile in ("claimed", "settled"):
        [run] = (await engine.claim(cascade)).runs
        if meanwhile == "settled":
            await engine.finish(run)
    elif meanwhile == "cancelled":
        await engine.schedule.cancel_cascade(engine.user.user_id, cascade, actor="user:me")
    elif meanwhile == "switched off":
        await engine.switch("one", active=False)
        await engine.plan_all()
    else:
        await engine.delete(blob)
        await engine.plan_all()
    before = await engine.runs()
    verdicts, _ = await settle(engine, cascade, [sketch])
    assert verdicts == ["superseded"]
    assert (await engine.runs(), await engine.version(await engine.output("one"))) == (
        before,
        1 if meanwhile == "settled" else 0,
    )
    status = await engine.schedule.fail_sketch(engine.user.user_id, cascade, sketch, code="internal", detail="no")
    assert (status, await engine.runs()) == ("superseded", before)
    await engine.rest()


async def test_a_sketch_that_fails_is_recorded_and_is_a_dead_letter(engine: Engine) -> None:
    _, cascade, sketch = await sketched(engine)
    status = await engine.schedule.fail_sketch(engine.user.user_id, cascade, sketch, code="internal", detail="no")
    await engine.check()
    assert (status, await engine.runs()) == ("failed", ["failed"])
    found = await engine.derivation("one")
    assert (found["hold"], found["attempt"]) == ("failed", 1)
    [letter] = await engine.rows("select * from dead_letters where user_id = $1")
    assert (letter["run_id"], letter["code"]) == (sketch.run_id, "internal")
    assert (await begun(engine, cascade)).status == "partial"


async def test_sketches_count_against_the_window_and_the_limit_of_their_user(engine: Engine) -> None:
    for name in "abcd":
        await engine.provider(name, "in-v1", "out-v1")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    first = (await begun(engine, cascade, window=3)).sketches
    assert len(first) == 3
    busy = [sketch.derivation_id for sketch in first]
    assert (await begun(engine, cascade, window=3, busy=busy, sketching=Sketching.MORE)).sketches == ()
    await engine.admin.execute("update user_state set runs_limit = 2 where user_id = $1", engine.user.user_id)
    assert (await begun(engine, cascade, busy=busy, sketching=Sketching.MORE)).sketches == ()
    assert len((await begun(engine, cascade, busy=busy[:1], sketching=Sketching.MORE)).sketches) == 1
    await engine.rest()


async def test_a_provider_with_a_limit_of_its_own_has_its_runs_on_record(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", max_concurrency=1)
    await engine.rest()
    await engine.create("in-v1")
    found = await begun(engine, await engine.plan_all())
    assert (found.sketches, len(found.runs)) == ((), 1)
    await engine.rest()


async def test_after_an_advance_that_died_over_sketches_the_next_one_puts_its_runs_on_record(engine: Engine) -> None:
    _, cascade, _ = await sketched(engine)
    assert (await engine.cascade(cascade))["sketching"]
    careful = await begun(engine, cascade)
    assert (careful.sketches, careful.sketching, len(careful.runs)) == ((), False, 1)
    assert (await engine.cascade(cascade))["sketching"]  # this one may die over it as well
    await engine.finish(careful.runs[0])
    assert (await begun(engine, cascade)).closed
    assert not (await engine.cascade(cascade))["sketching"]
    await engine.rest()


async def test_what_settled_below_a_failure_is_not_made_out_of_date_by_a_sketch_above_it(engine: Engine) -> None:
    await engine.provider("first", "in-v1", "mid-v1")
    await engine.provider("second", "mid-v1", "out-v1", origin="any", supersede="finish")
    await engine.provider("third", "out-v1", "end-v1", origin="any", on_parent_failure="use_last_good")
    await engine.rest()
    blob = await engine.create("in-v1")
    await engine.rest()
    cascade = await engine.edit(blob, "b")
    await engine.plan(cascade)
    [first] = (await begun(engine, cascade)).sketches
    [second] = (await settle(engine, cascade, [first]))[1].sketches
    # Before that one settles, what it reads fails for a newer edit, and what reads it goes on with what there is.
    later = await engine.edit(blob, "c")
    await engine.plan(later)
    [newer] = (await begun(engine, later)).sketches
    await engine.schedule.fail_sketch(engine.user.user_id, later, newer, code="internal", detail="no")
    await begun(engine, later, sketching=Sketching.NONE)
    third = await engine.derivation("third")
    assert (third["unsettled"], third["provisional"]) == (False, "last_good")
    await long_ago(engine)  # what nothing holds back but that it fails
    assert (await settle(engine, cascade, [second]))[0] == ["superseded"]
    await engine.edit(blob, "d")
    await engine.rest()
    assert await engine.text(await engine.output("third")) == "d!!!"


async def test_an_advance_that_found_nothing_to_sketch_is_not_taken_for_one_that_died(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.plan_all()
    [run] = (await begun(engine, cascade)).runs
    assert not (await engine.cascade(cascade))["sketching"]
    await engine.finish(run)
    assert len((await begun(engine, cascade)).sketches) == 1
    await engine.rest()


async def test_a_sketch_that_others_have_settled_past_without_a_run_does_not_come_back(engine: Engine) -> None:
    """What ran in between read what there was: no run that is older by its id may say otherwise (invariant 8)."""
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "in-v1", "mid-v1", text="$.data.text + '?'")
    await engine.join("book", "mid-v1", "book-v1")
    await engine.rest()
    bucket = await engine.bucket()
    blob, other = [await engine.create("in-v1", text, bucket_ids=[bucket]) for text in "ax"]
    await engine.rest()
    cascade = await engine.edit(blob, "b")
    await engine.plan(cascade)
    found = (await begun(engine, cascade)).sketches
    assert len(found) == 2
    await engine.edit(blob, "a")
    await engine.edit(other, "y")
    await engine.plan_all()
    await engine.rest()  # there and back again: nothing of the first blob has run, the join has
    await engine.plan(await engine.edit(blob, "b"))
    verdicts, _ = await settle(engine, cascade, found[:1])
    assert verdicts == ["superseded"]
    await engine.rest()
