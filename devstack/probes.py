"""Questions asked of a server to learn whether it answers."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

TIMEOUT_SECONDS = 2.0
MAX_ANSWER_BYTES = 1 << 20
OK = 200
FIRST_ERROR = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """Status 0 means that nobody answered."""

    status: int
    body: bytes = b""

    @property
    def ok(self) -> bool:
        """A 2xx answer."""
        return OK <= self.status < FIRST_ERROR


# Proxies of the environment are for the world outside, never for loopback.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Answer:
    """Ask once over HTTP; never raises for what the network or the server does."""
    request = urllib.request.Request(url, data=body, headers=dict(headers or {}), method=method)  # noqa: S310
    try:
        with _DIRECT.open(request, timeout=timeout_seconds) as answer:
            return Answer(answer.status, answer.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code)
    except (OSError, http.client.HTTPException):
        return Answer(0)
