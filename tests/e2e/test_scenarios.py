"""Random lives of several users at once while the worker dies at random points of the protocol, and servers with it."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import suppress

import pytest

from storage.invariants import ALWAYS, AT_REST, HISTORY
from tests.e2e.audit import Auditor
from tests.e2e.conftest import NewPerson
from tests.e2e.scenario import Scenario
from tests.e2e.service import TestService
from tests.e2e.studio import Studio

SOAK = int(os.environ.get("STUDIO_SOAK_EXAMPLES", "0"))
SEED = int(os.environ.get("STUDIO_SOAK_SEED", "0"))
AT_ONCE = 12
"""Lives that share one worker, and so its deaths."""
BRIEF = 4
ONE_IN = 15
"""Points that a worker passes before one kills it, on average."""
REST_SECONDS = 180.0
SERVERS = ("api", "temporal", "postgres", "nats", "s3")


class Reaper:
    """Lets one worker after the other die at a point that a seed chooses, and now and then kills a server."""

    def __init__(self, studio: Studio, rng: random.Random) -> None:
        self._studio, self._rng = studio, rng

    async def begin(self) -> None:
        """See to it that the worker's life is one with an end. Each kill keeps the supervisor waiting longer."""
        self._arm()
        if not self._studio.is_armed():
            self._studio.kill("worker")
            await self._studio.disarmed()

    async def reap(self, stop: asyncio.Event) -> None:
        """Until told to stop; whoever lives then lives on."""
        while not stop.is_set():
            if not self._studio.failpoint_file.exists():  # taken: the next life is armed as well
                self._arm()
            if self._rng.random() < 0.1:
                name = self._rng.choice(SERVERS)
                with suppress(AssertionError, KeyError):  # it was about to start again
                    await self._studio.restarted(name, self._studio.kill(name))
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.5)
        self._studio.failpoint_file.unlink(missing_ok=True)

    def _arm(self) -> None:
        self._studio.arm(f"random:{self._rng.randrange(10**6)}:{ONE_IN}")


async def lived(
    seeds: list[int], reaper_seed: int, new_person: NewPerson, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    """These lives side by side under kills; then peace, and an audit of each."""
    lives = [Scenario(seed, await new_person(), service) for seed in seeds]
    stop = asyncio.Event()
    reaper = Reaper(studio, random.Random(reaper_seed))
    await reaper.begin()
    reaping = asyncio.create_task(reaper.reap(stop))
    try:
        await asyncio.gather(*(life.play() for life in lives))
        await asyncio.gather(*(life.mend() for life in lives))
    finally:
        stop.set()
        await reaping
    for life in lives:
        try:
            await auditor.at_rest(life.person, within=REST_SECONDS)
            await audited(auditor, life)
        except AssertionError as error:
            nodes = [(node.name, node.reads, node.calls, node.collects) for node in life.nodes]
            raise AssertionError(f"seed {life.seed} ({life.person.user_id}), {nodes}, {life.done}: {error}") from error


async def audited(auditor: Auditor, life: Scenario) -> None:
    """Every invariant, and what the text of every output must be."""
    broken = await auditor.broken(life.person, ALWAYS | HISTORY | AT_REST)
    assert not broken, broken
    await auditor.history_replays(life.person)
    await auditor.lanes_equal_what_they_are_made_from(life.person)
    await auditor.nothing_acknowledged_is_lost(life.person)
    if not life.forced:
        await auditor.nothing_ran_twice(life.person)
    await auditor.every_event_arrived(life.person)


@pytest.mark.timeout(300)
async def test_random_lives_while_the_worker_dies_at_random_points(
    new_person: NewPerson, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    await lived(list(range(BRIEF)), 0, new_person, studio, auditor, service)


@pytest.mark.timeout(7200)
@pytest.mark.skipif(not SOAK, reason="a soak: set STUDIO_SOAK_EXAMPLES")
async def test_soak_of_random_lives_under_kills(
    new_person: NewPerson, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    began = len(studio.ends())
    for first in range(SEED, SEED + SOAK, AT_ONCE):
        seeds = list(range(first, min(first + AT_ONCE, SEED + SOAK)))
        before = len(studio.ends())
        print(f"lives {seeds[0]} to {seeds[-1]} (again: STUDIO_SOAK_SEED={first})", flush=True)  # noqa: T201
        await lived(seeds, first, new_person, studio, auditor, service)
        print(f"  the worker died {len(studio.ends()) - before} times; nothing is broken", flush=True)  # noqa: T201
    # A soak without deaths has shown nothing.
    assert len(studio.ends()) - began >= SOAK // (2 * AT_ONCE), "hardly any worker died"
