"""Bodies in and out: read within the limit and only when it is their turn, parsed strictly, answered as JSON.

Handlers read bodies themselves instead of declaring them, because a request is checked in the order 401, 404, 415,
413, 400, 422 (CONTRACT): a framework that parses first would answer 422 to a stranger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from uuid import UUID

import orjson
from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response

from api.problems import invalid_of
from domain.canonical import load
from domain.errors import Fault, Invalid, Malformed, TooLarge, UnsupportedMedia
from domain.ids import parse_id

JSON = "application/json"


class Wire(BaseModel):
    """Base of request models: frozen, strict about types, and unknown fields are faults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=False)


Model = TypeVar("Model", bound=BaseModel)


def media_type_of(request: Request) -> str:
    """Return the media type of the body without parameters, in lower case; empty if none is given."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def require_media(request: Request, accepted: Sequence[str] = (JSON,)) -> str:
    """Return the media type if it is accepted (absent means the first); raises UnsupportedMedia naming those."""
    given = media_type_of(request) or accepted[0]
    if given in accepted:
        return given
    names = ", ".join(accepted)
    members = {"accept_patch": names} if request.method == "PATCH" else {"accepted": list(accepted)}
    raise UnsupportedMedia(f"{given} is not accepted here; {names} is.", members=members)


async def read_body(request: Request) -> bytes:
    """Return the raw body; raises TooLarge (``limit_bytes``) without reading further than the limit."""
    known: bytes | None = request.scope["state"].get("body")
    if known is not None:
        return known
    limit: int = request.app.state.body_max
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    body = b"".join(parts)
    request.scope["state"]["body"] = body
    return body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"A body may have {limit} bytes.", members={"limit_bytes": limit})


async def read_json(request: Request, accepted: Sequence[str] = (JSON,)) -> Any:
    """Return the parsed body, after media type and size; raises Malformed with the offset if it is not JSON."""
    require_media(request, accepted)
    return parsed(await read_body(request))


def parsed(body: bytes, *, unique: bool = False) -> Any:
    """Parse one JSON text strictly (``domain.canonical.load``)."""
    if not body.strip():
        raise Malformed("The body is empty; send JSON.")
    return load(body, unique=unique)


def checked(model: type[Model], value: Any, *, inside: str = "") -> Model:
    """Return ``value`` as a request model; raises Invalid with every fault at once, each with its pointer."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid_of(error, inside=inside) from None


async def read(request: Request, model: type[Model]) -> Model:
    """Return the JSON body as a request model: 415, 413, 400, 422 in this order."""
    return checked(model, await read_json(request))


def path_id(value: str, name: str) -> UUID:
    """Return an id of the path; raises Invalid ``invalid_id`` if it is not a UUID."""
    return parse_id(value, f"/path/{name}")


def whole(value: str, *, high: int) -> int | None:
    """Return a whole number written in decimal digits, None for anything else or beyond ``high``."""
    if not (value.isascii() and value.isdigit() and len(value) <= len(str(high))):
        return None
    return int(value) if int(value) <= high else None


def query_int(request: Request, name: str, *, low: int, high: int, default: int | None = None) -> int | None:
    """Return a whole number of the query string; raises Invalid outside ``low`` to ``high``."""
    value = request.query_params.get(name)
    if value is None:
        return default
    number = whole(value, high=high)
    if number is not None and number >= low:
        return number
    raise fault(f"/query/{name}", "invalid_value", f"{name} is a whole number from {low} to {high}.")


def fault(pointer: str, code: str, detail: str) -> Invalid:
    """Return an Invalid error about one field."""
    return Invalid(detail, code=code, faults=[Fault(pointer, code, detail)])


def encoded(value: Any) -> bytes:
    """Return JSON for an answer; the database driver's own UUIDs are ids like any other."""
    return orjson.dumps(value, default=_plain)


def _plain(value: object) -> str:
    if isinstance(value, UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer a JSON value."""
    return Response(encoded(value), status, dict(headers or {}), media_type=JSON)


def etag(version: int) -> str:
    """Return the entity tag of a version (CONTRACT): ``"v7"``."""
    return f'"v{version}"'


def request_body(model: type[BaseModel], *, example: Any = None, media: Sequence[str] = (JSON,)) -> dict[str, Any]:
    """Describe a body for OpenAPI, since handlers read bodies themselves: give it to ``openapi_extra``."""
    content: dict[str, Any] = {
        "schema": model.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}")
    }
    if example is not None:
        content["example"] = example
    return {"requestBody": {"required": True, "content": dict.fromkeys(media, content)}}
