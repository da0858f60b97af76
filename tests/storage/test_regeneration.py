"""Edit-safe regeneration as a writer lives it: what a person wrote stays, and what the machine says is never hidden."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
import pytest

from domain.documents import Document
from domain.ids import new_id
from tests.storage.engine import Engine

PROSE = (
    "join($.data.text.split('|').map(one, one + ' is where this part begins, and whoever looks for ' + one"
    " + ' stays.'), '\\n\\n')"
)
MINE = "It was a wind that nobody had ordered: I wrote this sentence myself."


def machine(*topics: str) -> list[str]:
    return [f"{topic} is where this part begins, and whoever looks for {topic} stays." for topic in topics]


async def derived(engine: Engine, *topics: str, **more: Any) -> tuple[UUID, UUID]:
    """A source of topics, and the chapter with one paragraph for each."""
    await engine.provider("write", "topics-v1", "chapter-v1", PROSE, **more)
    source = await engine.create("topics-v1", "|".join(topics))
    await engine.rest()
    chapter = await engine.output("write")
    assert await paragraphs(engine, chapter) == machine(*topics)
    return source, chapter


async def paragraphs(engine: Engine, blob: UUID) -> list[str]:
    return str(await engine.text(blob)).split("\n\n")


async def fix(engine: Engine, chapter: UUID, index: int, text: str) -> None:
    """A person rewrites one paragraph."""
    found = await paragraphs(engine, chapter)
    await engine.edit(chapter, "\n\n".join([*found[:index], text, *found[index + 1 :]]))
    await engine.rest()


async def draft(engine: Engine, source: UUID, *topics: str) -> None:
    """The draft changes, and everything follows."""
    await engine.edit(source, "|".join(topics))
    await engine.rest()


async def offers(engine: Engine, blob: UUID) -> list[Any]:
    """What is proposed and not decided."""
    return await engine.rows(
        "select * from deltas where user_id = $1 and blob_id = $2 and status = 'proposed' order by id", blob
    )


async def disputes(engine: Engine, blob: UUID) -> list[tuple[str, str]]:
    """Ours and theirs of every place that waits for a decision."""
    found = [conflict for row in await offers(engine, blob) for conflict in orjson.loads(row["conflicts"])]
    return [(conflict.get("ours"), conflict.get("theirs")) for conflict in found]


async def policy(engine: Engine, provider: str, on_conflict: str | None) -> Any:
    return await engine.ask("PUT", f"/providers/{provider}/instance", {"on_conflict": on_conflict}, **{"if-match": "*"})


async def held(engine: Engine, provider: str = "write") -> str | None:
    hold: str | None = (await engine.derivation(provider))["hold"]
    return hold


async def head(engine: Engine, provider: str = "write") -> Any:
    """The text of the machine head of a provider's only output."""
    [row] = await engine.rows(
        "select c.* from derivation_outputs o join blobs b on b.user_id = o.user_id and b.id = o.blob_id"
        " join contents c on c.user_id = o.user_id and c.hash = o.machine_hash where o.user_id = $1"
        " and b.provider_id = $2",
        provider,
    )
    document = Document.stored(orjson.loads(await engine.contents.read(engine.user.user_id, row)))
    return document.body["text"]


# --- what a person wrote stays ----------------------------------------------------------------------------------------


