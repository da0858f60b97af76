"""The one place that turns our errors into Temporal failures: the failure's type is the problem code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from domain.errors import StudioError

_ORDINARY = frozenset({"superseded"})
"""Codes that are part of normal working: they are neither logged as errors nor counted as failures."""


INTERNAL_ATTEMPTS_MAX = 5
"""Attempts after which a fault of ours counts as one that repeating does not cure."""
STOPPED = "The run's workflow was stopped in Temporal."
INTERNAL_DETAIL = "Something went wrong on our side; the worker's log has it."


@contextmanager
def as_failures() -> Iterator[None]:
    """Raise ApplicationError for every StudioError of the block.

    Anything else is a fault of ours: it is tried again a few times, then it is ``internal``, for good.
    """
    try:
        yield
    except StudioError as error:
        raise failure_of(error) from error
    except Exception as error:
        if isinstance(error, ApplicationError) or not activity.in_activity():
            raise
        if activity.info().attempt < INTERNAL_ATTEMPTS_MAX:
            raise
        raise ApplicationError(INTERNAL_DETAIL, type="internal", non_retryable=True) from error


def failure_of(error: StudioError) -> ApplicationError:
    """The Temporal failure of one of our errors, with ``retry_after`` (seconds) as the next delay if it says so."""
    wait = error.members.get("retry_after")
    ordinary = error.problem_code in _ORDINARY
    return ApplicationError(
        error.detail,
        type=error.problem_code,
        non_retryable=not error.retryable,
        next_retry_delay=timedelta(seconds=float(wait)) if wait is not None else None,
        category=ApplicationErrorCategory.BENIGN if ordinary else ApplicationErrorCategory.UNSPECIFIED,
    )
