"""Reconcile over the real registry: what nobody looks after is rung or lost, everything else is left alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from uuid import UUID

import pytest
import pytest_asyncio
from temporalio.testing import ActivityEnvironment

from activities.housekeeping import Halted, HousekeepingActivities
from domain.housekeeping import Chore, Tidied
from storage.database import Database
from storage.registry import Registry
from tests.storage.engine import Engine

HOUR = timedelta(hours=1)


class Open:
    """What Temporal says is open."""

    def __init__(self, *workflow_ids: str | None) -> None:
        self.workflow_ids = set(workflow_ids)
        self.ended: list[Halted] = []
        self.asked: list[str] = []

    async def halted(self, *, within: timedelta, limit: int) -> list[Halted]:
        del within, limit
        return self.ended

    async def is_open(self, workflow_id: str) -> bool:
        self.asked.append(workflow_id)
        return workflow_id in self.workflow_ids


@pytest_asyncio.fixture
async def registry(database_urls: Mapping[str, str]) -> AsyncIterator[Registry]:
    """As the role studio_relay, which sees everybody's ids."""
    opened = await Database.connect(database_urls["DATABASE_RELAY_URL"], size_max=2)
    yield Registry(opened)
    await opened.close()


class NoChores:
    """Reconcile does not ask for any."""

    async def tidy(self, chore: Chore, user_id: UUID) -> Tidied:
        raise AssertionError(chore)


async def reconcile(environment: ActivityEnvironment, engine: Engine, registry: Registry, workflows: Open) -> None:
    activities = HousekeepingActivities(engine.schedule, registry, workflows, NoChores(), idle=HOUR)
    await environment.run(activities.reconcile)
    await engine.check()


async def quiet(engine: Engine, cascade: UUID) -> None:
    """The doorbell was answered long ago."""
    await engine.ring(cascade)
    await engine.rows(
        "update cascades set rung_at = now() - interval '2 hours' where user_id = $1 and id = $2", cascade
    )


async def rung(engine: Engine, cascade: UUID) -> bool:
    found = await engine.cascade(cascade)
    return bool(found["seq"] > found["sent_seq"])


async def claimed(engine: Engine) -> tuple[UUID, UUID, str]:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    run = await engine.take(cascade)
    await quiet(engine, cascade)
    return cascade, run.run_id, str(run.workflow_id)


async def test_an_open_cascade_that_nobody_rang_for_long_is_rung(
    engine: Engine, environment: ActivityEnvironment, registry: Registry
) -> None:
    cascade, run_id, workflow_id = await claimed(engine)
    await reconcile(environment, engine, registry, Open(workflow_id, f"cascade:{cascade}"))
    assert await rung(engine, cascade)
    assert await engine.runs() == ["running"]
    await engine.ring(cascade)
    # Rung just now: not again.
    await reconcile(environment, engine, registry, Open(workflow_id))
    assert not await rung(engine, cascade)
    await engine.finish(run_id)
    await engine.rest()


async def test_a_closed_cascade_is_left_alone_unless_it_owns_what_could_run(
    engine: Engine, environment: ActivityEnvironment, registry: Registry
) -> None:
    cascade, run_id, _ = await claimed(engine)
    await engine.schedule.fail(engine.user.user_id, run_id, code="internal", detail="", usage={})
    await engine.rest()
    await quiet(engine, cascade)
    await reconcile(environment, engine, registry, Open())
    assert not await rung(engine, cascade)
    # As after a restore of a backup: the hold is gone, the cascade is closed.
    await engine.rows("update derivations set hold = null, failing = false where user_id = $1")
    await reconcile(environment, engine, registry, Open())
    assert await rung(engine, cascade)
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "a!"


async def test_only_a_run_whose_lease_is_over_and_whose_workflow_is_gone_is_lost(
    engine: Engine, environment: ActivityEnvironment, registry: Registry
) -> None:
    _, _, workflow_id = await claimed(engine)
    workflows = Open()
    await reconcile(environment, engine, registry, workflows)
    assert (await engine.runs(), workflow_id in workflows.asked) == (["running"], False)
    await engine.rows("update runs set lease_until = now() - interval '1 second' where user_id = $1")
    await reconcile(environment, engine, registry, Open(workflow_id))
    assert await engine.runs() == ["running"]
    await engine.rows("update runs set lease_until = now() - interval '1 second' where user_id = $1")
    await reconcile(environment, engine, registry, Open())
    assert await engine.runs() == ["lost"]
    await engine.rest()
    assert await engine.runs() == ["lost", "settled"]


async def test_an_inline_run_lives_as_long_as_its_cascade(
    engine: Engine, environment: ActivityEnvironment, registry: Registry
) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    await engine.take(cascade)
    await engine.rows("update runs set lease_until = now() - interval '1 second' where user_id = $1")
    await reconcile(environment, engine, registry, Open(f"cascade:{cascade}"))
    assert await engine.runs() == ["running"]
    await engine.rows("update runs set lease_until = now() - interval '1 second' where user_id = $1")
    await reconcile(environment, engine, registry, Open())
    assert await engine.runs() == ["lost"]
    await engine.rest()


async def test_leases_of_what_is_alive_hide_nothing(
    engine: Engine, environment: ActivityEnvironment, registry: Registry
) -> None:
    _, _, workflow_id = await claimed(engine)
    await engine.rows("update runs set lease_until = now() - interval '1 hour' where user_id = $1")
    await reconcile(environment, engine, registry, Open(workflow_id))
    [row] = await engine.rows("select status, lease_until > now() as leased from runs where user_id = $1")
    assert tuple(row) == ("running", True)


@pytest.mark.parametrize(("terminated", "status"), [(True, "failed"), (False, "cancelled")])
async def test_a_run_whose_workflow_an_operator_ended_ends_at_once(
    engine: Engine, environment: ActivityEnvironment, registry: Registry, *, terminated: bool, status: str
) -> None:
    _, _, workflow_id = await claimed(engine)
    world = Open()
    world.ended = [Halted(workflow_id=workflow_id, terminated=terminated)]
    await reconcile(environment, engine, registry, world)
    assert (await engine.runs(), (await engine.derivation("one"))["hold"]) == ([status], status)


@pytest.mark.parametrize(("terminated", "status"), [(True, "running"), (False, "cancelled")])
async def test_a_cascade_whose_workflow_an_operator_cancelled_is_cancelled_and_a_terminated_one_comes_back(
    engine: Engine, environment: ActivityEnvironment, registry: Registry, *, terminated: bool, status: str
) -> None:
    cascade, _, workflow_id = await claimed(engine)
    world = Open(workflow_id)
    by_hand = Halted(workflow_id="somebody-tried", terminated=True)  # an id of nobody's is nobody's business
    world.ended = [by_hand, Halted(workflow_id=f"cascade:{cascade}", terminated=terminated)]
    await reconcile(environment, engine, registry, world)
    assert (await engine.cascade(cascade))["status"] == status
    assert await rung(engine, cascade)
