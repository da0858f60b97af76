"""Plan: what a cause touches, known and newly matching; nothing twice, nothing forgotten (CASCADES rules 1, 8, 9)."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.conftest import BASE
from tests.storage.engine import Engine, schedule_of


async def holds(engine: Engine) -> dict[str, str | None]:
    """The hold of every derivation, by provider."""
    rows = await engine.rows(
        "select p.slug, d.hold from derivations d join providers p on p.id = d.provider_id where d.user_id = $1"
    )
    return {row["slug"]: row["hold"] for row in rows}


async def joined(engine: Engine, provider: str = "book") -> str:
    """What a join has made of its bucket."""
    return str(await engine.text(await engine.output(provider)))


# --- discovery ------------------------------------------------------------------------------------------------------


async def test_matches_follow_declared_outputs_to_the_bottom_at_once(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.provider("three", "out-v1", "end-v1", origin="any")
    blob = await engine.create("in-v1")
    cascade = await engine.plan_all()
    assert await engine.rows("select 1 from blobs where user_id = $1 and version = 0") == [(1,)] * 3
    assert (await engine.cascade(cascade))["touched"] == 3
    pending = {slug: (await engine.derivation(slug))["pending_inputs"] for slug in ("one", "two", "three")}
    assert pending == {"one": 0, "two": 1, "three": 1}
    assert (await engine.http.get(f"{BASE}/blobs/{await engine.output('one')}")).status_code == 404
    await engine.rest()
    assert await engine.text(await engine.output("three")) == "a!!!"
    assert blob not in await engine.outputs("one")


@pytest.mark.parametrize(
    ("content_type", "supported", "matches"),
    [
        ("text/markdown", ["text/markdown"], 1),
        ("text/markdown; charset=utf-8", ["text/markdown"], 1),
        ("TEXT/Markdown", ["text/markdown"], 1),
        ("text/markdown", ["text/*"], 1),
        ("text/markdown", ["*/*"], 1),
        ("text/markdown", ["application/json", "text/plain"], 0),
        ("text/xymarkdown", ["text/x_markdown"], 0),
        ("text/markdown", [], 1),
    ],
)
async def test_types_are_matched_as_media_types_are(
    engine: Engine, content_type: str, supported: list[str], matches: int
) -> None:
    await engine.provider("one", "in-v1", "out-v1", "$.data.content", supported_types=supported)
    body = {"schema_id": "in-v1", "content": "a", "content_type": content_type}
    await engine.ask("POST", "/blobs", body)
    await engine.rest()
    assert len(await engine.outputs("one")) == matches


async def test_a_provider_of_people_leaves_derived_blobs_alone(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("people", "mid-v1", "out-v1", origin="person")
    await engine.provider("any", "mid-v1", "end-v1", origin="any")
    await engine.create("in-v1")
    await engine.rest()
    assert (len(await engine.outputs("people")), len(await engine.outputs("any"))) == (0, 1)
    await engine.create("mid-v1")
    await engine.rest()
    assert (len(await engine.outputs("people")), len(await engine.outputs("any"))) == (1, 2)


async def test_no_provider_matches_what_it_has_made_directly_or_not(engine: Engine) -> None:
    await engine.provider("there", "in-v1", "out-v1", origin="any")
    await engine.provider("back", "out-v1", "in-v1", origin="any")
    await engine.provider("self", "in-v1", "in-v1", origin="any")
    await engine.create("in-v1")
    await engine.rest()
    made = {slug: len(await engine.outputs(slug)) for slug in ("there", "back", "self")}
    # Of the blob itself, and of what the other path has made of it.
    assert made == {"there": 2, "back": 2, "self": 2}


async def test_a_plan_makes_no_more_than_its_bound_however_much_matches_at_once(engine: Engine) -> None:
    await engine.schemas("in-v1")
    for text in "abcdef":
        await engine.create("in-v1", text)
    await engine.rest()
    engine.schedule = schedule_of(engine.database, engine.contents, nodes_max=3)
    await engine.provider("one", "in-v1", "out-v1")
    found = await engine.cascade(await engine.plan_all())
    error = orjson.loads(found["error"])
    assert (error["bound"], error["limit"], [one["provider_id"] for one in error["stopped"]]) == ("nodes", 3, ["one"])
    assert len(await engine.rows("select from derivations where user_id = $1")) == 3


async def test_settings_of_a_newer_revision_are_followed_unless_somebody_has_set_others(engine: Engine) -> None:
    await engine.schemas("in-v1", "out-v1")
    steps: list[dict[str, Any]] = [
        {"id": "compute", "type": "computation", "operations": [{"text": "$.data.text + $.settings.mark"}]},
        {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": "out-v1",
         "data_map": {"text": "$.text"}},
    ]  # fmt: skip

    async def registered(mark: str) -> Any:
        await engine.register("one", steps, input_schema_id="in-v1", settings={"mark": mark})
        await engine.rest()
        return await engine.text(await engine.output("one"))

    await engine.create("in-v1")
    assert await registered("!") == "a!"
    assert await registered("?") == "a?"
    await engine.switch("one", settings={"mark": "."})
    assert await registered("-") == "a."


async def test_a_new_provider_takes_up_what_is_there(engine: Engine) -> None:
    await engine.schemas("in-v1")
    for text in "abc":
        await engine.create("in-v1", text)
    await engine.rest()
    await engine.provider("one", "in-v1", "out-v1")
    await engine.provider("two", "out-v1", "end-v1", origin="any")
    await engine.rest()
    assert sorted([await engine.text(found) for found in await engine.outputs("two")]) == ["a!!", "b!!", "c!!"]


async def test_a_provider_that_is_planned_before_the_blob_it_matches_waits_for_that(engine: Engine) -> None:
    """The activation sees a blob whose creation is not planned; an onCreate-only provider sees it once all the same."""
    await engine.schemas("in-v1")
    blob = await engine.create("in-v1")
    await engine.provider("once", "in-v1", "out-v1", events=["onCreate"])
    [activation] = await engine.rows("select id from cascades where user_id = $1 and cause = 'provider'")
    await engine.plan(activation["id"])
    await engine.claim(activation["id"])
    await engine.rest()
    assert await engine.text(await engine.output("once")) == "a!"
    await engine.edit(blob, "b")
    await engine.rest()
    assert await engine.text(await engine.output("once")) == "a!"
    assert await engine.runs() == ["settled"]


async def test_an_on_create_provider_below_another_runs_once_whenever_its_input_appears(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", trigger_patterns=["chapter"])
    await engine.provider("once", "mid-v1", "out-v1", origin="any", events=["onCreate"])
    blob = await engine.create("in-v1", "a poem")
    await engine.rest()
    assert await engine.runs("once") == []
    await engine.edit(blob, "a chapter")
    await engine.rest()
    assert await joined(engine, "once") == "a chapter!!"
    await engine.edit(blob, "a second chapter")
    await engine.rest()
    assert (await joined(engine, "once"), await joined(engine, "one")) == ("a chapter!!", "a second chapter!")


# --- buckets --------------------------------------------------------------------------------------------------------


async def test_a_join_follows_its_bucket(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.join("book", "mid-v1", "book-v1")
    bucket = await engine.bucket()
    first = await engine.create("in-v1", "a", bucket_ids=[bucket])
    second = await engine.create("in-v1", "b", bucket_ids=[bucket])
    await engine.rest()
    assert await joined(engine) == "a! b!"
    late = await engine.create("in-v1", "c")
    await engine.rest()
    assert await joined(engine) == "a! b!"
    await engine.ask("POST", f"/buckets/{bucket}/blobs", {"blob_id": str(late), "position": 0})
    await engine.rest()
    assert await joined(engine) == "c! a! b!"
    await engine.ask("PUT", f"/buckets/{bucket}/blobs/{first}", {"position": 9})
    await engine.rest()
    assert await joined(engine) == "c! b! a!"
    await engine.ask("DELETE", f"/buckets/{bucket}/blobs/{second}")
    await engine.rest()
    assert await joined(engine) == "c! a!"
    await engine.delete(late)
    await engine.rest()
    assert await joined(engine) == "a!" or (await engine.derivation("book"))["hold"] is None
    await engine.ask("DELETE", f"/buckets/{bucket}", **{"if-match": "*"})
    await engine.rest()
    assert await engine.rows("select from bucket_blobs where user_id = $1") == []


async def test_what_a_join_makes_belongs_to_its_bucket_and_so_does_what_follows_it(engine: Engine) -> None:
    await engine.join("book", "in-v1", "book-v1")
    await engine.provider("polish", "book-v1", "in-v1", origin="any")
    await engine.provider("index", "book-v1", "index-v1", origin="any")
    bucket = await engine.bucket()
    first = await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    # The polished book would be collected again: the cycle is refused.
    assert (await joined(engine), await joined(engine, "polish"), await joined(engine, "index")) == ("a", "a!", "a!")
    members = "select count(*) from bucket_blobs where user_id = $1"
    assert (await engine.rows(members))[0][0] == 4
    second = await engine.create("in-v1", "b")
    await engine.ask("POST", f"/buckets/{bucket}/blobs", {"blob_id": str(second)})
    await engine.rest()
    assert (await engine.rows(members))[0][0] == 5
    await engine.ask("DELETE", f"/buckets/{bucket}/blobs/{first}")
    await engine.rest()
    assert ((await engine.rows(members))[0][0], await joined(engine, "index")) == (4, "b!")


async def test_a_derived_blob_that_a_person_puts_into_the_bucket_as_well_keeps_one_place(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.join("book", "out-v1", "book-v1")
    bucket = await engine.bucket()
    root = await engine.create("in-v1", "a", bucket_ids=[bucket])
    await engine.rest()
    middle = await engine.output("one")
    await engine.ask("POST", f"/buckets/{bucket}/blobs", {"blob_id": str(middle), "position": 5})
    await engine.rest()
    await engine.ask("DELETE", f"/buckets/{bucket}/blobs/{root}")
    await engine.rest()
    rows = await engine.rows("select blob_id, inherited_from from bucket_blobs where user_id = $1")
    followed = {row["blob_id"]: row["inherited_from"] for row in rows}
    assert followed[middle] is None
    assert followed[await engine.output("two")] == middle
    assert await joined(engine) == "a!!"


# --- switched on and off, changed -----------------------------------------------------------------------------------


async def test_what_is_switched_off_rests_and_catches_up_when_switched_on(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    await engine.switch("one", active=False)
    await engine.rest()
    assert await holds(engine) == {"one": "inactive", "two": None}
    await engine.edit(blob, "b")
    await engine.rest()
    assert await joined(engine, "two") == "a!!"
    await engine.switch("one", active=True)
    await engine.rest()
    assert await joined(engine, "two") == "b!!"
    runs = len(await engine.runs())
    await engine.switch("one", active=False)
    await engine.switch("one", active=True)
    await engine.rest()
    assert len(await engine.runs()) == runs


async def test_other_settings_are_a_cause(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + ($.settings.end || '!')")
    await engine.create("in-v1")
    await engine.rest()
    await engine.switch("one", settings={"end": "?"})
    await engine.rest()
    assert await joined(engine, "one") == "a?"


async def test_a_newer_definition_is_a_cause_and_may_have_other_slots(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    steps: list[dict[str, Any]] = [
        {"id": "upper", "type": "computation", "operations": [{"text": "$.data.text + '?'"}]},
        {"id": "other", "type": "state-update", "operation": "create-blob", "schema_id": "out-v1",
         "data_map": {"text": "$.text"}},
    ]  # fmt: skip
    await engine.register("one", steps, input_schema_id="in-v1")
    await engine.rest()
    assert sorted([await engine.text(found) for found in await engine.outputs("one")]) == ["a!", "a?"]
    await engine.edit(blob, "b")
    await engine.rest()
    assert sorted([await engine.text(found) for found in await engine.outputs("one")]) == ["a!", "b?"]


async def test_a_run_carries_out_the_definition_that_was_planned(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1")
    await engine.plan_all()
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + '?'")
    cascade = (await engine.rows("select id from cascades where user_id = $1 and cause = 'create'"))[0]["id"]
    [run] = (await engine.claim(cascade)).runs
    await engine.finish(run)
    assert await joined(engine, "one") == "a!"
    await engine.rest()
    assert await joined(engine, "one") == "a?"


async def test_a_provider_that_begins_to_read_titles_looks_again(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    await engine.provider("one", "in-v1", "out-v1", reads=["title"])
    await engine.rest()
    runs = len(await engine.runs())
    await engine.edit(blob, title="Other")
    await engine.rest()
    assert len(await engine.runs()) == runs + 1


# --- asked for ------------------------------------------------------------------------------------------------------


async def test_a_person_may_ask_for_what_does_not_match_and_for_what_has_not_changed(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.schemas("strange-v1")
    blob = await engine.create("strange-v1")
    await engine.rest()
    assert await engine.outputs("one") == []
    for turn in (1, 2):
        await engine.ask("POST", "/providers/one/process", {"blob_id": str(blob)})
        await engine.rest()
        assert await engine.runs() == ["settled"] * turn
    assert await engine.version(await engine.output("one")) == 1
    await engine.edit(blob, "b")
    await engine.rest()
    assert await joined(engine, "one") == "b!"


async def test_asking_for_what_was_deleted_meanwhile_asks_for_nothing(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    blob = await engine.create("in-v1")
    await engine.ask("POST", "/providers/one/process", {"blob_id": str(blob)})
    await engine.delete(blob)
    await engine.rest()
    assert await engine.rows("select from derivations where user_id = $1") == []


async def test_asking_again_clears_a_failure(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    cascade = await engine.plan_all()
    [run] = (await engine.claim(cascade)).runs
    await engine.schedule.fail(engine.user.user_id, run.run_id, code="provider_failed", detail="no", usage={})
    await engine.rest()
    assert await holds(engine) == {"one": "failed", "two": None}
    await engine.ask("POST", "/providers/one/process", {"blob_id": str(blob)})
    await engine.rest()
    assert await joined(engine, "two") == "a!!"


# --- once, and folded -----------------------------------------------------------------------------------------------


async def test_plan_is_done_once(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1")
    cascade = await engine.latest()
    user = engine.user.user_id
    twice = await asyncio.gather(*(engine.schedule.plan(user, cascade) for _ in range(4)))
    assert sorted(twice) == [False, False, False, True]
    other = schedule_of(engine.database, engine.contents)
    assert not await other.plan(user, cascade)
    await engine.rest()


async def test_edits_before_the_plan_fold_into_one_cascade(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    cascades = {await engine.edit(blob, text) for text in "bcd"} | {await engine.latest()}
    assert len(cascades) == 1
    await engine.rest()
    assert (await joined(engine, "one"), await engine.runs()) == ("d!", ["settled"])
    later = await engine.edit(blob, "e")
    assert later not in cascades
    await engine.rest()


async def test_a_former_owner_closes_as_superseded(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    first = await engine.plan_all()
    await engine.claim(first)
    second = await engine.edit(blob, "b")
    await engine.plan(second)
    assert (await engine.claim(first)).status == "superseded"
    await engine.rest()
    found = await engine.cascade(first)
    assert (found["status"], found["superseded_by"]) == ("superseded", second)
    assert (await engine.cascade(second))["status"] == "completed"


async def test_older_causes_that_are_planned_later_move_nothing(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    older = await engine.edit(blob, "b")
    # As if the older cascade had been planned by another process in between: it folds no more.
    async with engine.locked("select from cascades where id = $1 for update", older):
        edit = asyncio.create_task(engine.edit(blob, "c"))
        await engine.blocked(1)
    newer = await edit
    assert newer == older
    await engine.rest()
    assert await joined(engine, "one") == "c!"


async def test_an_edit_and_the_plan_of_its_blob_never_wait_for_each_other(engine: Engine) -> None:
    """Both take the blob, then the cascade: the edit holds the blob while the plan comes."""
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    cascade = await engine.plan_all()
    for turn in range(3):
        cascade = await engine.edit(blob, f"b{turn}")
        async with engine.locked("select from user_state where user_id = $1 for update", engine.user.user_id):
            edit = asyncio.create_task(engine.edit(blob, f"c{turn}"))
            await engine.blocked(1)
            plan = asyncio.create_task(engine.schedule.plan(engine.user.user_id, cascade))
            await engine.blocked(2)
        assert (await edit, await plan) == (cascade, True)
        await engine.rest()
        assert await joined(engine, "one") == f"c{turn}!"
