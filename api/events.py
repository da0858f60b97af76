"""Events as a list of CloudEvents; its cursor goes on where it stopped, however much later."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Reader
from api.bodies import fault, query_int
from api.deps import Stores
from api.pages import LIMIT_DEFAULT, LIMIT_MAX
from domain.cursors import event_cursor, read_event_cursor
from domain.errors import Fault, Invalid
from domain.events import EVENT_TYPES, TYPE_PREFIX, cloud_event
from domain.ids import UserId

router = APIRouter(prefix="/events", tags=["events"])

PARAMETERS = ("cursor", "limit", "type", "subject")


@router.get("", operation_id="events_list")
async def list_(
    request: Request, identity: Reader, ports: Stores, cursor: str | None = None, subject: str | None = None
) -> Response:
    """List your events in their order, from ``cursor`` on or from the first.

    ``next_cursor`` is always given: with it, a later request goes on with what has happened since. ``type`` (short
    or full, may be repeated) and ``subject`` filter.
    """
    unknown = [name for name in request.query_params if name not in PARAMETERS]
    if unknown:
        detail = f"Known are {', '.join(PARAMETERS)}."
        raise Invalid(
            detail, code="unknown_field", faults=[Fault(f"/query/{n}", "unknown_field", detail) for n in unknown]
        )
    user_id = UserId(identity.user_id)
    limit = query_int(request, "limit", low=1, high=LIMIT_MAX, default=LIMIT_DEFAULT) or LIMIT_DEFAULT
    after = 0
    if cursor is not None:
        after = read_event_cursor(cursor, ports.installation_id, ports.cursors.secret, user_id)
    found = await ports.events.page(user_id, after=after, limit=limit + 1, types=_types(request), subject=subject)
    events = found[:limit]
    last = (events[-1].seq or after) if events else after
    following = event_cursor(ports.installation_id, ports.cursors.secret, user_id, last)
    body = {
        "data": [cloud_event(event, installation=str(ports.installation_id)) for event in events],
        "next_cursor": following,
        "has_more": len(found) > limit,
    }
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    link = f'<{request.url.path}?{urlencode([*query, ("cursor", following)])}>; rel="next"'
    return Response(orjson.dumps(body), headers={"Link": link}, media_type="application/json")


def _types(request: Request) -> list[str]:
    names = [name.removeprefix(f"{TYPE_PREFIX}.").removesuffix(".v1") for name in request.query_params.getlist("type")]
    for name in names:
        if name not in EVENT_TYPES:
            raise fault("/query/type", "invalid_value", f"type is one of {', '.join(EVENT_TYPES)}.")
    return names
