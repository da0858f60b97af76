"""``Prefer: wait=N`` (RFC 7240): hold the answer until a cascade has closed. It changes no status."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

from fastapi import Request

from api.deps import Ports
from api.preconditions import wait_seconds
from domain.ids import CascadeId, UserId

WAIT_SECONDS_MAX = 30.0
POLL_SECONDS_FIRST = 0.02
POLL_SECONDS_MAX = 0.25


async def wait_until(done: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    """Ask until ``done`` says so or the time is over: at once, then ever less often, since nothing is pushed here."""
    deadline, pause = time.monotonic() + seconds, POLL_SECONDS_FIRST
    while not await done():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 1.5, POLL_SECONDS_MAX)
    return True


async def waited(
    request: Request, ports: Ports, user_id: UUID, cascade_id: UUID, *, instance_id: UUID | None = None
) -> dict[str, str]:
    """Wait if the request prefers to, until the cascade closes; with an instance, until its run has ended.

    Returns the header that says so. Whoever goes away while waiting stops the waiting.
    """
    seconds = wait_seconds(request, WAIT_SECONDS_MAX)
    if seconds is None:
        return {}

    async def over() -> bool:
        still = await ports.cascades.is_open(UserId(user_id), CascadeId(cascade_id), instance_id)
        return not still or await request.is_disconnected()

    await wait_until(over, seconds)
    return {"Preference-Applied": f"wait={int(seconds)}"}
