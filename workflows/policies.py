"""Named timeouts and retry policies; every command of a workflow takes one of these."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

from activities.runs import StepPlan

STORE_TIMEOUT = timedelta(seconds=30)
"""One move of the schedule; inline work is bounded by ``cascades.batch_seconds``, well below."""

STORE_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=5)
)
"""Moves are safe to repeat (CASCADES rule 3), so they are repeated until PostgreSQL answers."""

HEARTBEAT_TIMEOUT = timedelta(seconds=15)
"""A worker that dies inside a call is noticed after this, not after the call's whole timeout."""


def step_retry(step: StepPlan) -> RetryPolicy:
    """Retries of a step that calls out: the definition's count and pauses."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=step.first_pause),
        backoff_coefficient=step.factor,
        maximum_interval=timedelta(seconds=step.longest_pause),
        maximum_attempts=step.attempts_max,
    )


DEATHS_MAX = 10
"""Workers that may die in one step of one run before it is the step that counts as deadly."""

OUTAGES_MAX = 3000
"""Times that a step may meet our own store unavailable before its run gives up: more than a day of it."""

_SETBACK_MAX = timedelta(seconds=30)


def setback_pause(count: int) -> timedelta:
    """The pause after the ``count``-th outage or death: half a second, doubled each time up to 30 s."""
    return min(timedelta(seconds=0.25) * (1 << min(count, 10)), _SETBACK_MAX)


WAITS_MAX = 300
"""Times that a step may find another run making the same: longer than any lease, far below what a history may hold."""

_WAIT_MAX = timedelta(seconds=15)


def memo_pause(count: int) -> timedelta:
    """The pause before the ``count``-th look for another run's answer: a quarter of a second, doubled each time."""
    return min(timedelta(seconds=0.25) * (1 << min(count - 1, 10)), _WAIT_MAX)


RESUME_TRIES_MAX = 5
RESUME_PAUSE = timedelta(seconds=1)
"""How often, and after which pause, an approved run is started again whose workflow has not ended yet."""
