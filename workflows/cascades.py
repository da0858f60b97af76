"""Cascade: everything one cause sets in motion, as one durable workflow (CASCADES.md).

PostgreSQL holds the schedule; this workflow only looks at it again and again: advance (plan, claim, inline runs),
start a child for each workflow run, wait for a child, a doorbell or a due time. It keeps no graph in memory, only
the runs of one window, so it can be lost and started again at any time. Its history is bounded: before that is long it
continues as new, whatever is in flight.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow
from temporalio.common import SearchAttributePair, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ApplicationError,
    ChildWorkflowError,
    TerminatedError,
    WorkflowAlreadyStartedError,
    is_cancelled_exception,
)
from temporalio.exceptions import CancelledError as TemporalCancelledError

from activities.cascades import AdvanceResult, CascadeActivities, CascadeRef, RunToStart
from activities.errors import INTERNAL_DETAIL, STOPPED
from activities.runs import RunActivities, RunFailure
from workflows.contracts import (
    CASCADE,
    OUTCOME,
    PROVIDER,
    CascadeInput,
    CascadeOutcome,
    RunRequest,
)
from workflows.policies import RESUME_PAUSE, RESUME_TRIES_MAX, STORE_RETRY, STORE_TIMEOUT
from workflows.runs import ProviderRun


@workflow.defn(name=CASCADE)
class Cascade:
    """One cause and all that follows from it; see the module."""

    def __init__(self) -> None:
        self._bell = 0
        self._looked = 0
        self._children: dict[str, asyncio.Task[None]] = {}
        self._started: set[str] = set()
        """Those of the children that Temporal has started: they go on without us."""
        self._elsewhere: set[str] = set()
        """Runs of this cascade that were started before this run of its workflow; their settle rings our doorbell."""
        self._tries: dict[str, int] = {}
        """How often the workflow of an approved run was found not to have ended yet."""
        self._settled = 0
        self._rings = False
        """Whether the end of a run rings our doorbell: then the end of its workflow is no reason to look again."""

    @workflow.signal(name="ring")
    def ring(self, seq: int) -> None:
        """A doorbell: look again. The number only tells rings apart."""
        self._bell += 1
        workflow.logger.debug("doorbell", extra={"seq": seq})

    @workflow.run
    async def run(self, cause: CascadeInput) -> CascadeOutcome:
        """Advance until nothing of this cascade is running, claimable or due; return how it stands.

        Whoever cancels this workflow cancels the cascade; whoever terminates it has killed it, and it comes back.
        """
        try:
            return await self._go_on(cause)
        except (asyncio.CancelledError, TemporalCancelledError) as error:
            if is_cancelled_exception(error) and workflow.patched("cancelled-is-recorded"):
                await self._cancelled(cause)
            raise

    async def _cancelled(self, cause: CascadeInput) -> None:
        await workflow.execute_local_activity_method(
            CascadeActivities.cancel,
            CascadeRef(user_id=cause.user_id, cascade_id=cause.cascade_id),
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary="cancelled",
        )
        workflow.upsert_search_attributes([OUTCOME.value_set("cancelled")])

    async def _go_on(self, cause: CascadeInput) -> CascadeOutcome:
        self._elsewhere.update(cause.elsewhere)
        self._settled = cause.settled_runs
        while True:
            self._looked = self._bell
            found = await self._advance(cause)
            self._rings = found.rings
            self._elsewhere.difference_update(found.ended)
            for start in found.runs:
                if start.run_id not in self._children and start.run_id not in self._elsewhere:
                    self._children[start.run_id] = asyncio.create_task(self._run(cause, start))
            if not found.more and self._is_over(found):
                return self._end(found.status)
            if self._is_long(found):
                workflow.continue_as_new(self._handed_over(cause))
            if not found.more and not (found.closed and not self._children):
                await self._wait(found)
                if self._rings and self._is_over(found):
                    return self._end(found.status)

    def _is_over(self, found: AdvanceResult) -> bool:
        """Nothing is left to do, nobody is under way, and nobody has rung since we looked."""
        return found.closed and not self._children and self._bell == self._looked

    def _is_long(self, found: AdvanceResult) -> bool:
        """Tell whether the history should end here; what bounds it was recorded with the answer."""
        info = workflow.info()
        if found.history_max is None:  # recorded before there was a bound
            return info.is_continue_as_new_suggested() and not found.more
        return info.is_continue_as_new_suggested() or info.get_current_history_length() >= found.history_max

    def _handed_over(self, cause: CascadeInput) -> CascadeInput:
        """What the next run of the workflow has to know.

        Children are abandoned, not awaited. One that Temporal has not started yet is left out: the next run starts it,
        or is told that it is there.
        """
        elsewhere = sorted(self._elsewhere | self._started)
        return replace(cause, elsewhere=elsewhere, settled_runs=self._settled)

    async def _advance(self, cause: CascadeInput) -> AdvanceResult:
        found = await workflow.execute_local_activity_method(
            CascadeActivities.advance,
            CascadeRef(
                user_id=cause.user_id,
                cascade_id=cause.cascade_id,
                known=sorted(self._children),
                elsewhere=sorted(self._elsewhere),
            ),
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary="plan, claim, run what is cheap",
        )
        self._settled += found.inline_runs
        return found

    async def _run(self, cause: CascadeInput, start: RunToStart) -> None:
        """One child workflow; whatever becomes of it, its end wakes the cascade."""
        heard = False
        try:
            heard = await self._child(cause, start) == "settled" and self._rings
        except WorkflowAlreadyStartedError:
            # Started before this run of the cascade: its settle rings our doorbell. Not asked for again: a window of
            # such children, each tried again at each ring, would fill one history after the other.
            await self._found(start)
        except ChildWorkflowError as error:
            await self._account_for(cause, start, error)
        finally:
            self._bell += not heard
            del self._children[start.run_id]
            self._started.discard(start.run_id)

    async def _found(self, start: RunToStart) -> None:
        """A run whose workflow is there: of one that was just approved it may be the one that is about to end."""
        tries = self._tries.pop(start.run_id, 0)
        if start.resumed and tries < RESUME_TRIES_MAX:
            self._tries[start.run_id] = tries + 1
            await workflow.sleep(RESUME_PAUSE)
        else:
            self._elsewhere.add(start.run_id)

    async def _child(self, cause: CascadeInput, start: RunToStart) -> str:
        """Start the run's workflow and wait for it; what the run has ended as."""
        request = RunRequest(
            user_id=cause.user_id,
            cascade_id=cause.cascade_id,
            run_id=start.run_id,
            provider_id=start.provider_id,
            label=start.label,
        )
        child = await workflow.start_child_workflow(
            ProviderRun.run,
            request,
            id=start.workflow_id,
            # An approved run goes on under its id: what it had finished is recorded, and not done again.
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE
            if start.resumed
            else WorkflowIDReusePolicy.REJECT_DUPLICATE,
            parent_close_policy=workflow.ParentClosePolicy.ABANDON,
            static_summary=start.label,
            search_attributes=workflow.info().typed_search_attributes.updated(
                SearchAttributePair(PROVIDER, start.provider_id),
            ),
        )
        self._started.add(start.run_id)
        self._tries.pop(start.run_id, None)
        outcome = await child
        self._settled += 1
        return outcome.status

    async def _account_for(self, cause: CascadeInput, start: RunToStart, error: ChildWorkflowError) -> None:
        """A child that did not end well: it has failed, or was ended by an operator, or else it is run again.

        One that failed by itself has said so, unless saying so is what failed.
        """
        failed = isinstance(error.cause, ApplicationError)
        stopped = isinstance(error.cause, TerminatedError | TemporalCancelledError)
        failure = RunFailure(
            user_id=cause.user_id,
            run_id=start.run_id,
            code="internal" if failed else "provider_failed",
            detail=INTERNAL_DETAIL if failed else STOPPED,
        )
        await workflow.execute_local_activity_method(
            RunActivities.fail if failed or stopped else RunActivities.lose,
            failure,
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
        )

    async def _wait(self, found: AdvanceResult) -> None:
        timeout = None if found.due_in_seconds is None else timedelta(seconds=found.due_in_seconds)
        try:
            await workflow.wait_condition(
                lambda: self._bell > self._looked or (self._rings and self._is_over(found)), timeout=timeout
            )
        except TimeoutError:
            workflow.logger.debug("something is due")

    def _end(self, status: str) -> CascadeOutcome:
        workflow.upsert_search_attributes([OUTCOME.value_set(status)])
        return CascadeOutcome(status=status, settled_runs=self._settled)
