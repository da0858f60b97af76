"""Patience with our own store: what a service has answered, and perhaps been paid for, is not thrown away."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from domain.errors import Unavailable

PATIENCE_SECONDS = 20.0
"""How long a move is repeated; below ``workflows.policies.STORE_TIMEOUT``, which the step has for it."""
PAUSE_SECONDS = 0.5


async def patiently(move: Callable[[], Awaitable[None]]) -> None:
    """Repeat a move, which must be safe to repeat, while the store does not answer; raises Unavailable in the end."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await move()
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)
