"""Moves of the schedule without a worker, so that runs and cascades have something to show."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from storage.contents import Contents
from storage.database import Database
from storage.schedule import PostgresSchedule

WINDOW = 100


def schedule_of(database: Database, contents: Contents) -> PostgresSchedule:
    """The real schedule over the real database."""
    return PostgresSchedule(database, contents, lease=timedelta(minutes=5), depth_max=64, nodes_max=1000)


async def plan_all(database: Database, schedule: PostgresSchedule, user_id: UUID) -> list[UUID]:
    """Plan every cascade of a user that is not planned, oldest first."""
    rows = await database.rows(
        user_id, "select id from cascades where user_id = $1 and planned_at is null order by created_at, id", user_id
    )
    for row in rows:
        await schedule.plan(user_id, row["id"])
    return [row["id"] for row in rows]


async def claim(schedule: PostgresSchedule, user_id: UUID, cascade_id: Any) -> list[UUID]:
    """Claim what is ready of one cascade; returns its running runs."""
    found = await schedule.claim(user_id, UUID(str(cascade_id)), window=WINDOW)
    return [run.run_id for run in found.runs]
