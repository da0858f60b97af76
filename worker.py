"""The worker process: Temporal workflows and activities, and the relay. Its composition root; ``python -m worker``.

Correctness never depends on how it ends: it may be killed anywhere. On SIGTERM it finishes what is in its hands.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import structlog
import uvloop
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorAutoscaling, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

import logs
from activities.adapters.services import HttpServices, Service
from activities.cascades import CascadeActivities
from activities.housekeeping import HousekeepingActivities
from activities.runs import RunActivities
from activities.wholes import Wholes
from domain.definitions import AI_SERVICE
from domain.errors import StudioError
from domain.memo import ServiceTerms
from domain.prices import Price, Prices, Tariff
from domain.retries import Retry
from failpoints import CALLS, MOVES, Reached, exposed, failpoints
from settings import Settings, load_settings, required
from storage.bell import Bell
from storage.bus import Bus
from storage.contents import Contents
from storage.database import Database
from storage.housekeeping import Housekeeping as Keeper
from storage.housekeeping import Rules
from storage.idempotency import IdempotencyKeys
from storage.objects import Objects
from storage.registry import Registry
from storage.relay import Relay
from storage.schedule import Places, PostgresSchedule, Repeats
from stores import make_contents, make_objects, make_uploads
from workflows.cascades import Cascade
from workflows.contracts import SEARCH_ATTRIBUTES
from workflows.housekeeping import Housekeeping, Reconcile
from workflows.runs import ProviderRun
from workflows.starter import TemporalStarter

log = structlog.get_logger("worker")

LOCAL_ACTIVITIES_MAX = 100
WORKFLOW_TASKS_MAX = 100
CACHED_WORKFLOWS_MAX = 1000
CONNECT_PAUSE_SECONDS = 0.5


async def connect_temporal(settings: Settings) -> Client:
    """Connect to Temporal, waiting for it as long as it takes: the API accepts writes meanwhile."""
    while True:
        try:
            client = await Client.connect(
                settings.workflow.temporal_host, namespace=settings.workflow.namespace, identity=f"worker-{os.getpid()}"
            )
            await register_search_attributes(client)
        except (RuntimeError, RPCError, OSError) as error:
            log.warning("worker.waits_for_temporal", error=str(error)[:200])
            await asyncio.sleep(CONNECT_PAUSE_SECONDS)
        else:
            return client


async def register_search_attributes(client: Client) -> None:
    """Make the search attributes known to the namespace; that they are already is the usual case."""
    keyword = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
    request = AddSearchAttributesRequest(
        namespace=client.namespace, search_attributes={key.name: keyword for key in SEARCH_ATTRIBUTES}
    )
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError as error:
        if error.status not in {RPCStatusCode.ALREADY_EXISTS, RPCStatusCode.INVALID_ARGUMENT}:
            raise


def make_worker(
    client: Client,
    settings: Settings,
    *,
    cascades: CascadeActivities,
    runs: RunActivities,
    housekeeping: HousekeepingActivities,
) -> Worker:
    """The Temporal worker. The sandbox stays on with every module passed through: half the CPU of the default."""
    return Worker(
        client,
        task_queue=settings.workflow.task_queue,
        workflows=[Cascade, ProviderRun, Reconcile, Housekeeping],
        activities=[
            cascades.advance,
            cascades.cancel,
            runs.load,
            runs.step,
            runs.settle,
            runs.fail,
            runs.lose,
            runs.cancel,
            housekeeping.reconcile,
            housekeeping.users,
            housekeeping.tidy,
        ],
        workflow_runner=SandboxedWorkflowRunner(
            restrictions=SandboxRestrictions.default.with_passthrough_all_modules()
        ),
        max_concurrent_activities=settings.providers.max_concurrent,
        max_concurrent_local_activities=LOCAL_ACTIVITIES_MAX,
        max_concurrent_workflow_tasks=WORKFLOW_TASKS_MAX,
        max_cached_workflows=CACHED_WORKFLOWS_MAX,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(),
        graceful_shutdown_timeout=timedelta(seconds=5),
    )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[None]:
    """Everything wired and running; leaving the block stops it, in reverse order."""
    metadata = settings.storage.metadata
    # What is missing is said before anything is tried.
    url = required(metadata.url, "storage.metadata.url").get_secret_value()
    relay_url = required(metadata.relay_url, "storage.metadata.relay_url").get_secret_value()
    events_url = required(settings.events.url, "events.url").get_secret_value()
    async with AsyncExitStack() as stack:
        database = await Database.connect(url, size_max=metadata.pool_size)
        stack.push_async_callback(database.close)
        relay_database = await Database.connect(relay_url, size_max=4)
        stack.push_async_callback(relay_database.close)
        objects = make_objects(settings)
        contents = make_contents(settings, database, objects)
        stack.push_async_callback(contents.close)
        services = make_services(settings)
        stack.push_async_callback(services.close)
        bus = await Bus.connect(events_url, topics=settings.events.topics.model_dump())
        stack.push_async_callback(bus.close)
        client = await connect_temporal(settings)
        reached = failpoints(settings.service.failpoint)
        bell = Bell(database)
        schedule = exposed(make_schedule(settings, database, contents, bell), "schedule", MOVES, reached)
        wholes = Wholes(schedule)
        advances = CascadeActivities(
            schedule,
            window=settings.cascades.window,
            batch=settings.cascades.inline_batch,
            budget=timedelta(seconds=settings.cascades.batch_seconds),
            history_max=settings.cascades.history_max,
            wholes=wholes,
        )
        starter = TemporalStarter(client, settings.workflow.task_queue, here=advances.expect)
        worker = make_worker(
            client,
            settings,
            cascades=advances,
            runs=RunActivities(
                schedule,
                exposed(services, "service", CALLS, reached),
                step_timeout=settings.providers.timeout,
                step_attempts=settings.providers.retry_policy.max_attempts,
                step_retry=make_retry(settings),
                prices=make_prices(settings),
                terms=service_terms(settings),
                wholes=wholes,
            ),
            housekeeping=HousekeepingActivities(
                schedule,
                Registry(relay_database),
                starter,
                make_keeper(settings, database, contents, objects, reached),
                idle=settings.cascades.reconcile_interval,
            ),
        )
        await stack.enter_async_context(worker)
        delivery = Relay(
            relay_database,
            bus,
            starter,
            poll=settings.relay.poll_interval,
            batch=settings.relay.batch,
            failpoint=reached,
        )
        bell.hang_beside(delivery.wake)
        stack.push_async_callback(_cancelled, asyncio.create_task(delivery.run()))
        await keep_schedules(starter, settings)
        stack.push_async_callback(_cancelled, asyncio.create_task(_kept(client, starter, settings)))
        yield


async def keep_schedules(starter: TemporalStarter, settings: Settings) -> None:
    """Make the schedules that look after everything, unless they are there. Raises Unavailable."""
    await starter.schedule_reconcile(settings.cascades.reconcile_interval)
    await starter.schedule_housekeeping(settings.housekeeping.interval)


async def _kept(client: Client, starter: TemporalStarter, settings: Settings) -> None:
    """Make again what a Temporal that lost its database has forgotten: nothing else would start what is left to do."""
    while True:
        await asyncio.sleep(settings.cascades.reconcile_interval.total_seconds())
        try:
            await register_search_attributes(client)
            await keep_schedules(starter, settings)
        except (StudioError, RPCError, RuntimeError, OSError) as error:
            log.warning("worker.waits_for_temporal", error=str(error)[:200])


def make_services(settings: Settings) -> HttpServices:
    """The services that definitions may call."""
    return HttpServices(
        {
            name: Service(url=called.url, token=called.token.get_secret_value() if called.token else None)
            for name, called in settings.services.items()
        },
        answer_max=settings.limits.answer_max,
    )


def make_retry(settings: Settings) -> Retry:
    """How calls are tried again of which neither step nor provider says it."""
    policy = settings.providers.retry_policy
    return Retry(
        first_pause=policy.first_pause.total_seconds(),
        factor=policy.factor,
        longest_pause=policy.longest_pause.total_seconds(),
    )


def make_keeper(
    settings: Settings, database: Database, contents: Contents, objects: Objects, reached: Reached
) -> Keeper:
    """The chores of the settings."""
    rules = Rules(
        grace=settings.housekeeping.grace,
        cold_after=settings.storage.cold_after,
        steps_kept=settings.housekeeping.steps_kept,
        memo_kept=settings.housekeeping.memo_kept,
        memo_max=settings.housekeeping.memo_max,
        plans_kept=settings.housekeeping.plans_kept,
        runs_window=settings.cascades.runs_window,
        sample=settings.housekeeping.sample,
    )
    return Keeper(
        database,
        contents,
        objects,
        rules=rules,
        expire=make_uploads(settings, database, objects).expire,
        forget=IdempotencyKeys(database).forget_old,
        failpoint=reached,
    )


def make_prices(settings: Settings) -> Prices:
    """What the services of the settings take."""
    return Prices({
        name: Tariff(
            prices={model: Price(prompt=p.prompt, completion=p.completion) for model, p in called.prices.items()},
            prompt_tokens_max=called.prompt_tokens_max,
            completion_tokens_max=called.completion_tokens_max,
        )
        for name, called in settings.services.items()
    })  # fmt: skip


def make_schedule(
    settings: Settings, database: Database, contents: Contents, bell: Bell | None = None
) -> PostgresSchedule:
    """The schedule of the settings."""
    return PostgresSchedule(
        database,
        contents,
        lease=timedelta(seconds=settings.cascades.lease_seconds),
        depth_max=settings.cascades.depth_max,
        nodes_max=settings.cascades.nodes_max,
        repeats=Repeats(
            runs_max=settings.cascades.runs_per_derivation_max,
            root_max=settings.cascades.runs_per_root_max,
            window=settings.cascades.runs_window,
        ),
        places=Places(
            runs_per_user=settings.cascades.runs_per_user,
            services={
                name: called.max_concurrent for name, called in settings.services.items() if called.max_concurrent
            },
        ),
        losses_max=settings.cascades.losses_max,
        bell=bell,
    )


def service_terms(settings: Settings) -> dict[str, ServiceTerms]:
    """What the settings say of services; the AI is another one as soon as its model is."""
    model = {AI_SERVICE: settings.ai.model_name}
    return {
        name: ServiceTerms(pure=called.pure, revision=called.revision or model.get(name, ""))
        for name, called in settings.services.items()
    }


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def serve_health(port: int) -> asyncio.Server:
    """Answer any HTTP request on the loopback with 200: the process is up and wired."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
            await writer.drain()
        writer.close()

    return await asyncio.start_server(answer, "127.0.0.1", port)


async def main() -> None:
    """Run until SIGTERM or SIGINT, which end it at any time: also while it waits for Temporal."""
    logs.configure()
    settings = load_settings()
    stop, ready = asyncio.Event(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    work = asyncio.create_task(_work(settings, ready, stop))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not ready.is_set():
        work.cancel()
    try:
        await work
    except asyncio.CancelledError:
        log.info("worker.stopped_before_ready")


async def _work(settings: Settings, ready: asyncio.Event, stop: asyncio.Event) -> None:
    async with running(settings):
        server = await serve_health(settings.workflow.health_port) if settings.workflow.health_port else None
        gc.freeze()  # what is there now stays: each full collection would look at all of it, with everybody waiting
        ready.set()
        log.info("worker.ready", task_queue=settings.workflow.task_queue)
        await stop.wait()
        if server is not None:
            server.close()


if __name__ == "__main__":
    try:
        uvloop.run(main())
    except StudioError as error:
        # What is missing is said in a sentence; where we noticed is of no use to who starts us.
        sys.exit(f"worker: {error.detail}")
