"""Approvals: runs that wait for a person, and what the person says."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Controller, Reader
from api.bodies import Wire, checked, path_id, read, read_body, request_body
from api.controls import described, run_answer
from api.deps import Stores
from api.idempotency import Attempt
from api.middleware import PREFIX
from api.pages import page_request, page_response
from domain.controls import Decided
from domain.ids import RunId, UserId

router = APIRouter(tags=["approvals"])

COMMENT_CHARACTERS_MAX = 2000


class Approval(Wire):
    """What to note with an approval; ``step_id`` is the step that was shown, for a run may ask more than once."""

    comment: str | None = Field(default=None, max_length=COMMENT_CHARACTERS_MAX)
    step_id: str | None = Field(default=None, max_length=100)


class Rejection(Wire):
    """Why what was shown is not wanted."""

    comment: str = Field(min_length=1, max_length=COMMENT_CHARACTERS_MAX)
    step_id: str | None = Field(default=None, max_length=100)


@router.get("/approvals", operation_id="approvals_list")
async def list_(request: Request, identity: Reader, ports: Stores) -> Response:
    """List your runs that wait for a person, in the order in which they began."""
    wanted = page_request(request, ports.cursors, identity.user_id)
    rows = await ports.controls.approvals(
        UserId(identity.user_id),
        limit=wanted.limit + 1,
        after=None if wanted.after is None else UUID(wanted.after[0]),
    )
    return page_response(request, ports.cursors, wanted, rows, lambda row: (row["run_id"],), show=_shown)


@router.post(
    "/runs/{run_id}/approve", operation_id="runs_approve", status_code=202,
    openapi_extra=request_body(Approval, example={"comment": "Well said.", "step_id": "review"}),
)  # fmt: skip
async def approve(request: Request, run_id: str, identity: Controller, ports: Stores) -> Response:
    """Let a run go on that waits for a person; what it had finished is not done again. The body may be empty."""
    user_id, wanted = UserId(identity.user_id), RunId(path_id(run_id, "run_id"))

    async def decide(attempt: Attempt) -> Decided:
        body = await read(request, Approval) if await read_body(request) else checked(Approval, {})
        return await ports.controls.approve(
            user_id, wanted, step_id=body.step_id, comment=body.comment, actor=identity.actor,
            keep=attempt.record(described),
        )  # fmt: skip

    return await run_answer(request, ports, identity, wanted, decide)


@router.post(
    "/runs/{run_id}/reject", operation_id="runs_reject", status_code=202,
    openapi_extra=request_body(Rejection, example={"comment": "The tone is wrong.", "step_id": "review"}),
)  # fmt: skip
async def reject(request: Request, run_id: str, identity: Controller, ports: Stores) -> Response:
    """End a run that waits for a person: what it would make is not wanted, and what is below waits."""
    user_id, wanted = UserId(identity.user_id), RunId(path_id(run_id, "run_id"))

    async def decide(attempt: Attempt) -> Decided:
        body = await read(request, Rejection)
        return await ports.controls.reject(
            user_id, wanted, step_id=body.step_id, comment=body.comment, actor=identity.actor,
            keep=attempt.record(described),
        )  # fmt: skip

    return await run_answer(request, ports, identity, wanted, decide)


def _shown(row: Any) -> dict[str, Any]:
    run_url = f"{PREFIX}/runs/{row['run_id']}"
    return {
        "run_id": row["run_id"],
        "step_id": row["step_id"],
        "prompt": row["prompt"],
        "label": row["label"],
        "provider_id": row["provider_id"],
        "cascade_id": row["cascade_id"],
        "derivation_id": row["derivation_id"],
        "anchor": {"kind": row["anchor_kind"], "id": row["anchor_id"]},
        "inputs": [{"blob_id": item["blob_id"], "version": item["version"]} for item in row["inputs"]],
        "blob_ids": row["blob_ids"],
        "waiting_since": row["since"],
        "run_url": run_url,
        "approve_url": f"{run_url}/approve",
        "reject_url": f"{run_url}/reject",
    }
