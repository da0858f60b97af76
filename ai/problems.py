"""Every error of the ai-service as a problem document (RFC 9457), from the catalogue of ``domain/errors.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from domain.errors import (
    CATALOGUE,
    Fault,
    Invalid,
    LimitExceeded,
    Malformed,
    NotFound,
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
    NotFound: 404,
    TooLarge: 413,
    UnsupportedMedia: 415,
    LimitExceeded: 429,
    ProviderFailed: 502,
    Unavailable: 503,
}
STATUS_BY_CODE: Mapping[str, int] = {"method_not_allowed": 405}

_CODE_BY_FINDING = {
    "extra_forbidden": "unknown_field",
    "missing": "missing_field",
    "string_too_long": "content_too_large",
    "too_long": "too_many",
}


class FaultOut(BaseModel):
    """One wrong field."""

    pointer: str
    code: str
    detail: str


class ProblemOut(BaseModel):
    """A problem document."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    retryable: bool
    hint: str
    errors: list[FaultOut]


def problem_response(error: StudioError, *, path: str, request_id: str) -> Response:
    """Render ``error``; its members stand beside the standard ones."""
    status = STATUS_BY_CODE.get(error.problem_code) or next(
        (STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR), 500
    )
    headers = {"X-Request-Id": request_id}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="ai-service"'
    if "retry_after" in error.members:
        headers["Retry-After"] = str(error.members["retry_after"])
    body = {
        "type": f"/problems/{error.problem_code}",
        "title": error.kind.title,
        "status": status,
        "detail": error.detail,
        "instance": path,
        "code": error.problem_code,
        "request_id": request_id,
        "retryable": error.retryable,
        "hint": error.kind.hint,
        "errors": [{"pointer": f.pointer, "code": f.code, "detail": f.detail} for f in error.faults],
        **error.members,
    }
    return Response(orjson.dumps(body), status, headers, media_type=PROBLEM_JSON)


def install(app: FastAPI) -> None:
    """Make every error of ``app`` a problem document."""
    app.add_exception_handler(StudioError, _studio_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _internal_error)

    @app.get("/problems/{code}", include_in_schema=False)
    async def problem_page(code: str) -> dict[str, Any]:
        kind = CATALOGUE.get(code)
        if kind is None:
            raise NotFound("There is no such problem.")
        return {"code": code, "title": kind.title, "hint": kind.hint, "retryable": kind.retryable}


def _respond(request: Request, error: StudioError) -> Response:
    return problem_response(error, path=request.url.path, request_id=request.state.request_id)


async def _studio_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StudioError)  # noqa: S101 - Starlette's own typing of handlers
    return _respond(request, error)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return _respond(request, Malformed("The body is not JSON."))
    faults = [_fault(item["type"], item["loc"], item["msg"]) for item in found]
    return _respond(request, Invalid(f"{len(faults)} of the fields cannot be accepted.", faults=faults))


def _fault(finding: str, location: Sequence[str | int], message: str) -> Fault:
    inside = location[1:] if location[0] == "body" else location
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in inside)
    is_type = finding.endswith(("_type", "_parsing")) or finding == "string_unicode"
    code = _CODE_BY_FINDING.get(finding, "wrong_type" if is_type else "invalid_value")
    return Fault(pointer, code, f"{message}.")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - as above
    known: dict[int, StudioError] = {
        404: NotFound("There is nothing at this address."),
        405: Invalid("The skills take POST.", code="method_not_allowed"),
        400: Malformed("The body cannot be parsed."),
    }
    response = _respond(request, known.get(error.status_code, StudioError("The request failed.")))
    response.headers.update(error.headers or {})
    return response


async def _internal_error(request: Request, error: Exception) -> Response:
    del error  # it is logged by the server; nothing of it is told
    return _respond(request, StudioError("The request failed."))
