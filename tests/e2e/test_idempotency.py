"""Processes of the API that are killed in the middle of writes with a key: whoever repeats them gets one effect."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio

from devstack.apps import ROOT
from devstack.ports import accepts, choose
from devstack.processes import Child, Command, spawn, tail
from domain.keys import SCOPES
from storage.idempotency import LEASE_SECONDS
from tests.api.requests import problem
from tests.api.writes import EFFECTS, WRITES, Call, effect, said
from tests.conftest import Person, client_of
from tests.e2e.armed_api import AFTER_COMMIT, BEFORE_COMMIT
from tests.e2e.audit import Auditor
from tests.e2e.people import Person as Insistent
from tests.e2e.studio import Studio
from tests.e2e.waiting import eventually
from tests.sampling import sampled

START_SECONDS = 60.0
COMMITTED = (
    "api_keys_create",
    "api_keys_revoke",
    "blobs_batch",
    "blobs_delete",
    "buckets_delete",
    "buckets_put_blob",
    "buckets_remove_blob",
    "buckets_update",
    "contents_put",
    "providers_delete",
    "providers_process",
    "providers_put_instance",
    "schemas_register",
    "users_create",
)
"""Those that a second execution would refuse, or answer otherwise."""
UNCOMMITTED = ("buckets_delete", "providers_process", "providers_put_instance")
LATER = ("blobs_delete", "contents_put", "providers_process", "users_create")
"""Those whose answer is recorded after their effect: a retry waits for the lease of who died."""
CASES = [(name, AFTER_COMMIT) for name in COMMITTED] + [(name, BEFORE_COMMIT) for name in UNCOMMITTED]
BRIEF = [(name, AFTER_COMMIT) for name in ("blobs_batch", "blobs_delete", "providers_put_instance", "users_create")]
BRIEF += [("buckets_delete", BEFORE_COMMIT)]
"""One of each way in which an answer is kept; a soak tries them all."""


@contextmanager
def armed(point: str, environment: Mapping[str, str], log: Path) -> Iterator[tuple[Child, str]]:
    """An API process that dies at ``point`` of its first write, and its address."""
    port = choose(set())
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "DATABASE_"))}
    argv = [sys.executable, "-m", "tests.e2e.armed_api", point, str(port)]
    child = spawn(Command(argv=argv, env={**outside, **environment}, cwd=ROOT), log)
    try:
        yield child, f"http://127.0.0.1:{port}"
    finally:
        child.kill()


@pytest_asyncio.fixture
async def chief(make_user: Any) -> Any:
    """Somebody whose key allows everything."""
    return await make_user(SCOPES)


@pytest_asyncio.fixture
async def survivor(app: Any, chief: Person) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of another API on the same database, which nobody kills."""
    async with client_of(app, chief.headers) as made:
        yield made


@pytest_asyncio.fixture
async def clean_effect(app: Any, make_user: Any, admin: Any) -> Any:
    """What one execution amounts to, tried on somebody else."""

    async def tried(operation: str) -> int:
        person = await make_user(SCOPES)
        async with client_of(app, person.headers) as client:
            return await effect(admin, person, client, operation)

    return tried


async def lost(call: Call, key: str, point: str, environment: Mapping[str, str], chief: Person, log: Path) -> None:
    """Send a request to a process that dies of it."""
    with armed(point, environment, log) as (child, url):
        where = int(url.rpartition(":")[2])
        await eventually(lambda: accepts(where) or child.poll() is not None, "the API listens", within=START_SECONDS)
        async with httpx2.AsyncClient(base_url=url, headers=chief.headers, timeout=30) as client:
            with pytest.raises(httpx2.TransportError):
                await call.send(client, key)
        assert child.wait(10), tail(log, 20)
        assert child.poll() == -signal.SIGKILL, tail(log, 20)


