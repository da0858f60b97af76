"""Reprocess: run again although nothing has changed, one node or everything below, with old answers or on new ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Executor
from api.bodies import Wire, path_id, read, request_body
from api.cascades import ask_once
from api.deps import Stores
from api.idempotency import Attempt
from api.queries import require_known
from domain.ids import BlobId, DerivationId, UserId
from domain.reprocess import Asked, Scope

router = APIRouter(tags=["reprocess"])

EXAMPLE = {"scope": "subtree", "force": False}


class ReprocessDerivation(Wire):
    """How far, and whether what was paid for before may answer.

    ``scope``: ``node`` runs this again, and what is below only where it changed; ``subtree`` runs everything below
    again. ``force`` pays for new answers; without it steps may reuse what equal requests were answered before.
    """

    scope: Literal["node", "subtree"] = "node"
    force: bool = False


class ReprocessBlob(ReprocessDerivation):
    """And what is meant by the blob.

    Without ``provider_id`` it is what makes the blob, or, where a person has written it, whatever reads it.
    """

    provider_id: str | None = None


@router.post(
    "/blobs/{blob_id}/reprocess", operation_id="blobs_reprocess", status_code=202,
    openapi_extra=request_body(ReprocessBlob, example=EXAMPLE),
)  # fmt: skip
async def blob(request: Request, blob_id: str, identity: Executor, ports: Stores) -> Response:
    """Run again what makes a blob, or what a provider makes of it: 202, and the cascade that does."""
    require_known(request, ())
    user_id, wanted = UserId(identity.user_id), BlobId(path_id(blob_id, "blob_id"))

    async def ask(attempt: Attempt) -> dict[str, Any]:
        body = await read(request, ReprocessBlob)
        stored = None if body.provider_id is None else await ports.providers.find(user_id, body.provider_id)
        told = {"blob_id": str(wanted), "provider_id": None if stored is None else stored.provider.id}
        described = _described(body, told)
        return described(
            await ports.reprocess.blob(
                user_id, wanted, provider=None if stored is None else stored.key, scope=_scope(body),
                actor=identity.actor, keep=attempt.record(described),
            )
        )  # fmt: skip

    return await ask_once(request, ports, user_id, ask)


@router.post(
    "/derivations/{derivation_id}/reprocess", operation_id="derivations_reprocess", status_code=202,
    openapi_extra=request_body(ReprocessDerivation, example=EXAMPLE),
)  # fmt: skip
async def derivation(request: Request, derivation_id: str, identity: Executor, ports: Stores) -> Response:
    """Run a derivation again: 202, and the cascade that does."""
    require_known(request, ())
    user_id, wanted = UserId(identity.user_id), DerivationId(path_id(derivation_id, "derivation_id"))

    async def ask(attempt: Attempt) -> dict[str, Any]:
        body = await read(request, ReprocessDerivation)
        described = _described(body, {"derivation_id": str(wanted)})
        return described(
            await ports.reprocess.derivation(
                user_id, wanted, scope=_scope(body), actor=identity.actor, keep=attempt.record(described)
            )
        )

    return await ask_once(request, ports, user_id, ask)


def _scope(body: ReprocessDerivation) -> Scope:
    return Scope(subtree=body.scope == "subtree", force=body.force)


def _described(body: ReprocessDerivation, told: dict[str, Any]) -> Callable[[Asked], dict[str, Any]]:
    """What the answer says beside the cascade: what was asked, and of which derivations."""

    def described(asked: Asked) -> dict[str, Any]:
        named = [str(found) for found in asked.derivation_ids]
        return {
            **told, "cascade_id": str(asked.cascade_id), "derivation_ids": named, "scope": body.scope,
            "force": body.force,
        }  # fmt: skip

    return described
