"""``Idempotency-Key`` (IETF draft): the same request twice is done once and answered twice alike.

The ids of what a keyed request writes are derived from (user, route, key, fingerprint), so that even a retry after
a crash between commit and answer meets the unique keys of its first attempt instead of writing again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

import structlog
from fastapi import Request
from starlette.responses import Response

from api.bodies import read_body
from api.preconditions import idempotency_key
from domain.errors import Conflict, Invalid, StudioError, TooLarge
from domain.ids import NAMESPACE, new_id

if TYPE_CHECKING:
    from api.deps import Ports

_log = structlog.get_logger("api.idempotency")

_RETRY_AFTER_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One execution of a write: hands out the ids of what it writes."""

    key: str | None
    """What ``deltas.idempotency_key`` holds; None without an Idempotency-Key."""
    name: str = ""

    @property
    def keyed(self) -> bool:
        """Whether an earlier attempt may have written already."""
        return self.key is not None

    def id(self, kind: str) -> UUID:
        """Return the id for one thing that this request makes: the same at every attempt if there is a key."""
        return uuid5(NAMESPACE, f"request:{self.name}:{kind}") if self.keyed else new_id()


Work = Callable[[Attempt], Awaitable[Response]]


async def once(request: Request, ports: Ports, user_id: UUID, work: Work) -> Response:
    """Run ``work`` unless this key was answered before; then answer the same again.

    Raises Conflict ``idempotency_key_in_flight`` (Retry-After), Invalid ``idempotency_key_reused``. Refusals and
    failures are not kept: nothing was written, or the next attempt finds what was.
    """
    key = idempotency_key(request)
    if key is None:
        return await work(Attempt(None))
    try:
        fingerprint = _fingerprint(request, await read_body(request))
    except TooLarge:
        return await work(Attempt(None))  # refused in its turn; it was never done
    route = f"{request.method} {request.scope['route'].path}"
    earlier = await ports.idempotency.begin(user_id, route, key, fingerprint)
    if earlier is not None:
        if earlier.fingerprint != fingerprint:
            used = earlier.first_used_at.isoformat()
            members = {"first_used_at": used}
            raise Invalid(
                f"The key was first used at {used} for another request.",
                code="idempotency_key_reused",
                members=members,
            )
        if earlier.status is None:
            members_retry = {"retry_after": _RETRY_AFTER_SECONDS}
            detail = "The first request with this key is being processed."
            raise Conflict(detail, code="idempotency_key_in_flight", members=members_retry)
        replay = Response(earlier.body, earlier.status, dict(earlier.headers))
        replay.headers["Idempotency-Replayed"] = "true"
        return replay
    name = f"{user_id}:{route}:{fingerprint}:{key}"
    return await _first(ports, user_id, route, key, work, Attempt(f"{route} {fingerprint} {key}", name))


async def _first(ports: Ports, user_id: UUID, route: str, key: str, work: Work, attempt: Attempt) -> Response:
    try:
        response = await work(attempt)
    except BaseException:
        await _quietly(ports.idempotency.release(user_id, route, key))
        raise
    headers = [(name, value) for name, value in response.headers.items() if name != "content-length"]
    await _quietly(
        ports.idempotency.complete(
            user_id, route, key, status=response.status_code, headers=headers, body=bytes(response.body)
        )
    )
    return response


async def _quietly(storing: Awaitable[None]) -> None:
    # The write itself is done, or refused: whether its answer could be kept does not change that.
    try:
        await storing
    except StudioError as error:
        _log.warning("answer not kept", code=error.problem_code)


def _fingerprint(request: Request, body: bytes) -> str:
    digest = hashlib.sha256()
    parts = (request.scope["path"], request.url.query, request.headers.get("if-match", ""))
    for part in parts:
        digest.update(part.encode() + b"\0")
    digest.update(request.headers.get("content-type", "").encode() + b"\0" + body)
    return digest.hexdigest()