@pytest.mark.parametrize(("operation", "point"), sampled(CASES, BRIEF))
async def test_a_write_whose_process_died_is_repeated_and_done_once(
    survivor: httpx2.AsyncClient,
    chief: Person,
    admin: Any,
    clean_effect: Any,
    database_urls: Mapping[str, str],
    tmp_path: Path,
    operation: str,
    point: str,
) -> None:
    call = await WRITES[operation](survivor)
    before = await admin.fetchval(EFFECTS, chief.user_id)
    await lost(call, "lost", point, database_urls, chief, tmp_path / "api.log")
    left = await admin.fetchval(EFFECTS, chief.user_id) - before
    expected = await clean_effect(operation)
    assert left == (expected if point == AFTER_COMMIT else 0)
    answer = await call.send(survivor, "lost")
    if point == BEFORE_COMMIT or operation in LATER:
        problem(answer, 409, "idempotency_key_in_flight")
        await admin.execute(
            "update idempotency_keys set leased_at = leased_at - make_interval(secs => $2) where user_id = $1",
            chief.user_id, float(LEASE_SECONDS),
        )  # fmt: skip
        answer = await call.send(survivor, "lost")
    assert answer.is_success, answer.text
    again = await call.send(survivor, "lost")
    assert (said(again), again.headers["idempotency-replayed"]) == (said(answer), "true")
    assert await admin.fetchval(EFFECTS, chief.user_id) - before == expected


MOMENTS = [(method, moment) for method in ("POST", "PATCH") for moment in (BEFORE_COMMIT, AFTER_COMMIT)]
Answer = tuple[int, bytes, list[str | None]]


async def insisted(person: Insistent, call: Call, key: str) -> Answer:
    """Send a request until it is answered; what was said then."""
    path = call.path.removeprefix("/")
    headers = {"idempotency-key": key, **call.headers}
    answer = await person._insisting(call.method, f"/{path}", json=call.json, headers=headers)
    return said(answer)


@pytest.mark.parametrize(("method", "moment"), sampled(MOMENTS, [("POST", BEFORE_COMMIT), ("PATCH", AFTER_COMMIT)]))
async def test_fifty_identical_requests_and_an_api_killed_midway_make_one_delta(
    person: Insistent, studio: Studio, auditor: Auditor, method: str, moment: str
) -> None:
    """Our row locks hold the one that got the key where it dies: in its transaction, or before its answer is kept."""
    kept = await person.note("before")
    call = Call("POST", "/blobs", {"content": "once", "title": "T"})
    if method == "PATCH":
        patch = [{"op": "add", "path": "/tags/-", "value": "once"}]
        headers = {"content-type": "application/json-patch+json", "if-match": '"v1"'}
        call = Call("PATCH", f"/blobs/{kept['id']}", patch, headers=headers)
    begun = "select count(*) from idempotency_keys where user_id = $1 and completed_at is null"
    deltas = "select count(*) from deltas where user_id = $1"
    waiting = (
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
        " and query ~ 'append_delta|create_blob'"
    )
    key = str(uuid4())
    async with auditor.locking(
        "select from idempotency_keys where user_id = $1 and completed_at is null"
    ) as hold_answer:
        async with auditor.locking("select from user_state where user_id = $1") as hold_write:
            await hold_write(person.user_id)
            fifty = [asyncio.create_task(insisted(person, call, key)) for _ in range(50)]
            await eventually(lambda: auditor.value(begun, person.user_id), "one of them has the key")
            await eventually(lambda: auditor.value(waiting), "it waits in its transaction")
            if moment == BEFORE_COMMIT:
                killed = studio.kill("api")
            else:
                await hold_answer(person.user_id)

        async def committed() -> bool:
            return bool(await auditor.value(deltas, person.user_id) == 2)

        if moment == AFTER_COMMIT:
            await eventually(committed, "the write is committed, its answer is not kept")
            killed = studio.kill("api")
    await studio.restarted("api", killed)
    answers = await asyncio.gather(*fifty)
    assert len({(status, body, tuple(headers)) for status, body, headers in answers}) == 1
    assert answers[0][0] == (201 if method == "POST" else 200)
    assert await auditor.value(deltas, person.user_id) == 2
    blobs = await auditor.value("select count(*) from blobs where user_id = $1", person.user_id)
    assert blobs == (2 if method == "POST" else 1)
    await auditor.at_rest(person)
    await auditor.every_event_arrived(person)
