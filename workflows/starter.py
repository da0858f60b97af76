"""Starting and waking workflows from outside, and asking whether they are there: the relay's and reconcile's port."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from uuid import UUID

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    WorkflowExecutionStatus,
    WorkflowHandle,
)
from temporalio.common import (
    Priority,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
    WorkflowIDReusePolicy,
)
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.housekeeping import Halted
from domain.errors import Unavailable
from domain.housekeeping import Tidied
from workflows.contracts import (
    CASCADE,
    CASCADE_ID,
    HOUSEKEEPING,
    HOUSEKEEPING_NOW_ID,
    HOUSEKEEPING_SCHEDULE_ID,
    PROVIDER_RUN,
    RECONCILE,
    RECONCILE_SCHEDULE_ID,
    RING,
    USER,
    CascadeInput,
    CascadeOutcome,
    cascade_workflow_id,
)

RPC_TIMEOUT = timedelta(seconds=5)
ATTEMPTS_MAX = 5
FIRST = 1
"""The sequence of a doorbell before which there was none: the cascade has not been advanced yet."""
STARTED_MAX = 1000
"""Cascades that are remembered as started."""
INTERACTIVE, BULK = 2, 4
"""Priorities of Temporal's task queues, 1 first: of what people wait for, and of what makes much work at once."""


class Ringing(Protocol):
    """A doorbell: which cascade, whose, its sequence, and whether a person waits for it."""

    @property
    def user_id(self) -> UUID: ...  # noqa: D102
    @property
    def cascade_id(self) -> UUID: ...  # noqa: D102
    @property
    def seq(self) -> int: ...  # noqa: D102
    @property
    def interactive(self) -> bool: ...  # noqa: D102


class TemporalStarter:
    """Starts cascades eagerly: the client is shared with the worker, so the first task skips a round trip.

    ``here`` hears of users and cascades whose first task has come to this process, so that it is in this process that
    they are advanced first.
    """

    def __init__(
        self, client: Client, task_queue: str, *, here: Callable[[UUID, UUID], None] = lambda _user, _cascade: None
    ) -> None:
        self._client = client
        self._task_queue = task_queue
        self._here = here
        self._started: OrderedDict[UUID, None] = OrderedDict()

    async def ring(self, doorbell: Ringing) -> None:
        """Start the cascade, else wake it: eager start with USE_EXISTING would not ring a running one.

        What was started here lately is woken first: to start what is there costs Temporal as much as to wake it.
        Raises Unavailable if Temporal does not answer, or if the workflow keeps ending between the two.
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                if doorbell.cascade_id in self._started and await self._signal(doorbell):
                    return
                if await self._start(doorbell) or await self._signal(doorbell):
                    return
            except RPCError as error:
                raise Unavailable("Temporal does not answer.") from error
            except (TimeoutError, OSError) as error:
                raise Unavailable("Temporal does not answer.") from error
        raise Unavailable(f"The cascade {doorbell.cascade_id} could not be woken.")

    async def is_open(self, workflow_id: str) -> bool:
        """Whether a workflow with this id is running now."""
        try:
            found = await self._client.get_workflow_handle(workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                return False
            raise Unavailable("Temporal does not answer.") from error
        return found.status == WorkflowExecutionStatus.RUNNING

    async def stop(self, workflow_id: str) -> None:
        """Cancel a workflow; one that has ended, or that nobody knows, needs nothing. Raises Unavailable."""
        try:
            await self._client.get_workflow_handle(workflow_id).cancel(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:
                raise Unavailable("Temporal does not answer.") from error

    async def halted(self, *, within: timedelta, limit: int) -> list[Halted]:
        """Workflows of cascades and runs that somebody has terminated or cancelled lately. Raises Unavailable."""
        since = (datetime.now(UTC) - within).isoformat()
        query = (
            f"WorkflowType in ('{CASCADE}', '{PROVIDER_RUN}')"
            f" and ExecutionStatus in ('Terminated', 'Canceled') and CloseTime > '{since}'"
        )
        try:
            found = self._client.list_workflows(query, limit=limit, rpc_timeout=RPC_TIMEOUT)
            return [
                Halted(workflow_id=row.id, terminated=row.status == WorkflowExecutionStatus.TERMINATED)
                async for row in found
            ]
        except RPCError as error:
            raise Unavailable("Temporal does not answer.") from error

    async def schedule_reconcile(self, every: timedelta) -> None:
        """Make the reconcile schedule, once for all workers."""
        await self._schedule(RECONCILE_SCHEDULE_ID, RECONCILE, every)

    async def schedule_housekeeping(self, every: timedelta) -> None:
        """Make the housekeeping schedule, once for all workers."""
        await self._schedule(HOUSEKEEPING_SCHEDULE_ID, HOUSEKEEPING, every)

    async def housekeep(self) -> WorkflowHandle[Any, Tidied]:
        """Start a pass of housekeeping now, or join the one that somebody has asked for. Raises Unavailable."""
        try:
            return await self._client.start_workflow(
                HOUSEKEEPING,
                id=HOUSEKEEPING_NOW_ID,
                task_queue=self._task_queue,
                result_type=Tidied,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                rpc_timeout=RPC_TIMEOUT,
            )
        except RPCError as error:
            raise Unavailable("Temporal does not answer.") from error

    async def _schedule(self, schedule_id: str, workflow: str, every: timedelta) -> None:
        schedule = Schedule(
            action=ScheduleActionStartWorkflow(workflow, id=schedule_id, task_queue=self._task_queue),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
        )
        try:
            await self._client.create_schedule(schedule_id, schedule, rpc_timeout=RPC_TIMEOUT)
        except ScheduleAlreadyRunningError:
            return

    async def _start(self, doorbell: Ringing) -> bool:
        try:
            handle = await self._client.start_workflow(
                CASCADE,
                CascadeInput(user_id=str(doorbell.user_id), cascade_id=str(doorbell.cascade_id)),
                id=cascade_workflow_id(doorbell.cascade_id),
                task_queue=self._task_queue,
                result_type=CascadeOutcome,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                request_eager_start=True,
                search_attributes=TypedSearchAttributes(
                    [
                        SearchAttributePair(USER, str(doorbell.user_id)),
                        SearchAttributePair(CASCADE_ID, str(doorbell.cascade_id)),
                    ]
                ),
                # Children and activities inherit it: users take turns, what people wait for goes before bulk.
                priority=Priority(
                    priority_key=INTERACTIVE if doorbell.interactive else BULK, fairness_key=str(doorbell.user_id)
                ),
                rpc_timeout=RPC_TIMEOUT,
            )
        except WorkflowAlreadyStartedError:
            return False
        finally:
            self._started[doorbell.cascade_id] = None
            if len(self._started) > STARTED_MAX:
                self._started.popitem(last=False)
        # The SDK says so to nobody else; if it says nothing, it is as if the task had gone elsewhere.
        if doorbell.seq == FIRST and doorbell.interactive and getattr(handle, "__temporal_eagerly_started", False):
            self._here(doorbell.user_id, doorbell.cascade_id)
        return True

    async def _signal(self, doorbell: Ringing) -> bool:
        handle = self._client.get_workflow_handle(cascade_workflow_id(doorbell.cascade_id))
        try:
            await handle.signal(RING, doorbell.seq, rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                self._started.pop(doorbell.cascade_id, None)
                return False
            raise
        return True
