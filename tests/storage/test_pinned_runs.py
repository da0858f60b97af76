"""What a run reads and where its outputs go: settings as they were wanted, fields that are no change, placement."""

from __future__ import annotations

from typing import Any

import pytest

from domain.works import ClaimedRun
from storage.contents import INLINE_BYTES_MAX
from tests.storage.engine import Engine
from tests.storage.test_regeneration import derived, draft, machine, paragraphs

# --- what a run is pinned to ------------------------------------------------------------------------------------------


async def test_a_run_reads_the_settings_that_it_was_claimed_with(engine: Engine) -> None:
    """A to B to A between claim and load: what was wanted is A, so what is said is A's."""
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + $.settings.mark", settings={"mark": "A"})
    source = await engine.create("in-v1", "x")
    await engine.rest()
    run: ClaimedRun = await engine.take(await engine.edit(source, "y"))
    await engine.switch("one", settings={"mark": "B"})
    settlement = await engine.decide(run)
    await engine.switch("one", settings={"mark": "A"})
    assert await engine.settle(settlement) == ["settled"]
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "yA"


async def test_new_settings_are_read_by_new_runs_and_old_ones_are_found_again(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + $.settings.mark", settings={"mark": "A"})
    await engine.create("in-v1", "x")
    await engine.rest()
    for mark in ("B", "A", "B"):
        await engine.switch("one", settings={"mark": mark})
        await engine.rest()
        assert await engine.text(await engine.output("one")) == f"x{mark}"
    wanted = await engine.rows("select distinct settings_digest from runs where user_id = $1")
    assert len(wanted) == 2, "settings are named by what they are"


async def test_settings_that_are_gone_stop_the_run_that_needs_them(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", settings={"mark": "A"})
    await engine.create("in-v1", "x")
    run = await engine.take(await engine.latest())
    await engine.admin.execute(
        "delete from contents where user_id = $1 and hash = (select 'sha256:' || substr(settings_digest, 5)"
        " from runs where id = $2)",
        engine.user.user_id, run.run_id,
    )  # fmt: skip
    with pytest.raises(Exception, match="settings that a run is pinned to are gone"):
        await engine.decide(run)


async def test_what_a_live_run_is_pinned_to_is_not_collected(engine: Engine) -> None:
    marked: dict[str, Any] = {"settings": {"mark": "A"}, "execution": "workflow", "supersede": "finish"}
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + $.settings.mark", **marked)
    await engine.create("in-v1", "x")
    run = await engine.take(await engine.latest())
    await engine.switch("one", settings={"mark": "B"})
    await engine.plan_all()
    await engine.admin.execute("update contents set touched_at = '2020-01-01' where user_id = $1", engine.user.user_id)
    user = engine.user.user_id
    await engine.database.rows(user, "select * from collect_contents($1, interval '1 day', 100)", user)
    assert (await engine.decide(run)).outputs[0].document.body == {"text": "xA"}
    assert await engine.finish(run) == "settled"
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "xB"
    await engine.admin.execute("update contents set touched_at = '2020-01-01' where user_id = $1", user)
    gone = await engine.database.rows(user, "select * from collect_contents($1, interval '1 day', 100)", user)
    assert gone, "settings that nobody wants any more are collected"
    await engine.check()


async def test_a_run_of_before_there_were_pins_reads_what_holds_now(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", "$.data.text + $.settings.mark", settings={"mark": "A"})
    await engine.create("in-v1", "x")
    run = await engine.take(await engine.latest())
    await engine.admin.execute("update runs set settings_digest = 'ab12' where id = $1", run.run_id)
    assert (await engine.decide(run)).outputs[0].document.body == {"text": "xA"}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({"trigger_patterns": ["poem"]}, {"trigger_patterns": ["chap"]}, "chapter!"),
        ({"max_input_size": 5}, {"max_input_size": 500}, "chapter!"),
        ({}, {"trigger_patterns": ["poem"]}, "chapter!"),
    ],
    ids=["patterns", "size", "fewer"],
)
async def test_another_choice_of_inputs_is_looked_at_again(
    engine: Engine, before: dict[str, Any], after: dict[str, Any], said: str
) -> None:
    await engine.provider("one", "in-v1", "out-v1", **before)
    await engine.create("in-v1", "chapter")
    await engine.rest()
    assert await engine.version(await engine.output("one")) == (0 if before else 1)
    await engine.provider("one", "in-v1", "out-v1", **after)
    await engine.rest()
    assert await engine.text(await engine.output("one")) == said
    assert await engine.runs("one") == ["settled", "settled"]


async def test_another_name_is_nothing_to_run_for(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1", "a")
    await engine.rest()
    await engine.provider("one", "in-v1", "out-v1", description="It shouts.")
    await engine.rest()
    assert await engine.runs("one") == ["settled"]


# --- what is no change ------------------------------------------------------------------------------------------------


async def test_what_only_the_definition_computes_per_run_wakes_nobody_when_people_edit(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", also={"took": "$.execution_time"})
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    await engine.create("in-v1", "a")
    await engine.rest()
    made = await engine.output("one")
    await engine.edit(made, title="Called differently")
    await engine.edit(made, data={"took": 99_999})
    await engine.rest()
    assert await engine.version(made) >= 2
    assert await engine.runs("two") == ["settled"]
    await engine.edit(made, data={"text": "mine"})
    await engine.rest()
    assert await engine.text(await engine.output("two")) == "mine!"


async def test_a_run_that_differs_in_nothing_that_lasts_makes_no_version(engine: Engine) -> None:
    """Person and machine say the same now; only the time it took differs."""
    await engine.schemas("out-v1", properties={"size": {"type": "integer", "x-volatile": True}})
    await engine.provider("one", "in-v1", "out-v1", "$.data.text.split(' ')[0]", also={"size": "len($.data.text)"})
    source = await engine.create("in-v1", "a")
    await engine.rest()
    made = await engine.output("one")
    await engine.edit(made, data={"text": "b"})
    await engine.edit(source, "b and more")
    await engine.rest()
    assert await engine.version(made) == 2


# --- where it is kept -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "kept"),
    [
        ({}, "inline"),
        ({"storage": {"strategy": "url"}}, "url"),
        ({"storage": {"strategy": "hybrid", "threshold": 10}}, "url"),
        ({"storage_strategy": "inline"}, "inline"),
    ],
    ids=["default", "url", "threshold", "inline"],
)
async def test_a_provider_says_where_its_outputs_are_kept(engine: Engine, storage: dict[str, Any], kept: str) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", **storage)
    for version in (1, 2):
        row = await engine.admin.fetchrow(
            "select b.storage_type, c.location is null as inside from blobs b join contents c on c.user_id = b.user_id"
            " and c.hash = b.document_hash where b.id = $1",
            chapter,
        )
        assert (row["storage_type"], row["inside"]) == (kept, kept == "inline"), version
        await draft(engine, source, "Sea", "Storm")
    assert await paragraphs(engine, chapter) == machine("Sea", "Storm")


async def test_inline_has_a_bound_and_what_is_kept_already_is_not_kept_twice(engine: Engine) -> None:
    user = engine.user.user_id
    small, large = b'"small"', b"x" * (INLINE_BYTES_MAX + 1)
    placed = await engine.contents.put(user, large, strategy="inline")
    assert placed.location is not None
    assert (await engine.contents.put(user, b"y" * 200_000, strategy="inline")).body is not None
    inside = await engine.contents.put(user, small)
    await engine.database.row(
        user, "select studio_store($1, $2, $3, $4, $5, $6, $7)", user, inside.hash, inside.size, inside.stored_size,
        inside.codec, inside.body, None,
    )  # fmt: skip
    again = await engine.contents.put(user, small, strategy="url")
    assert (again.body is not None, again.location) == (True, None), "it stays where it is"


async def test_an_activation_that_nobody_has_touched_is_pinned_as_one_that_is_not_there_yet(engine: Engine) -> None:
    """The first derivation makes the row; those that follow want no other thing than it does."""
    pin = "select studio_pin($1, p) as pin from providers p where p.slug = 'outline-generator'"
    [before] = await engine.rows(pin)
    await engine.rows(
        "insert into instances (user_id, id, provider_id) select $1, studio_instance_id($1, id), id from providers"
        " where slug = 'outline-generator' returning id"
    )
    [after] = await engine.rows(pin)
    assert after["pin"] == before["pin"]
