"""ProviderRun: one run of a provider's definition, interpreted step by step (DESIGN section 6).

The steps come recorded from ``load``; the workflow branches on nothing else. Each step is an activity under its own
name: calls are activities with heartbeats and the definition's retries, pure steps are local activities.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as TemporalTimeoutError

from activities.runs import RunActivities, RunFailure, RunPlan, RunRef, StepOutcome, StepPlan, StepRequest
from workflows.contracts import (
    BLOB,
    OUTCOME,
    PROVIDER_RUN,
    RunOutcome,
    RunRequest,
)
from workflows.policies import HEARTBEAT_TIMEOUT, STORE_RETRY, STORE_TIMEOUT, step_retry

_SCHEDULE_TO_CLOSE = timedelta(minutes=30)


@workflow.defn(name=PROVIDER_RUN)
class ProviderRun:
    """One run: load, the definition's steps, settle; or fail, with the problem's code."""

    @workflow.run
    async def run(self, request: RunRequest) -> RunOutcome:
        """Carry out the run; every outcome is recorded in PostgreSQL before the workflow ends."""
        workflow.set_current_details(request.label)
        try:
            outcome = await self._carry_out(request)
        except ActivityError as error:
            outcome = await self._fail(request, error)
        workflow.upsert_search_attributes([OUTCOME.value_set(outcome.status)])
        return outcome

    async def _carry_out(self, request: RunRequest) -> RunOutcome:
        plan = await self._load(request)
        if plan.status != "running":
            return RunOutcome(status=plan.status)
        if plan.blob_id:
            workflow.upsert_search_attributes([BLOB.value_set(plan.blob_id)])
        for step in plan.steps:
            done = await self._step(request, step)
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
        called: StepOutcome = await workflow.execute_activity(
            step.id,
            argument,
            result_type=StepOutcome,
            start_to_close_timeout=timedelta(seconds=step.timeout_seconds),
            schedule_to_close_timeout=_SCHEDULE_TO_CLOSE,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=step_retry(step.attempts_max),
            summary=request.label,
        )
        return called

    async def _fail(self, request: RunRequest, error: ActivityError) -> RunOutcome:
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


def reason(error: ActivityError) -> tuple[str, str]:
    """The problem code and sentence behind an activity's failure."""
    cause = error.cause
    if isinstance(cause, ApplicationError):
        return cause.type or "internal", str(cause.message)[:1000]
    if isinstance(cause, TemporalTimeoutError):
        return "service_unavailable", f"The step {error.activity_type} did not answer in time."
    return "internal", f"The step {error.activity_type} ended unexpectedly."
