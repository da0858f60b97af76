"""A refused or failed request as an exception that carries the problem document (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NO_ANSWER = 0
"""``status`` of a request that nobody answered."""


class ApiProblem(Exception):
    """What the API answered instead of a result.

    ``code`` is one of the published codes, ``errors`` point at the fields at fault, ``retryable`` says whether the
    same request may succeed later; ``status`` is 0 when nobody answered.
    """

    def __init__(self, document: Mapping[str, Any], status: int, *, retry_after: float | None = None) -> None:
        self.document = dict(document)
        self.status = status
        self.retry_after = retry_after
        """Seconds after which the server wants to be asked again."""
        super().__init__(f"{self.code} ({status}): {self.detail}")

    @property
    def code(self) -> str:
        """Return the published code."""
        return str(self.document.get("code", "internal"))

    @property
    def detail(self) -> str:
        """Return the sentence that says what is wrong with this request."""
        return str(self.document.get("detail") or self.document.get("title") or "No detail.")

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return bool(self.document.get("retryable", False))

    @property
    def errors(self) -> Sequence[Mapping[str, Any]]:
        """Return the faults: ``pointer``, ``code``, ``detail`` each."""
        return tuple(self.document.get("errors") or ())


def unreachable(url: str, reason: str) -> ApiProblem:
    """Return the problem of a request that nobody answered."""
    document = {
        "type": "about:blank",
        "title": "The API does not answer",
        "detail": f"{url} does not answer: {reason}",
        "code": "unavailable",
        "retryable": True,
        "hint": "Start it with `studio dev`, or set STUDIO_API_URL to one that runs.",
        "errors": [],
    }
    return ApiProblem(document, NO_ANSWER)


def not_ours(status: int, text: str) -> ApiProblem:
    """Return the problem of an answer that is no problem document: something else answers at that address."""
    document = {
        "type": "about:blank",
        "title": "Not an answer of this API",
        "status": status,
        "detail": f"The answer has status {status} and is not of this API: {text[:200]!r}",
        "code": "internal",
        "retryable": status in {429, 502, 503, 504},
        "hint": "Check STUDIO_API_URL, and what stands between here and there.",
        "errors": [],
    }
    return ApiProblem(document, status)
