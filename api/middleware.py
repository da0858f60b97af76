"""What every answer has, around the whole application and in plain ASGI, because it runs on every request.

Request id in and out, the seeds' other spellings of paths, HEAD, security headers, a last net for errors of our
own, one line of access log, one observation for the metrics.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import structlog
from prometheus_client import Histogram
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from api.problems import problem_response
from domain.errors import StudioError

PREFIX = "/api/v1/studio"

_ALIAS = re.compile(r"/api/v1/(blobs|deltas|schemas|processors|providers|buckets|validate-token)(?=/|$)")
_PROCESSORS = re.compile(rf"{PREFIX}/processors(?=/|$)")
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
)
_CACHE = (b"cache-control", b"private, no-cache")

REQUEST_SECONDS = Histogram(
    "studio_http_request_seconds",
    "Duration of HTTP requests.",
    ("method", "route", "status"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def canonical_path(path: str) -> str:
    """Return the path that we route for a seed's spelling: ``/api/v1/blobs``, ``…/processors``."""
    if not path.startswith(f"{PREFIX}/"):
        path = _ALIAS.sub(rf"{PREFIX}/\1", path, count=1)
    return _PROCESSORS.sub(f"{PREFIX}/providers", path, count=1) if "/processors" in path else path


class Edge:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._log = structlog.get_logger("api.access")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection; everything but HTTP passes through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(_prepared(scope), send)
        try:
            await self._app(exchange.scope, receive, exchange.send)
        except Exception as error:
            self._log.exception("request failed", request_id=exchange.request_id, path=exchange.path)
            if exchange.status:
                raise
            problem = problem_response(Request(exchange.scope), _ours(error))
            await problem(exchange.scope, receive, exchange.send)
        finally:
            exchange.observe(self._log)


def _ours(error: Exception) -> StudioError:
    if isinstance(error, StudioError):
        return error
    return StudioError("Something went wrong on our side; it was recorded under the request_id.")


def _prepared(scope: Scope) -> Scope:
    """Return the scope with its request id, its routed path, and GET in place of HEAD."""
    given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), "")
    path = canonical_path(scope["path"])
    state = dict(scope.get("state") or {})
    state["request_id"] = given if _REQUEST_ID.fullmatch(given) else str(uuid7())
    state["alias"] = path != scope["path"]
    state["method"] = scope["method"]
    state["path"] = scope["path"]
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return {**scope, "path": path, "raw_path": path.encode(), "method": method, "state": state}


class _Exchange:
    """One request and what became of it."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.scope = scope
        self.status = 0
        self._send = send
        self._started = time.perf_counter()
        state: Mapping[str, Any] = scope["state"]
        self.request_id: str = state["request_id"]
        self.path: str = state["path"]
        self.method: str = state["method"]

    async def send(self, message: Message) -> None:
        """Pass the answer on, with the headers that all answers have; HEAD loses its body."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = message.setdefault("headers", [])
            present = {name for name, _ in headers}
            headers.append((b"x-request-id", self.request_id.encode()))
            headers.extend(pair for pair in (*_SECURITY_HEADERS, _CACHE) if pair[0] not in present)
        elif self.method == "HEAD" and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    def observe(self, log: Any) -> None:
        """Write the access line and the metric; the query string may hold what is not ours to log."""
        seconds = time.perf_counter() - self._started
        route = self.scope.get("route")
        template = getattr(route, "path", "unknown")
        method = self.method if self.method in _METHODS else "other"
        REQUEST_SECONDS.labels(method, template, str(self.status)).observe(seconds)
        log.info(
            "request",
            method=self.method,
            path=self.path,
            status=self.status,
            duration_ms=round(seconds * 1000, 2),
            request_id=self.request_id,
            user_id=self.scope["state"].get("user_id"),
        )
