"""Who you are, your API keys, and (for admins) new users. A key is shown once: in the answer that makes it."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Admin, Caller, Identity, Reader, bearer_of
from api.bodies import Wire, answer, fault, path_id, read, request_body
from api.budgets import shown as shown_budget
from api.deps import Ports, Stores
from api.idempotency import Attempt, Keep, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from domain.budgets import AMOUNT_MAX
from domain.errors import Forbidden
from domain.ids import ApiKeyId, CascadeId, UserId, new_id
from domain.keys import KEY_SECRET_BYTES, SCOPES, USER_SCOPES, key_prefix, mint_key
from domain.quotas import QUOTA_BYTES_MAX, Usage

router = APIRouter(tags=["users"])

NAME_CHARACTERS_MAX = 100
RUNS_LIMIT_MAX = 100_000
_NAME = re.compile(r"[^\x00-\x1f\x7f]+")


class NewUser(Wire):
    """A user to be made; an admin's keys allow everything."""

    name: str = Field(min_length=1, max_length=NAME_CHARACTERS_MAX)
    admin: bool = False


class NewKey(Wire):
    """A key to be made; without scopes it allows what the key that asks allows."""

    name: str = Field(default="", max_length=NAME_CHARACTERS_MAX)
    scopes: list[str] | None = Field(default=None, min_length=1, max_length=len(SCOPES))
    expires_at: str | None = Field(default=None, description="A time of RFC 3339; without one the key does not expire.")


class Limits(Wire):
    """What a user may have; what is left out stays."""

    bytes_quota: int | None = Field(default=None, ge=0, le=QUOTA_BYTES_MAX)
    """Bytes that may be stored; null: no limit."""
    runs_limit: int | None = Field(default=None, ge=1, le=RUNS_LIMIT_MAX)
    """Runs at a time; null: as the settings say."""
    budget_limit: int | None = Field(default=None, ge=0, le=AMOUNT_MAX)
    """Micro-dollars that paid steps may spend; only admins change it then. null: no limit."""


@router.post(
    "/users", operation_id="users_create", status_code=201,
    openapi_extra=request_body(NewUser, example={"name": "ada"}),
)  # fmt: skip
async def create_user(request: Request, identity: Admin, ports: Stores) -> Response:
    """Make a user with a first API key, which is shown only here."""

    async def work(attempt: Attempt) -> Response:
        body = await read(request, NewUser)
        _check_name(body.name)
        user_id, key_id = UserId(attempt.id("user")), ApiKeyId(attempt.id("key"))
        key = _key(request, attempt, key_id)
        scopes = SCOPES if body.admin else USER_SCOPES
        roles = ["admin"] if body.admin else ["user"]
        await ports.users.create(user_id, body.name, roles=roles, scopes=scopes, key_id=key_id, key=key)
        made = {"user_id": user_id, "name": body.name, "roles": roles, "api_key_id": key_id, "scopes": scopes}
        return _kept(made, key, f"{PREFIX}/users/{user_id}", request)

    return _revealed(request, await once(request, ports, identity.user_id, work), "api_key_id")


@router.get("/me", operation_id="users_me")
async def me(identity: Caller) -> Response:
    """Say who you are and what your key allows."""
    return answer(_shown_identity(identity) | {"name": identity.name, "api_key_id": identity.key_id})


