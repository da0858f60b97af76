"""Waiting for other processes: always for a condition, with a deadline that says what was waited for."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

DEADLINE_SECONDS = 60.0
POLL_SECONDS = 0.05

Found = TypeVar("Found")


async def eventually(
    condition: Callable[[], Found | None | Awaitable[Found | None]], what: str, *, within: float = DEADLINE_SECONDS
) -> Found:
    """The first true value of ``condition``; AssertionError that names ``what`` after ``within`` seconds."""
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return cast("Found", found)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:.0f} s: {what}")
        await asyncio.sleep(POLL_SECONDS)
