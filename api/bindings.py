"""Writes under a plan: ``Studio-Plan: <id>`` on any write that is a cause (``api/plans.py`` makes the plans).

Every write passes here on its way (``api.idempotency.once``), so that none has to know of plans. A rehearsed write
passes here too, and gets the id that its plan reserves for the blob that it makes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from api.preconditions import invalid_header
from domain.errors import Conflict, Invalid
from domain.ids import parse_id
from domain.plans import target_of

if TYPE_CHECKING:
    from api.deps import Ports
    from api.idempotency import Attempt

PLAN_HEADER = "Studio-Plan"


def under_plan(
    request: Request, ports: Ports, user_id: UUID, work: Callable[[Attempt], Awaitable[Response]]
) -> Callable[[Attempt], Awaitable[Response]]:
    """Return the work as it is to be done: rehearsed, held against the plan that the request names, or as ever."""
    rehearsal = ports.plans.rehearsal
    if rehearsal is not None:

        async def rehearsed(attempt: Attempt) -> Response:
            attempt.reserve("blob", rehearsal.blob_id)
            return await work(attempt)

        return rehearsed
    named = request.headers.get(PLAN_HEADER)
    if named is None:
        return work
    plan_id = _plan_id(named)

    async def bound(attempt: Attempt) -> Response:
        plan = await ports.plans.get(user_id, plan_id)
        if plan.path != target_of(request.url.path):
            raise Conflict(f"The plan is for a write to {plan.path}.", code="plan_mismatch")
        attempt.reserve("blob", plan.blob_id)
        if plan.used_at is not None and plan.used_key == attempt.key and attempt.goes_on_from(plan.used_at):
            return await work(attempt)  # an earlier attempt of this very request has used it: its answer got lost
        async with ports.plans.bound(user_id, plan, key=attempt.key):
            return await work(attempt)

    return bound


def _plan_id(value: str) -> UUID:
    try:
        return parse_id(value.strip().strip('"'), "/header/studio-plan")
    except Invalid:
        raise invalid_header(PLAN_HEADER, f"{PLAN_HEADER} is the id of a plan: POST /cascades/plan.") from None
