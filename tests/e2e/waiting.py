"""Waiting for other processes: always for a condition, with a deadline that says what was waited for."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.05


async def eventually(condition: Callable[[], Any], what: str, *, within: float = DEADLINE_SECONDS) -> Any:
    """The first true value of ``condition`` (awaited if need be); AssertionError that names ``what`` if none comes."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what}")
        await asyncio.sleep(POLL_SECONDS)
