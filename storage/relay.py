"""The relay: what was committed reaches the outside. Events to NATS, doorbells to Temporal, through two ports.

It wakes on NOTIFY and polls as a fallback. It may die anywhere: an event is published again under its own id, which
JetStream recognises, and a doorbell only says "look again". Several relays do no harm; one leads, the others wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

import asyncpg
import structlog

from domain.errors import Unavailable
from storage.database import Database

STARTS_AT_ONCE = 16
_LEADER_LOCK = 7264601  # migrations take neighbouring numbers

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorbell:
    """A cascade to start or to wake."""

    user_id: UUID
    cascade_id: UUID
    seq: int


class Publisher(Protocol):
    """Where events go."""

    async def publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Publish rows of ``events`` and return once each is stored; raises Unavailable otherwise."""
        ...


class Starter(Protocol):
    """Where doorbells go."""

    async def ring(self, doorbell: Doorbell) -> None:
        """Start the cascade's workflow, or wake it; raises Unavailable if neither is possible now."""
        ...


def _nothing(_point: str) -> None:
    """No failpoint."""


class Relay:
    """One relay over the role studio_relay, which sees ids and sequences of all users, never content.

    ``failpoint`` is called with the name of each place where a crash matters; tests kill the process there.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        starter: Starter,
        *,
        poll: timedelta,
        batch: int,
        failpoint: Callable[[str], None] = _nothing,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._starter = starter
        self._batch = batch
        self._poll_seconds = poll.total_seconds()
        self._failpoint = failpoint
        self._bells = (asyncio.Event(), asyncio.Event())

    async def run(self) -> None:
        """Lead whenever it can, until cancelled; a lost database connection means waiting to lead again."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await self._lead(connection)
            except (Unavailable, asyncpg.PostgresError) as error:
                log.warning("relay.lost_database", error=str(error))
            await asyncio.sleep(self._poll_seconds)

    async def _lead(self, connection: Any) -> None:
        """Relay for as long as this connection holds the leader's lock: it is the session's, so it dies with us."""
        if not await connection.fetchval("select pg_try_advisory_lock($1)", _LEADER_LOCK):
            return
        await connection.add_listener("studio_doorbell", self._wake)
        tasks = [
            asyncio.create_task(self._repeat(self._bells[0], self.ring_doorbells)),
            asyncio.create_task(self._repeat(self._bells[1], self.publish_events)),
            asyncio.create_task(self._stay(connection)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.remove_listener("studio_doorbell", self._wake)
                await connection.execute("select pg_advisory_unlock($1)", _LEADER_LOCK)

    async def _stay(self, connection: Any) -> None:
        """Notice that the connection, and with it the lock, is gone."""
        while True:
            await asyncio.sleep(max(self._poll_seconds, 1.0))
            await connection.execute("select 1")

    def _wake(self, *_notification: object) -> None:
        for bell in self._bells:
            bell.set()

    async def _repeat(self, bell: asyncio.Event, work: Callable[[], Any]) -> None:
        while True:
            bell.clear()
            try:
                busy = await work()
            except Unavailable as error:
                log.warning("relay.unavailable", error=error.detail)
                busy = False
                await asyncio.sleep(self._poll_seconds)
            if not busy:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await bell.wait()

    async def publish_events(self) -> bool:
        """Publish what is unpublished, in each user's order; whether there may be more."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "select user_id, seq, id, type, subject, key, data, time from events "
                "where published_at is null order by time, user_id, seq limit $1",
                self._batch,
            )
        if not rows:
            return False
        ordered = sorted(rows, key=lambda row: (row["user_id"], row["seq"]))
        self._failpoint("relay.after_commit_before_publish")
        await self._publisher.publish(ordered)
        self._failpoint("relay.after_publish_before_mark")
        async with self._database.connection() as connection:
            await connection.execute(
                "update events set published_at = now() from unnest($1::uuid[], $2::bigint[]) x(user_id, seq) "
                "where events.user_id = x.user_id and events.seq = x.seq",
                [row["user_id"] for row in rows],
                [row["seq"] for row in rows],
            )
        return len(rows) == self._batch

    async def ring_doorbells(self) -> bool:
        """Start or wake every cascade with an unsent doorbell; whether there may be more."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "select user_id, id, seq from cascades where seq > sent_seq order by rung_at limit $1",
                self._batch,
            )
        if not rows:
            return False
        self._failpoint("relay.after_commit_before_start")
        gate = asyncio.Semaphore(STARTS_AT_ONCE)
        sent = await asyncio.gather(*(self._ring(gate, row) for row in rows))
        self._failpoint("relay.after_start_before_mark")
        # No lock was held meanwhile: a doorbell rung again in between stays unsent.
        async with self._database.connection() as connection:
            await connection.execute(
                "update cascades c set sent_seq = greatest(c.sent_seq, x.seq) "
                # Rows are locked in the order that studio_ring takes, else the two could wait for each other.
                "from (select c.user_id, c.id, u.seq from cascades c join unnest($1::uuid[], $2::uuid[], $3::bigint[]) "
                "  u(user_id, id, seq) on u.user_id = c.user_id and u.id = c.id order by c.id for update of c) x "
                "where c.user_id = x.user_id and c.id = x.id",
                [row["user_id"] for row in sent],
                [row["id"] for row in sent],
                [row["seq"] for row in sent],
            )
        return True

    async def _ring(self, gate: asyncio.Semaphore, row: Any) -> Any:
        async with gate:
            await self._starter.ring(Doorbell(user_id=row["user_id"], cascade_id=row["id"], seq=row["seq"]))
        return row
