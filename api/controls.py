"""Cancel and retry: what people decide about runs and cascades. The worker hears of it by doorbells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Controller, Identity
from api.bodies import answer, path_id
from api.cascades import ask_once
from api.deps import Ports, Stores
from api.idempotency import Attempt, once
from api.middleware import PREFIX
from api.queries import require_known
from api.runs import detailed_run
from domain.controls import Decided
from domain.ids import CascadeId, RunId, UserId

router = APIRouter()

Decide = Callable[[Attempt], Awaitable[Decided]]


@router.post("/runs/{run_id}/cancel", operation_id="runs_cancel", status_code=202, tags=["runs"])
async def cancel_run(request: Request, run_id: str, identity: Controller, ports: Stores) -> Response:
    """End a run: its derivation is held, what is below waits. Until somebody retries, or a later cause touches it."""
    user_id, wanted = UserId(identity.user_id), RunId(path_id(run_id, "run_id"))

    async def decide(attempt: Attempt) -> Decided:
        return await ports.controls.cancel_run(user_id, wanted, actor=identity.actor, keep=attempt.record(described))

    return await run_answer(request, ports, identity, wanted, decide)


@router.post("/runs/{run_id}/retry", operation_id="runs_retry", status_code=202, tags=["runs"])
async def retry_run(request: Request, run_id: str, identity: Controller, ports: Stores) -> Response:
    """Let what a run failed at, or was cancelled at, run again: the cascade that owns it goes on."""
    user_id, wanted = UserId(identity.user_id), RunId(path_id(run_id, "run_id"))

    async def decide(attempt: Attempt) -> Decided:
        return await ports.controls.retry_run(user_id, wanted, actor=identity.actor, keep=attempt.record(described))

    return await _cascade_answer(request, ports, identity, decide)


@router.post("/cascades/{cascade_id}/cancel", operation_id="cascades_cancel", status_code=202, tags=["cascades"])
async def cancel_cascade(request: Request, cascade_id: str, identity: Controller, ports: Stores) -> Response:
    """End a cascade: its runs end, what is queued is held. Its edits stay, and retry carries them on."""
    user_id, wanted = UserId(identity.user_id), CascadeId(path_id(cascade_id, "cascade_id"))

    async def decide(attempt: Attempt) -> Decided:
        keep = attempt.record(described)
        return await ports.controls.cancel_cascade(user_id, wanted, actor=identity.actor, keep=keep)

    return await _cascade_answer(request, ports, identity, decide)


@router.post("/cascades/{cascade_id}/retry", operation_id="cascades_retry", status_code=202, tags=["cascades"])
async def retry_cascade(request: Request, cascade_id: str, identity: Controller, ports: Stores) -> Response:
    """Let everything of a cascade that failed or was cancelled run again; ``Prefer: wait`` until it closes."""
    user_id, wanted = UserId(identity.user_id), CascadeId(path_id(cascade_id, "cascade_id"))

    async def decide(attempt: Attempt) -> Decided:
        keep = attempt.record(described)
        return await ports.controls.retry_cascade(user_id, wanted, actor=identity.actor, keep=keep)

    return await _cascade_answer(request, ports, identity, decide)


def described(done: Decided) -> dict[str, Any]:
    """What a retry of the request has to know of the decision."""
    return {"outcome": done.outcome, "cascade_id": str(done.cascade_id)}


async def run_answer(request: Request, ports: Ports, identity: Identity, run_id: RunId, decide: Decide) -> Response:
    """Decide once per Idempotency-Key, and answer the run as it is then."""
    require_known(request, ())

    async def work(attempt: Attempt) -> Response:
        done = dict(attempt.outcome or described(await decide(attempt)))
        ports.bell.ring()
        shown = await detailed_run(ports, UserId(identity.user_id), run_id)
        return answer(shown | {"outcome": done["outcome"]}, 202, {"Location": f"{PREFIX}/runs/{run_id}"})

    return await once(request, ports, identity.user_id, work)


async def _cascade_answer(request: Request, ports: Ports, identity: Identity, decide: Decide) -> Response:
    """Decide once per Idempotency-Key, wait as the request prefers, and answer the cascade as it is then."""
    require_known(request, ())

    async def ask(attempt: Attempt) -> dict[str, Any]:
        return described(await decide(attempt))

    user_id = UserId(identity.user_id)
    return await ask_once(request, ports, user_id, ask, show=lambda asked: {"outcome": asked["outcome"]})
