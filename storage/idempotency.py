"""Answers to requests with an ``Idempotency-Key``, kept for a day, so that a retry gets the same one.

A row is written before the work and completed after it. A row left incomplete by a crash is taken over after
``LEASE_SECONDS``: the work is then done again with the same derived ids, and finds what it did the first time.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from storage.database import Database

LEASE_SECONDS = 5
"""How long an incomplete answer counts as being worked on."""
KEPT_HOURS = 24
_CLEAN_ONE_IN = 64
_CLEAN_ROWS_MAX = 1_000

_BEGIN = f"""
insert into idempotency_keys as k (user_id, route, key, fingerprint) values ($1, $2, $3, $4)
on conflict (user_id, route, key) do update
  set fingerprint = excluded.fingerprint, created_at = now(), status = null, headers = null, body = null,
      completed_at = null
  where k.created_at < now() - interval '{KEPT_HOURS} hours'
     or (k.completed_at is null and k.fingerprint = excluded.fingerprint
         and k.created_at < now() - interval '{LEASE_SECONDS} seconds')
returning true
"""  # noqa: S608 - two constants of this module

_FIND = """
select fingerprint, status, headers, body, created_at, completed_at from idempotency_keys
where user_id = $1 and route = $2 and key = $3
"""

_CLEAN = f"""
delete from idempotency_keys where user_id = $1 and (route, key) in
  (select route, key from idempotency_keys
   where user_id = $1 and created_at < now() - interval '{KEPT_HOURS} hours' limit {_CLEAN_ROWS_MAX})
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Earlier:
    """A request that used the key before; ``status`` is None while it is being worked on."""

    fingerprint: str
    first_used_at: datetime
    status: int | None
    headers: Sequence[tuple[str, str]]
    body: bytes


class IdempotencyKeys:
    """The keys of a user's requests, by route."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, user_id: UUID, route: str, key: str, fingerprint: str) -> Earlier | None:
        """Take the key; None means that the work is ours to do, else what became of the earlier request."""
        async with self._database.transaction(user_id) as connection:
            if zlib.crc32(key.encode()) % _CLEAN_ONE_IN == 0:
                await connection.execute(_CLEAN, user_id)
            if await connection.fetchval(_BEGIN, user_id, route, key, fingerprint):
                return None
            row = await connection.fetchrow(_FIND, user_id, route, key)
        if row is None:  # released between the two statements
            return await self.begin(user_id, route, key, fingerprint)
        return Earlier(
            fingerprint=row["fingerprint"],
            first_used_at=row["created_at"],
            status=row["status"],
            headers=[(name, value) for name, value in row["headers"] or []],
            body=row["body"] or b"",
        )

    async def complete(
        self,
        user_id: UUID,
        route: str,
        key: str,
        *,
        status: int,
        headers: Sequence[tuple[str, str]],
        body: bytes,
    ) -> None:
        """Keep the answer."""
        async with self._database.transaction(user_id) as connection:
            await connection.execute(
                "update idempotency_keys set status = $4, headers = $5, body = $6, completed_at = now()"
                " where user_id = $1 and route = $2 and key = $3",
                user_id, route, key, status, [list(pair) for pair in headers], body,
            )  # fmt: skip

    async def release(self, user_id: UUID, route: str, key: str) -> None:
        """Forget a key whose request was refused: nothing was written, so it may be used again."""
        async with self._database.transaction(user_id) as connection:
            await connection.execute(
                "delete from idempotency_keys"
                " where user_id = $1 and route = $2 and key = $3 and completed_at is null",
                user_id, route, key,
            )  # fmt: skip
