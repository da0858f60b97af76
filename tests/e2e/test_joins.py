"""Joins while several edits are in flight: one run for each consistent set of inputs, generations never mix."""

from __future__ import annotations

from tests.e2e.audit import Auditor
from tests.e2e.catalogue import SOURCE, Node
from tests.e2e.people import Person
from tests.e2e.service import TestService
from tests.e2e.waiting import eventually

DIAMOND = (
    Node("left", SOURCE, "e2e-wing-v1", calls=True),
    Node("right", SOURCE, "e2e-wing-v1", calls=True),
    Node("sink", "e2e-wing-v1", "e2e-sink-v1", collects=True),
)
JOIN = (
    Node("chapter", SOURCE, "e2e-chapter-v1", calls=True),
    Node("book", "e2e-chapter-v1", "e2e-book-v1", collects=True),
)
HASTY = (Node("dash", SOURCE, "e2e-dashed-v1", calls=True, more=(("supersede", "cancel"),)),)


async def settled(auditor: Auditor, person: Person, provider: str) -> int:
    """How many runs of a provider have settled."""
    query = "select count(*) from runs where user_id = $1 and provider_id = $2 and status = 'settled'"
    return int(await auditor.value(query, person.user_id, provider))


async def test_a_diamond_derives_its_sink_once_per_edit_however_edits_overtake_each_other(
    person: Person, auditor: Auditor, service: TestService
) -> None:
    await person.register(DIAMOND)
    root = await person.root(await person.bucket())
    await auditor.at_rest(person)
    assert await settled(auditor, person, "sink") == 1

    with service.hold(person.name, "left", about="#1"):
        await person.mark(root["id"], "first")
        await eventually(lambda: service.held(person.name, "left"), "the left branch is held at the first edit")
        await person.mark(root["id"], "second")
        query = """select max(x->>'version') = '3' from runs r, jsonb_array_elements(r.inputs) x
          where user_id = $1 and r.provider_id = 'right' and r.status = 'settled'"""
        await eventually(lambda: auditor.value(query, person.user_id), "the right branch is at the second edit")
        assert await settled(auditor, person, "sink") == 1, "the sink ran while a branch was behind"
    await auditor.at_rest(person)
    # The left branch finished the call it had begun (it may have cost money), then followed; the sink saw one of them.
    assert await settled(auditor, person, "left") == 3
    assert await settled(auditor, person, "sink") == 2
    await auditor.everything_holds(person)


async def test_a_join_over_two_edited_roots_runs_once_for_both(
    person: Person, auditor: Auditor, service: TestService
) -> None:
    await person.register(JOIN)
    shelf = await person.bucket()
    first, second = await person.root(shelf, text="first"), await person.root(shelf, text="second")
    await auditor.at_rest(person)
    before = await settled(auditor, person, "book")

    with service.hold(person.name, "chapter", about="second #1"):
        with service.hold(person.name, "chapter", about="first #1"):
            await person.mark(first["id"], "x")
            await person.mark(second["id"], "y")
            await eventually(lambda: service.held(person.name, "chapter") == 2, "both edits are in flight")
        chapters = "select count(*) from runs where user_id = $1 and provider_id = 'chapter' and status = 'running'"

        async def one_left() -> bool:
            return bool(await auditor.value(chapters, person.user_id) == 1)

        await eventually(one_left, "the first chapter has settled")
        assert await settled(auditor, person, "book") == before, "the join ran between two edits in flight"
    await auditor.at_rest(person)
    assert await settled(auditor, person, "book") == before + 1
    await auditor.everything_holds(person)


async def test_an_edit_of_one_root_takes_the_other_as_it_is(person: Person, auditor: Auditor) -> None:
    await person.register(JOIN)
    shelf = await person.bucket()
    first = await person.root(shelf, text="first")
    await person.root(shelf, text="second")
    await auditor.at_rest(person)
    books, chapters = await settled(auditor, person, "book"), await settled(auditor, person, "chapter")
    for mark in ("one", "two"):
        await person.mark(first["id"], mark)
        await auditor.at_rest(person)
    assert await settled(auditor, person, "book") == books + 2
    assert await settled(auditor, person, "chapter") == chapters + 2
    await auditor.everything_holds(person)


async def test_a_run_that_was_overtaken_does_not_settle_when_its_call_comes_back_late(
    person: Person, auditor: Auditor, service: TestService
) -> None:
    await person.register(HASTY)
    root = await person.root()
    await auditor.at_rest(person)
    with service.hold(person.name, "dash", about="#1"):
        await person.mark(root["id"], "first")
        await eventually(lambda: service.held(person.name, "dash"), "the first edit's call is held")
        await person.mark(root["id"], "second")
        await auditor.at_rest(person)
        await auditor.lanes_equal_what_they_are_made_from(person)
    overtaken = "select workflow_id from runs where user_id = $1 and status = 'superseded'"
    temporal = await auditor.temporal()
    workflow_id = await auditor.value(overtaken, person.user_id)
    outcome = await temporal.get_workflow_handle(workflow_id).result()
    assert outcome["status"] == "superseded"
    assert await settled(auditor, person, "dash") == 2
    await auditor.everything_holds(person)
