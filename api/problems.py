"""Every error as a problem document (RFC 9457), from the one catalogue of ``domain/errors.py``.

``type`` is ``{base}/problems/{code}``, and that page is served. Nothing else in ``api/`` knows an error's status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from domain.errors import (
    CATALOGUE,
    Conflict,
    Fault,
    Forbidden,
    Gone,
    Invalid,
    LimitExceeded,
    Malformed,
    NotFound,
    PreconditionRequired,
    ProviderFailed,
    StudioError,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)

PROBLEM_JSON = "application/problem+json"

STATUS_BY_ERROR: Mapping[type[StudioError], int] = {
    Invalid: 422,
    Malformed: 400,
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Gone: 410,
    Conflict: 409,
    PreconditionRequired: 428,
    TooLarge: 413,
    UnsupportedMedia: 415,
    LimitExceeded: 429,
    ProviderFailed: 502,
    Unavailable: 503,
}
STATUS_BY_CODE: Mapping[str, int] = {
    "precondition_failed": 412,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "invalid_header": 400,
    "invalid_cursor": 400,
    "range_not_satisfiable": 416,
    "body_too_slow": 408,
}
"""Codes whose status is not that of their error class."""

_RETRY_AFTER_SECONDS = "1"
NO_SUCH_FIELD = "There is no such field here: remove it or correct its spelling."
_PYDANTIC_CODES = {"extra_forbidden": "unknown_field", "missing": "missing_field"}


def status_of(error: StudioError) -> int:
    """Return the HTTP status of an error; what is not listed is our own fault, 500."""
    by_code = STATUS_BY_CODE.get(error.problem_code)
    if by_code is not None:
        return by_code
    return next((STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR), 500)


def problem_response(request: Request, error: StudioError, headers: Mapping[str, str] | None = None) -> Response:
    """Render an error."""
    status = status_of(error)
    more = _headers(status, error) | dict(headers or {})
    return Response(orjson.dumps(problem_body(request, error), default=str), status, more, media_type=PROBLEM_JSON)


def problem_body(request: Request, error: StudioError) -> dict[str, Any]:
    """Return an error as JSON; its members (``current_version``, ``limit_bytes``) stand beside the standard ones."""
    return {
        "type": f"{str(request.base_url).rstrip('/')}/problems/{error.problem_code}",
        "title": error.kind.title,
        "status": status_of(error),
        "detail": error.detail,
        "instance": request.url.path,
        "code": error.problem_code,
        "request_id": request.scope.get("state", {}).get("request_id"),
        "retryable": error.retryable,
        "hint": error.kind.hint,
        "errors": [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in error.faults],
        **error.members,
    }


def _headers(status: int, error: StudioError) -> dict[str, str]:
    if status == 401:  # noqa: PLR2004 - RFC 9110 asks for the challenge
        return {"WWW-Authenticate": 'Bearer realm="studio"'}
    if status in {412, 409} and "current_etag" in error.members:
        return {"ETag": str(error.members["current_etag"])}
    if "retry_after" in error.members:
        return {"Retry-After": str(error.members["retry_after"])}
    if "accept_patch" in error.members:
        return {"Accept-Patch": str(error.members["accept_patch"])}
    return {"Retry-After": _RETRY_AFTER_SECONDS} if status == 503 else {}  # noqa: PLR2004


class ValidationFailure(Protocol):
    """What pydantic's and FastAPI's validation errors have in common."""

    def errors(self) -> Sequence[Any]:
        """List what is wrong, each with loc, type and msg."""
        ...


def faults_of(error: ValidationFailure, *, inside: str = "") -> list[Fault]:
    """Turn pydantic's findings into faults; ``inside`` is the pointer of what was validated."""
    return [_fault(item, inside) for item in error.errors()]


def _fault(item: Mapping[str, Any], inside: str) -> Fault:
    kind = str(item["type"])
    pointer = inside + "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in item["loc"])
    code = _PYDANTIC_CODES.get(kind)
    if code is None:
        code = "wrong_type" if kind.endswith(("_type", "_parsing")) else "invalid_value"
    if str(item["loc"][:1]) == "('path',)" and kind.startswith("uuid"):
        code = "invalid_id"
    context = item.get("ctx") or {}
    if "studio_code" in context:
        code = str(context["studio_code"])
    said = str(item["msg"]).removeprefix("Value error, ")
    if code == "unknown_field":
        said = NO_SUCH_FIELD
    return Fault(pointer, code, said)


def invalid_of(error: ValidationFailure, *, inside: str = "") -> Invalid:
    """Return one error that names every field at fault; its code is the fault's own if there is only one."""
    faults = faults_of(error, inside=inside)
    code = faults[0].code if len({fault.code for fault in faults}) == 1 else "invalid_request"
    words = "; ".join(f"{fault.pointer or 'the body'}: {fault.detail}" for fault in faults[:5])
    return Invalid(f"The request has {len(faults)} fault(s): {words}", code=code, faults=faults)


def _allowed(request: Request) -> str:
    """Every method that this path has: FastAPI keeps one route per method, so its own Allow lists just one."""
    methods: set[str] = set()
    for route in request.app.routes:
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            methods |= getattr(route, "methods", None) or set()
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


async def _on_studio_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StudioError)  # noqa: S101 - registered for this class only
    return problem_response(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code == 405:  # noqa: PLR2004
        allowed = _allowed(request)
        refused = StudioError(f"{request.method} is not allowed here; {allowed} are.", code="method_not_allowed")
        return problem_response(request, refused, {"Allow": allowed})
    if error.status_code == 404:  # noqa: PLR2004
        return problem_response(request, NotFound(f"There is no {request.url.path}."))
    if error.status_code == 400:  # noqa: PLR2004
        return problem_response(request, Malformed(str(error.detail)))
    return problem_response(request, StudioError(str(error.detail), code="internal"))


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    return problem_response(request, invalid_of(error))


def install(app: FastAPI) -> None:
    """Let every error of this application leave as a problem document, and serve the page of each code."""
    app.add_exception_handler(StudioError, _on_studio_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_api_route("/problems", _pages, methods=["GET"], tags=["platform"], operation_id="problems_list")
    app.add_api_route("/problems/{code}", _page, methods=["GET"], tags=["platform"], operation_id="problems_get")


def _described(code: str) -> dict[str, Any]:
    kind = CATALOGUE[code]
    return {"code": code, "title": kind.title, "hint": kind.hint, "retryable": kind.retryable}


async def _pages() -> Response:
    """List every problem code with what it means and what to do."""
    return Response(orjson.dumps({"data": [_described(code) for code in CATALOGUE]}), media_type="application/json")


async def _page(request: Request, code: str) -> Response:
    """Explain one problem code: HTML for a browser, JSON for a program."""
    if code not in CATALOGUE:
        raise NotFound(f"There is no problem code {code[:64]!r}.")
    if "text/html" not in request.headers.get("accept", ""):
        return Response(orjson.dumps(_described(code)), media_type="application/json")
    kind = CATALOGUE[code]
    again = "The same request may succeed later." if kind.retryable else "Repeating the same request will not help."
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{code}</title>'
        f"<h1>{kind.title}</h1><p><code>{code}</code></p><p>{kind.hint}</p><p>{again}</p></html>"
    )
    return Response(page, media_type="text/html")
