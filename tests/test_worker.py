"""The worker as a process: it says what it lacks, prepares its namespace, and ends when it is told to, at any time."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.duration_pb2 import Duration
from temporalio.api.enums.v1 import EventType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

import worker
from api.app import create_app
from devstack.ports import choose
from devstack.stack import Stack
from settings import load_settings
from storage.database import Database
from tests.conftest import client_of, new_person
from tests.workflows.conftest import CALL, INLINE, Studio, TextService, engine_stack, text_service
from workflows.contracts import SEARCH_ATTRIBUTES

__all__ = ["engine_stack", "text_service"]

ROOT = Path(__file__).parent.parent
STOP_SECONDS = 15.0
"""The bound of a test on a loaded machine; an idle worker needs about one."""

Environment = dict[str, str]


@pytest_asyncio.fixture
async def environment(
    make_database: Callable[..., Awaitable[Mapping[str, str]]], engine_stack: Stack, text_service: TextService
) -> Environment:
    """A worker's environment: a database of its own, a namespace that Temporal has just made."""
    urls = await make_database()
    servers = {name: url for name, url in engine_stack.endpoints.items() if name.startswith(("TEMPORAL", "NATS"))}
    namespace = f"worker-{choose(set())}"
    client = await Client.connect(servers["TEMPORAL_HOST"])
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(namespace=namespace, workflow_execution_retention_period=Duration(seconds=24 * 3600))
    )
    await takes_workflows(await Client.connect(servers["TEMPORAL_HOST"], namespace=namespace))
    return {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        **urls,
        **servers,
        "TEMPORAL_NAMESPACE": namespace,
        "STUDIO__WORKFLOW__HEALTH_PORT": str(choose(set())),
        "STUDIO__SERVICES__TEST__URL": text_service.url,
    }


async def takes_workflows(client: Client) -> None:
    """Wait until all of Temporal's services know a namespace and its search attributes: before, it starts nothing."""
    await worker.register_search_attributes(client)
    marked = TypedSearchAttributes([SearchAttributePair(key, "probe") for key in SEARCH_ATTRIBUTES])
    async with asyncio.timeout(60):
        while True:
            try:
                probe = await client.start_workflow("probe", id="probe", task_queue="probe", search_attributes=marked)
                await probe.terminate()
            except RPCError:
                await asyncio.sleep(0.05)
            else:
                return


@asynccontextmanager
async def process(environment: Mapping[str, str]) -> AsyncIterator[asyncio.subprocess.Process]:
    """``python -m worker``, killed in the end if it lives."""
    started = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", cwd=ROOT, env=dict(environment),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def ready(environment: Mapping[str, str]) -> None:
    """Wait until the worker answers on its health port."""
    async with asyncio.timeout(60):
        while True:
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", int(environment["STUDIO__WORKFLOW__HEALTH_PORT"])
                )
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.write(b"GET / HTTP/1.1\r\n\r\n")
            answer = await reader.read()
            writer.close()
            assert answer.startswith(b"HTTP/1.1 200")
            return


async def ended(started: asyncio.subprocess.Process) -> float:
    """Tell the process to end; how long it took, and it must have ended well."""
    before = time.monotonic()
    started.send_signal(signal.SIGTERM)
    async with asyncio.timeout(STOP_SECONDS):
        assert await started.wait() == 0
    return time.monotonic() - before


@asynccontextmanager
async def person(environment: Mapping[str, str]) -> AsyncIterator[Studio]:
    application = create_app(load_settings(environment))
    database = await Database.connect(environment["DATABASE_URL"])
    try:
        async with application.router.lifespan_context(application):
            user = await new_person(database)
            async with client_of(application, user.headers) as http:
                yield Studio(http, user)
    finally:
        await database.close()


async def has_timer(client: Client, workflow_id: str) -> None:
    """Wait until a workflow waits for a timer."""
    async with asyncio.timeout(30):
        while True:
            try:
                history = await client.get_workflow_handle(workflow_id).fetch_history()
                if any(event.event_type == EventType.EVENT_TYPE_TIMER_STARTED for event in history.events):
                    return
            except RPCError as error:
                if error.status != RPCStatusCode.NOT_FOUND:
                    raise
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("missing", ["DATABASE_URL", "DATABASE_RELAY_URL", "NATS_URL"])
async def test_a_setting_that_is_missing_is_named_in_a_sentence(missing: str) -> None:
    given = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/x", "DATABASE_RELAY_URL": "postgresql://r@127.0.0.1:1/x"}
    order = ["DATABASE_URL", "DATABASE_RELAY_URL", "NATS_URL"]
    environment = {name: value for name, value in given.items() if order.index(name) < order.index(missing)}
    async with process({"PATH": os.environ["PATH"], **environment}) as started:
        _, said = await asyncio.wait_for(started.communicate(), 60)
    assert started.returncode == 1
    assert b"Traceback" not in said
    assert said.decode().strip().splitlines()[-1].startswith("worker: The settings are not valid")
    assert missing.encode() in said


