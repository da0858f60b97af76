"""Instances: a user's activation of a provider, its settings, and asking it to process a blob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Executor, Identity, Reader
from api.bodies import Wire, answer, etag, fault, read, request_body
from api.cascades import ask_once
from api.deps import Ports, Stores
from api.idempotency import Attempt, Keep, once
from api.middleware import PREFIX
from api.preconditions import if_match, moved_on
from api.wire import cascade_link
from domain.canonical import canonical
from domain.errors import Conflict, Fault, Invalid, StudioError, VersionConflict
from domain.ids import SYSTEM_USER, BlobId, CascadeId, InstanceId, UserId, parse_id
from domain.provider_ir import Debounce, Policies
from domain.providers import EVENTS, QUIET_SECONDS_MAX, WAIT_SECONDS_MAX, longest_wait
from domain.schemas import compile_validator

router = APIRouter(prefix="/providers", tags=["providers"])

DERIVATIONS_SHOWN_MAX = 100
"""Derivations that the answer of an upgrade names; it counts all of them."""
SETTINGS_BYTES_MAX = 64 * 1024


class Processing(Wire):
    """Which blob to process; ``blobId`` is the seeds' spelling."""

    blob_id: str | None = None
    blobId: str | None = None  # noqa: N815 - the seeds' name
    event: str = "onCreate"


class Pace(Wire):
    """How long a provider waits for further edits: ``quiet`` since the last one, ``max_wait`` since the first.

    Both in seconds. ``quiet`` 0 waits for nothing; without ``max_wait`` it is ten times ``quiet``.
    """

    quiet: float = Field(ge=0, le=QUIET_SECONDS_MAX)
    max_wait: float | None = Field(default=None, ge=0, le=WAIT_SECONDS_MAX)


class Upgrading(Wire):
    """``dry_run`` only says what would be made again."""

    dry_run: bool = False


class InstanceState(Wire):
    """Whether a provider reacts to your blobs, and with which settings; what is left out stays.

    ``on_conflict`` says what happens where you and the provider have changed the same thing, ``debounce`` how long it
    waits for further edits, ``supersede`` whether a run that an edit overtakes ends or finishes first,
    ``on_parent_failure`` whether it waits where something that it reads has failed, goes on with the last good output
    of that, or skips; null leaves it to the provider again.
    """

    active: bool | None = None
    settings: dict[str, Any] | None = None
    on_conflict: Literal["keep_human", "wait", "take_machine"] | None = None
    debounce: Pace | None = None
    supersede: Literal["cancel", "finish"] | None = None
    on_parent_failure: Literal["block", "use_last_good", "skip"] | None = None


@router.post(
    "/{provider_id}/process", operation_id="providers_process", status_code=202,
    openapi_extra=request_body(
        Processing, example={"blob_id": "01890a5d-ac96-774b-bcce-b302099a8057", "event": "onCreate"}
    ),
)  # fmt: skip
async def process(request: Request, provider_id: str, identity: Executor, ports: Stores) -> Response:
    """Ask a provider to process a blob: 202, and the cascade that does; ``Prefer: wait`` until the run ends."""

    async def ask(attempt: Attempt) -> dict[str, str]:
        return await _ask(request, ports, identity, attempt, provider_id)

    return await ask_once(request, ports, UserId(identity.user_id), ask)


async def _ask(
    request: Request, ports: Ports, identity: Identity, attempt: Attempt, provider_id: str
) -> dict[str, str]:
    """Ask for the processing; returns what the answer says of it, and the instance that does it."""
    user_id = UserId(identity.user_id)
    stored = await ports.providers.find(user_id, provider_id)
    body = await read(request, Processing)
    blob_id = _blob_of(body)
    if stored.provider.anchor != "blob":
        raise fault("/blob_id", "invalid_value", "This provider collects a bucket: put the blob into one.")
    if not stored.activated:
        raise Conflict("The provider is switched off for you.", code="provider_inactive")

    def described(done: tuple[InstanceId, CascadeId]) -> dict[str, str]:
        instance, cascade = done
        asked = {"cascade_id": str(cascade), "provider_id": stored.provider.id, "blob_id": str(blob_id)}
        return {**asked, "event": body.event, "instance_id": str(instance)}

    done = await ports.instances.process(
        user_id, stored.key, blob_id, name=stored.provider.name, actor=identity.actor, keep=attempt.record(described)
    )
    ports.bell.ring()
    return described(done)


