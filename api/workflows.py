"""Workflows: the steps that providers run, registered once and immutable from then on."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Reader, Registrar
from api.bodies import Wire, answer, query_int, request_body
from api.definitions import MEDIA, checked_definition, read_registration
from api.deps import Stores
from api.idempotency import Attempt, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from api.preconditions import not_modified
from domain.errors import Invalid
from domain.ids import SYSTEM_USER, UserId

router = APIRouter(prefix="/workflows", tags=["workflows"])

VERSION_MAX = 2**31 - 1
EXAMPLE = {
    "id": "wf-shout",
    "name": "Shout",
    "steps": [
        {"id": "count", "type": "computation", "operations": [{"words": "len($.data.content.split())"}]},
        {
            "id": "shouted",
            "type": "state-update",
            "operation": "create-blob",
            "schema_id": "blob-v1",
            "data_map": {"words": "$.words"},
        },
    ],
}


class NewWorkflow(Wire):
    """A workflow as JSON or YAML; ``domain/definitions.py`` checks it whole, so that all faults come at once."""

    id: str
    name: str = ""
    description: str = ""
    steps: list[dict[str, Any]] = Field(min_length=1)


@router.post(
    "", operation_id="workflows_register", status_code=201,
    openapi_extra=request_body(NewWorkflow, example=EXAMPLE, media=MEDIA),
)  # fmt: skip
async def register(request: Request, identity: Registrar, ports: Stores) -> Response:
    """Register a version of a workflow: 201; the same again: 200. Every fault is answered, each with its place.

    ``outdated_providers`` are those of yours that use another version until they are registered again.
    """

    async def work(attempt: Attempt) -> Response:
        user_id = UserId(identity.user_id)
        raw, text = await read_registration(request)
        definition = await checked_definition(ports, user_id, raw)
        keep = attempt.keep(_registered)
        await ports.definitions.register(user_id, definition, text, keep=keep)
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.post(
    "/validate", operation_id="workflows_validate",
    openapi_extra=request_body(NewWorkflow, example=EXAMPLE, media=MEDIA),
)  # fmt: skip
async def validate(request: Request, identity: Reader, ports: Stores) -> Response:
    """Check a workflow without registering it: ``valid``, and every fault with its place."""

    async def work(_: Attempt) -> Response:
        raw, _text = await read_registration(request)
        try:
            definition = await checked_definition(ports, UserId(identity.user_id), raw)
        except Invalid as error:
            errors = [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in error.faults]
            return answer({"valid": False, "errors": errors, "digest": None})
        return answer({"valid": True, "errors": [], "digest": definition.digest})

    return await once(request, ports, identity.user_id, work)


@router.get("", operation_id="workflows_list")
async def list_(request: Request, identity: Reader, ports: Stores) -> Response:
    """List the workflows that you can use, own and published: the newest version of each."""
    wanted = page_request(request, ports.cursors, identity.user_id)
    after = None if wanted.after is None else (str(wanted.after[0]), str(wanted.after[1]))
    rows = await ports.definitions.page(UserId(identity.user_id), limit=wanted.limit + 1, after=after)
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row.definition.id, str(row.owner_id)), show=shown
    )


@router.get("/{workflow_id}", operation_id="workflows_get")
async def get(request: Request, workflow_id: str, identity: Reader, ports: Stores) -> Response:
    """Read a workflow: its source, and the steps as they are interpreted; ``version`` names an older one."""
    version = query_int(request, "version", low=1, high=VERSION_MAX)
    stored = await ports.definitions.find(UserId(identity.user_id), workflow_id, version=version)
    tag = f'"{stored.digest}"'
    if not_modified(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return answer(shown(stored) | {"source": stored.source}, headers={"ETag": tag})


def _registered(done: tuple[Any, bool]) -> Response:
    stored, is_new = done
    headers = {"Location": f"{PREFIX}/workflows/{stored.definition.id}", "ETag": f'"{stored.digest}"'}
    return answer(shown(stored) | {"outdated_providers": stored.outdated}, 201 if is_new else 200, headers)


def shown(stored: Any) -> dict[str, Any]:
    """Return a version of a workflow as JSON."""
    definition = stored.definition
    ir = definition.to_json()
    return {
        "id": definition.id,
        "name": definition.name,
        "description": definition.description,
        "version": stored.version,
        "digest": stored.digest,
        "steps": ir["steps"],
        "outputs": ir["outputs"],
        "execution": "inline" if definition.pure else "workflow",
        "built_in": stored.owner_id == SYSTEM_USER,
        "published": stored.published,
        "created_at": stored.created_at,
    }
