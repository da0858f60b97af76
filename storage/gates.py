"""A gate: one at a time, those who wait in their order, but for those who may go first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Lets one through at a time. Who comes ``first`` waits only for who is inside, and nobody who waits for that.

    The next is let in at the next turn of the event loop, so that who leaves may come back first without a pause.
    """

    def __init__(self) -> None:
        self._taken = False
        self._waiting: deque[asyncio.Future[None]] = deque()

    def locked(self) -> bool:
        """Whether anybody is inside or waits."""
        return self._taken or bool(self._waiting)

    @asynccontextmanager
    async def passed(self, *, first: bool = False) -> AsyncIterator[None]:
        """Be inside for the length of the block."""
        loop = asyncio.get_running_loop()
        mine = loop.create_future()
        if first:
            self._waiting.appendleft(mine)
        else:
            self._waiting.append(mine)
        if first or len(self._waiting) == 1:
            self._admit()
        try:
            await mine
            yield
        finally:
            if mine.done() and not mine.cancelled():
                self._taken = False
            else:
                self._waiting.remove(mine)
            loop.call_soon(self._admit)

    def _admit(self) -> None:
        if self._waiting and not self._taken:
            self._taken = True
            self._waiting.popleft().set_result(None)
