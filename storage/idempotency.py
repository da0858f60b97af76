"""Answers to requests with an ``Idempotency-Key``, kept for a day, so that a retry gets the same one.

A row is written before the work. What the work did is recorded under the key in the very transaction that does it:
the whole answer (``keep``), or what is needed to answer (``record``). Both hold the row's ``holder`` against the
attempt, so that of a slow attempt and the one that took its key over only one can commit. Blob writes have unique
derived ids instead, and are completed afterwards (``complete``).

A row left incomplete by a crash is taken over once its lease is over; a living attempt renews it.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from domain.errors import Conflict
from domain.idempotency import Kept, KeyUse, Standing
from storage.database import Database

LEASE_SECONDS = 5
"""How long an incomplete answer counts as being worked on without a sign of life."""
KEPT_HOURS = 24
RETRY_AFTER_SECONDS = 1
_CLEAN_ONE_IN = 64
_CLEAN_ROWS_MAX = 1_000

_OLD = f"k.created_at < now() - interval '{KEPT_HOURS} hours'"
_BEGIN = f"""
insert into idempotency_keys as k (user_id, principal, route, key, fingerprint, holder)
values ($1, $2, $3, $4, $5, $6)
on conflict (user_id, principal, route, key) do update
  set fingerprint = excluded.fingerprint, holder = excluded.holder, leased_at = now(), status = null, headers = null,
      body = null, completed_at = null, outcome = case when {_OLD} then null else k.outcome end,
      created_at = case when {_OLD} then now() else k.created_at end
  where (k.completed_at is not null or k.leased_at < now() - interval '{LEASE_SECONDS} seconds')
    and ({_OLD} or (k.completed_at is null and k.fingerprint = excluded.fingerprint))
returning fingerprint, created_at, outcome
"""  # noqa: S608 - constants of this module

_FIND = """
select fingerprint, status, headers, body, created_at, outcome from idempotency_keys
where user_id = $1 and principal = $2 and route = $3 and key = $4
"""

# Two cleaners must not wait for each other's rows: what another one is deleting is left to it.
_CLEAN = f"""
delete from idempotency_keys k using (
  select principal, route, key from idempotency_keys
  where user_id = $1 and created_at < now() - interval '{KEPT_HOURS} hours'
    and (completed_at is not null or leased_at < now() - interval '{LEASE_SECONDS} seconds')
  limit {_CLEAN_ROWS_MAX} for update skip locked) old
where k.user_id = $1 and (k.principal, k.route, k.key) = (old.principal, old.route, old.key)
"""  # noqa: S608

_OURS = "where user_id = $1 and principal = $2 and route = $3 and key = $4 and holder = $5 and completed_at is null"
_COMPLETE = f"update idempotency_keys set status = $6, headers = $7, body = $8, completed_at = now() {_OURS}"  # noqa: S608
_RECORD = f"update idempotency_keys set outcome = $6 {_OURS}"  # noqa: S608
_FORGET = f"delete from idempotency_keys {_OURS} and outcome is null"  # noqa: S608
_LET_GO = f"update idempotency_keys set leased_at = '-infinity' {_OURS}"  # noqa: S608
# A lease that is over stays over: renewing it would race with whoever is about to take over.
_RENEW = f"""
update idempotency_keys set leased_at = now() {_OURS} and leased_at > now() - interval '{LEASE_SECONDS} seconds'
"""  # noqa: S608


T = TypeVar("T")
Keep = Callable[[Any, T], Awaitable[None]]
"""What a store calls with its connection and with what it did, as the last thing of its transaction."""


async def unkept(_connection: Any, _result: object) -> None:
    """Record nothing: the write has no key."""


class IdempotencyKeys:
    """The keys of users' requests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def begin(self, use: KeyUse) -> Standing:
        """Take the key for this attempt, unless somebody has it: ``Standing.ours`` tells."""
        async with self._database.transaction(use.user_id) as connection:
            if zlib.crc32(use.key.encode()) % _CLEAN_ONE_IN == 0:
                await connection.execute(_CLEAN, use.user_id)
            name = (use.user_id, use.principal, use.route, use.key)
            taken = await connection.fetchrow(_BEGIN, *name, use.fingerprint, use.holder)
            row = taken or await connection.fetchrow(_FIND, *name)
        if row is None:  # released between the two statements
            return await self.begin(use)
        return Standing(
            ours=taken is not None,
            fingerprint=row["fingerprint"],
            first_used_at=row["created_at"],
            kept=_kept(row) if taken is None and row["status"] is not None else None,
            outcome=row["outcome"],
        )

    async def forget_old(self, user_id: UUID) -> int:
        """Delete keys past their time; return how many. For housekeeping: ``begin`` does so only now and then."""
        done = 0
        while True:
            async with self._database.transaction(user_id) as connection:
                gone = int(str(await connection.execute(_CLEAN, user_id)).split()[-1])
            done += gone
            if gone < _CLEAN_ROWS_MAX:
                return done

    async def keep(self, connection: Any, use: KeyUse, answer: Kept) -> None:
        """Record the answer in the caller's transaction, which does what it tells of.

        Raises Conflict ``idempotency_key_in_flight`` if another attempt has taken the key over: the caller's
        transaction then ends without effect.
        """
        headers = [list(pair) for pair in answer.headers]
        done = await connection.execute(_COMPLETE, *_ours(use), answer.status, headers, answer.body)
        _require_ours(done)

    async def record(self, connection: Any, use: KeyUse, outcome: Mapping[str, Any]) -> None:
        """Record in the caller's transaction what a later attempt needs to answer. Raises as ``keep`` does."""
        _require_ours(await connection.execute(_RECORD, *_ours(use), dict(outcome)))

    async def complete(self, use: KeyUse, answer: Kept) -> None:
        """Keep the answer of work that is committed already; an attempt that was overtaken keeps nothing."""
        headers = [list(pair) for pair in answer.headers]
        async with self._database.transaction(use.user_id) as connection:
            await connection.execute(_COMPLETE, *_ours(use), answer.status, headers, answer.body)

    async def forget(self, use: KeyUse) -> None:
        """Forget a key whose request was refused: nothing was written, so it may be used for another request."""
        async with self._database.transaction(use.user_id) as connection:
            await connection.execute(_FORGET, *_ours(use))
            await connection.execute(_LET_GO, *_ours(use))

    async def let_go(self, use: KeyUse) -> None:
        """End the lease of an attempt that failed: nobody knows what it wrote, the next one finds out."""
        async with self._database.transaction(use.user_id) as connection:
            await connection.execute(_LET_GO, *_ours(use))

    async def renew(self, use: KeyUse) -> bool:
        """Say that this attempt lives; False if its lease was over before, or its key was taken over."""
        async with self._database.transaction(use.user_id) as connection:
            return bool(await connection.execute(_RENEW, *_ours(use)) == "UPDATE 1")


def _ours(use: KeyUse) -> tuple[UUID, UUID, str, str, UUID]:
    return use.user_id, use.principal, use.route, use.key, use.holder


def _require_ours(done: str) -> None:
    if done != "UPDATE 1":
        detail = "Another attempt at this request has taken over."
        raise Conflict(detail, code="idempotency_key_in_flight", members={"retry_after": RETRY_AFTER_SECONDS})


def _kept(row: Any) -> Kept:
    headers = [(name, value) for name, value in row["headers"] or []]
    return Kept(status=row["status"], headers=headers, body=row["body"] or b"")
