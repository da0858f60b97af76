"""How much memory an API process takes while a large file goes through it and comes back."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2
import psutil

from tests.conftest import BASE

SAMPLE_SECONDS = 0.02
PIECE = bytes(range(256)) * 1024  # 256 KiB
OCTETS = "application/octet-stream"


@dataclass
class Growth:
    """Resident memory of a process, in bytes."""

    before: int
    peak: int

    @property
    def bytes(self) -> int:
        return self.peak - self.before


@asynccontextmanager
async def watched(pid: int) -> AsyncIterator[Growth]:
    """Look at a process again and again while the block lasts."""
    process = psutil.Process(pid)
    growth = Growth(process.memory_info().rss, process.memory_info().rss)

    async def look() -> None:
        while True:
            growth.peak = max(growth.peak, process.memory_info().rss)
            await asyncio.sleep(SAMPLE_SECONDS)

    looking = asyncio.create_task(look())
    try:
        yield growth
    finally:
        looking.cancel()


async def endless(size: int) -> AsyncIterator[bytes]:
    """A file of this size that nobody holds in memory, each of its megabytes another one."""
    for number in range(size // len(PIECE)):
        yield number.to_bytes(8, "big") + PIECE[8:]


async def through(url: str, headers: Mapping[str, str], size: int) -> str:
    """Send a file of ``size`` bytes, fetch it again, compare; return the id of its blob."""
    sent = hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        async for piece in endless(size):
            sent.update(piece)
            yield piece

    async with httpx2.AsyncClient(base_url=url, headers=dict(headers), timeout=600) as client:
        given = {"content-type": OCTETS, "content-length": str(size)}
        answer = await client.post(f"{BASE}/blobs", content=body(), headers=given)
        assert answer.status_code == 201, answer.text
        blob = answer.json()
        got = hashlib.sha256()
        async with client.stream("GET", blob["content_url"]) as coming:
            async for piece in coming.aiter_bytes():
                got.update(piece)
    assert got.hexdigest() == sent.hexdigest() == blob["content_hash"].removeprefix("sha256:")
    return str(blob["id"])
