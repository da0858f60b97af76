"""Calling the services that the configuration declares, over HTTP; nothing else can be called from here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx2
import orjson

from domain.errors import ProviderFailed, StudioError, Unavailable, Unusable
from domain.execution import usage_of
from domain.steps import ServiceCall

ANSWER_BYTES_MAX = 8 * 1024 * 1024
CONNECT_SECONDS = 5.0
QUOTED_CHARACTERS_MAX = 300
"""What is repeated of a problem's own words."""
RETRY_AFTER_SECONDS_MAX = 3600.0
"""A service that wants to be left alone for longer is asked again after this."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One declared service: base URL, and the bearer token to send, never shown."""

    url: str
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back, read up to the bound."""

    status: int
    headers: httpx2.Headers
    content: bytes


class HttpServices:
    """The egress guard: calls go to the declared base URL or nowhere; redirects are not followed."""

    def __init__(self, services: Mapping[str, Service], *, answer_max: int = ANSWER_BYTES_MAX) -> None:
        self._services = dict(services)
        self._answer_max = answer_max
        self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def call(self, call: ServiceCall, *, key: str, patience: timedelta) -> Any:
        """POST the call's body and return the answer's JSON; see ``domain.ports.Services``."""
        service = self._services.get(call.service)
        if service is None:
            raise ProviderFailed(f"The service {call.service} is not declared.", code="egress_denied")
        address = _address(service.url, call.endpoint)
        headers = {"content-type": "application/json", "idempotency-key": key}
        if service.token:
            headers["authorization"] = f"Bearer {service.token}"
        try:
            # httpx2 bounds each read; a service that drips is bounded here.
            async with asyncio.timeout(patience.total_seconds()):
                answer = await self._post(address, orjson.dumps(call.body), headers)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise Unavailable(
                f"The service {call.service} does not answer ({type(error).__name__}).", code="service_unavailable"
            ) from error
        except httpx2.InvalidURL as error:
            raise ProviderFailed(_denied(call.endpoint), code="egress_denied") from error
        return _read(call, answer, service.token, self._answer_max)

    async def _post(self, address: str, body: bytes, headers: Mapping[str, str]) -> _Answer:
        """Send, and read no more than the bound and one chunk."""
        timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)
        async with self._client.stream("POST", address, content=body, headers=headers, timeout=timeout) as answer:
            content = bytearray()
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > self._answer_max:
                    break
        return _Answer(answer.status_code, answer.headers, bytes(content))


def _address(base: str, endpoint: str) -> str:
    """The endpoint below the base; one that would leave it, however it is written, is denied."""
    parts = urlsplit(endpoint)
    path = unquote(unquote(parts.path)).replace("\\", "/")
    if parts.scheme or parts.netloc or not endpoint.startswith("/") or path.startswith("//") or ".." in path.split("/"):
        raise ProviderFailed(_denied(endpoint), code="egress_denied")
    return base.rstrip("/") + endpoint


def _denied(endpoint: str) -> str:
    return f"{endpoint[:QUOTED_CHARACTERS_MAX]} is not an endpoint below its service."


def _read(call: ServiceCall, answer: _Answer, token: str | None, most: int) -> Any:
    if not 200 <= answer.status < 300:  # noqa: PLR2004
        raise _refusal(f"{call.service}{call.endpoint}", answer, token)
    if len(answer.content) > most:
        raise Unusable(f"{call.service} answered more than {most} bytes.", code="service_rejected")
    try:
        return orjson.loads(answer.content)
    except orjson.JSONDecodeError as error:
        raise Unusable(f"{call.service} did not answer JSON.", code="service_rejected") from error


def _refusal(name: str, answer: _Answer, token: str | None) -> StudioError:
    """What an answer other than 2xx means.

    Of its body only a problem's own words are repeated (RFC 9457), without the token that some services repeat: the
    rest could be the content that was sent, which has no place in an error or a history.
    """
    problem = _problem(answer.content)
    said = str(problem.get("detail") or problem.get("title") or "")
    said = (said.replace(token, "…") if token else said)[:QUOTED_CHARACTERS_MAX]
    detail = f"{name} answered {answer.status}: {said}" if said else f"{name} answered {answer.status}."
    later = answer.status == httpx2.codes.TOO_MANY_REQUESTS or answer.status >= 500  # noqa: PLR2004
    if later and problem.get("retryable") is not False:
        wait = _retry_after(answer.headers.get("retry-after", ""))
        members = {"status": answer.status, "said": problem.get("code")}
        members |= {} if wait is None else {"retry_after": wait}
        return Unavailable(detail, code="service_unavailable", members=members)
    if problem.get("code") == "invalid_output":  # it was made, and is not good
        return Unusable(detail, code="invalid_output", usage=usage_of(problem))
    return ProviderFailed(detail, code="service_rejected")


def _problem(content: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(content[:ANSWER_BYTES_MAX])
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _retry_after(value: str) -> float | None:
    """Seconds to wait: RFC 9110 section 10.2.3 has a number of them, or a date."""
    if value.isascii() and value.isdecimal():
        return min(float(value[:10]), RETRY_AFTER_SECONDS_MAX)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    wait = (until - datetime.now(UTC)).total_seconds() if until.tzinfo else 0.0
    return min(max(wait, 0.0), RETRY_AFTER_SECONDS_MAX)
