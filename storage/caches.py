"""The hot tier: content in the process's memory, and in a Valkey that processes share. Losing either loses nothing.

Only bytes that have just been verified enter; what comes back from Valkey is verified again, because others can write
there. Nothing here ever fails a read: whatever goes wrong is a miss.
"""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
import valkey.asyncio as valkey
from valkey.exceptions import ValkeyError

from domain.documents import document_hash
from domain.errors import StudioError, Unavailable
from storage.database import Database

ITEM_PART_MAX = 8
"""Content of more than an eighth of the memory's bytes goes past it: it would push out many for one."""
SHARED_BYTES_MAX = 4 * 1_048_576
"""Larger content goes past Valkey: it would hold up everything else on its connection."""
SHARED_SECONDS_MAX = 0.25
"""How long Valkey may take to connect or to answer; the object store needs hardly longer."""
PAUSE_SECONDS = 5.0
"""After a failure Valkey is left alone for so long: a dead one must not slow down each read."""
CONNECTIONS_MAX = 16

log = structlog.get_logger("storage.caches")


class MemoryCache:
    """Content that this process has read, by user and hash, up to ``bytes_max``; the least recently used goes first."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._items: OrderedDict[tuple[UUID, str], bytes] = OrderedDict()
        self.bytes_held = 0

    def get(self, user_id: UUID, digest: str) -> bytes | None:
        """Return what is held, None if it is not."""
        data = self._items.get((user_id, digest))
        if data is not None:
            self._items.move_to_end((user_id, digest))
        return data

    def put(self, user_id: UUID, digest: str, data: bytes) -> None:
        """Hold content whose hash has been verified; what is large goes past."""
        if len(data) * ITEM_PART_MAX > self._bytes_max or (user_id, digest) in self._items:
            return
        self._items[user_id, digest] = data
        self.bytes_held += len(data)
        while self.bytes_held > self._bytes_max:
            _, gone = self._items.popitem(last=False)
            self.bytes_held -= len(gone)


class ValkeyCache:
    """Content that some process has fetched from the object store, for ``ttl``.

    Keys are keyed hashes (HMAC with the installation's secret) of user and content: who can list them learns neither
    what is stored nor whose it is, and who knows a content cannot ask whether it is there.
    """

    def __init__(self, url: str, *, secret: Callable[[], Awaitable[bytes]], ttl: timedelta) -> None:
        self._client: Any = valkey.Valkey.from_url(
            url,
            socket_timeout=SHARED_SECONDS_MAX,
            socket_connect_timeout=SHARED_SECONDS_MAX,
            max_connections=CONNECTIONS_MAX,
        )
        self._read_secret = secret
        self._secret: bytes | None = None
        self._ttl = ttl
        self._away_until = 0.0

    async def get(self, user_id: UUID, digest: str) -> bytes | None:
        """Return what Valkey has under this hash, None if that is nothing, or something else."""
        data = await self._asked(user_id, digest, self._client.get)
        if not isinstance(data, bytes):
            return None
        if document_hash(data) != digest:
            log.warning("cache.not_what_it_says", user_id=str(user_id), hash=digest)
            return None
        return data

    async def put(self, user_id: UUID, digest: str, data: bytes) -> None:
        """Let other processes have verified content, best effort; what is large goes past."""
        if len(data) <= SHARED_BYTES_MAX:
            await self._asked(user_id, digest, lambda key: self._client.set(key, data, px=self._ttl))

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def _asked(self, user_id: UUID, digest: str, ask: Callable[[str], Awaitable[object]]) -> object:
        if time.monotonic() < self._away_until:
            return None
        try:
            if self._secret is None:
                self._secret = await self._read_secret()
            return await ask(_key(self._secret, user_id, digest))
        except (ValkeyError, StudioError, OSError, TimeoutError) as error:
            self._away_until = time.monotonic() + PAUSE_SECONDS
            log.warning("cache.does_not_answer", error=str(error)[:200], pause_seconds=PAUSE_SECONDS)
            return None


def _key(secret: bytes, user_id: UUID, digest: str) -> str:
    return "studio:content:" + hmac.digest(secret, user_id.bytes + digest.encode(), "sha256").hex()


@dataclass(frozen=True, slots=True)
class Caches:
    """The hot tier of one process."""

    memory: MemoryCache
    shared: ValkeyCache | None = None

    async def close(self) -> None:
        """Let go of Valkey, if there is one."""
        if self.shared is not None:
            await self.shared.close()


def caches(database: Database, *, bytes_max: int, url: str | None, ttl: timedelta) -> Caches:
    """Return the hot tier of the settings; without a URL it is the process's memory alone."""

    async def secret() -> bytes:
        row = await database.call("select secret from installation")
        if row is None:
            raise Unavailable("The database has no installation: run python -m migrations first.")
        return bytes(row["secret"])

    return Caches(MemoryCache(bytes_max), ValkeyCache(url, secret=secret, ttl=ttl) if url else None)
