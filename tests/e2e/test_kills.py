"""SIGKILL in the middle of cascades over 33 derivations, while several people write: nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.e2e.audit import Auditor
from tests.e2e.catalogue import DERIVATIONS, GRAPH
from tests.e2e.people import Person
from tests.e2e.service import Rule, TestService
from tests.e2e.studio import Studio
from tests.e2e.waiting import eventually

FAILPOINTS = (
    "relay.after_commit_before_publish",
    "relay.after_publish_before_mark",
    "relay.after_commit_before_start",
    "relay.after_start_before_mark",
)


STOP_SECONDS_MAX = 10.0


@asynccontextmanager
async def written(person: Person, auditor: Auditor, service: TestService) -> AsyncIterator[None]:
    """A graph in full motion for the block: three writers mark its root, calls take a moment. Then rest, and audit."""
    await person.register(GRAPH)
    root = await person.root(await person.bucket())
    stop = asyncio.Event()
    with service.ruled(Rule(person.name, delay_seconds=0.15)):
        writers = [asyncio.create_task(person.keep_writing(root["id"], writer, stop)) for writer in ("ada", "bo", "cy")]
        try:
            yield
        finally:
            stop.set()
            await asyncio.gather(*writers)
    await auditor.at_rest(person)
    derivations = await auditor.value("select count(*) from derivations where user_id = $1", person.user_id)
    assert derivations == DERIVATIONS
    await auditor.everything_holds(person)


@pytest.mark.timeout(240)
async def test_the_worker_and_its_relay_are_killed_at_every_point(
    person: Person, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    async with written(person, auditor, service):
        await auditor.in_the_middle(person)
        studio.arm(FAILPOINTS[0])
        studio.kill("worker")
        for failpoint in FAILPOINTS[1:]:
            await studio.disarmed()
            assert (await auditor.unrest(person.user_id))["unsettled"] > 0
            studio.arm(failpoint)  # for the life that follows the death at the failpoint before
        await studio.disarmed()
        expected = [f"{failpoint} {-signal.SIGKILL}" for failpoint in FAILPOINTS]
        await eventually(lambda: studio.ends() == expected, "each failpoint has killed its worker")


async def test_every_server_is_killed_in_turn_and_then_all_at_once(
    person: Person, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    async with written(person, auditor, service):
        for name in ("api", "temporal", "postgres"):
            await auditor.in_the_middle(person)
            await studio.restarted(name, studio.kill(name))
        await auditor.in_the_middle(person)
        killed = {name: studio.kill(name) for name in ("api", "temporal", "postgres", "nats", "s3", "worker")}
        for name, pid in killed.items():
            await studio.restarted(name, pid)


async def test_two_workers_do_no_harm_and_one_takes_over_when_the_other_is_killed(
    person: Person, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    leader = "select pid from pg_locks where locktype = 'advisory' and objid = 7264601 and granted"
    second = studio.second_worker()
    try:
        async with written(person, auditor, service):
            await auditor.in_the_middle(person)
            before = await auditor.value(leader)
            killed = studio.kill("worker")

            async def taken_over() -> bool:
                found = await auditor.rows(leader)
                return bool(found) and found[0][0] != before

            await eventually(taken_over, "another relay leads")
            await auditor.in_the_middle(person)
            await studio.restarted("worker", killed)
        second.terminate()
        assert second.wait(STOP_SECONDS_MAX) == 0
    finally:
        second.kill()
        second.wait()


async def test_a_write_whose_answer_was_lost_is_found_again(person: Person, studio: Studio, auditor: Auditor) -> None:
    """The API dies between the commit of a write and the record of its answer: row locks of ours hold it there."""
    await person.note("before")
    made = "select count(*) from blobs where user_id = $1"
    async with auditor.locking(
        "select from idempotency_keys where user_id = $1 and completed_at is null"
    ) as hold_answer:
        async with auditor.locking("select from user_state where user_id = $1") as hold_write:
            await hold_write(person.user_id)
            lost = asyncio.create_task(person.note("once"))
            begun = "select count(*) from idempotency_keys where user_id = $1 and completed_at is null"
            await eventually(lambda: auditor.value(begun, person.user_id), "the write has begun")
            await hold_answer(person.user_id)

        async def committed() -> bool:
            return bool(await auditor.value(made, person.user_id) == 2)

        await eventually(committed, "the write is committed, its answer is not recorded")
        killed = studio.kill("api")
    await studio.restarted("api", killed)
    await lost
    assert person.repeated > 0
    assert await auditor.value(made, person.user_id) == 2
    await auditor.at_rest(person)
    await auditor.nothing_acknowledged_is_lost(person)
    await auditor.every_event_arrived(person)
