"""Why: what a version comes from, how a derivation stands, whether a provider reacts, and what would change it."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Reader
from api.bodies import answer, fault, path_id, query_int
from api.deps import Stores
from api.openapi import parameters, query
from api.queries import require_known
from domain.ids import UserId, parse_id
from domain.predicates import explained, predicates
from domain.whys import blob_why, derivation_json, derivation_why

router = APIRouter(tags=["whys"])

DEPTH_DEFAULT = 5
DEPTH_MAX = 50
"""Steps from a version down to what it was made of."""

DEPTH = query("depth", "integer", f"Steps down to what it was made of, 0 to {DEPTH_MAX}; {DEPTH_DEFAULT} without it.")


@router.get(
    "/blobs/{blob_id}/why",
    operation_id="blobs_why",
    openapi_extra=parameters(query("version", "integer", "The version to explain; the newest without it."), DEPTH),
)
async def of_blob(request: Request, blob_id: str, identity: Reader, ports: Stores) -> Response:
    """Say why a version exists, down to the people who caused it; how it stands now; what would change that."""
    require_known(request, ("version", "depth"))
    depth = _depth(request)
    version = query_int(request, "version", low=1, high=2**31 - 1)
    wanted = path_id(blob_id, "blob_id")
    found = await ports.whys.of_blob(UserId(identity.user_id), wanted, version=version, depth=depth)
    return answer(blob_why(found.told, found.standing, depth=depth, truncated=found.truncated))


@router.get("/derivations/{derivation_id}", operation_id="derivations_get")
async def derivation(request: Request, derivation_id: str, identity: Reader, ports: Stores) -> Response:
    """Read a derivation: who makes what of which inputs, by which definition, and in which state it is."""
    require_known(request, ())
    standing = await ports.whys.standing(UserId(identity.user_id), path_id(derivation_id, "derivation_id"))
    return answer(derivation_json(standing))


@router.get("/derivations/{derivation_id}/why", operation_id="derivations_why", openapi_extra=parameters(DEPTH))
async def of_derivation(request: Request, derivation_id: str, identity: Reader, ports: Stores) -> Response:
    """Say why the outputs of a derivation are as they are, how it stands now, and what would change that."""
    require_known(request, ("depth",))
    depth, wanted = _depth(request), path_id(derivation_id, "derivation_id")
    found = await ports.whys.of_derivation(UserId(identity.user_id), wanted, depth=depth)
    if found.standing is None:
        raise AssertionError("a derivation that was found has its standing")
    return answer(derivation_why(found.told, found.standing, depth=depth, truncated=found.truncated))


@router.get(
    "/providers/{provider_id}/explain",
    operation_id="providers_explain",
    openapi_extra=parameters(query("blob_id", "string", "The blob to hold the provider against.")),
)
async def explain(request: Request, provider_id: str, identity: Reader, ports: Stores) -> Response:
    """Say whether a provider reacts to a blob: each predicate with what it wants, what was found, yes or no."""
    require_known(request, ("blob_id",))
    given = request.query_params.get("blob_id")
    if given is None:
        raise fault("/query/blob_id", "missing_field", "Say which blob: ?blob_id=.")
    user_id, blob_id = UserId(identity.user_id), parse_id(given, "/query/blob_id")
    stored = await ports.providers.find(user_id, provider_id)
    blob = await ports.blobs.get(user_id, blob_id)
    facts = await ports.whys.matching(user_id, stored.key, blob_id)
    tried = predicates(stored.provider, facts, blob.document, depth_max=ports.depth_max)
    asked = {"provider_id": stored.provider.id, "blob_id": blob_id, "version": blob.version}
    return answer({**asked, **explained(stored.provider, facts, tried)})


def _depth(request: Request) -> int:
    given = query_int(request, "depth", low=0, high=DEPTH_MAX)
    return DEPTH_DEFAULT if given is None else given
