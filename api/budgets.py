"""Your budget: what paid steps may spend, what they did, and who waits for more. Amounts are whole micro-dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Controller, Reader
from api.bodies import Wire, answer, etag, read, request_body
from api.deps import Stores
from api.idempotency import Attempt, Keep, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from api.preconditions import if_match, moved_on
from api.wire import cascade_link
from domain.budgets import AMOUNT_MAX, UNIT
from domain.errors import VersionConflict
from domain.ids import CascadeId, parse_id

router = APIRouter(prefix="/budget", tags=["budget"])


class Limit(Wire):
    """What may be spent from when it is set first; null: nothing is limited."""

    limit: int | None = Field(ge=0, le=AMOUNT_MAX)
    """Micro-dollars: 5000000 are five dollars."""


class TopUp(Wire):
    """What is added to the limit."""

    amount: int = Field(ge=1, le=AMOUNT_MAX)
    """Micro-dollars."""


@router.get("", operation_id="budget_get")
async def get(identity: Reader, ports: Stores) -> Response:
    """Say what is limited, spent, reserved and left, and how many derivations wait for how much."""
    state = await ports.budgets.get(identity.user_id)
    return answer(shown(state), headers={"ETag": etag(state.version)})


@router.put(
    "", operation_id="budget_put", openapi_extra=request_body(Limit, example={"limit": 5_000_000})
)  # fmt: skip
async def put(request: Request, identity: Controller, ports: Stores) -> Response:
    """Set your limit. Who waits for money goes on as far as it reaches. Needs ``If-Match``."""

    async def work(attempt: Attempt) -> Response:
        body = await read(request, Limit)
        match = if_match(request, required=True)
        keep: Keep[Any] = attempt.keep(_raised)
        try:
            await ports.budgets.put(
                identity.user_id,
                body.limit,
                actor=identity.actor,
                cascade_id=CascadeId(attempt.id("cascade")),
                expected=None if match is None or match.any else match.versions,
                keep=keep,
            )
        except VersionConflict as error:
            raise moved_on(error.members["current_version"], f"{PREFIX}/budget", by_header=True) from None
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.post(
    "/top-up", operation_id="budget_top_up", openapi_extra=request_body(TopUp, example={"amount": 1_000_000})
)  # fmt: skip
async def top_up(request: Request, identity: Controller, ports: Stores) -> Response:
    """Raise your limit. Who waits for money goes on first come first served, and repeats nothing that was paid."""

    async def work(attempt: Attempt) -> Response:
        body = await read(request, TopUp)
        keep: Keep[Any] = attempt.keep(_raised)
        await ports.budgets.top_up(
            identity.user_id,
            body.amount,
            actor=identity.actor,
            cascade_id=CascadeId(attempt.id("cascade")),
            keep=keep,
        )
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.get("/charges", operation_id="budget_charges")
async def charges(
    request: Request,
    identity: Reader,
    ports: Stores,
    cascade_id: str | None = None,
    run_id: str | None = None,
    provider_id: str | None = None,
) -> Response:
    """List what paid steps did cost, newest first."""
    filters = {"cascade_id": cascade_id, "run_id": run_id, "provider_id": provider_id}
    wanted = page_request(request, ports.cursors, identity.user_id, filters)
    rows = await ports.budgets.charges(
        identity.user_id,
        limit=wanted.limit + 1,
        before=None if wanted.after is None else UUID(wanted.after[0]),
        cascade_id=None if cascade_id is None else parse_id(cascade_id, "/query/cascade_id"),
        run_id=None if run_id is None else parse_id(run_id, "/query/run_id"),
        provider_id=provider_id,
    )
    return page_response(request, ports.cursors, wanted, rows, lambda row: (row["id"],), show=_charge)


def shown(state: Any) -> dict[str, Any]:
    """Return a budget as JSON."""
    funds = state.funds
    return {
        "id": None if funds.limit is None else state.id,
        "limit": funds.limit,
        "spent": funds.spent,
        "reserved": funds.reserved,
        "remaining": funds.remaining,
        "unit": UNIT,
        "managed": state.managed,
        "blocked": {"derivations": state.waiting, "needed": state.needed},
        "version": state.version,
        "updated_at": state.updated_at,
    }


def _raised(done: Any) -> Response:
    headers = {"ETag": etag(done.state.version)}
    if done.cascade_id is not None:
        headers["Link"] = cascade_link(done.cascade_id)
    facts = {"resumed": done.lifted, "cascade_id": done.cascade_id, "resumed_cascades": done.resumed}
    body = shown(done.state) | facts
    return answer(body, headers=headers)


def _charge(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "unit": UNIT, "run_url": f"{PREFIX}/runs/{row['run_id']}"}