@router.put(
    "/users/{user_id}/limits", operation_id="users_put_limits",
    openapi_extra=request_body(Limits, example={"bytes_quota": 10_000_000_000}),
)  # fmt: skip
async def put_limits(request: Request, user_id: str, identity: Admin, ports: Stores) -> Response:
    """Say how many bytes a user may store, how many runs they may have at a time, what their paid steps may spend.

    What is stored stays, even beyond; then nothing can grow. A budget cannot be below what is spent and reserved.
    """

    async def work(attempt: Attempt) -> Response:
        of = path_id(user_id, "user_id")
        await ports.users.state(of)  # 404 goes before what is wrong with the body
        body = await read(request, Limits)
        if not body.model_fields_set:
            raise fault("/bytes_quota", "missing_field", "Name a limit: bytes_quota, runs_limit, budget_limit.")
        budget = await _limit_budget(ports, identity, attempt, of, body)
        keep: Keep[Any] = attempt.keep(
            lambda may: answer({
                "user_id": of, **_shown_usage(may.usage), "runs_limit": may.runs_limit, "budget": shown_budget(budget)
            })
        )  # fmt: skip
        limits = body.model_dump(include=body.model_fields_set - {"budget_limit"})
        await ports.users.limit(of, limits, by=identity.user_id, keep=keep)
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


async def _limit_budget(ports: Ports, identity: Identity, attempt: Attempt, of: UUID, body: Limits) -> Any:
    """Set the budget if the body has one: before the quota, because this can be refused."""
    if "budget_limit" not in body.model_fields_set:
        return await ports.budgets.get(of)
    done = await ports.budgets.put(
        of, body.budget_limit, actor=identity.actor, cascade_id=CascadeId(attempt.id("cascade")), manages=True
    )
    return done.state


@router.get("/me/state", operation_id="users_me_state")
async def my_state(identity: Reader, ports: Stores) -> Response:
    """Say what you have: blobs, bytes, and the number of your newest event."""
    state = await ports.users.state(identity.user_id)
    shown = {"user_id": identity.user_id, "blob_count": state.blob_count, "event_seq": state.event_seq}
    return answer(shown | _shown_usage(state.usage) | {"updated_at": state.updated_at})


@router.get("/me/quota", operation_id="users_me_quota")
async def my_quota(identity: Reader, ports: Stores) -> Response:
    """Say how many bytes you use, open uploads have reserved, you may have, and are left."""
    usage = (await ports.users.state(identity.user_id)).usage
    return answer({**_shown_usage(usage), "bytes_free": usage.free})


@router.get("/validate-token", operation_id="users_validate_token")
async def validate_token(identity: Caller) -> Response:
    """Answer whether the key is valid (401 if not), whose it is and until when (seed 001)."""
    return answer(_shown_identity(identity))


@router.post(
    "/api-keys", operation_id="api_keys_create", status_code=201,
    openapi_extra=request_body(NewKey, example={"name": "reader", "scopes": ["blobs:read"]}),
)  # fmt: skip
async def create_key(request: Request, identity: Caller, ports: Stores) -> Response:
    """Make another key for yourself, which allows at most what this one does; it is shown only here."""

    async def work(attempt: Attempt) -> Response:
        body = await read(request, NewKey)
        if body.name:
            _check_name(body.name)
        scopes = _scopes(body.scopes, identity)
        key_id = ApiKeyId(new_id())
        key = _key(request, attempt, key_id)
        keep: Keep[Any] = attempt.keep(
            lambda made: _kept(_shown_key(made), key, f"{PREFIX}/api-keys/{key_id}", request)
        )
        await ports.api_keys.create(
            UserId(identity.user_id), key_id, key, name=body.name, scopes=scopes,
            expires_at=_expiry(body.expires_at, identity), keep=keep,
        )  # fmt: skip
        return keep.response

    return _revealed(request, await once(request, ports, identity.user_id, work), "id")


@router.get("/api-keys", operation_id="api_keys_list")
async def list_keys(request: Request, identity: Caller, ports: Stores) -> Response:
    """List your keys, revoked ones too; ``prefix`` tells them apart."""
    wanted = page_request(request, ports.cursors, identity.user_id)
    after = None if wanted.after is None else (datetime.fromisoformat(wanted.after[0]), UUID(wanted.after[1]))
    rows = await ports.api_keys.page(UserId(identity.user_id), limit=wanted.limit + 1, after=after)
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row.created_at.isoformat(), row.id), show=_shown_key
    )


