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
from storage.rounds import Rounds

STARTS_AT_ONCE = 16
USERS_AT_ONCE = 16
BURST = 16
ROUND_SECONDS = (0.004, 0.005, 0.05)
"""Between rounds of doorbells, events and stops, once a stream of notifications has used up the burst."""
_LEADER_LOCK = 7264601  # migrations take neighbouring numbers

_NOBODY = UUID(int=0)

# The next users with something unpublished, found by hopping through the index, and of each the oldest. What comes
# behind a user's first unpublished event is unpublished as well.
_UNPUBLISHED = """
with recursive waiting (user_id) as (
  (select user_id from outbox where user_id > $1 order by user_id limit 1)
  union all
  select n.user_id from waiting w cross join lateral (
    select user_id from outbox where user_id > w.user_id order by user_id limit 1) n
)
select e.user_id, e.seq, e.id, e.type, e.subject, e.key, e.data, e.time
from (select user_id from waiting limit $2) w
cross join lateral (select first_seq from outbox o where o.user_id = w.user_id order by first_seq limit 1) o
cross join lateral (
  select * from events x where x.user_id = w.user_id and x.seq >= o.first_seq order by x.seq limit $3) e
order by row_number() over (partition by e.user_id order by e.seq), e.user_id limit $3
"""
_PUBLISHED = """
with done as (select user_id, max(seq) as seq from unnest($1::uuid[], $2::bigint[]) x(user_id, seq) group by user_id),
gone as (delete from outbox o using done d where o.user_id = d.user_id and o.last_seq <= d.seq)
update outbox o set first_seq = d.seq + 1 from done d
where o.user_id = d.user_id and o.first_seq <= d.seq and o.last_seq > d.seq
"""
# Doorbells of what people wait for go first, then of each user the oldest, users in turn: nobody's import keeps
# another's edit waiting. Of very many the oldest are looked at.
_UNSENT = """
select user_id, id, seq, interactive from (
  select *, row_number() over (partition by user_id, interactive order by rung_at) as turn from (
    select user_id, id, seq, rung_at, studio_interactive(cause) as interactive from cascades
    where seq > sent_seq order by rung_at limit $1 * 10) u) t
order by interactive desc, turn, rung_at limit $1
"""
_MARK = """
update cascades c set sent_seq = greatest(c.sent_seq, x.seq) from (
  select c.user_id, c.id, u.seq from cascades c
  join unnest($1::uuid[], $2::uuid[], $3::bigint[]) u(user_id, id, seq) on u.user_id = c.user_id and u.id = c.id
  for update of c {}) x
where c.user_id = x.user_id and c.id = x.id returning c.id
"""

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class Doorbell:
    """A cascade to start or to wake."""

    user_id: UUID
    cascade_id: UUID
    seq: int
    interactive: bool = True
    """Whether a person waits for it: it goes before what makes much work at once."""


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

    async def stop(self, workflow_id: str) -> None:
        """Cancel the workflow of a run, if there is one; raises Unavailable if that is not known now."""
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
        self._bells = (asyncio.Event(), asyncio.Event(), asyncio.Event())
        self._rounds = tuple(Rounds(burst=BURST, seconds=seconds) for seconds in ROUND_SECONDS)
        self._last_user = _NOBODY
        self._leads = False

    def wake(self) -> bool:
        """Look now; whether this relay leads, so that no other need be woken."""
        self._wake()
        return self._leads

    async def run(self) -> None:
        """Lead whenever it can, until cancelled; a lost database connection means waiting to lead again."""
        while True:
            try:
                async with self._database.connection() as connection:
                    await self._lead(connection)
            except (Unavailable, asyncpg.PostgresError) as error:
                log.warning("relay.lost_database", error=str(error))
            except Exception:  # a relay that has gone would stop everybody's work in silence
                log.exception("relay.failed")
            await asyncio.sleep(self._poll_seconds)

    async def _lead(self, connection: Any) -> None:
        """Relay for as long as this connection holds the leader's lock: it is the session's, so it dies with us."""
        if not await connection.fetchval("select pg_try_advisory_lock($1)", _LEADER_LOCK):
            return
        tasks: list[asyncio.Task[None]] = []
        self._leads = True
        try:
            await connection.add_listener("studio_doorbell", self._wake)
            tasks = [
                asyncio.create_task(self._repeat(*each))
                for each in zip(
                    self._bells,
                    self._rounds,
                    (self.ring_doorbells, self.publish_events, self.stop_runs),
                    strict=True,
                )
            ]
            tasks.append(asyncio.create_task(self._stay(connection)))
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._leads = False
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

    async def _repeat(self, bell: asyncio.Event, rounds: Rounds, work: Callable[[], Any]) -> None:
        busy = False
        while True:
            if not busy:
                await rounds.next()
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
        """Publish what is unpublished, in each user's order; whether there is likely to be more.

        Of each user the oldest first, and users in turn: nobody waits until a busy one is done.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(_UNPUBLISHED, self._last_user, USERS_AT_ONCE, self._batch)
        users = {row["user_id"] for row in rows}
        before, self._last_user = self._last_user, max(users) if len(users) == USERS_AT_ONCE else _NOBODY
        everything = before == self._last_user == _NOBODY and len(rows) < self._batch
        if not rows:
            return not everything
        self._failpoint("relay.after_commit_before_publish")
        await self._publisher.publish(rows)
        self._failpoint("relay.after_publish_before_mark")
        async with self._database.connection() as connection:
            await connection.execute(_PUBLISHED, [row["user_id"] for row in rows], [row["seq"] for row in rows])
        return not everything

    async def ring_doorbells(self) -> bool:
        """Start or wake every cascade with an unsent doorbell; whether there may be more.

        Raises Unavailable if some could not be rung; the others are marked all the same.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(_UNSENT, self._batch)
        answers = await self._ring_all(rows) if rows else []
        # Whoever is offered a place of a service is rung in the next round: nobody who has rung waits for offers.
        async with self._database.connection() as connection:
            offered = await connection.fetchval("select studio_offer_services()")
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return offered > 0 or len(rows) == self._batch

    async def _ring_all(self, rows: Sequence[Any]) -> list[BaseException | None]:
        """Ring doorbells and mark those that were heard; why the others were not."""
        self._failpoint("relay.after_commit_before_start")
        gate = asyncio.Semaphore(STARTS_AT_ONCE)
        answers = await asyncio.gather(*(self._ring(gate, row) for row in rows), return_exceptions=True)
        self._failpoint("relay.after_start_before_mark")
        await self._mark([row for row, answer in zip(rows, answers, strict=True) if answer is None])
        return answers

    async def stop_runs(self) -> bool:
        """Tell the workflows of cancelled runs to end; whether there may be more.

        Only speed: such a run is fenced off already. Raises Unavailable, and tries again what has not been told.
        """
        async with self._database.connection() as connection:
            rows = await connection.fetch(
                "select user_id, run_id, workflow_id from stops order by created_at limit $1", self._batch
            )
        for row in rows:
            await self._starter.stop(row["workflow_id"])
            async with self._database.connection() as connection:
                await connection.execute(
                    "delete from stops where user_id = $1 and run_id = $2", row["user_id"], row["run_id"]
                )
        return len(rows) == self._batch

    async def _mark(self, rows: Sequence[Any]) -> None:
        """Mark doorbells as sent, up to what was read: one that was rung again in between stays unsent.

        Moves of the schedule lock cascades in an order of their own, so we wait for none while we hold another.
        """
        async with self._database.connection() as connection:
            columns = [[row[name] for row in rows] for name in ("user_id", "id", "seq")]
            marked = {row["id"] for row in await connection.fetch(_MARK.format("skip locked"), *columns)}
            for row in rows:
                if row["id"] not in marked:
                    await connection.execute(_MARK.format(""), [row["user_id"]], [row["id"]], [row["seq"]])

    async def _ring(self, gate: asyncio.Semaphore, row: Any) -> None:
        async with gate:
            doorbell = Doorbell(
                user_id=row["user_id"], cascade_id=row["id"], seq=row["seq"], interactive=row["interactive"]
            )
            await self._starter.ring(doorbell)
