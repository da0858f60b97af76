"""Random kills of real servers under writers; ``python -m bench soak`` runs it, and a seed plays it again."""

import asyncio
import os
import random

import pytest

from tests.e2e.audit import Auditor
from tests.e2e.conftest import NewPerson
from tests.e2e.service import TestService
from tests.e2e.studio import Studio
from tests.e2e.test_kills import written

KILLS = int(os.environ.get("STUDIO_SOAK_KILLS", "0"))
SEED = int(os.environ.get("STUDIO_SOAK_SEED", "0"))
KILLS_A_PERSON = 4
"""After so many kills the writers stop, everything comes to rest and is audited."""
VICTIMS = ("worker", "worker", "worker", "api", "temporal", "postgres", "nats")
PAUSE_SECONDS_MAX = 1.5


@pytest.mark.skipif(not KILLS, reason="a soak: set STUDIO_SOAK_KILLS")
async def test_soak_of_random_kills(
    new_person: NewPerson,
    studio: Studio,
    auditor: Auditor,
    service: TestService,
) -> None:
    rng, left = random.Random(SEED), KILLS
    while left:
        person = await new_person()
        async with written(person, auditor, service):
            await auditor.in_the_middle(person)
            for _ in range(min(left, KILLS_A_PERSON)):
                await asyncio.sleep(rng.random() * PAUSE_SECONDS_MAX)
                victim = rng.choice(VICTIMS)
                print(f"seed {SEED}: kill {KILLS - left + 1} of {KILLS}: {victim}", flush=True)  # noqa: T201
                await studio.restarted(victim, studio.kill(victim))
                left -= 1
