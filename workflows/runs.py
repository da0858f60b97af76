"""ProviderRun: one run of a provider's definition, interpreted step by step (DESIGN section 6).

The steps come recorded from ``load``; the workflow branches on nothing else. Each step is an activity under its own
name: calls are activities with heartbeats and the definition's retries, pure steps are local activities.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import SearchAttributeUpdate
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from activities.errors import INTERNAL_DETAIL
from activities.runs import (
    BLOCKED,
    PARKED,
    WAITING,
    RunActivities,
    RunFailure,
    RunPlan,
    RunRef,
    StepOutcome,
    StepPlan,
    StepRequest,
)
from domain.errors import CATALOGUE, Unavailable
from workflows.contracts import (
    BLOB,
    OUTCOME,
    PROVIDER_RUN,
    RunOutcome,
    RunRequest,
)
from workflows.policies import (
    DEATHS_MAX,
    HEARTBEAT_TIMEOUT,
    OUTAGES_MAX,
    STORE_RETRY,
    STORE_TIMEOUT,
    WAITS_MAX,
    memo_pause,
    setback_pause,
    step_retry,
)

_SCHEDULE_TO_CLOSE = timedelta(minutes=30)


@workflow.defn(name=PROVIDER_RUN)
class ProviderRun:
    """One run: load, the definition's steps, settle; or fail, with the problem's code.

    ``load`` answers no steps but an end where it could carry out the run by itself: then this was all.
    """

    def __init__(self) -> None:
        self._attributes: list[SearchAttributeUpdate[str]] = []
        """Search attributes that are told together with the outcome: each telling is a write of Temporal's."""

    @workflow.run
    async def run(self, request: RunRequest) -> RunOutcome:
        """Carry out the run; every outcome is recorded in PostgreSQL before the workflow ends."""
        workflow.set_current_details(request.label)
        try:
            outcome = await self._carry_out(request)
        except (ActivityError, ApplicationError, TemporalTimeoutError, CancelledError, asyncio.CancelledError) as error:
            if is_cancelled_exception(error) and workflow.patched("cancelled-is-recorded"):
                await self._cancelled(request)
                raise
            if not isinstance(error, FailureError):
                raise
            # A local activity's failure comes as it is, not as the cause of an ActivityError.
            outcome = await self._fail(request, error)
        workflow.upsert_search_attributes([*self._attributes, OUTCOME.value_set(outcome.status)])
        return outcome

    async def _carry_out(self, request: RunRequest) -> RunOutcome:
        plan = await self._load(request)
        blob = [BLOB.value_set(plan.blob_id)] if plan.blob_id else []
        if plan.status != "running":
            self._attributes = blob
            return RunOutcome(status=plan.status)
        if blob:
            workflow.upsert_search_attributes(blob)
        for step in plan.steps:
            done = await self._step(request, step)
            if done.status in {BLOCKED, PARKED}:
                return RunOutcome(status=done.status)  # held: nobody waits here for money, or for a person
            if done.status != "done":
                break
        # Even superseded or skipped runs are settled: settle alone decides what they count for.
        status: str = await workflow.execute_local_activity_method(
            RunActivities.settle,
            RunRef(user_id=request.user_id, run_id=request.run_id),
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary="apply the delta",
        )
        return RunOutcome(status=status)

    async def _load(self, request: RunRequest) -> RunPlan:
        return await workflow.execute_local_activity_method(
            RunActivities.load,
            RunRef(user_id=request.user_id, run_id=request.run_id),
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary=request.label,
        )

    async def _step(self, request: RunRequest, step: StepPlan) -> StepOutcome:
        argument = StepRequest(user_id=request.user_id, run_id=request.run_id, step_id=step.id, position=step.position)
        if step.effect != "call":
            done: StepOutcome = await workflow.execute_local_activity(
                step.id,
                argument,
                result_type=StepOutcome,
                start_to_close_timeout=STORE_TIMEOUT,
                retry_policy=STORE_RETRY,
                summary=step.id,
            )
            return done
        return await self._call(request, step, argument)

    async def _call(self, request: RunRequest, step: StepPlan, argument: StepRequest) -> StepOutcome:
        """A step that leaves the process. What happens to our own servers and workers is not its failure."""
        deaths = outages = waits = 0
        while True:
            try:
                called: StepOutcome = await workflow.execute_activity(
                    step.id,
                    argument,
                    result_type=StepOutcome,
                    # The call itself ends within the step's timeout; the rest is for storing what it answered.
                    start_to_close_timeout=timedelta(seconds=step.timeout_seconds) + STORE_TIMEOUT,
                    schedule_to_close_timeout=_SCHEDULE_TO_CLOSE,
                    heartbeat_timeout=HEARTBEAT_TIMEOUT,
                    retry_policy=step_retry(step),
                    summary=request.label,
                )
            except ActivityError as error:
                if worker_died(error) and deaths < DEATHS_MAX:
                    deaths += 1
                elif store_was_away(error) and outages < OUTAGES_MAX:
                    outages += 1
                else:
                    raise
                await workflow.sleep(setback_pause(deaths + outages))
            else:
                if called.status != WAITING:
                    return called
                # Another run is making the same; nothing is held and no attempt is used up meanwhile.
                waits += 1
                if waits > WAITS_MAX:
                    raise ApplicationError("Others that make the same never end.", type="service_unavailable")
                await workflow.sleep(memo_pause(waits))

    async def _cancelled(self, request: RunRequest) -> None:
        """Somebody cancelled the run, here or in the Temporal UI: it is recorded, whoever it was, and this ends."""
        await workflow.execute_local_activity_method(
            RunActivities.cancel,
            RunRef(user_id=request.user_id, run_id=request.run_id),
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary="cancelled",
        )
        workflow.upsert_search_attributes([OUTCOME.value_set("cancelled")])

    async def _fail(self, request: RunRequest, error: FailureError) -> RunOutcome:
        code, detail = reason(error)
        status: str = await workflow.execute_local_activity_method(
            RunActivities.fail,
            RunFailure(user_id=request.user_id, run_id=request.run_id, code=code, detail=detail),
            start_to_close_timeout=STORE_TIMEOUT,
            retry_policy=STORE_RETRY,
            summary=f"failed: {code}",
        )
        if status != "failed":
            return RunOutcome(status=status)
        # Red in the Temporal UI, with the problem's code; the cascade goes on without it.
        workflow.upsert_search_attributes([OUTCOME.value_set("failed")])
        raise ApplicationError(detail, type=code, non_retryable=True)


def reason(error: FailureError) -> tuple[str, str]:
    """The problem code and sentence behind the failure of an activity, local or not."""
    cause = error.cause if isinstance(error, ActivityError) else error
    step = f"The step {error.activity_type}" if isinstance(error, ActivityError) else "A step"
    if isinstance(cause, ApplicationError):
        # A type that is no problem code is a fault of ours, and what it says is for our log.
        known = cause.type in CATALOGUE
        return (str(cause.type), str(cause.message)[:1000]) if known else ("internal", INTERNAL_DETAIL)
    if worker_died(error):
        return "internal", f"{step} killed the workers that carried it out, again and again."
    if isinstance(cause, TemporalTimeoutError):
        return "service_unavailable", f"{step} did not answer in time."
    return "internal", f"{step} ended unexpectedly."


def worker_died(error: FailureError) -> bool:
    """Whether the last attempt ended because nobody was left to report on it."""
    return isinstance(error.cause, TemporalTimeoutError) and error.cause.type == TimeoutType.HEARTBEAT


def store_was_away(error: ActivityError) -> bool:
    """Whether the last attempt ended because PostgreSQL or S3 did not answer us."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == Unavailable.code
