"""Facts that explain: why a cascade ran nothing where it ran nothing, and what a run did to its outputs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson

from tests.storage.engine import Engine


async def cut_offs(engine: Engine, cascade: UUID) -> list[tuple[str, str]]:
    """Provider and reason of what a cascade settled without a run."""
    rows = await engine.rows(
        "select p.slug, c.reason from cut_offs c join derivations d on d.user_id = c.user_id and d.id = c.derivation_id"
        " join providers p on p.id = d.provider_id where c.user_id = $1 and c.cascade_id = $2 order by p.slug",
        cascade,
    )
    return [(row["slug"], row["reason"]) for row in rows]


async def effects(engine: Engine, provider: str) -> list[list[Any]]:
    """The effects of a provider's runs, oldest first, without the ids of blobs."""
    rows = await engine.rows("select effects from runs where user_id = $1 and provider_id = $2 order by id", provider)
    return [[(e["slot"], e["effect"], e["reason"]) for e in orjson.loads(row["effects"])] for row in rows]


async def test_what_a_cascade_settles_without_a_run_is_a_fact_with_its_reason(engine: Engine) -> None:
    await engine.provider("upper", "in-v1", "mid-v1", "$.data.text.upper()")
    await engine.provider("below", "mid-v1", "out-v1")
    await engine.provider("last", "out-v1", "end-v1")
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    cascade = await engine.edit(blob, "A")  # upper makes the same of it
    await engine.rest()
    assert await cut_offs(engine, cascade) == [("below", "unchanged"), ("last", "unchanged")]
    assert await effects(engine, "upper") == [[("keep", "changed", None)], [("keep", "unchanged", "bytes")]]


async def test_what_has_nothing_to_read_is_cut_off_for_that_reason(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1", trigger_patterns=["yes"])
    await engine.provider("two", "mid-v1", "out-v1")
    blob = await engine.create("in-v1", "no")
    cascade = await engine.latest()
    await engine.rest()
    assert await cut_offs(engine, cascade) == [("two", "no_input")]
    [row] = await engine.rows("select detail from cut_offs where user_id = $1 and cascade_id = $2", cascade)
    assert orjson.loads(row["detail"]) == {"missing": [str(await engine.output("one"))]}
    second = await engine.edit(blob, "yes")
    await engine.rest()
    assert await cut_offs(engine, second) == []
    assert await engine.runs("two") == ["settled"]


async def test_the_effect_of_a_run_on_words_of_a_person_is_a_fact(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1", "a")
    await engine.rest()
    output = await engine.output("one")
    await engine.edit(output, "mine")
    await engine.edit(blob, "b")
    await engine.rest()
    assert await effects(engine, "one") == [[("keep", "changed", None)],
                                            [("keep", "head", None), ("keep", "offered", None)]]  # fmt: skip
    [row] = await engine.rows("select effects from runs where user_id = $1 order by id desc limit 1")
    assert {effect["blob_id"] for effect in orjson.loads(row["effects"])} == {str(output)}


async def test_white_space_that_a_schema_folds_makes_a_version_of_a_person_and_wakes_nobody(engine: Engine) -> None:
    await engine.schemas("in-v1", properties={"text": {"type": "string", "x-cutoff": "normal"}})
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1", "a b")
    await engine.rest()
    cascade = await engine.edit(blob, " a\n  b ")
    await engine.rest()
    assert (await engine.text(blob), await engine.version(blob)) == (" a\n  b ", 2)
    done = await engine.cascade(cascade)
    assert (done["status"], done["touched"]) == ("completed", 0)
    assert await engine.runs() == ["settled"]
    await engine.edit(blob, "a\n\nb")  # another paragraph is another text
    await engine.rest()
    assert await engine.runs() == ["settled"] * 2


async def test_an_output_that_is_the_same_in_normal_form_makes_no_version_and_loses_no_word(engine: Engine) -> None:
    await engine.schemas("mid-v1", **{"x-cutoff": "normal"})
    await engine.provider("one", "in-v1", "mid-v1", "$.data.text")
    await engine.provider("two", "mid-v1", "out-v1")
    blob = await engine.create("in-v1", "a b\n\nc d")
    await engine.rest()
    output = await engine.output("one")
    cascade = await engine.edit(blob, "a  b \n\n c d\n")
    await engine.rest()
    assert (await effects(engine, "one"))[-1] == [("keep", "unchanged", "normal_form")]
    assert await cut_offs(engine, cascade) == [("two", "unchanged")]
    assert (await engine.text(output), await engine.version(output)) == ("a b\n\nc d", 1)
    await engine.edit(output, "my   own\n\nc d")
    await engine.rest()
    assert await engine.text(await engine.output("two")) == "my   own\n\nc d!"
    await engine.edit(blob, "a b\n\nc  e")
    await engine.rest()
    assert await engine.text(output) == "my   own\n\nc  e"
    await engine.edit(output, "my own\n\nc e")  # the same to the schedule, theirs to the person
    await engine.rest()
    assert (await engine.text(output), len(await engine.runs("two"))) == ("my own\n\nc e", 3)