@router.delete("/api-keys/{key_id}", operation_id="api_keys_revoke", status_code=204)
async def revoke_key(request: Request, key_id: str, identity: Caller, ports: Stores) -> Response:
    """Revoke a key of yours: it stops working at once here, within seconds in other processes."""

    async def work(attempt: Attempt) -> Response:
        keep: Keep[None] = attempt.keep(lambda _: Response(status_code=204))
        await ports.api_keys.revoke(UserId(identity.user_id), ApiKeyId(path_id(key_id, "key_id")), keep=keep)
        request.app.state.authenticator.forget()
        return keep.response

    return await once(request, ports, identity.user_id, work)


def _shown_identity(identity: Identity) -> dict[str, Any]:
    return {
        "user_id": identity.user_id,
        "roles": list(identity.roles),
        "scopes": sorted(identity.scopes),
        "expires_at": identity.expires_at,
    }


def _shown_usage(usage: Usage) -> dict[str, Any]:
    return {"bytes_used": usage.used, "bytes_reserved": usage.reserved, "bytes_quota": usage.quota}


def _shown_key(key: Any) -> dict[str, Any]:
    names = ("id", "name", "prefix", "scopes", "expires_at", "revoked_at", "created_at")
    return {name: getattr(key, name) for name in names}


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise fault("/name", "invalid_value", "A name has no control characters.")


def _scopes(wanted: list[str] | None, identity: Identity) -> list[str]:
    if wanted is None:
        return [scope for scope in SCOPES if scope in identity.scopes]
    for index, scope in enumerate(wanted):
        if scope not in SCOPES:
            raise fault(f"/scopes/{index}", "invalid_value", f"Scopes are {', '.join(SCOPES)}.")
    missing = [scope for scope in wanted if scope not in identity.scopes]
    if missing:
        raise Forbidden(
            f"A key cannot allow more than the key that makes it: {missing[0]}.",
            members={"required_scope": missing[0]},
        )
    return list(dict.fromkeys(wanted))


def _expiry(text: str | None, identity: Identity) -> datetime | None:
    if text is None:
        return identity.expires_at
    try:
        expires_at = datetime.fromisoformat(text)
    except ValueError:
        expires_at = None
    if expires_at is None or expires_at.tzinfo is None:
        raise fault("/expires_at", "invalid_value", "A time of RFC 3339, such as 2030-01-31T12:00:00Z.")
    if expires_at <= datetime.now(UTC):
        raise fault("/expires_at", "invalid_value", "The time has passed.")
    if identity.expires_at is not None and expires_at > identity.expires_at:
        raise fault("/expires_at", "invalid_value", "A key does not outlive the key that makes it.")
    return expires_at


def _key(request: Request, attempt: Attempt, key_id: UUID) -> str:
    """Return a new key; for a repeated request the same again.

    It follows from the caller's own key, which is stored nowhere: so the answer can be repeated although the
    database never holds a key.
    """
    if not attempt.keyed:
        return mint_key(secrets.token_bytes(KEY_SECRET_BYTES))
    return _derived_key(request, key_id)


def _derived_key(request: Request, key_id: UUID) -> str:
    return mint_key(hmac.digest(bearer_of(request).encode(), b"api-key\0" + key_id.bytes, hashlib.sha256))


def _kept(made: dict[str, Any], key: str, location: str, request: Request) -> Response:
    # The key travels beside the body: what ``once`` keeps of an answer is its body and headers.
    request.state.new_key = key
    return answer(made | {"prefix": key_prefix(key)}, 201, {"Location": location})


def _revealed(request: Request, response: Response, id_name: str) -> Response:
    """Put the key into an answer: the one just made, or for a repeated request the one derived again."""
    body = orjson.loads(bytes(response.body))
    key = getattr(request.state, "new_key", None) or _derived_key(request, UUID(body[id_name]))
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    return answer({**body, "api_key": key}, response.status_code, headers)
