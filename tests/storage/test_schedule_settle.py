"""Settle: fenced, repeatable, merged with what people changed, one version only for what differs."""

from __future__ import annotations

import asyncio
from uuid import UUID

import orjson
import pytest

from domain.documents import Document
from domain.ids import new_id
from domain.works import Settlement
from tests.storage.engine import Engine

PROSE = "$.data.text + '\\n\\nSecond paragraph of ' + $.data.text + '.\\n\\nThe end of it all.'"


async def head_of(engine: Engine, provider: str) -> Document:
    """The machine head of a provider's only output."""
    [row] = await engine.rows(
        "select c.hash, c.size, c.codec, c.body, c.location from derivation_outputs o"
        " join blobs b on b.user_id = o.user_id and b.id = o.blob_id"
        " join contents c on c.user_id = o.user_id and c.hash = o.machine_hash"
        " where o.user_id = $1 and b.provider_id = $2",
        provider,
    )
    return Document.stored(orjson.loads(await engine.contents.read(engine.user.user_id, row)))


async def deltas_of(engine: Engine, blob_id: UUID) -> list[str]:
    rows = await engine.rows(
        "select operation from deltas where user_id = $1 and blob_id = $2 and status = 'applied' order by to_version",
        blob_id,
    )
    return [row["operation"] for row in rows]


