"""Pages of a list: ``{data, next_cursor, has_more}`` and ``Link`` (RFC 8288), with signed cursors.

A cursor holds the position behind the last row and is bound by HMAC-SHA256 to what was asked (route, filters,
user), so that an altered one, or one used with other filters, is refused instead of answering nonsense.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
from fastapi import Request
from starlette.responses import Response

from api.bodies import encoded
from api.queries import require_known
from domain.errors import Fault, Invalid, Malformed

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
CURSOR_CHARACTERS_MAX = 1000
_TAG_BYTES = 12


@dataclass(frozen=True, slots=True)
class Cursors:
    """Signs and reads cursors with the installation's secret."""

    secret: bytes

    def sign(self, position: Sequence[Any], binding: str) -> str:
        """Return the cursor of a position (JSON scalars) for what ``binding`` names."""
        body = orjson.dumps(list(position), default=str)
        return base64.urlsafe_b64encode(self._tag(body, binding) + body).rstrip(b"=").decode()

    def read(self, cursor: str, binding: str) -> list[Any]:
        """Return the position; raises Malformed ``invalid_cursor`` unless we signed it for this very list."""
        try:
            raw = base64.urlsafe_b64decode(cursor[:CURSOR_CHARACTERS_MAX] + "=" * (-len(cursor) % 4))
        except (binascii.Error, ValueError):
            raise _invalid() from None
        tag, body = raw[:_TAG_BYTES], raw[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body, binding)):
            raise _invalid()
        position: list[Any] = orjson.loads(body)
        return position

    def _tag(self, body: bytes, binding: str) -> bytes:
        return hmac.digest(self.secret, binding.encode() + b"\0" + body, hashlib.sha256)[:_TAG_BYTES]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What of a list is wanted: at most ``limit`` rows behind ``after`` (None: from the start)."""

    limit: int
    after: list[Any] | None
    binding: str


def _invalid() -> Malformed:
    return Malformed("The cursor was not made by this list with these filters.", code="invalid_cursor")


def page_request(
    request: Request, cursors: Cursors, user_id: UUID, filters: Mapping[str, Any] | None = None
) -> PageRequest:
    """Read ``limit`` and ``cursor``; every other query parameter must be one of ``filters`` (name → value).

    Raises Malformed ``invalid_cursor``, Invalid for an unknown parameter or a limit that is not 1 to 200.
    """
    filters = filters or {}
    known = {"limit", "cursor", *filters}
    require_known(request, known)
    limit = _limit(request.query_params.get("limit"))
    shown = orjson.dumps({k: v for k, v in filters.items() if v is not None}, default=str, option=orjson.OPT_SORT_KEYS)
    binding = f"{user_id}:{request.url.path}:{shown.decode()}"
    cursor = request.query_params.get("cursor")
    return PageRequest(limit, cursors.read(cursor, binding) if cursor is not None else None, binding)


def _limit(value: str | None) -> int:
    if value is None:
        return LIMIT_DEFAULT
    if value.isascii() and value.isdigit() and len(value) < 6 and 1 <= int(value) <= LIMIT_MAX:  # noqa: PLR2004
        return int(value)
    detail = f"limit is a number from 1 to {LIMIT_MAX}."
    raise Invalid(detail, code="invalid_value", faults=[Fault("/query/limit", "invalid_value", detail)])


def page_response(
    request: Request,
    cursors: Cursors,
    wanted: PageRequest,
    rows: Sequence[Any],
    position: Callable[[Any], Sequence[Any]],
    *,
    show: Callable[[Any], Any] | None = None,
    more: bool | None = None,
    beside: Mapping[str, Any] | None = None,
) -> Response:
    """Answer a page from ``limit + 1`` rows: the extra one says that there is more (or say it with ``more``).

    ``beside`` is said of the whole list.
    """
    shown = rows[: wanted.limit]
    has_more = len(rows) > wanted.limit if more is None else more
    next_cursor = cursors.sign(position(shown[-1]), wanted.binding) if has_more and shown else None
    body = {
        "data": [show(row) if show else row for row in shown],
        "next_cursor": next_cursor,
        "has_more": has_more,
        **(beside or {}),
    }
    headers = {}
    if next_cursor is not None:
        query = [(k, v) for k, v in request.query_params.multi_items() if k != "cursor"]
        headers["Link"] = f'<{request.url.path}?{urlencode([*query, ("cursor", next_cursor)])}>; rel="next"'
    return Response(encoded(body), headers=headers, media_type="application/json")
