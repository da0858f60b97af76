"""Reading the outbox as a log: a user's events in their order, from a cursor on.

A sequence is given out under the row lock of ``user_state`` that lasts until commit, so what a reader sees has no
gaps that fill later: reading on from the last sequence misses nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from domain.events import Event
from domain.ids import EventId, UserId
from storage.database import Database

_PAGE = """
select user_id, seq, id, type, subject, key, data, time from events
where user_id = $1 and seq > $2 and ($3::text[] = '{}' or type = any($3)) and ($4::text is null or subject = $4)
order by seq limit $5
"""


class Events:
    """A user's events."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(
        self,
        user_id: UserId,
        *,
        after: int,
        limit: int,
        types: Sequence[str] = (),
        subject: str | None = None,
    ) -> list[Event]:
        """Return up to ``limit`` events behind sequence ``after``; ``types`` are short names."""
        rows = await self._database.rows(user_id, _PAGE, user_id, after, list(types), subject, limit)
        return [
            Event(
                user_id=UserId(row["user_id"]),
                seq=row["seq"],
                id=EventId(row["id"]),
                type=row["type"],
                subject=row["subject"],
                key=row["key"],
                data=row["data"],
                time=row["time"],
            )
            for row in rows
        ]

    async def last(self, user_id: UserId) -> int:
        """Return the sequence of the user's newest event, 0 if there is none."""
        row = await self._database.row(user_id, "select event_seq from user_state where user_id = $1", user_id)
        return row["event_seq"] if row else 0
