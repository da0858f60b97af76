"""Turns: whose inline runs are evaluated next in this process, so that one user's thousands keep nobody waiting.

Evaluating is Python on one event loop, and settling keeps PostgreSQL busy. Each user's advances take turns by what the
user has been served: whoever has had more lets the others go first, a bounded time. While others have been here lately,
turns are short.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

LATELY_SECONDS = 2.0
"""How long after somebody else's advance turns stay short: a person who edits comes back."""
WAIT_SECONDS_MAX = 1.0
"""How long one turn waits for others at most: theirs may be waiting for something else."""
SHARE = 5
"""A turn is short when it has this part of the runs of a long one."""


@dataclass(slots=True)
class _Served:
    """One user here: advances under way, and runs they were served, as far as it counts against the others."""

    advances: int = 0
    runs: int = 0
    left_at: float = field(default=0.0)


class Turns:
    """The users whose cascades are advanced by this process. One per process; it belongs to one event loop."""

    def __init__(self) -> None:
        self._served: dict[UUID, _Served] = {}
        self._moved = asyncio.Event()

    @contextmanager
    def here(self, user_id: UUID) -> Iterator[None]:
        """Be here for the length of one advance. Who comes (again) begins with what the least served has had."""
        mine = self._served.setdefault(user_id, _Served())
        if not mine.advances:
            self._forget()
            present = [served.runs for other, served in self._served.items() if other != user_id and served.advances]
            mine.runs = max(mine.runs, min(present)) if present else 0
        mine.advances += 1
        try:
            yield
        finally:
            mine.advances -= 1
            mine.left_at = time.monotonic()
            self._tell()

    async def mine(self, user_id: UUID, runs: int) -> None:
        """Wait until it is this user's turn to evaluate so many runs, and take it."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while self._others_first(user_id) and (left := deadline - time.monotonic()) > 0:
            self._moved.clear()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                break
        self._served[user_id].runs += runs
        self._tell()

    def size(self, user_id: UUID, most: int) -> int:
        """How many runs a turn has: fewer while others are here, or were lately."""
        since = time.monotonic() - LATELY_SECONDS
        others = any(
            other != user_id and (served.advances or served.left_at > since) for other, served in self._served.items()
        )
        return max(1, most // SHARE) if others else most

    def _others_first(self, user_id: UUID) -> bool:
        mine = self._served[user_id].runs
        return any(
            other != user_id and served.advances and served.runs < mine for other, served in self._served.items()
        )

    def _tell(self) -> None:
        self._moved.set()

    def _forget(self) -> None:
        """Who left long ago is a stranger."""
        since = time.monotonic() - LATELY_SECONDS
        self._served = {
            user: served for user, served in self._served.items() if served.advances or served.left_at > since
        } | {user: served for user, served in self._served.items() if not served.advances and not served.left_at}
