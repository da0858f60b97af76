"""Schemas: register, read, list their versions, hold a value against one."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Reader, Registrar
from api.bodies import Wire, answer, fault, read, read_json, request_body
from api.deps import Stores
from api.idempotency import Attempt, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from api.preconditions import not_modified
from domain.ids import SYSTEM_USER, UserId
from domain.schemas import parse_schema

router = APIRouter(prefix="/schemas", tags=["schemas"])

VERSIONS_MAX = 500
TYPES = ("input", "output", "intermediate")
EXAMPLE = {
    "name": "note",
    "version": "1.0.0",
    "definition": {"type": "object", "required": ["text"], "properties": {"text": {"type": "string"}}},
}


class NewSchema(Wire):
    """A version of a schema; ``domain/schemas.py`` checks it whole, so that all faults come at once."""

    name: str
    definition: dict[str, Any] | bool
    version: str = "1.0.0"
    description: str = ""
    type: str | None = None
    strict_mode: bool = False
    required_fields: list[str] = Field(default_factory=list)
    examples: list[Any] = Field(default_factory=list)
    compatible_with: list[str] = Field(default_factory=list)
    provider_id: str | None = None
    deprecated: bool = False


class Candidate(Wire):
    """A value to hold against a schema."""

    data: Any


@router.post(
    "", operation_id="schemas_register", status_code=201, openapi_extra=request_body(NewSchema, example=EXAMPLE)
)
async def register(request: Request, identity: Registrar, ports: Stores) -> Response:
    """Register a version of a schema: 201; the same again: 200. Versions are immutable."""

    async def work(attempt: Attempt) -> Response:
        schema = parse_schema(await read_json(request))
        keep = attempt.keep(_registered)
        await ports.schemas.register(UserId(identity.user_id), schema, keep=keep)
        ports.schema_lookup.forget(identity.user_id, schema.slug)
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.get("", operation_id="schemas_list")
async def list_(request: Request, identity: Reader, ports: Stores, type: str | None = None) -> Response:  # noqa: A002 - the query's name
    """List the schemas that you can use, own and published: the newest version of each."""
    wanted = page_request(request, ports.cursors, identity.user_id, {"type": type})
    if type is not None and type not in TYPES:
        raise fault("/query/type", "invalid_value", f"type is one of {', '.join(TYPES)}.")
    after = None if wanted.after is None else (str(wanted.after[0]), UUID(wanted.after[1]))
    rows = await ports.schemas.page(UserId(identity.user_id), limit=wanted.limit + 1, after=after, role=type)
    return page_response(request, ports.cursors, wanted, rows, lambda row: (row.schema.slug, row.id), show=shown)


@router.get("/{schema_id}", operation_id="schemas_get")
async def get(request: Request, schema_id: str, identity: Reader, ports: Stores) -> Response:
    """Read the newest version by slug (``text-input-v1``, ``schema-text-input-v1``), or one version by its id."""
    stored = await ports.schemas.find(UserId(identity.user_id), schema_id)
    tag = f'"{stored.id}"'
    if not_modified(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return answer(shown(stored), headers={"ETag": tag})


@router.get("/{schema_id}/versions", operation_id="schemas_list_versions")
async def list_versions(schema_id: str, identity: Reader, ports: Stores) -> Response:
    """List the versions of a schema, newest first."""
    user_id = UserId(identity.user_id)
    found = await ports.schemas.find(user_id, schema_id)
    rows = await ports.schemas.versions(user_id, found.schema.slug, limit=VERSIONS_MAX)
    return answer({"data": [shown(row) for row in rows], "next_cursor": None, "has_more": False})


@router.post(
    "/{schema_id}/validate", operation_id="schemas_validate",
    openapi_extra=request_body(Candidate, example={"data": {"content": "The ship sailed into the storm."}}),
)  # fmt: skip
async def validate(request: Request, schema_id: str, identity: Reader, ports: Stores) -> Response:
    """Hold a value against a schema: ``valid``, and every fault with its pointer. Nothing is stored."""

    async def work(_: Attempt) -> Response:
        stored = await ports.schemas.find(UserId(identity.user_id), schema_id)
        body = await read(request, Candidate)
        faults = stored.schema.validator.faults(body.data)
        errors = [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in faults]
        return answer({"valid": not errors, "errors": errors, "schema_id": stored.schema.slug})

    return await once(request, ports, identity.user_id, work)


def _registered(done: tuple[Any, bool]) -> Response:
    stored, is_new = done
    headers = {"Location": f"{PREFIX}/schemas/{stored.schema.slug}"}
    return answer(shown(stored), 201 if is_new else 200, headers)


def shown(stored: Any) -> dict[str, Any]:
    """Return a version of a schema as JSON."""
    schema = stored.schema
    return {
        "id": stored.id,
        "schema_id": schema.slug,
        "name": schema.name,
        **schema.to_json(),
        "built_in": stored.owner_id == SYSTEM_USER,
        "published": stored.published,
        "active": stored.active,
        "created_at": stored.created_at,
    }
