"""What is open, of all users: ids and lifecycles only, over the role studio_relay."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from storage.database import Database

PASS_MAX = 500
"""Rows that one reconciliation looks at; the next one sees the rest."""

_IDLE = """
select user_id, id from cascades
where status in ('pending', 'running') and sent_seq >= seq and rung_at < now() - $1::interval
union
select c.user_id, c.id from cascades c
join derivations d on d.user_id = c.user_id and d.owner_cascade_id = c.id
where c.status not in ('pending', 'running') and c.sent_seq >= c.seq and d.unsettled and d.hold is null
  and d.pending_inputs = 0 and d.run_id is null and (d.run_after is null or d.run_after < now())
limit $2
"""
_EXPIRED = """
select user_id, id, coalesce(workflow_id, 'cascade:' || cascade_id) from runs
where status = 'running' and lease_until < now() order by lease_until limit $1
"""
_AHEAD = """
select distinct user_id from cascades
where status in ('pending', 'running') and rung_at > now() + $1::interval limit $2
"""
# Only what is under way is looked at: few rows, by their own indexes.
_RUNNING = "select user_id, id from runs where status = 'running' and lease_until is not null and id = any($1)"
_UNENDED = """
select user_id, id from cascades
where status in ('pending', 'running') and sent_seq >= seq and rung_at < now() - interval '2 seconds' and id = any($1)
"""
_USERS = "select user_id from user_state where $1::uuid is null or user_id > $1 order by user_id limit $2"


class Registry:
    """Reads what reconciliation compares with Temporal, and who there is."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def idle_cascades(self, *, older_than: timedelta) -> list[tuple[UUID, UUID]]:
        """Open cascades, and closed ones that still own claimable work, as (user, cascade); rung long ago."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_IDLE, older_than, PASS_MAX)
        return [(row[0], row[1]) for row in rows]

    async def expired_runs(self) -> list[tuple[UUID, UUID, str]]:
        """Running runs past their lease, as (user, run, id of the workflow that carries them out)."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_EXPIRED, PASS_MAX)
        return [(row[0], row[1], row[2]) for row in rows]

    async def ahead(self, *, by: timedelta) -> list[UUID]:
        """Users of whom something was rung that much later than it is now: the clock was put back since."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_AHEAD, by, PASS_MAX)
        return [row[0] for row in rows]

    async def running(self, run_ids: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
        """Those of these runs that nobody has ended, as (user, run)."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_RUNNING, list(run_ids))
        return [(row[0], row[1]) for row in rows]

    async def unended(self, cascade_ids: Sequence[UUID]) -> list[tuple[UUID, UUID]]:
        """Those of these cascades that are open and whose doorbell was delivered, as (user, cascade)."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_UNENDED, list(cascade_ids))
        return [(row[0], row[1]) for row in rows]

    async def users(self, *, after: UUID | None, limit: int) -> list[UUID]:
        """Up to ``limit`` users in the order of their ids, those beyond ``after``."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(_USERS, after, limit)
        return [row[0] for row in rows]

    async def ring(self, user_id: UUID, cascade_id: UUID) -> None:
        """Ring a cascade's doorbell; the relay does the rest."""
        async with self._database.connection() as connection:
            await connection.execute(
                "update cascades set seq = seq + 1, rung_at = now() where user_id = $1 and id = $2",
                user_id,
                cascade_id,
            )
