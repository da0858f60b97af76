"""Providers: register, discover, delete; ``instances.py`` has what a user does with one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Reader, Registrar
from api.bodies import Wire, answer, etag, request_body
from api.definitions import MEDIA, read_registration, schemas_named
from api.deps import Ports, Stores
from api.idempotency import Attempt, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from api.preconditions import if_match, moved_on, not_modified
from api.schemas import shown as shown_schema
from api.wire import cascade_link
from domain.definitions import Definition
from domain.errors import Forbidden, Invalid, NotFound
from domain.ids import SYSTEM_USER, CascadeId, UserId
from domain.providers import EVENTS, parse_provider

router = APIRouter(prefix="/providers", tags=["providers"])

EXAMPLE = {
    "id": "content-expander",
    "name": "Content Expander",
    "description": "Expands brief text into detailed content",
    "events": ["onCreate", "onEdit"],
    "workflow_id": "expand-content-workflow",
}


class NewProvider(Wire):
    """A provider as JSON or YAML, or the seeds' ``processor:`` block; ``domain/providers.py`` checks it whole."""

    id: str
    name: str = ""
    description: str = ""
    workflow_id: str
    input_schemas: list[str] = Field(default_factory=list)
    output_schema_id: str | None = None
    events: list[str] = Field(default_factory=lambda: list(EVENTS[:2]))
    event_patterns: list[str] = Field(default_factory=list)
    supported_types: list[str] = Field(default_factory=list)
    origin: str = "person"
    anchor: str = "blob"
    collect: dict[str, str] | None = None
    settings: dict[str, Any] = Field(default_factory=dict)
    settings_schema: dict[str, Any] | None = None
    activate: bool = True


@router.post(
    "", operation_id="providers_register", status_code=201,
    openapi_extra=request_body(NewProvider, example=EXAMPLE, media=MEDIA),
)  # fmt: skip
async def register(request: Request, identity: Registrar, ports: Stores) -> Response:
    """Register a provider and switch it on (``activate: false`` leaves it off): 201; the same again: 200.

    Registering it with other content makes the next revision.
    """

    async def work(attempt: Attempt) -> Response:
        user_id = UserId(identity.user_id)
        raw, _text = await read_registration(request)
        schemas = await schemas_named(ports, user_id, raw)
        provider = parse_provider(raw, workflows=await _workflows_named(ports, user_id, raw), schemas=schemas)
        keep = attempt.keep(_registered)
        await ports.providers.register(user_id, provider, actor=identity.actor, keep=keep)
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.post(
    "/validate", operation_id="providers_validate",
    openapi_extra=request_body(NewProvider, example=EXAMPLE, media=MEDIA),
)  # fmt: skip
async def validate(request: Request, identity: Reader, ports: Stores) -> Response:
    """Check a provider without registering it: ``valid``, and every fault with its place."""

    async def work(_: Attempt) -> Response:
        user_id = UserId(identity.user_id)
        raw, _text = await read_registration(request)
        schemas = await schemas_named(ports, user_id, raw)
        try:
            parse_provider(raw, workflows=await _workflows_named(ports, user_id, raw), schemas=schemas)
        except Invalid as error:
            errors = [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in error.faults]
            return answer({"valid": False, "errors": errors})
        return answer({"valid": True, "errors": []})

    return await once(request, ports, identity.user_id, work)


@router.get("", operation_id="providers_list")
async def list_(request: Request, identity: Reader, ports: Stores) -> Response:
    """List the providers that you can use: built-in ones and your own."""
    wanted = page_request(request, ports.cursors, identity.user_id)
    after = None if wanted.after is None else (str(wanted.after[0]), UUID(wanted.after[1]))
    rows = await ports.providers.page(UserId(identity.user_id), limit=wanted.limit + 1, after=after)
    return page_response(request, ports.cursors, wanted, rows, lambda row: (row.provider.id, row.key), show=shown)