@router.get("/{provider_id}/instance", operation_id="providers_get_instance")
async def get_instance(provider_id: str, identity: Reader, ports: Stores) -> Response:
    """Say whether a provider reacts to your blobs, and with which settings."""
    stored = await ports.providers.find(UserId(identity.user_id), provider_id)
    instance = await _instance(ports, identity, stored)
    return answer(_shown_instance(stored, instance), headers={"ETag": etag(instance.version)})


@router.put(
    "/{provider_id}/instance", operation_id="providers_put_instance",
    openapi_extra=request_body(InstanceState, example={"active": True, "settings": {}}),
)  # fmt: skip
async def put_instance(request: Request, provider_id: str, identity: Executor, ports: Stores) -> Response:
    """Switch a provider on or off for yourself, change its settings, its pace or its policies. Needs ``If-Match``."""

    async def work(attempt: Attempt) -> Response:
        user_id = UserId(identity.user_id)
        stored = await ports.providers.find(user_id, provider_id)
        body = await read(request, InstanceState)
        before = await _instance(ports, identity, stored)
        settings = before.settings if body.settings is None else {**stored.provider.settings, **body.settings}
        _check_settings(stored.provider.settings_schema, settings)
        match = if_match(request, required=True)
        keep: Keep[tuple[Any, CascadeId | None]] = attempt.keep(lambda done: _put(stored, *done))
        try:
            await ports.instances.put(
                user_id,
                stored.key,
                slug=stored.provider.id,
                name=stored.provider.name,
                before=before,
                active=before.active if body.active is None else body.active,
                settings=settings,
                policies=_policies(body, before.policies),
                expected=None if match is None or match.any else match.versions,
                actor=identity.actor,
                keep=keep,
            )
        except VersionConflict as error:
            where = f"{PREFIX}/providers/{provider_id}/instance"
            raise moved_on(error.members["current_version"], where, by_header=True) from None
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.post(
    "/{provider_id}/upgrade", operation_id="providers_upgrade", status_code=202,
    openapi_extra=request_body(Upgrading, example={"dry_run": True}),
)  # fmt: skip
async def upgrade(request: Request, provider_id: str, identity: Executor, ports: Stores) -> Response:
    """Make again what an older definition of a provider made, as one cascade; a dry run, or nothing to do: 200."""

    async def work(attempt: Attempt) -> Response:
        user_id = UserId(identity.user_id)
        stored = await ports.providers.find(user_id, provider_id)
        body = await read(request, Upgrading)
        if not stored.activated:
            raise Conflict("The provider is switched off for you.", code="provider_inactive")
        keep: Keep[Any] = attempt.keep(lambda found: _upgraded(stored, found, dry_run=body.dry_run))
        await ports.instances.upgrade(
            user_id, stored.key, slug=stored.provider.id, name=stored.provider.name, dry_run=body.dry_run,
            actor=identity.actor, keep=keep,
        )  # fmt: skip
        if not body.dry_run:
            ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


def _upgraded(stored: Any, found: Any, *, dry_run: bool) -> Response:
    body = {
        "provider_id": stored.provider.id,
        "revision": stored.revision,
        "definition_digest": stored.provider.definition_digest,
        "dry_run": dry_run,
        "count": len(found.derivations),
        "derivations": found.derivations[:DERIVATIONS_SHOWN_MAX],
        "possible_below": found.below,
        "cascade_id": found.cascade_id,
    }
    if found.cascade_id is None:
        return answer(body)
    headers = {"Location": f"{PREFIX}/cascades/{found.cascade_id}", "Link": cascade_link(found.cascade_id)}
    return answer(body, 202, headers)


