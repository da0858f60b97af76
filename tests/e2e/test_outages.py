"""A server that is away for a while, silent instead of gone: writes are accepted, work goes on as far as it can."""

from __future__ import annotations

import time

from tests.e2e.audit import Auditor
from tests.e2e.catalogue import SOURCE, Node
from tests.e2e.people import Person
from tests.e2e.studio import SETTINGS, Studio
from tests.e2e.waiting import eventually

CHAIN = (
    Node("cut", SOURCE, "e2e-cut-v1"),
    Node("bind", "e2e-cut-v1", "e2e-bound-v1", calls=True),
    Node("print", "e2e-bound-v1", "e2e-printed-v1"),
)
WRITE_SECONDS_MAX = 3.0


async def unrest(auditor: Auditor, person: Person) -> set[str]:
    return set(await auditor.unrest(person.user_id))


async def test_without_temporal_writes_are_accepted_and_their_cascades_run_when_it_is_back(
    person: Person, studio: Studio, auditor: Auditor
) -> None:
    await person.register(CHAIN)
    root = await person.root()
    await auditor.at_rest(person)
    studio.freeze("temporal")
    try:
        began = time.monotonic()
        await person.mark(root["id"], "while Temporal is away")
        await person.note("while Temporal is away")
        assert time.monotonic() - began < WRITE_SECONDS_MAX
        waiting = {"open_cascades", "unsent_doorbells"}

        async def told() -> bool:
            return await unrest(auditor, person) == waiting

        await eventually(told, "events went out although no cascade could start")
        assert (await person.get(f"/blobs/{root['id']}/dag"))["settled"] is False
    finally:
        killed = studio.kill("temporal")
    await studio.restarted("temporal", killed)
    await auditor.at_rest(person)
    await auditor.everything_holds(person)


async def test_without_nats_cascades_go_on_and_the_events_arrive_afterwards(
    person: Person, studio: Studio, auditor: Auditor
) -> None:
    await person.register(CHAIN)
    root = await person.root()
    await auditor.at_rest(person)
    studio.freeze("nats")
    try:
        await person.mark(root["id"], "while NATS is away")

        async def unpublished() -> bool:
            return await unrest(auditor, person) == {"unpublished_events"}

        await eventually(unpublished, "the cascade ended; only its events wait")
        await auditor.lanes_equal_what_they_are_made_from(person)
    finally:
        killed = studio.kill("nats")
    await studio.restarted("nats", killed)
    await auditor.at_rest(person)
    await auditor.everything_holds(person)


async def test_large_content_goes_through_a_cascade_by_way_of_s3(person: Person, auditor: Auditor) -> None:
    await person.register(CHAIN)
    root = await person.root(text="word " * 1000)
    await auditor.at_rest(person)
    await person.mark(root["id"], "one")
    await auditor.at_rest(person)
    large = await auditor.rows(
        "select b.id from blobs b"
        " join snapshots s on s.user_id = b.user_id and s.blob_id = b.id and s.version = b.kept_version"
        " join contents c on c.user_id = b.user_id and c.hash = s.document_hash"
        " where b.user_id = $1 and b.storage_type = 'url' and c.location is not null and c.body is null"
        " and c.size > $2",
        person.user_id,
        int(SETTINGS["STUDIO__STORAGE__INLINE_MAX"]),
    )
    assert len(large) == 1 + len(CHAIN)
    await auditor.everything_holds(person)
