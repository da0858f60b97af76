"""What a person wrote into a derived text stays, while everything around it follows the source."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from tests.e2e.audit import Auditor
from tests.e2e.catalogue import Node
from tests.e2e.people import Person
from tests.e2e.service import TestService, paragraphs

TOPICS = "e2e-topics-v1"
MINE = "It was a wind that nobody had ordered, and I should know: I wrote this sentence myself."
PROSE = (
    Node("write", TOPICS, "e2e-prose-v1", calls=True, endpoint="/paragraphs", inputs=(("topics", "$.data.topics"),)),
    Node("quote", "e2e-prose-v1", "e2e-quote-v1"),
)


async def made_by(auditor: Auditor, person: Person, provider: str) -> str:
    """The id of the one output of a provider."""
    query = "select id from blobs where user_id = $1 and provider_id = $2"
    return str(await auditor.value(query, person.user_id, provider))


async def conflicts(auditor: Auditor, person: Person, blob_id: str) -> list[Any]:
    """What each machine delta after the first says it could not merge."""
    rows = await auditor.rows(
        "select conflicts, machine_hash, base_hash from deltas where user_id = $1 and blob_id = $2"
        " and operation = 'transform' and status = 'applied' order by to_version",
        person.user_id,
        UUID(blob_id),
    )
    assert all(row["machine_hash"] and row["base_hash"] for row in rows)
    return [json.loads(row["conflicts"] or "[]") for row in rows]


async def test_the_paragraph_that_a_person_wrote_stays_and_the_others_follow(person: Person, auditor: Auditor) -> None:
    await person.register(PROSE, {TOPICS: {"type": "object", "required": ["topics"]}})
    source = await person.write("POST", "/blobs", {"schema_id": TOPICS, "data": {"topics": ["sea", "wind", "rain"]}})
    source_id = source.json()["id"]
    await auditor.at_rest(person)
    prose, quote = await made_by(auditor, person, "write"), await made_by(auditor, person, "quote")

    async def text(blob_id: str) -> str:
        return str((await person.get(f"/blobs/{blob_id}"))["data"]["text"])

    assert await text(prose) == paragraphs(["sea", "wind", "rain"])
    before = (await text(prose)).split("\n\n")
    await person.replace(prose, "/data/text", "\n\n".join([before[0], MINE, before[2]]))

    await person.replace(source_id, "/data/topics", ["harbour", "wind", "snow"])
    await auditor.at_rest(person)
    machine = paragraphs(["harbour", "wind", "snow"]).split("\n\n")
    assert (await text(prose)).split("\n\n") == [machine[0], MINE, machine[2]]
    assert await text(quote) == f"quote({await text(prose)})", "dependants read what people read"
    assert await conflicts(auditor, person, prose) == [[]]

    # Now the machine changes that paragraph too: the person's stays, the machine's is recorded, and only once.
    await person.replace(source_id, "/data/topics", ["quay", "storm", "snow"])
    await auditor.at_rest(person)
    machine = paragraphs(["quay", "storm", "snow"]).split("\n\n")
    assert (await text(prose)).split("\n\n") == [machine[0], MINE, machine[2]]
    offered = (await conflicts(auditor, person, prose))[-1]
    assert [(conflict["ours"], conflict["theirs"]) for conflict in offered] == [(MINE, machine[1])]
    query = "select patch from deltas where user_id = $1 and blob_id = $2 and status = 'proposed'"
    proposals = await auditor.rows(query, person.user_id, UUID(prose))
    assert ["storm" in row["patch"] for row in proposals] == [True], "the machine's paragraph is offered"

    await person.replace(source_id, "/data/topics", ["quay", "storm", "ice"])
    await auditor.at_rest(person)
    machine = paragraphs(["quay", "storm", "ice"]).split("\n\n")
    assert (await text(prose)).split("\n\n") == [machine[0], MINE, machine[2]]
    assert (await conflicts(auditor, person, prose))[-1] == [], "a conflict came back"
    await auditor.all_is_fresh(person)
    await auditor.nothing_ran_twice(person)
    await auditor.history_replays(person)


async def topics(person: Person, auditor: Auditor, *nodes: Node) -> tuple[str, str]:
    """A source of three topics and the prose made of it, by these nodes."""
    await person.register(nodes, {TOPICS: {"type": "object", "required": ["topics"]}})
    source = await person.write("POST", "/blobs", {"schema_id": TOPICS, "data": {"topics": ["sea", "wind", "rain"]}})
    await auditor.at_rest(person)
    return source.json()["id"], await made_by(auditor, person, "write")


async def text_of(person: Person, blob_id: str) -> list[str]:
    return str((await person.get(f"/blobs/{blob_id}"))["data"]["text"]).split("\n\n")


async def rewrite(person: Person, blob_id: str, index: int, words: str) -> None:
    found = await text_of(person, blob_id)
    await person.replace(blob_id, "/data/text", "\n\n".join([*found[:index], words, *found[index + 1 :]]))


async def test_three_drafts_change_only_what_the_person_has_not_fixed(person: Person, auditor: Auditor) -> None:
    source, prose = await topics(person, auditor, *PROSE)
    await rewrite(person, prose, 1, MINE)
    for draft in (["harbour", "wind", "rain"], ["harbour", "wind", "snow"], ["quay", "wind", "ice"]):
        await person.replace(source, "/data/topics", draft)
        await auditor.at_rest(person)
        first, _, last = paragraphs(draft).split("\n\n")
        assert await text_of(person, prose) == [first, MINE, last]
    assert await conflicts(auditor, person, prose) == [[], [], []]
    await auditor.all_is_fresh(person)
    await auditor.history_replays(person)


async def test_what_waits_for_a_person_goes_on_once_it_is_decided_and_calls_nobody_again(
    person: Person, auditor: Auditor, service: TestService
) -> None:
    source, prose = await topics(person, auditor, *PROSE)
    quote = await made_by(auditor, person, "quote")
    await person.write("PUT", "/providers/write/instance", {"on_conflict": "wait"}, If_Match="*")
    await rewrite(person, prose, 1, MINE)
    await auditor.at_rest(person)
    said = await text_of(person, quote)
    await person.replace(source, "/data/topics", ["quay", "storm", "rain"])
    await auditor.at_rest(person)
    assert (await text_of(person, prose))[:2] == [paragraphs(["sea"]), MINE], "people's text is readable as it was"
    assert await text_of(person, quote) == said, "who depends on it waits"
    calls = len(service.of(person.name, "write"))
    [offer] = (await person.get(f"/blobs/{prose}/deltas", status="proposed"))["data"]
    assert [(one["ours"], one["theirs"]) for one in offer["conflicts"]] == [(MINE, paragraphs(["storm"]))]
    await person.write("POST", f"/deltas/{offer['id']}/accept", {})
    await auditor.at_rest(person)
    assert await text_of(person, prose) == paragraphs(["quay", "storm", "rain"]).split("\n\n")
    assert "\n\n".join(await text_of(person, quote)) == f"quote({paragraphs(['quay', 'storm', 'rain'])})"
    assert len(service.of(person.name, "write")) == calls, "the provider was asked again"
    await auditor.history_replays(person)
