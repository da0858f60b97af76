"""``Idempotency-Key`` (IETF draft): the same request twice is done once and answered twice alike.

A key counts for 24 hours within (user, API key, method, route). What makes a request *the same* is its fingerprint:
SHA-256 over path, query, ``If-Match``, content type and body. A route whose body does not fit into memory says
``streamed=True``: its fingerprint covers ``Content-Digest`` (RFC 9530) and the declared size in place of the bytes, so
with a key such a request must send the digest (400 without), and the route must hold the bytes against it.

What a write did survives a crash before its answer in one of three ways:

- ``keep=attempt.keep(render)`` given to a method of a store: the answer is recorded in the transaction of the effect;
- ``keep=attempt.record(describe)``: what is needed to answer is; the retry finds it as ``attempt.outcome``;
- ids from ``attempt.id``: derived from the request, so that a retry meets the unique keys of its first attempt.

The first two also fence: of a slow attempt and the one that took its key over only one can commit.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID, uuid4, uuid5

import structlog
from fastapi import Request
from starlette.responses import Response

from api.bindings import PLAN_HEADER, under_plan
from api.bodies import read_body
from api.preconditions import idempotency_key, invalid_header
from api.problems import status_of
from domain.errors import Conflict, Invalid, StudioError, TooLarge
from domain.idempotency import Kept, KeyUse, Standing
from domain.ids import NAMESPACE, new_id

if TYPE_CHECKING:
    from api.deps import Ports

_log = structlog.get_logger("api.idempotency")

_RETRY_AFTER_SECONDS = 1
RENEW_SECONDS = 1.5
"""How often a living attempt renews its lease (``storage.idempotency.LEASE_SECONDS``)."""

T = TypeVar("T")


class Attempt:
    """One execution of a write: hands out ids, and records under the key what the write did."""

    def __init__(self, ports: Ports | None = None, use: KeyUse | None = None, standing: Standing | None = None) -> None:
        self._ports = ports
        self._use = use
        self.outcome: Mapping[str, Any] | None = None if standing is None else standing.outcome
        """What ``record`` recorded in an attempt before this one, whose effect is therefore done."""
        self._since = None if standing is None else standing.first_used_at
        self.kept = False
        """Whether the answer is recorded already."""
        self._reserved: dict[str, UUID] = {}

    @property
    def keyed(self) -> bool:
        """Whether an earlier attempt may have written already."""
        return self._use is not None

    @property
    def key(self) -> str | None:
        """What ``deltas.idempotency_key`` holds; None without an Idempotency-Key."""
        use = self._use
        return None if use is None else f"{use.principal} {use.route} {use.fingerprint} {use.key}"

    def goes_on_from(self, moment: datetime) -> bool:
        """Whether what an attempt of this request did at this moment is known to us: the key is older, and is kept."""
        return self._since is not None and self._since <= moment

    def id(self, kind: str) -> UUID:
        """Return the id for one thing that this request makes: the same at every attempt if there is a key."""
        if kind in self._reserved:
            return self._reserved[kind]
        if self._use is None:
            return new_id()
        return uuid5(NAMESPACE, f"request:{self._use.user_id}:{self.key}:{kind}")

    def reserve(self, kind: str, value: UUID) -> None:
        """Let one thing that this request makes have an id that was chosen before: by its plan."""
        self._reserved[kind] = value

    def keep(self, render: Callable[[T], Response]) -> Keep[T]:
        """Return what a store calls in its transaction; ``render`` makes the answer of what the store did."""
        return Keep(self, render)

    def record(self, describe: Callable[[T], Mapping[str, Any]]) -> Callable[[Any, T], Awaitable[None]]:
        """Return what a store calls in its transaction to leave ``outcome`` to later attempts."""

        async def recorded(connection: Any, result: T) -> None:
            if self._ports is not None and self._use is not None:
                await self._ports.idempotency.record(connection, self._use, describe(result))

        return recorded

    async def keep_in(self, connection: Any, response: Response) -> None:
        """Record an answer in the transaction of the connection, if there is a key."""
        if self._ports is not None and self._use is not None:
            await self._ports.idempotency.keep(connection, self._use, _kept(response))
            self.kept = True


class Keep(Generic[T]):
    """The answer of a write, made and recorded in the transaction of its effect; ``response`` afterwards."""

    response: Response

    def __init__(self, attempt: Attempt, render: Callable[[T], Response]) -> None:
        self._attempt = attempt
        self._render = render

    async def __call__(self, connection: Any, result: T) -> None:
        """Make the answer of ``result`` and record it."""
        self.response = self._render(result)
        await self._attempt.keep_in(connection, self.response)


Work = Callable[[Attempt], Awaitable[Response]]


async def once(request: Request, ports: Ports, user_id: UUID, work: Work, *, streamed: bool = False) -> Response:
    """Run ``work`` unless this key was answered before; then answer the same again.

    Raises Conflict ``idempotency_key_in_flight`` (Retry-After), Invalid ``idempotency_key_reused``, Malformed for a key
    that cannot be read. Refusals are not kept: nothing was written. Failures are not kept either: the next attempt
    does the work again, and finds what was done.
    """
    work = under_plan(request, ports, user_id, work)
    key = idempotency_key(request)
    if key is None:
        return await work(Attempt())
    try:
        fingerprint = _streamed_fingerprint(request) if streamed else _fingerprint(request, await read_body(request))
    except TooLarge:
        if request.method == "DELETE":  # would not look at its body
            raise
        return await work(Attempt())  # refused in its turn; it was never done
    use = KeyUse(
        user_id=user_id,
        principal=request.scope["state"]["principal"],
        route=f"{request.method} {request.scope['route'].path}",
        key=key,
        fingerprint=fingerprint,
        holder=uuid4(),
    )
    standing = await ports.idempotency.begin(use)
    if not standing.ours:
        return _repeated(standing, fingerprint)
    return await _done(ports, use, work, Attempt(ports, use, standing))


def _repeated(standing: Standing, fingerprint: str) -> Response:
    if standing.fingerprint != fingerprint:
        used = standing.first_used_at.isoformat()
        detail = f"The key was first used at {used} for another request."
        raise Invalid(detail, code="idempotency_key_reused", members={"first_used_at": used})
    if standing.kept is None:
        detail = "The first request with this key is being processed."
        members = {"retry_after": _RETRY_AFTER_SECONDS}
        raise Conflict(detail, code="idempotency_key_in_flight", members=members)
    replay = Response(standing.kept.body, standing.kept.status)
    own = [pair for pair in replay.raw_headers if pair[0] == b"content-length"]
    replay.raw_headers = [*own, *((n.encode("latin-1"), v.encode("latin-1")) for n, v in standing.kept.headers)]
    replay.headers["Idempotency-Replayed"] = "true"
    return replay


async def _done(ports: Ports, use: KeyUse, work: Work, attempt: Attempt) -> Response:
    try:
        async with _alive(ports, use):
            response = await work(attempt)
    except BaseException as error:
        refused = isinstance(error, StudioError) and status_of(error) < HTTPStatus.INTERNAL_SERVER_ERROR
        # A refusal wrote nothing. What failed may have written: a lost connection does not say whether it committed.
        await _quietly(ports.idempotency.forget(use) if refused else ports.idempotency.let_go(use))
        raise
    if not attempt.kept:
        await _quietly(ports.idempotency.complete(use, _kept(response)))
    return response


@asynccontextmanager
async def _alive(ports: Ports, use: KeyUse) -> AsyncIterator[None]:
    """Renew the lease while the work goes on, so that only what stands still is taken over."""

    async def renew() -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            await _quietly(ports.idempotency.renew(use))

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def _quietly(storing: Awaitable[object]) -> None:
    # The write itself is done, or refused: whether its answer could be kept does not change that.
    try:
        await storing
    except StudioError as error:
        _log.warning("answer not kept", code=error.problem_code)


def _kept(response: Response) -> Kept:
    headers = [(name, value) for name, value in response.headers.items() if name != "content-length"]
    return Kept(status=response.status_code, headers=headers, body=bytes(response.body))


def _fingerprint(request: Request, *body: bytes) -> str:
    digest = hashlib.sha256()
    # The path as it was spelled: a seed's spelling has another answer.
    texts = (
        request.scope["state"]["path"],
        request.url.query,
        request.headers.get("if-match", ""),
        request.headers.get("content-type", ""),
        *filter(None, [request.headers.get(PLAN_HEADER)]),  # without a plan as it was before there were any
    )
    for part in (*(text.encode() for text in texts), *body):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def _streamed_fingerprint(request: Request) -> str:
    content_digest = request.headers.get("content-digest", "")
    if not content_digest:
        detail = "With an Idempotency-Key, send Content-Digest as well: a body of this size is not compared otherwise."
        raise invalid_header("Content-Digest", detail)
    return _fingerprint(request, content_digest.encode(), request.headers.get("content-length", "").encode())
