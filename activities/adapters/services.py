"""Calling the services that the configuration declares, over HTTP; nothing else can be called from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson

from domain.errors import ProviderFailed, StudioError, Unavailable
from domain.steps import ServiceCall

ANSWER_BYTES_MAX = 8 * 1024 * 1024
CONNECT_SECONDS = 5.0
QUOTED_CHARACTERS_MAX = 300


@dataclass(frozen=True, kw_only=True)
class Service:
    """One declared service: base URL, and the bearer token to send, never shown."""

    url: str
    token: str | None = field(default=None, repr=False)


class HttpServices:
    """The egress guard: calls go to the declared base URL or nowhere; redirects are not followed."""

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = dict(services)
        self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(self, call: ServiceCall, *, key: str, patience: timedelta) -> Any:
        """POST the call's body and return the answer's JSON; see ``domain.ports.Services``."""
        service = self._services.get(call.service)
        if service is None:
            raise ProviderFailed(f"The service {call.service} is not declared.", code="egress_denied")
        headers = {"content-type": "application/json", "idempotency-key": key}
        if service.token:
            headers["authorization"] = f"Bearer {service.token}"
        try:
            answer = await self._client.post(
                _address(service.url, call.endpoint),
                content=orjson.dumps(call.body),
                headers=headers,
                timeout=httpx2.Timeout(patience.total_seconds(), connect=CONNECT_SECONDS),
            )
        except httpx2.HTTPError as error:
            raise Unavailable(
                f"The service {call.service} does not answer ({type(error).__name__}).", code="service_unavailable"
            ) from error
        return _read(call, answer)


def _address(base: str, endpoint: str) -> str:
    """The endpoint below the base; one that would leave it is denied."""
    parts = urlsplit(endpoint)
    if parts.scheme or parts.netloc or not endpoint.startswith("/") or ".." in parts.path.split("/"):
        raise ProviderFailed(f"{endpoint} is not an endpoint below its service.", code="egress_denied")
    return base.rstrip("/") + endpoint


def _read(call: ServiceCall, answer: httpx2.Response) -> Any:
    if not answer.is_success:
        raise _refusal(call, answer)
    if len(answer.content) > ANSWER_BYTES_MAX:
        raise ProviderFailed(f"{call.service} answered more than {ANSWER_BYTES_MAX} bytes.", code="service_rejected")
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError as error:
        raise ProviderFailed(f"{call.service} did not answer JSON.", code="service_rejected") from error


def _refusal(call: ServiceCall, answer: httpx2.Response) -> StudioError:
    """What an answer other than 2xx means.

    Of its body only a problem's own words are repeated (RFC 9457): the rest could be the content that was sent, which
    has no place in an error or a history.
    """
    problem = _problem(answer)
    said = f": {problem['detail'][:QUOTED_CHARACTERS_MAX]}" if isinstance(problem.get("detail"), str) else "."
    detail = f"{call.service}{call.endpoint} answered {answer.status_code}{said}"
    later = answer.status_code == httpx2.codes.TOO_MANY_REQUESTS or answer.is_server_error
    if later and problem.get("retryable") is not False:
        wait = answer.headers.get("retry-after", "")
        members = {"retry_after": float(wait)} if wait.isdecimal() else {}
        return Unavailable(detail, code="service_unavailable", members=members)
    code = problem.get("code")
    return ProviderFailed(detail, code="invalid_output" if code == "invalid_output" else "service_rejected")


def _problem(answer: httpx2.Response) -> dict[str, Any]:
    try:
        body = orjson.loads(answer.content[:ANSWER_BYTES_MAX])
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}
