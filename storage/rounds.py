"""Rounds of a loop that is woken often: the first few at once, then one in a while, each with more to do."""

from __future__ import annotations

import asyncio


class Rounds:
    """A bucket of ``burst`` rounds that fills by one in ``seconds``.

    Who comes alone never waits; who comes in a stream is taken together with those behind.
    """

    def __init__(self, *, burst: int, seconds: float) -> None:
        self._burst = burst
        self._seconds = seconds
        self._left = float(burst)
        self._counted_at = 0.0

    async def next(self) -> None:
        """Wait until the next round may begin."""
        now = asyncio.get_running_loop().time()
        self._left = min(self._burst, self._left + (now - self._counted_at) / self._seconds) - 1
        self._counted_at = now
        if self._left < 0:
            await asyncio.sleep(-self._left * self._seconds)
