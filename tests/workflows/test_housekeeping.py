"""Housekeeping as a workflow: scheduled, asked for, page by page, with counts that can be read in the Temporal UI."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from activities.housekeeping import TidyOrder, UsersAfter
from domain.housekeeping import Chore, Tidied
from domain.ids import new_id
from storage.contents import Contents
from tests.cli.conftest import Ended
from tests.conftest import Person
from tests.workflows.conftest import INLINE, Studio
from tests.workflows.replays import kept
from tests.workflows.test_provider_runs import create, until
from workflows import housekeeping
from workflows.contracts import (
    HOUSEKEEPING_NOW_ID,
    HOUSEKEEPING_SCHEDULE_ID,
    PROGRESS,
    Pass,
)
from workflows.housekeeping import Housekeeping
from workflows.starter import TemporalStarter

QUEUE = "studio-providers"


async def garbage(admin: Any, contents: Contents, user: Person) -> str:
    """A content that nothing has referred to for long; returns the key of its object."""
    placed = await contents.put(user.user_id, os.urandom(70_000))
    await admin.execute(
        "insert into contents (user_id, hash, size, stored_size, codec, tier, location, touched_at)"
        " values ($1, $2, $3, $4, $5, 'cold', $6, now() - interval '2 hours')",
        user.user_id, placed.hash, placed.size, placed.stored_size, placed.codec, placed.location,
    )  # fmt: skip
    return str(placed.location)


async def test_a_pass_collects_what_is_not_needed_and_counts_it(
    studio: Studio, temporal: Client, admin: Any, contents: Contents
) -> None:
    await studio.provider("one", "in-v1", "out-v1", INLINE)
    blob = await create(studio)
    await studio.settled(blob["id"])
    before = await admin.fetchval("select count(*) from contents where user_id = $1", studio.user.user_id)
    await garbage(admin, contents, studio.user)
    handle = await TemporalStarter(temporal, QUEUE).housekeep()
    joined = await TemporalStarter(temporal, QUEUE).housekeep()
    done = await handle.result()
    assert (joined.id, handle.id) == (HOUSEKEEPING_NOW_ID, HOUSEKEEPING_NOW_ID)
    assert (done.contents_collected, done.damaged, done.failed, done.findings) == (1, 0, 0, ())
    assert done.users >= 1
    assert done.verified > 0
    assert await admin.fetchval("select count(*) from contents where user_id = $1", studio.user.user_id) == before
    assert (await studio.get(f"/blobs/{blob['id']}"))["version"] == 1
    said = await handle.query(PROGRESS, result_type=Pass)
    assert said.done == done
    await kept(handle, "housekeeping")


async def test_the_schedule_is_there_and_does_the_same(
    studio: Studio, temporal: Client, admin: Any, contents: Contents
) -> None:
    await garbage(admin, contents, studio.user)
    handle = temporal.get_schedule_handle(HOUSEKEEPING_SCHEDULE_ID)
    await handle.trigger()

    async def collected() -> bool:
        count = await admin.fetchval("select count(*) from contents where user_id = $1", studio.user.user_id)
        return bool(count == 0)

    await until(collected)


class Pages:
    """Activities of the test's own: a hundred and more users, some of whom cannot be tidied up."""

    def __init__(self, count: int) -> None:
        self.users = sorted(str(new_id()) for _ in range(count))
        self.tidied: list[tuple[Chore, int]] = []

    @activity.defn(name="Housekeeping.users")
    async def tell(self, page: UsersAfter) -> list[str]:
        return [user for user in self.users if page.after is None or user > page.after][: page.limit]

    @activity.defn(name="Housekeeping.tidy")
    async def tidy(self, order: TidyOrder) -> Tidied:
        self.tidied.append((order.chore, len(order.users)))
        return Tidied(verified=len(order.users))


async def test_every_chore_is_done_for_every_page_and_history_stays_short(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "PAGES_MAX", 2)
    pages, queue = Pages(5 * housekeeping.USERS_AT_ONCE + 1), f"housekeeping-{new_id()}"
    worker = Worker(
        temporal, task_queue=queue, workflows=[Housekeeping], activities=[pages.tell, pages.tidy],
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_all_modules()
        ),
    )  # fmt: skip
    async with worker:
        handle = await temporal.start_workflow("Housekeeping", id=queue, task_queue=queue, result_type=Tidied)
        done = await handle.result()
    assert done == Tidied(users=len(pages.users), verified=len(Chore) * len(pages.users))
    sizes = [housekeeping.USERS_AT_ONCE] * 5 + [1]
    assert pages.tidied == [(chore, size) for size in sizes for chore in Chore]
    first = temporal.get_workflow_handle(queue, run_id=handle.first_execution_run_id)
    assert "WORKFLOW_EXECUTION_CONTINUED_AS_NEW" in str((await first.fetch_history()).to_json())


async def test_one_users_damage_is_told_and_does_not_stop_the_pass(
    studio: Studio, temporal: Client, admin: Any, contents: Contents
) -> None:
    await studio.post("/blobs", {"content_type": "text/plain", "content": "a note", "title": "Note"})
    await admin.execute("update contents set body = 'x' where user_id = $1", studio.user.user_id)
    done = await (await TemporalStarter(temporal, QUEUE).housekeep()).result()
    assert done.damaged == 1
    assert str(studio.user.user_id) in done.findings[0]
    assert done.users > 1
    await admin.execute("delete from snapshots where user_id = $1", studio.user.user_id)
    await admin.execute("delete from contents where user_id = $1", studio.user.user_id)


async def test_studio_admin_housekeep_waits_for_its_counts(
    studio: Studio, database_urls: Mapping[str, str], settings: Any, admin: Any, contents: Contents
) -> None:
    await garbage(admin, contents, studio.user)
    environment = {**os.environ, **database_urls, "TEMPORAL_HOST": settings.workflow.temporal_host}
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "cli.main", "admin", "housekeep", "--json"], env=environment,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    said = Ended(ended.returncode, ended.stdout, ended.stderr)
    assert said.status == 0, said.err
    assert said.json["contents_collected"] == 1
    assert "tidying up" in said.err
