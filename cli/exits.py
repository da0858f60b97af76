"""Exit statuses: a script learns from them whether to try again, without reading text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sdk.problems import ApiProblem

OK = 0
FAILURE = 1
USAGE = 2
AUTH = 4
CONFLICT = 5
NOT_FOUND = 6
RETRYABLE = 7
INTERRUPTED = 130

_BY_STATUS = {401: AUTH, 403: AUTH, 404: NOT_FOUND, 410: NOT_FOUND, 409: CONFLICT, 412: CONFLICT, 428: CONFLICT}


def exit_status(problem: ApiProblem) -> int:
    """Return the exit status of a problem: what may succeed later is 7, whatever else it is."""
    if problem.retryable:
        return RETRYABLE
    if any(fault.get("pointer", "").startswith("/path/") for fault in problem.errors):
        return NOT_FOUND  # what is no id at all names nothing either
    return _BY_STATUS.get(problem.status, FAILURE)
