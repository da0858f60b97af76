"""When content was last read: as coarsely as housekeeping needs it, to the day, and written after the answer."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from contextlib import suppress
from uuid import UUID

import asyncpg
import structlog

from domain.errors import StudioError
from storage.database import Database

PAUSE_SECONDS = 10.0
"""How long accesses are gathered before they are written: a few statements, however many reads."""
NOTED_MAX = 65_536
"""Contents that this process remembers having noted today; forgetting one costs a statement that changes nothing."""
_DAY_SECONDS = 86_400
# What somebody else holds is in use anyway: nobody waits here, so nobody waits for us.
_WRITE = """
update contents c set accessed_at = now() from (
  select hash from contents where user_id = $1 and hash = any($2) and accessed_at < now() - interval '1 day'
  for update skip locked) read
where c.user_id = $1 and c.hash = read.hash
"""

log = structlog.get_logger("storage.accesses")


class Accesses:
    """Notes of this process about what was read; losing some makes content colder than it is, no more."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: OrderedDict[tuple[UUID, str], int] = OrderedDict()
        self._pending: dict[UUID, set[str]] = {}
        self._task: asyncio.Task[None] | None = None

    def note(self, user_id: UUID, digest: str) -> None:
        """Note that a content is being read; costs the reader no round trip."""
        today = int(time.time()) // _DAY_SECONDS
        if self._noted.get((user_id, digest)) == today:
            return
        self._noted[user_id, digest] = today
        if len(self._noted) > NOTED_MAX:
            self._noted.popitem(last=False)
        self._pending.setdefault(user_id, set()).add(digest)
        if self._task is None or self._task.done():
            self._task = self._database.apart(self._write_later(), name="accesses")

    async def write(self) -> None:
        """Write what has been noted so far, best effort."""
        pending, self._pending = self._pending, {}
        try:
            for user_id, digests in pending.items():
                async with self._database.transaction(user_id) as connection:
                    await connection.execute(_WRITE, user_id, list(digests))
        except (StudioError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            log.info("accesses.not_written", error=str(error)[:200])

    async def close(self) -> None:
        """Write the rest."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.write()

    async def _write_later(self) -> None:
        await asyncio.sleep(PAUSE_SECONDS)
        await self.write()
