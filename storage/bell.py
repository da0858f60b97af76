"""Tells the relay that something was committed: in the background, once for many writes.

NOTIFY takes a lock of the whole server at commit, so it is never part of a write's own transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from domain.errors import StudioError
from storage.database import Database

BELL_SECONDS_MIN = 0.005
"""Pause between two notifications of one process."""
LATE_SECONDS = 0.05
"""How long what nobody waits for is kept back, to be told with what comes next."""


class Bell:
    """Rings at once, then at most once in ``BELL_SECONDS_MIN``. A lost ring costs the relay one poll."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rung = False
        self._task: asyncio.Task[None] | None = None
        self._late: asyncio.TimerHandle | None = None
        self._near: Callable[[], bool] | None = None

    def hang_beside(self, near: Callable[[], bool]) -> None:
        """Ring in this process first: where ``near`` says that the relay that leads has heard it, nobody else need."""
        self._near = near

    def ring_late(self) -> None:
        """Let the relay look, if nobody else lets it within ``LATE_SECONDS``: what was committed can wait as long."""
        if self._late is None and not self._database.rehearsing:
            self._late = asyncio.get_running_loop().call_later(LATE_SECONDS, self.ring)

    def ring(self) -> None:
        """Let the relay look soon; returns at once."""
        if self._database.rehearsing:
            return
        if self._late is not None:
            self._late.cancel()
            self._late = None
        self._rung = True
        if self._task is None or self._task.done():
            self._task = self._database.apart(self._notify(), name="bell")

    async def close(self) -> None:
        """Stop; a ring that was not passed on is the relay's next poll."""
        if self._late is not None:
            self._late.cancel()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _notify(self) -> None:
        while self._rung:
            self._rung = False
            if self._near is None or not self._near():
                with contextlib.suppress(StudioError):
                    await self._database.notify()
            await asyncio.sleep(BELL_SECONDS_MIN)