async def _instance(ports: Ports, identity: Identity, stored: Any) -> Any:
    return await ports.instances.get(
        UserId(identity.user_id),
        stored.key,
        default_active=stored.owner_id == SYSTEM_USER,
        defaults=stored.provider.settings,
    )


def _policies(body: InstanceState, before: Policies) -> Policies:
    """Return what the request says, and for what it leaves out what was decided before."""
    plain = ("on_conflict", "supersede", "on_parent_failure")
    said: dict[str, Any] = {name: getattr(body, name) for name in plain if name in body.model_fields_set}
    if "debounce" in body.model_fields_set:
        said["debounce"] = None if body.debounce is None else _debounce(body.debounce)
    return replace(before, **said)


def _debounce(pace: Pace) -> Debounce:
    longest = longest_wait(pace.quiet) if pace.max_wait is None else pace.max_wait
    if longest < pace.quiet:
        raise fault("/debounce/max_wait", "invalid_value", f"max_wait is at least as long as quiet: {pace.quiet:g}.")
    return Debounce(pace.quiet, longest)


def _put(stored: Any, after: Any, cascade: CascadeId | None) -> Response:
    headers = {"ETag": etag(after.version)}
    if cascade is not None:
        headers["Link"] = cascade_link(cascade)
    return answer(_shown_instance(stored, after) | {"cascade_id": cascade}, headers=headers)


def _shown_debounce(debounce: Debounce | None) -> dict[str, float] | None:
    if debounce is None or not debounce.quiet_seconds:
        return None
    return {"quiet": debounce.quiet_seconds, "max_wait": debounce.max_wait_seconds}


def _shown_instance(stored: Any, instance: Any) -> dict[str, Any]:
    policies = instance.policies
    return {
        "id": instance.id,
        "provider_id": stored.provider.id,
        "active": instance.active,
        "settings": instance.settings,
        "on_conflict": policies.on_conflict or stored.provider.on_conflict,
        "supersede": policies.supersede or stored.provider.supersede,
        "debounce": _shown_debounce(policies.debounce or stored.provider.debounce),
        "on_parent_failure": policies.on_parent_failure or stored.provider.on_parent_failure,
        "version": instance.version,
        "updated_at": instance.updated_at,
    }


def _blob_of(body: Processing) -> BlobId:
    if body.blob_id is not None and body.blobId is not None:
        raise fault("/blobId", "invalid_value", "Give blob_id or blobId, not both.")
    name = "blobId" if body.blobId is not None else "blob_id"
    given = body.blob_id or body.blobId
    if given is None:
        raise fault("/blob_id", "missing_field", "Name the blob: blob_id.")
    if body.event not in EVENTS:
        raise fault("/event", "invalid_value", f"event is one of {', '.join(EVENTS)}.")
    return BlobId(parse_id(given, f"/{name}"))


def _check_settings(schema: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
    """Raise Invalid unless the settings are what the provider declares; without a declaration, within the bound."""
    try:
        canonical(dict(settings), bytes_max=SETTINGS_BYTES_MAX)
    except StudioError as error:
        inner = error.faults or (Fault("", error.problem_code, error.detail),)
        faults = [Fault(f"/settings{fault.pointer}", fault.code, fault.detail) for fault in inner]
        raise Invalid(f"The settings are not valid: {error.detail}", faults=faults) from None
    found = compile_validator(dict(schema)).faults(dict(settings)) if schema is not None else []
    if found:
        faults = [Fault(f"/settings{fault.pointer}", fault.code, fault.detail) for fault in found]
        raise Invalid(
            f"The settings do not satisfy the provider's schema: {faults[0].pointer}: {faults[0].detail}",
            code="schema_violation",
            faults=faults,
        )
