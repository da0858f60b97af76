"""One request to the API: its headers, its retries, its problems as exceptions."""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self
from urllib.parse import quote

import httpx2

from sdk.answers import Answer
from sdk.problems import ApiProblem, not_ours, unreachable

PREFIX = "/api/v1/studio"
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
TIMEOUT_SECONDS = 30.0
RETRIES = 3
PAUSE_FIRST_SECONDS = 0.1
PAUSE_MAX_SECONDS = 5.0
PAGE_MAX = 200
PROBLEM = "application/problem+json"
_AT_ROOT = ("/api/", "/problems")


class Transport:
    """Sends requests as one identity; use it as an async context manager.

    A write carries an ``Idempotency-Key``, so that it can be sent again when no answer came: a request is tried up
    to ``retries`` more times when nobody answers or the problem is retryable, after the pause that the server names.
    Raises ApiProblem for an address that is none.
    """

    def __init__(
        self,
        api_url: str,
        api_key: str | None = None,
        *,
        timeout: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self.api_url = api_url.rstrip("/")
        self._retries = retries
        self._timeout = timeout
        self._plan: str | None = None
        headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
        try:
            self._http = httpx2.AsyncClient(
                base_url=self.api_url, headers=headers, timeout=timeout, transport=transport, trust_env=False
            )
        except httpx2.InvalidURL as error:
            raise unreachable(self.api_url, str(error)) from error

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def under_plan(self, plan_id: str | None) -> Self:
        """Return this client as one whose writes happen only if the plan still holds; None: as ever.

        It shares the connections, which whoever made the first one closes.
        """
        bound = copy.copy(self)
        bound._plan = plan_id  # noqa: SLF001 - it is one of us
        return bound

    async def request(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        content: bytes | str | None = None,
        content_type: str | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        if_match: int | str | None = None,
        wait: float | None = None,
    ) -> Answer:
        """Send one request and return its answer; raises ApiProblem for every status from 400 on.

        ``path`` is below ``/api/v1/studio`` unless it begins with ``/api/``; ``params`` join its query.
        ``json_body`` or ``content`` is the body; ``if_match`` a version or an ETag; ``wait`` the seconds of
        ``Prefer: wait``.
        """
        method = method.upper()
        sent = self._headers(method, content_type, if_match, wait) | dict(headers or {})
        body = content
        if json_body is not None:
            body = json.dumps(json_body, ensure_ascii=False).encode()
            sent.setdefault("Content-Type", "application/json")
        given = {name: value for name, value in (params or {}).items() if value is not None}
        for attempt in range(self._retries + 1):
            try:
                return await self._once(method, path, body, given, sent, wait)
            except ApiProblem as problem:
                if not problem.retryable or attempt == self._retries:
                    raise
                await asyncio.sleep(_pause(problem, attempt))
        raise AssertionError("the loop above returns or raises")

    async def pages(
        self, path: str, params: Mapping[str, Any] | None = None, *, limit: int | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the rows of a list, page after page, at most ``limit`` of them."""
        left, cursor = limit, None
        while left is None or left > 0:
            size = PAGE_MAX if left is None else min(left, PAGE_MAX)
            page = await self.request("GET", path, params={**(params or {}), "limit": size, "cursor": cursor})
            for row in page["data"]:
                yield row
            left = None if left is None else left - len(page["data"])
            cursor = page["next_cursor"]
            if not page["has_more"]:
                return

    def _headers(
        self, method: str, content_type: str | None, if_match: int | str | None, wait: float | None
    ) -> dict[str, str]:
        headers: dict[str, str] = {}
        if method in WRITES:
            headers["Idempotency-Key"] = f'"{uuid.uuid4()}"'
            if self._plan is not None:
                headers["Studio-Plan"] = self._plan
        if content_type is not None:
            headers["Content-Type"] = content_type
        if if_match is not None:
            headers["If-Match"] = f'"v{if_match}"' if isinstance(if_match, int) else if_match
        if wait is not None:
            headers["Prefer"] = f"wait={round(wait)}"
        return headers

    async def _once(
        self,
        method: str,
        path: str,
        body: bytes | str | None,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        wait: float | None,
    ) -> Answer:
        url = _address(path, params)
        try:
            response = await self._http.request(
                method, url, content=body, headers=headers, timeout=self._timeout + (wait or 0)
            )
        except httpx2.TransportError as error:
            raise unreachable(self.api_url, str(error) or type(error).__name__) from error
        return _answer(response)


def part(reference: str) -> str:
    """Return an id or slug as one part of a path, whatever it contains."""
    return quote(reference, safe="").replace(".", "%2E") if set(reference) == {"."} else quote(reference, safe="")


def _address(path: str, params: Mapping[str, Any]) -> httpx2.URL:
    """Return where a path is, with its own query and the parameters: given to httpx2, even none would replace it."""
    url = httpx2.URL(path if path.startswith(_AT_ROOT) else f"{PREFIX}/{path.lstrip('/')}")
    return url.copy_merge_params(params) if params else url


def _answer(response: httpx2.Response) -> Answer:
    media = response.headers.get("content-type", "").partition(";")[0]
    is_json = media == "application/json" or media.endswith("+json")
    try:
        body = json.loads(response.content) if is_json and response.content else None
    except ValueError:
        body = None
    if response.is_success or response.status_code == httpx2.codes.NOT_MODIFIED:
        return Answer(response.status_code, response.headers, body, response.content)
    if media != PROBLEM or not isinstance(body, dict):
        raise not_ours(response.status_code, response.text)
    after = response.headers.get("retry-after", "")
    raise ApiProblem(body, response.status_code, retry_after=float(after) if after.isdigit() else None)


def _pause(problem: ApiProblem, attempt: int) -> float:
    own = PAUSE_FIRST_SECONDS * 2**attempt
    return float(min(own if problem.retry_after is None else problem.retry_after, PAUSE_MAX_SECONDS))
