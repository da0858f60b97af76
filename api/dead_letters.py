"""Dead letters: runs that failed for good, each parked once, and trying them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Executor, Identity, Reader
from api.bodies import Wire, answer, fault, path_id, read, request_body
from api.deps import Ports, Stores
from api.idempotency import Attempt, Keep, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from api.queries import require_known
from api.wire import cascade_link
from domain.budgets import UNIT
from domain.dead_letters import Redrive
from domain.ids import UserId, parse_id

router = APIRouter(prefix="/dead-letters", tags=["runs"])

STATUSES = ("open", "redriven", "overtaken")
IDS_MAX = 1000
SHOWN_MAX = 100
"""Letters that an answer names; it counts all of them."""


class Redriving(Wire):
    """Which dead letters to try again: some by ``ids``, or those of a provider, of a problem code, or of both.

    ``dry_run`` only says which and how many that would be.
    """

    ids: list[str] | None = None
    provider_id: str | None = None
    code: str | None = None
    dry_run: bool = False


@router.get("", operation_id="dead_letters_list")
async def list_(
    request: Request,
    identity: Reader,
    ports: Stores,
    provider_id: str | None = None,
    code: str | None = None,
    status: str | None = None,
) -> Response:
    """List runs that failed for good, newest first; ``status``: open, redriven, or overtaken by something else."""
    filters = {"provider_id": provider_id, "code": code, "status": status}
    wanted = page_request(request, ports.cursors, identity.user_id, filters)
    if status is not None and status not in STATUSES:
        raise fault("/query/status", "invalid_value", f"status is one of {', '.join(STATUSES)}.")
    rows = await ports.dead_letters.page(
        UserId(identity.user_id),
        limit=wanted.limit + 1,
        before=None if wanted.after is None else UUID(wanted.after[0]),
        provider_id=provider_id,
        code=code,
        status=status,
    )
    return page_response(request, ports.cursors, wanted, rows, lambda row: (row["id"],), show=shown)


@router.get("/{dead_letter_id}", operation_id="dead_letters_get")
async def get(request: Request, dead_letter_id: str, identity: Reader, ports: Stores) -> Response:
    """Read one dead letter: what failed, on which inputs, by which definition, why, and what it cost."""
    require_known(request, set())
    letter = path_id(dead_letter_id, "dead_letter_id")
    return answer(shown(await ports.dead_letters.get(UserId(identity.user_id), letter)))


@router.post(
    "/redrive", operation_id="dead_letters_redrive", status_code=202,
    openapi_extra=request_body(Redriving, example={"provider_id": "text-expansion", "dry_run": True}),
)  # fmt: skip
async def redrive(request: Request, identity: Executor, ports: Stores) -> Response:
    """Try dead letters again, as one cascade and with the definitions of now; a dry run, or nothing to do: 200.

    ``outdated_providers`` are those of yours that would run an older version of their workflow: register them again.
    """

    async def work(attempt: Attempt) -> Response:
        asked = await read(request, Redriving)
        if asked.ids is None and asked.provider_id is None and asked.code is None:
            raise fault("", "missing_field", "Say which: ids, provider_id or code.")
        if asked.ids is not None and (asked.provider_id or asked.code):
            raise fault("/ids", "invalid_value", "Give ids, or provider_id and code, not both.")
        return await _redrive(ports, identity, attempt, asked)

    return await once(request, ports, identity.user_id, work)


@router.post("/{dead_letter_id}/redrive", operation_id="dead_letters_redrive_one", status_code=202)
async def redrive_one(request: Request, dead_letter_id: str, identity: Executor, ports: Stores) -> Response:
    """Try one dead letter again, with the definition of now; already tried, or overtaken: 200 says so."""

    async def work(attempt: Attempt) -> Response:
        letter = path_id(dead_letter_id, "dead_letter_id")
        await ports.dead_letters.get(UserId(identity.user_id), letter)
        return await _redrive(ports, identity, attempt, Redriving(ids=[str(letter)]))

    return await once(request, ports, identity.user_id, work)


async def _redrive(ports: Ports, identity: Identity, attempt: Attempt, asked: Redriving) -> Response:
    if asked.ids is not None and not 1 <= len(asked.ids) <= IDS_MAX:
        raise fault("/ids", "invalid_value", f"ids are 1 to {IDS_MAX}.")
    ids = None if asked.ids is None else [parse_id(found, f"/ids/{place}") for place, found in enumerate(asked.ids)]
    keep: Keep[Redrive] = attempt.keep(lambda found: _redriven(found, dry_run=asked.dry_run))
    await ports.dead_letters.redrive(
        UserId(identity.user_id),
        ids=ids,
        provider_id=asked.provider_id,
        code=asked.code,
        dry_run=asked.dry_run,
        actor=identity.actor,
        keep=keep,
    )
    if not asked.dry_run:
        ports.bell.ring()
    return keep.response


def _redriven(found: Redrive, *, dry_run: bool) -> Response:
    named = ("id", "run_id", "derivation_id", "provider_id", "code", "label")
    body = {
        "dry_run": dry_run,
        "count": len(found.letters),
        "dead_letters": [{name: row[name] for name in named} for row in found.letters[:SHOWN_MAX]],
        "more": found.more,
        "already_redriven": found.redriven_before,
        "overtaken": found.overtaken,
        "unknown": found.unknown,
        "outdated_providers": found.outdated,
        "cascade_id": found.cascade_id,
    }
    if found.cascade_id is None:
        return answer(body)
    headers = {"Location": f"{PREFIX}/cascades/{found.cascade_id}", "Link": cascade_link(found.cascade_id)}
    return answer(body, 202, headers)


def shown(row: Any) -> dict[str, Any]:
    """Return a row of dead letters as JSON."""
    return {
        **{name: row[name] for name in ("id", "status", "code", "detail", "provider_id", "label", "run_id")},
        **{name: row[name] for name in ("derivation_id", "cascade_id", "attempt")},
        "definition_digest": row["definition_digest"],
        "current_definition_digest": row["current_definition_digest"],
        "inputs": [_input(item) for item in row["inputs"]],
        "usage": row["usage"],
        "charged": None if row["charged"] is None else {"amount": row["charged"], "unit": UNIT},
        "created_at": row["created_at"],
        "redriven_at": row["redriven_at"],
        "redriven_by": row["redriven_by"],
        "run_url": f"{PREFIX}/runs/{row['run_id']}",
    }


def _input(item: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: item.get(name) for name in ("blob_id", "version", "hash", "role", "position")}
    return plain | {"stale": bool(item.get("stale", False))}