async def test_a_fixed_paragraph_stays_through_three_drafts_and_only_the_others_change(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", "Rain")
    await fix(engine, chapter, 1, MINE)
    for topics in (("Harbour", "Wind", "Rain"), ("Harbour", "Wind", "Snow"), ("Quay", "Wind", "Ice")):
        await draft(engine, source, *topics)
        first, _, last = machine(*topics)
        assert await paragraphs(engine, chapter) == [first, MINE, last]
        assert await offers(engine, chapter) == []
    assert await engine.version(chapter) == 5


async def test_a_merge_that_gives_what_people_have_already_moves_the_head_alone(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind")
    await fix(engine, chapter, 0, machine("Harbour")[0])
    await draft(engine, source, "Harbour", "Wind")
    assert await engine.version(chapter) == 2, "the person said it first: there is nothing to change"
    assert await head(engine) == "\n\n".join(machine("Harbour", "Wind"))
    await draft(engine, source, "Quay", "Wind")
    assert await paragraphs(engine, chapter) == machine("Quay", "Wind"), "and from now on it is the machine's again"


async def test_a_revert_is_an_edit_and_the_head_stays(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", "Rain")
    await draft(engine, source, "Sea", "Storm", "Rain")
    await engine.ask("POST", f"/blobs/{chapter}/revert", {"version": 1})
    await engine.rest()
    assert await paragraphs(engine, chapter) == machine("Sea", "Wind", "Rain")
    assert await head(engine) == "\n\n".join(machine("Sea", "Storm", "Rain"))
    await draft(engine, source, "Quay", "Storm", "Rain")
    assert await paragraphs(engine, chapter) == machine("Quay", "Wind", "Rain"), "Wind was chosen over Storm"


async def test_reset_gives_the_words_back_to_the_machine(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind")
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Storm")
    await engine.ask("POST", f"/blobs/{chapter}/reset")
    await engine.rest()
    assert await paragraphs(engine, chapter) == machine("Sea", "Storm")
    await draft(engine, source, "Sea", "Hail")
    assert await paragraphs(engine, chapter) == machine("Sea", "Hail")


async def test_items_merge_by_the_key_that_the_output_schema_names(engine: Engine) -> None:
    items = {"type": "array", "x-merge-key": "id", "items": {"type": "object"}}
    await engine.schemas("list-v1", properties={"items": items})
    listed = "$.data.text.split('|').map(one, {'id': one.split('=')[0], 'says': one})"
    await engine.provider("list", "topics-v1", "list-v1", also={"items": listed})
    source = await engine.create("topics-v1", "a=1|b=1|c=1")
    await engine.rest()
    made = await engine.output("list")
    await engine.edit(made, data={"items": [{"id": "a", "says": "a=1"}, {"id": "b", "says": "mine"},
                                            {"id": "own", "says": "new"}, {"id": "c", "says": "c=1"}]})  # fmt: skip
    await engine.edit(source, "a=2|b=1|c=1|d=1")
    await engine.rest()
    found = (await engine.ask("GET", f"/blobs/{made}"))["data"]["items"]
    assert {item["id"]: item["says"] for item in found} == {
        "a": "a=2", "b": "mine", "own": "new", "c": "c=1", "d": "d=1",
    }  # fmt: skip
    assert await offers(engine, made) == []


async def test_the_title_and_tags_and_metadata_of_a_person_stay(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind")
    await engine.edit(chapter, title="My own title", tags=["mine"], metadata={"mood": "calm"})
    await engine.edit(source, "Quay|Wind", title="Another title")
    await engine.rest()
    await engine.edit(source, "Quay|Storm")
    await engine.rest()
    found = await engine.ask("GET", f"/blobs/{chapter}")
    assert (found["title"], found["tags"], found["metadata"]) == ("My own title", ["mine"], {"mood": "calm"})
    assert await paragraphs(engine, chapter) == machine("Quay", "Storm")
    assert await disputes(engine, chapter) == [("My own title", "Another title")]


# --- conflicts --------------------------------------------------------------------------------------------------------


async def test_of_a_conflict_the_human_side_stays_and_the_machines_is_offered(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", "Rain")
    await engine.provider("below", "chapter-v1", "below-v1", origin="any")
    await engine.rest()
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Quay", "Storm", "Rain")
    assert await paragraphs(engine, chapter) == [*machine("Quay"), MINE, *machine("Rain")]
    assert await engine.text(await engine.output("below")) == await engine.text(chapter) + "!", "the wave goes on"
    [offer] = await offers(engine, chapter)
    [conflict] = orjson.loads(offer["conflicts"])
    assert (conflict["base"], conflict["ours"], conflict["theirs"]) == (*machine("Wind"), MINE, *machine("Storm"))
    assert (conflict["pointer"], conflict["paragraph"]) == ("/data/text", 1)
    told = await engine.rows("select data from events where user_id = $1 and type = 'delta.proposed'")
    assert [orjson.loads(row["data"])["delta_id"] for row in told] == [str(offer["id"])]


async def test_what_was_offered_stays_offered_until_somebody_decides(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", "Rain")
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Storm", "Rain")
    await draft(engine, source, "Quay", "Storm", "Rain")
    assert await disputes(engine, chapter) == [(MINE, *machine("Storm"))], "a clean run does not hide it"
    await fix(engine, chapter, 2, "My last words.")
    await draft(engine, source, "Quay", "Storm", "Ice")
    assert await disputes(engine, chapter) == [(MINE, *machine("Storm")), ("My last words.", *machine("Ice"))]
    await draft(engine, source, "Quay", "Hail", "Ice")
    assert await disputes(engine, chapter) == [(MINE, *machine("Hail")), ("My last words.", *machine("Ice"))]
    assert await paragraphs(engine, chapter) == [*machine("Quay"), MINE, "My last words."]
    # The person takes over one of them by hand: what is left is the other one.
    await fix(engine, chapter, 1, *machine("Hail"))
    await draft(engine, source, "Sea", "Hail", "Ice")
    assert await disputes(engine, chapter) == [("My last words.", *machine("Ice"))]
    # The machine comes back to what the person had replaced: nothing is new to offer.
    await draft(engine, source, "Sea", "Hail", "Rain")
    assert await disputes(engine, chapter) == []
    assert await paragraphs(engine, chapter) == [*machine("Sea", "Hail"), "My last words."]


async def test_what_a_person_proposes_is_not_the_machines_to_turn_down(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind")
    proposed = new_id()
    await engine.database.row(
        engine.user.user_id,
        "select propose_delta($1, $2, $3, 1, '[]', '[]', 'sha256:x', 'x', 'x', 'x', null, 1, 'user:me', null, 1,"
        " 'proposed', null, null)",
        engine.user.user_id, chapter, proposed,
    )  # fmt: skip
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Storm")
    assert {row["id"] for row in await offers(engine, chapter)} >= {proposed}
    assert len(await offers(engine, chapter)) == 2


async def test_an_offer_that_is_accepted_is_in_the_text_and_no_conflict_any_more(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", "Rain")
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Storm", "Rain")
    [offer] = await offers(engine, chapter)
    await engine.ask("POST", f"/deltas/{offer['id']}/accept")
    await engine.rest()
    assert await paragraphs(engine, chapter) == machine("Sea", "Storm", "Rain")
    await draft(engine, source, "Sea", "Hail", "Rain")
    assert await paragraphs(engine, chapter) == machine("Sea", "Hail", "Rain")
    assert await offers(engine, chapter) == []


async def test_an_offer_that_is_rejected_does_not_come_back(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", "Rain")
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Storm", "Rain")
    [offer] = await offers(engine, chapter)
    await engine.ask("POST", f"/deltas/{offer['id']}/reject")
    await draft(engine, source, "Quay", "Storm", "Rain")
    assert await paragraphs(engine, chapter) == [*machine("Quay"), MINE, *machine("Rain")]
    assert await offers(engine, chapter) == []


# --- wait -------------------------------------------------------------------------------------------------------------


async def waiting(engine: Engine) -> tuple[UUID, UUID, UUID]:
    """A chapter in conflict under ``wait``: its source, itself, and what is made of it."""
    source, chapter = await derived(engine, "Sea", "Wind", "Rain", on_conflict="wait")
    await engine.provider("below", "chapter-v1", "below-v1", origin="any")
    await engine.rest()
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Quay", "Storm", "Rain")
    assert await held(engine) == "conflict"
    assert await head(engine) == "\n\n".join(machine("Sea", "Wind", "Rain")), "the head does not move"
    assert await paragraphs(engine, chapter) == [*machine("Sea"), MINE, *machine("Rain")], "people's text is readable"
    return source, chapter, await engine.output("below")


async def test_accepting_what_somebody_waits_for_lets_it_go_on_without_asking_again(engine: Engine) -> None:
    _, chapter, below = await waiting(engine)
    [offer] = await offers(engine, chapter)
    runs = len(await engine.runs("write"))
    await engine.ask("POST", f"/deltas/{offer['id']}/accept")
    await engine.rest()
    assert await paragraphs(engine, chapter) == machine("Quay", "Storm", "Rain")
    assert await engine.text(below) == await engine.text(chapter) + "!"
    assert await held(engine) is None
    assert await head(engine) == "\n\n".join(machine("Quay", "Storm", "Rain"))
    assert len(await engine.runs("write")) == runs, "the provider has said it already"


async def test_rejecting_what_somebody_waits_for_lets_it_go_on_with_the_human_words(engine: Engine) -> None:
    source, chapter, below = await waiting(engine)
    [offer] = await offers(engine, chapter)
    runs = len(await engine.runs("write"))
    await engine.ask("POST", f"/deltas/{offer['id']}/reject")
    await engine.rest()
    assert await held(engine) is None
    assert await paragraphs(engine, chapter) == [*machine("Sea"), MINE, *machine("Rain")]
    assert await engine.text(below) == await engine.text(chapter) + "!"
    assert len(await engine.runs("write")) == runs
    await draft(engine, source, "Quay", "Storm", "Ice")
    assert await held(engine) is None
    assert (await paragraphs(engine, chapter))[1:] == [MINE, *machine("Ice")]


async def test_a_later_run_takes_the_place_of_what_is_waited_for(engine: Engine) -> None:
    source, chapter, below = await waiting(engine)
    said = await engine.text(below)
    await draft(engine, source, "Quay", "Hail", "Ice")
    assert await disputes(engine, chapter) == [(MINE, *machine("Hail"))]
    assert await held(engine) == "conflict"
    assert await engine.text(below) == said, "who depends on it waits"
    replaced = await engine.rows(
        "select resolved_at is not null as when, resolved_by from deltas where user_id = $1 and status = 'rejected'"
    )
    assert [tuple(row) for row in replaced] == [(True, "provider:write")]


async def test_nothing_is_waited_for_once_the_draft_is_as_it_was(engine: Engine) -> None:
    source, chapter, _ = await waiting(engine)
    await draft(engine, source, "Sea", "Wind", "Rain")
    assert await held(engine) is None
    assert await offers(engine, chapter) == []
    assert (await paragraphs(engine, chapter))[1] == MINE


async def test_waiting_for_one_decision_does_not_hold_what_was_decided_before(engine: Engine) -> None:
    """Offered under keep_human, then the policy becomes wait: a clean run is clean, and the offer stays."""
    source, chapter = await derived(engine, "Sea", "Wind", "Rain")
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Storm", "Rain")
    await policy(engine, "write", "wait")
    await draft(engine, source, "Quay", "Storm", "Rain")
    assert await held(engine) is None
    assert (await paragraphs(engine, chapter))[:2] == [*machine("Quay"), MINE]
    assert await disputes(engine, chapter) == [(MINE, *machine("Storm"))]


# --- the policy of the instance ---------------------------------------------------------------------------------------


async def test_the_instances_policy_decides_over_the_providers(engine: Engine) -> None:
    source, chapter = await derived(engine, "Sea", "Wind", on_conflict="wait")
    assert (await policy(engine, "write", "take_machine"))["on_conflict"] == "take_machine"
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Storm")
    assert await paragraphs(engine, chapter) == machine("Sea", "Storm")
    versions = [await engine.ask("GET", f"/blobs/{chapter}?version={version}") for version in (1, 2, 3)]
    assert MINE in versions[1]["data"]["text"], "the human words are in the history"
    assert (await policy(engine, "write", None))["on_conflict"] == "wait", "left to the provider again"
    shown = await engine.ask("GET", "/providers/write/instance")
    assert (shown["on_conflict"], shown["active"]) == ("wait", True)
    await fix(engine, chapter, 1, MINE)
    await draft(engine, source, "Sea", "Hail")
    assert await held(engine) == "conflict"


async def test_a_policy_that_nobody_knows_is_refused(engine: Engine) -> None:
    await derived(engine, "Sea")
    answer = await engine.http.put(
        "/api/v1/studio/providers/write/instance", json={"on_conflict": "guess"}, headers={"if-match": "*"}
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/on_conflict")


@pytest.mark.parametrize("by", ["instance", "registration"])
@pytest.mark.parametrize("new", ["keep_human", "take_machine"])
async def test_a_new_policy_runs_again_only_what_is_in_conflict(engine: Engine, by: str, new: str) -> None:
    _, chapter, below = await waiting(engine)
    await engine.create("topics-v1", "Another|One")
    await engine.rest()
    before = len(await engine.runs("write"))
    if by == "instance":
        await policy(engine, "write", new)
    else:
        await engine.provider("write", "topics-v1", "chapter-v1", PROSE, on_conflict=new)
    await engine.rest()
    assert len(await engine.runs("write")) == before + 1
    assert await held_all(engine) == []
    second = MINE if new == "keep_human" else machine("Storm")[0]
    assert await paragraphs(engine, chapter) == [*machine("Quay"), second, *machine("Rain")]
    assert await engine.text(below) == await engine.text(chapter) + "!"
    assert len(await offers(engine, chapter)) == (1 if new == "keep_human" else 0)


async def test_the_same_policy_again_is_no_cause(engine: Engine) -> None:
    await derived(engine, "Sea")
    assert (await policy(engine, "write", "wait"))["cascade_id"]
    assert (await policy(engine, "write", "wait"))["cascade_id"] is None


async def held_all(engine: Engine) -> Sequence[Any]:
    return await engine.rows("select id, hold from derivations where user_id = $1 and hold is not null")
