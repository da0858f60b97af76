"""Named timeouts and retry policies; every command of a workflow takes one of these."""

from __future__ import annotations

from datetime import timedelta

from temporalio.common import RetryPolicy

STORE_TIMEOUT = timedelta(seconds=30)
"""One move of the schedule; inline work is bounded by ``cascades.batch_seconds``, well below."""

STORE_RETRY = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), backoff_coefficient=2.0, maximum_interval=timedelta(seconds=5)
)
"""Moves are safe to repeat (CASCADES rule 3), so they are repeated until PostgreSQL answers."""

HEARTBEAT_TIMEOUT = timedelta(seconds=15)
"""A worker that dies inside a call is noticed after this, not after the call's whole timeout."""


def step_retry(attempts_max: int) -> RetryPolicy:
    """Retries of a step that calls out: the definition's count, exponential pauses up to a minute."""
    return RetryPolicy(
        initial_interval=timedelta(seconds=1),
        backoff_coefficient=2.0,
        maximum_interval=timedelta(seconds=60),
        maximum_attempts=attempts_max,
    )
