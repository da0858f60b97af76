"""Plans: what a write would set in motion, before it happens. The write itself is made, read, and undone.

A request for a plan describes a write as its own route takes it; that route's very handler is called with it, inside
a rehearsal. So a plan is refused whenever the write would be, in the same words, and there is nothing to keep in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.auth import Reader
from api.bindings import PLAN_HEADER
from api.bodies import answer, path_id, read_json, request_body
from api.deps import Ports, Stores
from api.idempotency import Attempt, once
from api.middleware import PREFIX
from api.plan_requests import Write, write_of
from api.problems import PROBLEM_JSON
from api.wire import timestamp
from domain.plan_views import actual_json, plan_json
from domain.plans import Plan

router = APIRouter(prefix="/cascades", tags=["cascades"])

EXAMPLE = {
    "blob_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "delta": {"operation": "update", "patch": {"content": "The quick brown fox jumps"}},
}
_OF_ONE_REQUEST = ("idempotency-key", "prefer", "if-match", "if-none-match", "content-type", "content-length",
                   "content-digest", "accept-encoding", PLAN_HEADER.lower())  # fmt: skip
"""Headers that mean the request for the plan, not the write that is planned."""
_OF_ROUTING = frozenset(
    {"route", "endpoint", "router", "path_params", "fastapi_inner_astack", "fastapi_function_astack"}
)


class PlanRequest(BaseModel):
    """One write, by what it is about. What else goes with a member is what that write's own route takes."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)

    blob: dict[str, Any] | None = None
    """A blob to be made, as POST /blobs takes it."""
    blob_id: str | None = None
    """A blob to be changed: with ``delta``, ``patch``, or ``content``, ``data``, ``title``, ``tags``, ``metadata``;
    with ``operation``: delete, restore, reset, revert (and ``version``); with ``reprocess``."""
    provider: dict[str, Any] | str | None = None
    """A provider to be registered, as POST /providers takes it; a text is YAML."""
    provider_id: str | None = None
    """A provider to be switched or configured, as PUT /providers/{id}/instance takes it; or with ``upgrade``,
    ``process``."""
    bucket_id: str | None = None
    """A bucket, with the blob to ``add`` (and its ``position``) or to ``remove``."""
    derivation_id: str | None = None
    """A derivation, with ``reprocess``."""
    dead_letters: dict[str, Any] | None = None
    """Dead letters to be tried again, as POST /dead-letters/redrive takes them."""
    from_version: int | None = Field(default=None, ge=1)
    """The version of the blob that you know."""


class _Refused(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


@router.post(
    "/plan", operation_id="cascades_plan", status_code=201, openapi_extra=request_body(PlanRequest, example=EXAMPLE)
)  # fmt: skip
async def plan(request: Request, identity: Reader, ports: Stores) -> Response:
    """Say what a write would set in motion: what runs, what it costs, what is at risk; nothing is written.

    Name the plan in ``Studio-Plan`` when you make the write: it then happens only if this still holds.
    """

    async def work(attempt: Attempt) -> Response:
        write = write_of(await read_json(request))
        along = None if write.along is None else UUID(write.along)
        async with ports.plans.rehearsed(identity.user_id, along=along) as rehearsal:
            made = await _made(request, write)
            if not rehearsal.caused:  # else it was made, whatever its route could find of it afterwards
                _raise_refusal(write, made)
        keep = attempt.keep(_created)

        def body(created: datetime, expires: datetime) -> Mapping[str, Any]:
            return _body(ports, write, rehearsal, created, expires)

        await ports.plans.add(identity.user_id, rehearsal, path=write.path, body=body, keep=keep)
        return keep.response

    try:
        return await once(request, ports, identity.user_id, work)
    except _Refused as refused:
        return refused.response


@router.get("/plans/{plan_id}", operation_id="cascades_get_plan")
async def get(plan_id: str, identity: Reader, ports: Stores) -> Response:
    """Read a plan; once it has been used, with what came of it."""
    found = await ports.plans.get(identity.user_id, path_id(plan_id, "plan_id"))
    return answer(await with_actual(ports, identity.user_id, found), headers={"ETag": f'"{found.etag}"'})


async def with_actual(ports: Ports, user_id: UUID, found: Plan) -> dict[str, Any]:
    """Return a plan as JSON, with what came of it if it has been used."""
    actual = None
    if found.cascade_id is not None:
        rows = await ports.plans.actual(user_id, [found.cascade_id])
        if found.cascade_id in rows:
            actual = actual_json(found.body, rows[found.cascade_id])
    return {**found.body, "status": found.status, "used_at": found.used_at, "cascade_id": found.cascade_id,
            "actual": actual}  # fmt: skip


def _body(ports: Ports, write: Write, rehearsal: Any, created: datetime, expires: datetime) -> dict[str, Any]:
    bounds = ports.plans.bounds
    said = plan_json(
        rehearsal.forecast, now=created, window=bounds.window, nodes_max=bounds.nodes_shown, paid=ports.paid_services
    )
    return {
        "id": str(rehearsal.plan_id),
        "kind": write.kind,
        "effect": "changes" if rehearsal.caused else "nothing",
        "request": {"method": write.method, "path": write.path},
        "blob_id": str(rehearsal.blob_id) if write.kind == "create" else None,
        "created_at": timestamp(created),
        "expires_at": timestamp(expires),
        **said,
    }


def _created(found: Plan) -> Response:
    body = {**found.body, "status": found.status, "used_at": None, "cascade_id": None, "actual": None}
    headers = {"Location": f"{PREFIX}/cascades/plans/{found.id}", "ETag": f'"{found.etag}"'}
    return answer(body, 201, headers)


async def _made(request: Request, write: Write) -> Response:
    """Make the write by its own route, in the name of who asks for the plan."""
    headers = [(name, value) for name, value in request.scope["headers"] if name.decode() not in _OF_ONE_REQUEST]
    headers += [(name.encode(), value.encode("latin-1")) for name, value in write.headers.items()]
    state = {**request.scope["state"], "path": write.path, "method": write.method, "body": write.body, "alias": False}
    scope = {name: value for name, value in request.scope.items() if name not in _OF_ROUTING}
    scope |= {"method": write.method, "path": write.path, "raw_path": write.path.encode(), "query_string": b"",
              "headers": headers, "state": state}  # fmt: skip
    status, sent, parts = 0, {}, []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": write.body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status, sent
        if message["type"] == "http.response.start":
            status, sent = message["status"], {n.decode("latin-1"): v.decode("latin-1") for n, v in message["headers"]}
        else:
            parts.append(message.get("body", b""))

    await request.app.router(scope, receive, send)
    return Response(b"".join(parts), status, sent)


def _raise_refusal(write: Write, made: Response) -> None:
    """Raise what the write would be refused with, its places moved into our request."""
    if made.status_code < 400:  # noqa: PLR2004 - what is refused begins there
        return
    if made.headers.get("content-type") == PROBLEM_JSON and write.inside:
        problem = orjson.loads(made.body)
        problem["errors"] = [e | {"pointer": _moved(write.inside, e["pointer"])} for e in problem.get("errors", ())]
        kept = {name: value for name, value in made.headers.items() if name != "content-length"}
        made = Response(orjson.dumps(problem), made.status_code, kept)
    raise _Refused(made)


def _moved(inside: str, pointer: str) -> str:
    return pointer if pointer.startswith(("/header/", "/path/", "/query/")) else inside + pointer
