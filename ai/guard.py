"""What comes before every request: an id, credentials, a bound on its size, and a bounded queue for the model."""

from __future__ import annotations

import asyncio
import hmac
import math
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from time import monotonic

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ai.problems import problem_response
from domain.errors import LimitExceeded, StudioError, TooLarge, Unauthenticated, Unavailable

BODY_BYTES_MAX = 512 * 1024
QUEUE_WAIT_SECONDS_MAX = 60.0
RETRY_AFTER_SECONDS_MAX = 60
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})


class Guard:
    """ASGI middleware: gives requests an id, asks for the bearer token, reads at most ``BODY_BYTES_MAX``."""

    def __init__(self, app: ASGIApp, *, token: str | None) -> None:
        self._app = app
        self._token = token.encode() if token else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = str(uuid.uuid4())
        scope.setdefault("state", {})["request_id"] = request_id
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            self._authenticate(scope["path"], headers)
            body = await _body(headers, receive)
        except StudioError as error:
            response = problem_response(error, path=scope["path"], request_id=request_id)
            await response(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), _with_id(send, request_id))

    def _authenticate(self, path: str, headers: Mapping[bytes, bytes]) -> None:
        if self._token is None or path in OPEN_PATHS or path.startswith("/problems/"):
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer" or not given.strip():
            raise Unauthenticated("Send Authorization: Bearer with the service's token.")
        if not hmac.compare_digest(given.strip(), self._token):
            raise Unauthenticated("The token is not the service's.", code="invalid_credentials")


async def _body(headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
    too_large = TooLarge(f"A body has at most {BODY_BYTES_MAX} bytes.", members={"limit_bytes": BODY_BYTES_MAX})
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and (len(declared) > len(str(BODY_BYTES_MAX)) or int(declared) > BODY_BYTES_MAX):
        raise too_large
    body = bytearray()
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > BODY_BYTES_MAX:
            raise too_large
        more = message.get("more_body", False)
    return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then whatever comes: that the client goes away."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _with_id(send: Send, request_id: str) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [
                *(pair for pair in message.get("headers", ()) if pair[0].lower() != b"x-request-id"),
                (b"x-request-id", request_id.encode()),
            ]
        await send(message)

    return sending


class Admission:
    """Lets ``concurrency`` requests ask the model at a time, ``queue_max`` wait, and turns away the rest at once.

    Raises LimitExceeded (``rate_limited``) when the queue is full and Unavailable (``service_unavailable``) after
    ``QUEUE_WAIT_SECONDS_MAX`` in it; both carry ``retry_after``, estimated from how long requests took lately.
    """

    def __init__(self, *, concurrency: int, queue_max: int) -> None:
        self._concurrency = concurrency
        self._queue_max = queue_max
        self._places = asyncio.Semaphore(concurrency)
        self._waiting = 0
        self._seconds_each = 3.0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold one of the places."""
        await self._enter()
        started = monotonic()
        try:
            yield
        finally:
            self._places.release()
            self._seconds_each += (monotonic() - started - self._seconds_each) / 8

    async def _enter(self) -> None:
        if self._places.locked() and self._waiting >= self._queue_max:
            raise LimitExceeded("The queue for the model is full.", members={"retry_after": self._retry_after()})
        self._waiting += 1
        try:
            async with asyncio.timeout(QUEUE_WAIT_SECONDS_MAX):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable(
                "The model is busy.", code="service_unavailable", members={"retry_after": self._retry_after()}
            ) from None
        finally:
            self._waiting -= 1

    def _retry_after(self) -> int:
        seconds = self._seconds_each * (self._waiting + 1) / self._concurrency
        return max(1, min(RETRY_AFTER_SECONDS_MAX, math.ceil(seconds)))
