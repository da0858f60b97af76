"""``Prefer: wait=N`` (RFC 7240): hold the answer until a cascade has closed. It changes no status."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from fastapi import Request

from api.deps import Ports
from api.preconditions import wait_seconds
from domain.ids import CascadeId, UserId

WAIT_SECONDS_MAX = 30.0
POLL_SECONDS_FIRST = 0.02
POLL_SECONDS_MAX = 0.25


async def waited(
    request: Request, ports: Ports, user_id: UUID, cascade_id: UUID, *, instance_id: UUID | None = None
) -> dict[str, str]:
    """Wait if the request prefers to, until the cascade closes; with an instance, until its run has ended.

    Returns the header that says so. Whoever goes away while waiting stops the waiting.
    """
    seconds = wait_seconds(request, WAIT_SECONDS_MAX)
    if seconds is None:
        return {}
    # Nothing pushes to the API process, so it looks: at once, then ever less often.
    deadline, pause = time.monotonic() + seconds, POLL_SECONDS_FIRST
    while await ports.cascades.is_open(UserId(user_id), CascadeId(cascade_id), instance_id):
        left = deadline - time.monotonic()
        if left <= 0 or await request.is_disconnected():
            break
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, POLL_SECONDS_MAX)
    return {"Preference-Applied": f"wait={int(seconds)}"}