async def test_a_database_that_does_not_answer_is_said_in_a_sentence(environment: Environment) -> None:
    gone = {**environment, "DATABASE_URL": "postgresql://u:s3cret@127.0.0.1:1/x"}
    async with process(gone) as started:
        _, said = await asyncio.wait_for(started.communicate(), 60)
    assert started.returncode == 1
    assert said.decode().strip().splitlines()[-1] == "worker: The database does not answer."
    assert b"s3cret" not in said


async def test_a_fresh_namespace_gets_its_search_attributes_and_a_worker_ends_within_seconds(
    environment: Environment,
) -> None:
    async with process(environment) as started, person(environment) as studio:
        await ready(environment)
        client = await Client.connect(environment["TEMPORAL_HOST"], namespace=environment["TEMPORAL_NAMESPACE"])
        known = await client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=client.namespace)
        )
        assert {key.name for key in SEARCH_ATTRIBUTES} <= set(known.custom_attributes)
        # That they are there already is no reason to fail.
        await worker.register_search_attributes(client)
        await studio.provider("calls", "in-v1", "out-v1", CALL)
        blob = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "a"}})
        await studio.settled(blob["id"])
        assert await ended(started) < STOP_SECONDS
    with pytest.raises((OSError, RPCError, TimeoutError)):
        await asyncio.wait_for(
            asyncio.open_connection("127.0.0.1", int(environment["STUDIO__WORKFLOW__HEALTH_PORT"])), 5
        )


async def test_a_worker_that_ends_in_the_middle_of_a_call_leaves_it_to_the_next_one(
    environment: Environment, text_service: TextService
) -> None:
    text_service.gate.clear()
    try:
        async with process(environment) as started, person(environment) as studio:
            await ready(environment)
            await studio.provider("calls", "in-v1", "out-v1", CALL)
            before = len(text_service.calls)
            blob = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "a"}})
            await text_service.asked(before + 1)
            # It waits for the call for a while, no longer.
            assert await ended(started) < STOP_SECONDS
            text_service.gate.set()
            async with process(environment):
                await studio.settled(blob["id"])
            [run] = (await studio.get("/runs"))["data"]
            assert run["status"] == "settled"
            assert len(set(text_service.calls[before:])) == 1
    finally:
        text_service.gate.set()


async def test_what_waits_for_a_pause_runs_once_and_when_due_though_the_worker_is_restarted(
    environment: Environment,
) -> None:
    quiet, settings = timedelta(seconds=5), load_settings(environment)
    async with person(environment) as studio:
        client = await Client.connect(environment["TEMPORAL_HOST"], namespace=environment["TEMPORAL_NAMESPACE"])
        debounce = {"quiet": quiet.total_seconds(), "max_wait": 60}
        await studio.provider("patient", "in-v1", "out-v1", INLINE, debounce=debounce)
        async with worker.running(settings):
            blob = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "a"}})
            await has_timer(client, f"cascade:{blob['cascade_id']}")
        assert (await studio.get("/runs"))["data"] == []
        async with worker.running(settings):
            await studio.settled(blob["id"])
        [run] = (await studio.get("/runs"))["data"]
        caused = datetime.fromisoformat(blob["created_at"])
        assert datetime.fromisoformat(run["started_at"]) >= caused + quiet
        assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["edits"] == 1


async def test_a_worker_that_waits_for_temporal_can_be_ended(environment: Environment) -> None:
    away = {**environment, "TEMPORAL_HOST": "127.0.0.1:1"}
    async with process(away) as started:
        assert started.stderr is not None
        async with asyncio.timeout(60):
            while b"waits_for_temporal" not in await started.stderr.readline():
                pass
        assert await ended(started) < STOP_SECONDS


async def test_a_worker_works_while_nats_is_away(environment: Environment) -> None:
    away = {**environment, "NATS_URL": "nats://127.0.0.1:1"}
    async with process(away), person(away) as studio:
        await ready(away)
        await studio.provider("calls", "in-v1", "out-v1", CALL)
        blob = await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": "a"}})
        await studio.settled(blob["id"])


async def test_a_failpoint_kills_the_process(environment: Environment) -> None:
    armed = {**environment, "STUDIO__SERVICE__FAILPOINT": "relay.after_commit_before_start"}
    async with process(armed) as started, person(armed) as studio:
        await ready(armed)
        blob = await studio.post("/blobs", {"content": "a"})
        assert await asyncio.wait_for(started.wait(), 30) == -signal.SIGKILL
        async with process(environment), asyncio.timeout(60):
            while (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] != "completed":  # noqa: ASYNC110 - the answer is in PostgreSQL
                await asyncio.sleep(0.05)