@router.get("/{provider_id}", operation_id="providers_get")
async def get(request: Request, provider_id: str, identity: Reader, ports: Stores) -> Response:
    """Read one provider by its id (yours before a built-in one), its key, or a seed's alias."""
    stored = await ports.providers.find(UserId(identity.user_id), provider_id)
    tag = etag(stored.revision)
    if not_modified(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return answer(shown(stored), headers={"ETag": tag})


@router.delete("/{provider_id}", operation_id="providers_delete", status_code=204)
async def delete(request: Request, provider_id: str, identity: Registrar, ports: Stores) -> Response:
    """Delete a provider of your own: it reacts no more, what it made stays."""

    async def work(attempt: Attempt) -> Response:
        user_id = UserId(identity.user_id)
        stored = await ports.providers.find(user_id, provider_id)
        if stored.owner_id != user_id:
            detail = "A built-in provider cannot be deleted; switch it off: PUT its instance."
            raise Forbidden(detail, code="built_in")
        match = if_match(request)
        if match is not None and not match.allows(stored.revision):
            raise moved_on(stored.revision, f"{PREFIX}/providers/{provider_id}", by_header=True)
        keep = attempt.keep(_deleted)
        await ports.providers.delete(user_id, stored, actor=identity.actor, keep=keep)
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.get("/{provider_id}/schemas", operation_id="providers_list_schemas")
async def list_schemas(provider_id: str, identity: Reader, ports: Stores) -> Response:
    """List the schemas that a provider takes and makes."""
    user_id = UserId(identity.user_id)
    provider = (await ports.providers.find(user_id, provider_id)).provider
    named = [(slug, "input") for slug in provider.input_schemas]
    named += [(output.schema.slug, "output") for output in provider.outputs]
    found = []
    for slug, role in dict.fromkeys(named):
        found.append(shown_schema(await ports.schemas.find(user_id, slug)) | {"role": role})
    return answer({"data": found, "next_cursor": None, "has_more": False})


@router.get("/{provider_id}/health", operation_id="providers_health")
async def health(provider_id: str, identity: Reader, ports: Stores) -> Response:
    """Say how your runs of a provider went in the last 24 hours."""
    user_id = UserId(identity.user_id)
    stored = await ports.providers.find(user_id, provider_id)
    counts = dict(await ports.providers.health(user_id, stored.key))
    last = counts.pop("last_status")
    if not stored.activated:
        status = "inactive"
    elif last is None:
        status = "idle"
    else:
        status = "failing" if last == "failed" else "healthy"
    return answer({"provider_id": stored.provider.id, "status": status, "window_hours": 24, **counts})


def _registered(done: tuple[Any, CascadeId | None]) -> Response:
    stored, cascade = done
    headers = {"Location": f"{PREFIX}/providers/{stored.provider.id}", "ETag": etag(stored.revision)}
    if cascade is not None:
        headers["Link"] = cascade_link(cascade)
    return answer(shown(stored), 200 if cascade is None else 201, headers)


def _deleted(cascade: CascadeId) -> Response:
    return Response(status_code=204, headers={"Link": cascade_link(cascade)})


def shown(stored: Any) -> dict[str, Any]:
    """Return a provider as JSON."""
    provider = stored.provider
    spec = provider.to_json()
    del spec["activate"]
    return {
        **spec,
        "key": stored.key,
        "revision": stored.revision,
        "input_schema_id": provider.input_schemas[0] if provider.input_schemas else None,
        "output_schema_id": provider.outputs[0].schema.slug if provider.outputs else None,
        "active": stored.activated,
        "built_in": stored.owner_id == SYSTEM_USER,
        "published": stored.published,
        "created_at": stored.created_at,
        "updated_at": stored.updated_at,
    }


async def _workflows_named(ports: Ports, user_id: UserId, raw: Any) -> Callable[[str], Definition | None]:
    """Return a lookup of the workflows that a registration names."""
    known: dict[str, Definition] = {}
    blocks = [raw, *(raw.get(name) for name in ("processor", "provider"))] if isinstance(raw, dict) else []
    for block in blocks:
        for name in ("workflow_id", "workflow"):
            reference = block.get(name) if isinstance(block, dict) else None
            if isinstance(reference, str) and reference not in known:
                try:
                    known[reference] = (await ports.definitions.find(user_id, reference)).definition
                except NotFound:
                    continue
    return known.get
