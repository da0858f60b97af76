"""Turns: whose inline runs are evaluated next in this process, so that one user's thousands keep nobody waiting.

Evaluating is Python on one event loop, and settling keeps PostgreSQL busy. While more than one user is here, or was
lately, turns are short, a user has one at a time, whoever was served less goes first, and who takes many in a row
leaves as much time after each as it took.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from uuid import UUID

LATELY_SECONDS = 2.0
"""How long after somebody else's advance turns stay short: a person who edits comes back."""
WAIT_SECONDS_MAX = 1.0
"""How long one turn waits for others at most: theirs may be waiting for something else."""
REST_SECONDS_MAX = 0.2
"""How long a user leaves to others after one turn at most."""
SHARE = 5
"""A short turn has this part of the runs of a long one."""


@dataclass(slots=True)
class _Served:
    """One user here: advances under way, the runs that count against the others', and those since the last arrival."""

    advances: int = 0
    runs: int = 0
    in_a_row: int = 0
    left_at: float = -LATELY_SECONDS
    one: asyncio.Lock = field(default_factory=asyncio.Lock)


class Turns:
    """The users whose cascades are advanced by this process. One per process; it belongs to one event loop."""

    def __init__(self) -> None:
        self._served: dict[UUID, _Served] = {}
        self._moved = asyncio.Event()

    @contextmanager
    def here(self, user_id: UUID) -> Iterator[None]:
        """Be here for the length of one advance. Who comes begins with what the least served has had."""
        mine = self._served.setdefault(user_id, _Served())
        if not mine.advances:
            present = [other.runs for user, other in self._served.items() if user != user_id and other.advances]
            mine.runs, mine.in_a_row = (max(mine.runs, min(present)) if present else 0), 0
        mine.advances += 1
        try:
            yield
        finally:
            mine.advances -= 1
            mine.left_at = time.monotonic()
            self._moved.set()
            self._forget()

    @asynccontextmanager
    async def turn(self, user_id: UUID, runs: int) -> AsyncIterator[None]:
        """Evaluate so many runs in the block, when it is this user's turn. Only while ``here``."""
        mine = self._served[user_id]
        if not self._shared(user_id):
            mine.runs += runs
            yield
            return
        async with mine.one:
            await self._others_first(user_id)
            mine.runs += runs
            mine.in_a_row += runs
            self._moved.set()
            started = time.monotonic()
            yield
            if mine.in_a_row > runs and self._shared(user_id):
                await asyncio.sleep(min(time.monotonic() - started, REST_SECONDS_MAX))

    def size(self, user_id: UUID, most: int) -> int:
        """How many runs a turn has: fewer while others are here, or were lately."""
        return max(1, most // SHARE) if self._shared(user_id) else most

    def _shared(self, user_id: UUID) -> bool:
        since = time.monotonic() - LATELY_SECONDS
        return any(
            user != user_id and (other.advances or other.left_at > since) for user, other in self._served.items()
        )

    async def _others_first(self, user_id: UUID) -> None:
        """Wait while somebody is here who was served less, a bounded time."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while self._is_behind(user_id) and (left := deadline - time.monotonic()) > 0:
            self._moved.clear()
            try:
                async with asyncio.timeout(left):
                    await self._moved.wait()
            except TimeoutError:
                return

    def _is_behind(self, user_id: UUID) -> bool:
        mine = self._served[user_id].runs
        return any(user != user_id and other.advances and other.runs < mine for user, other in self._served.items())

    def _forget(self) -> None:
        """Who left long ago is a stranger."""
        since = time.monotonic() - LATELY_SECONDS
        self._served = {user: other for user, other in self._served.items() if other.advances or other.left_at > since}
