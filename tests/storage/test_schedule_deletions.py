"""Plan: what deletion and restoration mean for the schedule (CASCADES rule 9)."""

from __future__ import annotations

import asyncio
from uuid import UUID

import asyncpg
import pytest

from domain.errors import Unavailable
from domain.works import Sketching
from storage.deltas import SNAPSHOT_EVERY
from tests.conftest import BASE
from tests.storage.engine import Engine
from tests.storage.test_schedule_plan import holds, joined
from tests.storage.test_sketches import begun, settle


async def test_deleting_the_source_retires_what_reads_it_and_keeps_the_outputs(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    await engine.delete(blob)
    await engine.rest()
    assert await holds(engine) == {"one": "retired", "two": None}
    assert await joined(engine, "two") == "a!!"
    assert await engine.restore(blob)
    await engine.rest()
    assert await holds(engine) == {"one": None, "two": None}
    assert await engine.runs() == ["settled", "settled"]
    await engine.edit(blob, "b")
    await engine.rest()
    assert await joined(engine, "two") == "b!!"


async def test_outputs_that_go_with_their_source_come_back_with_it(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", on_delete="delete")
    await engine.provider("two", "mid-v1", "out-v1", origin="any", on_delete="delete")
    await engine.join("book", "out-v1", "book-v1")
    bucket = await engine.bucket()
    blob = await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.create("in-v1", "b", bucket_ids=[bucket])
    await engine.rest()
    assert await joined(engine) == "a!! b!!"
    [first] = [found for found in await engine.outputs("two") if await engine.text(found) == "a!!"]
    await engine.edit(first, "mine")
    await engine.rest()
    await engine.delete(blob)
    await engine.rest()
    assert await joined(engine) == "b!!"
    assert (await engine.http.get(f"{BASE}/blobs/{first}")).status_code == 410
    deleted = await engine.ask("GET", "/events?type=blob.deleted")
    assert {UUID(event["data"]["blob_id"]) for event in deleted["data"]} >= {blob, first}
    assert (await engine.ask("GET", f"/blobs/{first}/versions/3"))["version"] == 3
    assert await engine.restore(blob)
    await engine.rest()
    assert await joined(engine) == "mine b!!"
    assert (await engine.version(first), len(await engine.runs("one"))) == (4, 2)


async def test_an_output_that_went_and_came_often_is_read_without_passing_all_those_times(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", on_delete="delete")
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    output = await engine.output("one")
    rounds = SNAPSHOT_EVERY + 10
    for _ in range(rounds):
        await engine.delete(blob)
        await engine.plan_all()
        assert await engine.restore(blob)
        await engine.plan_all()
    await engine.rest()
    last = 1 + 2 * rounds
    row = await engine.admin.fetchrow("select version, kept_version, patch_bytes from blobs where id = $1", output)
    assert tuple(row) == (last, last, 0)
    for version in range(1, last + 1):
        shown = await engine.ask("GET", f"/blobs/{output}/versions/{version}")
        assert (shown["version"], shown["data"]) == (version, {"text": "a!"})


async def test_an_output_that_a_person_edited_keeps_the_weight_of_its_patches_when_it_goes_along(
    engine: Engine,
) -> None:
    await engine.provider("one", "in-v1", "out-v1", on_delete="delete")
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, "mine")
    await engine.rest()
    read = "select kept_version, patch_bytes from blobs where id = $1"
    before = tuple(await engine.admin.fetchrow(read, output))
    await engine.delete(blob)
    await engine.rest()
    assert await engine.restore(blob)
    await engine.rest()
    assert tuple(await engine.admin.fetchrow(read, output)) == before
    assert (await engine.text(output), await engine.version(output)) == ("mine", 4)


async def test_an_output_that_a_person_deleted_stays_away_when_the_source_comes_back(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", on_delete="delete")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.delete(output)
    await engine.rest()
    await engine.delete(blob)
    await engine.rest()
    assert await engine.restore(blob)
    await engine.rest()
    assert await holds(engine) == {"one": "retired"}
    assert await engine.restore(output)
    await engine.rest()
    assert await holds(engine) == {"one": None}


async def test_a_join_whose_output_was_deleted_and_one_switched_off_keep_count(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow", supersede="finish")
    await engine.provider("asleep", "mid-v1", "out-v1", origin="any")
    await engine.join("book", "mid-v1", "book-v1")
    bucket = await engine.bucket()
    blob = await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    await engine.switch("asleep", active=False)
    await engine.delete(await engine.output("book"))
    await engine.rest()
    await engine.plan(await engine.edit(blob, "b"))
    late = await engine.create("in-v1", "c", bucket_ids=[bucket])
    await engine.plan_all()
    await engine.ask("DELETE", f"/buckets/{bucket}/blobs/{late}")
    await engine.plan_all()
    assert (await holds(engine))["book"] == "retired"
    await engine.switch("asleep", active=True)
    await engine.restore(await engine.output("book"))
    await engine.rest()
    assert await joined(engine) == "b!"
    assert sorted([await engine.text(found) for found in await engine.outputs("asleep")]) == ["b!!", "c!!"]


async def test_what_was_switched_off_while_retired_stays_off_when_restored(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    await engine.delete(blob)
    await engine.rest()
    await engine.switch("one", active=False)
    await engine.rest()
    assert await engine.restore(blob)
    await engine.rest()
    assert await holds(engine) == {"one": "inactive"}
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + '?'")
    await engine.switch("one", active=True)
    await engine.rest()
    assert await joined(engine, "one") == "a?"


async def test_a_definition_that_changed_while_retired_holds_when_restored(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    await engine.delete(blob)
    await engine.rest()
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + '?'")
    await engine.rest()
    assert await engine.restore(blob)
    await engine.rest()
    assert await joined(engine, "one") == "a?"


async def test_a_blob_that_is_deleted_and_not_yet_planned_is_still_read(engine: Engine) -> None:
    """The schedule sees planned versions only: a claim in between pins what was planned (rule 1)."""
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    cascade = await engine.plan_all()
    await engine.delete(blob)
    [run] = (await engine.claim(cascade)).runs
    assert await engine.finish(run) == "settled"
    assert await joined(engine, "one") == "a!"
    await engine.rest()
    assert await holds(engine) == {"one": "retired"}


async def test_what_is_made_of_a_collection_goes_when_that_is_empty_and_comes_back(engine: Engine) -> None:
    """The only input of a join is its collection: ``on_delete: delete`` counts there as well (rule 9)."""
    await engine.join("book", "in-v1", "mid-v1", on_delete="delete")
    await engine.join("shelf", "mid-v1", "book-v1")
    await engine.provider("blurb", "mid-v1", "out-v1", origin="any", on_delete="delete")
    bucket = await engine.bucket()
    blob = await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    book, blurb = await engine.output("book"), await engine.output("blurb")
    await engine.edit(book, "mine")
    await engine.rest()
    await engine.ask("DELETE", f"/buckets/{bucket}/blobs/{blob}")
    await engine.rest()
    assert await holds(engine) == {"book": "retired", "blurb": "retired", "shelf": None}
    assert {(await engine.http.get(f"{BASE}/blobs/{found}")).status_code for found in (book, blurb)} == {410}
    deleted = await engine.ask("GET", "/events?type=blob.deleted")
    assert {UUID(event["data"]["blob_id"]) for event in deleted["data"]} == {book, blurb}
    await engine.ask("PUT", f"/buckets/{bucket}/blobs/{blob}", {})
    await engine.rest()
    assert await holds(engine) == {"book": None, "blurb": None, "shelf": None}
    assert [await engine.text(found) for found in (book, blurb)] == ["mine", "mine!"]
    await engine.delete(blob)
    await engine.rest()
    assert (await holds(engine))["book"] == "retired"
    assert await engine.restore(book)
    await engine.rest()
    assert await engine.text(book) == "mine"


async def test_what_goes_along_while_a_person_edits_it_waits_until_that_is_done(engine: Engine) -> None:
    """The plan has told its events, and the edit waits to tell its own: neither must wait for the other."""
    await engine.join("book", "in-v1", "out-v1", on_delete="delete")
    bucket = await engine.bucket()
    blob = await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    await engine.ask("DELETE", f"/buckets/{bucket}/blobs/{blob}")
    person = await asyncpg.connect(engine.admin_url)
    try:
        async with person.transaction():
            await person.execute("select from blobs where id = $1 for no key update", await engine.output("book"))
            moving = asyncio.create_task(
                engine.schedule.plan_and_claim(
                    engine.user.user_id, await engine.latest(), window=9, sketching=Sketching.BEGIN
                )
            )
            await engine.blocked(1)
            await person.execute("update user_state set updated_at = now() where user_id = $1", engine.user.user_id)
        with pytest.raises(Unavailable) as caught:
            await moving
        assert isinstance(caught.value.__cause__, asyncpg.LockNotAvailableError)
    finally:
        await person.close()
    await engine.rest()
    assert await holds(engine) == {"book": "retired"}


async def test_a_join_collects_what_is_made_from_it_no_longer(engine: Engine) -> None:
    """Of two joins that could feed each other, the second is refused; once the way between them is gone, it is not."""
    await engine.join("up", "in-v1", "mid-v1")
    await engine.provider("across", "mid-v1", "out-v1", origin="any")
    await engine.join("down", "out-v1", "in-v1")
    bucket = await engine.bucket()
    await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    await engine.create("out-v1", "b", bucket_ids=[bucket])
    await engine.rest()
    assert (await joined(engine, "up"), sorted(await joined(engine, "down"))) == ("a", sorted("a! b"))
    await engine.delete(await engine.output("across"))
    await engine.rest()
    assert (await joined(engine, "down"), sorted(await joined(engine, "up"))) == ("b", sorted("a b"))


async def test_a_provider_takes_what_is_made_from_it_no_longer(engine: Engine) -> None:
    """An instance is not among the producers of a join's output any more: from now on it reacts to that."""
    await engine.provider("across", "mid-v1", "out-v1", origin="any")
    await engine.join("down", "out-v1", "mid-v1")
    bucket = await engine.bucket()
    await engine.create("mid-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    await engine.create("out-v1", "b", bucket_ids=[bucket])
    await engine.rest()
    first = await engine.output("across")
    await engine.delete(first)
    await engine.rest()
    [other] = [found for found in await engine.outputs("across") if found != first]
    assert (await joined(engine, "down"), await engine.text(other)) == ("b", "b!")


@pytest.mark.parametrize("planned", [False, True])
async def test_a_run_whose_output_a_person_deletes_meanwhile_is_given_up_and_done_again_once_it_is_back(
    engine: Engine, *, planned: bool
) -> None:
    """Else the output would count as made of an input that it has never seen."""
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    cascade = await engine.edit(blob, "b")
    run = await engine.take(cascade)
    await engine.delete(output)
    assert await engine.finish(run) == "superseded"
    if planned:
        await engine.rest()
        assert await holds(engine) == {"one": "retired"}
    assert await engine.restore(output)
    await engine.rows("update derivations set run_after = now() where user_id = $1 and run_after is not null")
    await engine.rest()
    assert (await engine.text(output), await engine.runs("one")) == ("b!", ["settled", "superseded", "settled"])


async def test_a_sketch_whose_output_a_person_deletes_meanwhile_is_given_up(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    cascade = await engine.edit(blob, "b")
    await engine.plan(cascade)
    found = (await begun(engine, cascade)).sketches
    await engine.delete(output)
    verdicts, _ = await settle(engine, cascade, found)
    assert (verdicts, await engine.runs("one")) == (["superseded"], ["settled"])
