"""Bodies that do not fit into memory: taken in pieces of a bounded size, and of them only so many at a time.

A request waits for a place before its body is read further, so that what is not in its turn stays in the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request

from domain.errors import LimitExceeded, StudioError, TooLarge
from domain.uploads import parse_content_digest

WAIT_SECONDS = 10
"""How long a request waits for a place before it is asked to come back."""
PIECE_SECONDS = 60
"""How long a piece may take to come: who is slower would keep a place from everybody else."""
_RETRY_AFTER_SECONDS = 5


class Places:
    """Places for pieces in memory, of this process."""

    def __init__(self, count: int) -> None:
        self._places = asyncio.Semaphore(count)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Hold a place. Raises LimitExceeded if none becomes free in time."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            detail = "Too many bodies are being received."
            raise LimitExceeded(detail, members={"retry_after": _RETRY_AFTER_SECONDS}) from None
        try:
            yield
        finally:
            self._places.release()


class Body:
    """The body of a request, in pieces of a size of our choice."""

    def __init__(self, request: Request) -> None:
        self._source = request.stream()
        self._rest = b""
        self.ended = False
        """Whether everything was taken."""

    async def piece(self, size: int) -> bytearray:
        """Return the next ``size`` bytes, fewer (also none) at the end. Raises StudioError if they come too slowly."""
        taken = bytearray()
        try:
            async with asyncio.timeout(PIECE_SECONDS):
                while len(taken) < size and not self.ended:
                    await self._more(taken, size)
        except TimeoutError:
            detail = f"{size} bytes took more than {PIECE_SECONDS} seconds."
            raise StudioError(detail, code="body_too_slow") from None
        return taken

    async def _more(self, taken: bytearray, size: int) -> None:
        if not self._rest:
            self._rest = await anext(self._source, b"")
            self.ended = not self._rest
        room = size - len(taken)
        taken += self._rest[:room]
        self._rest = self._rest[room:]


async def pieces(request: Request, places: Places, size: int) -> AsyncIterator[bytearray]:
    """Yield the body in pieces, at least one, the last one shorter than the others; each while a place is held."""
    body = Body(request)
    while True:
        async with places.one():
            piece = await body.piece(size)
            last = len(piece) < size
            yield piece
            del piece  # the next one is taken without the last one in memory
        if last:
            return


async def bounded(request: Request, limit: int) -> bytearray:
    """Return a whole body of at most ``limit`` bytes; raises TooLarge, before it is read if its size is declared."""
    size = declared_size(request)
    taken = await Body(request).piece(limit + 1) if size is None or size <= limit else None
    if taken is None or len(taken) > limit:
        raise TooLarge(f"A part may have {limit} bytes.", members={"limit_bytes": limit})
    return taken


def declared_size(request: Request) -> int | None:
    """Return ``Content-Length``, None without."""
    value = request.headers.get("content-length", "")
    return int(value) if value.isascii() and value.isdigit() else None


def declared_digest(request: Request) -> str | None:
    """Return the SHA-256 of ``Content-Digest`` as ``sha256:…``, None without. Raises Malformed."""
    value = request.headers.get("content-digest")
    return None if value is None else parse_content_digest(value)