async def test_a_second_settle_of_the_same_run_says_settled_and_writes_nothing(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1")
    run = await engine.take(await engine.latest())
    settlement = await engine.decide(run)
    assert await engine.settle(settlement) == ["settled"]
    before = await engine.rows("select * from events where user_id = $1")
    assert await engine.settle(settlement) == ["settled"]
    assert await engine.rows("select * from events where user_id = $1") == before
    assert await deltas_of(engine, await engine.output("one")) == ["create"]
    await engine.rest()


async def test_a_run_that_an_edit_superseded_writes_nothing(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    run = await engine.take(await engine.latest())
    settlement = await engine.decide(run)
    await engine.plan(await engine.edit(blob, "b"))
    assert await engine.settle(settlement) == ["superseded"]
    assert await engine.version(await engine.output("one")) == 0
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "b!"
    assert await engine.runs() == ["superseded", "settled"]


async def test_a_run_that_is_left_to_finish_settles_what_it_read_and_runs_again(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow", supersede="finish")
    blob = await engine.create("in-v1")
    run = await engine.take(await engine.latest())
    settlement = await engine.decide(run)
    second = await engine.edit(blob, "b")
    await engine.plan(second)
    assert [claimed.run_id for claimed in (await engine.claim(second)).runs] == []
    assert await engine.settle(settlement) == ["settled"]
    assert await engine.text(await engine.output("one")) == "a!"
    assert (await engine.derivation("one"))["unsettled"]
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "b!"
    assert await engine.runs() == ["settled", "settled"]


async def test_a_run_of_another_installation_is_superseded(engine: Engine) -> None:
    assert await engine.settle(Settlement(run_id=new_id(), outputs=(), usage={})) == ["superseded"]
    assert await engine.schedule.fail(engine.user.user_id, new_id(), code="internal", detail="", usage={}) == (
        "superseded"
    )
    assert await engine.schedule.lose(engine.user.user_id, new_id()) == "superseded"


async def test_an_output_that_a_person_edits_meanwhile_has_moved_and_is_merged_on_retry(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", PROSE)
    blob = await engine.create("in-v1", "First.")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(blob, "Other first.")
    run = await engine.take(await engine.latest())
    settlement = await engine.decide(run)
    mine = (await engine.text(output)).replace("The end of it all.", "My own words.")
    await engine.edit(output, mine)
    assert await engine.settle(settlement) == ["moved"]
    assert await engine.version(output) == 2
    assert await engine.finish(run) == "settled"
    assert await engine.text(output) == "Other first.\n\nSecond paragraph of Other first..\n\nMy own words."
    await engine.rest()
    assert await deltas_of(engine, output) == ["create", "update", "transform"]


async def test_an_edit_that_commits_while_settle_waits_for_its_blob_is_never_overwritten(engine: Engine) -> None:
    """The edit holds the output's row when settle looks at its version."""
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    for turn in range(5):
        run = await engine.take(await engine.edit(blob, f"b{turn}"))
        settlement = await engine.decide(run)
        done = await racing(engine, output, settlement, f"mine {turn}")
        assert done == "moved"
        assert await engine.text(output) == f"mine {turn}"
        assert await engine.finish(run) == "settled"
        await engine.rest()
        assert await engine.text(output) == f"mine {turn}"


async def racing(engine: Engine, output: UUID, settlement: Settlement, text: str) -> str:
    """Settle while an edit of the output has its row, and waits for the event sequence to commit."""
    async with engine.locked("select from user_state where user_id = $1 for update", engine.user.user_id):
        edit = asyncio.create_task(engine.edit(output, text))
        await engine.blocked(1)
        settling = asyncio.create_task(engine.schedule.settle(engine.user.user_id, [settlement], caller=None))
        await engine.blocked(2)
    await edit
    return (await settling)[settlement.run_id]


async def test_one_batch_has_one_of_each_verdict(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    moved, superseded, fine = [await engine.create("in-v1", text) for text in "abc"]
    await engine.rest()
    outputs = {
        row["anchor_id"]: row["blob_id"]
        for row in await engine.rows(
            "select d.anchor_id, o.blob_id from derivations d join derivation_outputs o on o.user_id = d.user_id"
            " and o.derivation_id = d.id where d.user_id = $1"
        )
    }
    cascades = {blob: await engine.edit(blob, "new") for blob in (moved, superseded, fine)}
    runs = {blob: await engine.take(cascade) for blob, cascade in cascades.items()}
    settlements = [await engine.decide(runs[blob]) for blob in (moved, superseded, fine)]
    await engine.edit(outputs[moved], "mine")
    await engine.plan(await engine.edit(superseded, "newer"))
    unknown = Settlement(run_id=new_id(), outputs=(), usage={})
    assert await engine.settle(*settlements, unknown) == ["moved", "superseded", "settled", "superseded"]
    assert [await engine.version(outputs[blob]) for blob in (moved, superseded, fine)] == [2, 1, 2]
    await engine.rest()
    assert await engine.text(outputs[superseded]) == "newer!"


async def test_the_machine_head_advances_where_the_human_side_won(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, "mine")
    await engine.edit(blob, "b")
    await engine.rest()
    assert (await engine.text(output), await engine.version(output)) == ("mine", 2)
    assert (await head_of(engine, "one")).body == {"text": "b!"}
    proposed = await engine.rows("select * from deltas where user_id = $1 and status = 'proposed'")
    assert [row["blob_id"] for row in proposed] == [output]
    [conflict] = orjson.loads(proposed[0]["conflicts"])
    assert conflict == {"pointer": "/data/text", "base": "a!", "ours": "mine", "theirs": "b!"}
    # The same conflict does not return: nothing below the person's words has changed since.
    runs = len(await engine.runs())
    await engine.edit(blob, "b", title="Other")
    await engine.rest()
    assert len(await engine.runs()) == runs


async def test_conflicts_are_recorded_on_the_delta_that_takes_in_the_rest(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", also={"size": "len($.data.text)"})
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, data={"text": "mine", "size": 1})
    await engine.edit(blob, "bb")
    await engine.rest()
    [delta] = await engine.rows(
        "select * from deltas where user_id = $1 and blob_id = $2 and status = 'applied' and to_version = 3", output
    )
    assert (delta["operation"], delta["actor"]) == ("transform", "provider:one")
    [conflict] = orjson.loads(delta["conflicts"])
    assert conflict == {"pointer": "/data/text", "base": "a!", "ours": "mine", "theirs": "bb!"}
    assert orjson.loads(delta["inputs"])[0]["version"] == 2
    assert delta["machine_hash"] != delta["document_hash"]
    assert delta["base_hash"] is not None
    assert await engine.text(output) == "mine"


async def test_take_machine_takes_the_machine_side_of_a_conflict(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", on_conflict="take_machine")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, "mine")
    await engine.edit(blob, "b")
    await engine.rest()
    assert (await engine.text(output), await engine.version(output)) == ("b!", 3)
    [delta] = await engine.rows("select * from deltas where user_id = $1 and blob_id = $2 and to_version = 3", output)
    assert orjson.loads(delta["conflicts"])[0]["ours"] == "mine"


async def test_wait_holds_the_derivation_and_what_is_below_until_something_moves(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", on_conflict="wait")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, "mine")
    await engine.rest()
    cascade = await engine.edit(blob, "b")
    await engine.rest()
    derivation = await engine.derivation("one")
    assert (derivation["hold"], derivation["unsettled"]) == ("conflict", True)
    assert (await head_of(engine, "one")).body == {"text": "a!"}
    assert (await engine.text(output), await engine.text(await engine.output("two"))) == ("mine", "mine!")
    assert (await engine.cascade(cascade))["status"] == "partial"
    proposed = await engine.rows("select * from deltas where user_id = $1 and status = 'proposed'")
    assert [orjson.loads(row["conflicts"])[0]["theirs"] for row in proposed] == ["b!"]
    # A later run replaces the proposal.
    await engine.edit(blob, "c")
    await engine.rest()
    proposed = await engine.rows("select * from deltas where user_id = $1 and status = 'proposed'")
    assert [orjson.loads(row["conflicts"])[0]["theirs"] for row in proposed] == ["c!"]
    # The person gives way: the next run merges without a conflict.
    await engine.edit(output, "a!")
    await engine.edit(blob, "d")
    await engine.rest()
    assert (await engine.text(output), (await engine.derivation("one"))["hold"]) == ("d!", None)
    assert await engine.text(await engine.output("two")) == "d!!"
    proposed = await engine.rows("select * from deltas where user_id = $1 and status = 'proposed'")
    assert proposed == []


async def test_a_merge_that_breaks_the_output_schema_is_a_conflict_about_the_whole(engine: Engine) -> None:
    """Each side is valid, their merge has one member too many."""
    await engine.schemas("out-v1", maxProperties=2)
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, data={"text": "a!", "note": "mine"})
    await engine.provider("one", "in-v1", "out-v1", also={"size": "len($.data.text)"})
    await engine.rest()
    assert (await engine.ask("GET", f"/blobs/{output}"))["data"] == {"text": "a!", "note": "mine"}
    [proposed] = await engine.rows("select * from deltas where user_id = $1 and status = 'proposed'")
    [conflict] = orjson.loads(proposed["conflicts"])
    assert (conflict["pointer"], conflict["theirs"]) == ("/data", {"text": "a!", "size": 1})


async def test_an_equal_output_makes_no_version(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", "'constant'")
    blob = await engine.create("in-v1")
    await engine.rest()
    await engine.edit(blob, "b")
    await engine.rest()
    assert await engine.version(await engine.output("one")) == 1
    assert await engine.runs() == ["settled", "settled"]


async def test_volatile_fields_make_no_version(engine: Engine) -> None:
    await engine.schemas("mid-v1", properties={"size": {"type": "integer", "x-volatile": True}})
    await engine.provider("one", "in-v1", "mid-v1", "'constant'", also={"size": "len($.data.text)"})
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    await engine.edit(blob, "bbbb")
    await engine.rest()
    assert await engine.version(await engine.output("one")) == 1
    assert await engine.runs("two") == ["settled"]


async def test_a_new_title_is_a_version_that_only_its_readers_notice(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", "$.title == null ? 'a' : 'b'")
    await engine.provider("deaf", "mid-v1", "deaf-v1", origin="any")
    await engine.provider("reads", "mid-v1", "reads-v1", "$.title + '.'", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    assert await engine.runs() == ["settled"] * 3
    await engine.edit(blob, title="Other")
    await engine.rest()
    output = await engine.output("one")
    assert (await engine.version(output), (await engine.ask("GET", f"/blobs/{output}"))["title"]) == (2, "Other")
    assert await engine.runs("deaf") == ["settled"]
    assert await engine.runs("reads") == ["settled", "settled"]
    assert await engine.text(await engine.output("reads")) == "Other."


async def test_a_deleted_output_stays_deleted_whatever_its_run_brings(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", execution="workflow", supersede="finish")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    run = await engine.take(await engine.edit(blob, "b"))
    settlement = await engine.decide(run)
    await engine.delete(output)
    assert await engine.settle(settlement) == ["superseded"]
    await engine.rest()
    assert (await engine.derivation("one"))["hold"] == "retired"
    assert (await engine.derivation("two"))["hold"] == "retired"
    await engine.edit(blob, "c")
    await engine.rest()
    assert await engine.version(output) == 2
    assert await engine.restore(output)
    await engine.rest()
    assert await engine.text(output) == "c!"
    assert await engine.text(await engine.output("two")) == "c!!"


async def test_large_outputs_are_in_s3_before_the_transaction(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1", "x" * 70_000)
    await engine.rest()
    output = await engine.output("one")
    [row] = await engine.rows(
        "select c.* , b.storage_type from blobs b join contents c on c.user_id = b.user_id and c.hash = b.document_hash"
        " where b.user_id = $1 and b.id = $2", output,
    )  # fmt: skip
    assert (row["body"], row["tier"], row["storage_type"]) == (None, "cold", "url")
    assert await engine.text(output) == "x" * 70_000 + "!"


async def test_every_version_that_a_machine_made_is_kept_whole(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1")
    await engine.rest()
    for turn in range(6):
        await engine.edit(blob, f"b{turn}")
        await engine.rest()
    output = await engine.output("one")
    rows = await engine.rows("select version from snapshots where user_id = $1 and blob_id = $2 order by 1", output)
    assert [row["version"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    for version, text in enumerate(["a!", *(f"b{turn}!" for turn in range(6))], start=1):
        shown = await engine.ask("GET", f"/blobs/{output}/versions/{version}")
        assert shown["data"] == {"text": text}


async def test_a_provider_without_anything_to_say_settles_without_a_version(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", trigger_patterns=["chapter"])
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1", "a poem")
    await engine.rest()
    output = await engine.output("one")
    assert (await engine.version(output), await engine.runs()) == (0, ["settled"])
    [run] = await engine.rows("select usage from runs where user_id = $1")
    assert "skipped" in orjson.loads(run["usage"])
    await engine.edit(blob, "a chapter")
    await engine.rest()
    assert await engine.text(await engine.output("two")) == "a chapter!!"


@pytest.mark.parametrize("how", ["delete", "deactivate"])
async def test_a_run_whose_derivation_was_put_to_sleep_is_superseded(engine: Engine, how: str) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow", supersede="finish")
    blob = await engine.create("in-v1")
    run = await engine.take(await engine.latest())
    settlement = await engine.decide(run)
    if how == "delete":
        await engine.delete(blob)
    else:
        await engine.switch("one", active=False)
    await engine.plan_all()
    assert await engine.settle(settlement) == ["superseded"]
    await engine.rest()
    assert await engine.version(await engine.output("one")) == 0
