"""Causes that are not edits: a fact other than a delta that a cascade follows up (CASCADES, rule 9).

The row is written in the transaction of the fact; the worker's plan reads it. An unplanned cascade of the same
cause takes up what follows (rule 10): its row lock makes plan wait for us, or us for plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from domain.ids import CascadeId, UserId, new_id

_UNPLANNED = """
select id from cascades where user_id = $1 and cause = $2 and target_id is not distinct from $3
  and instance_id is not distinct from $4 and options = $5 and status = 'pending' and planned_at is null
  -- What happens under a plan has a cascade of its own: another one would do more than was planned.
  and coalesce(current_setting('studio.plan_id', true), '') = ''
order by created_at desc limit 1 for update
"""


async def add_cause(
    connection: Any,
    user_id: UserId,
    *,
    cause: str,
    target_id: UUID | None,
    instance_id: UUID | None = None,
    actor: str,
    label: str,
    options: Mapping[str, object] | None = None,
) -> CascadeId:
    """Record that something happened to ``target_id`` or an instance; returns the cascade that follows it up.

    ``options`` say more of what is wanted. Runs inside the caller's transaction. An unplanned cascade of the same cause
    is rung and returned instead.
    """
    found = await connection.fetchval(_UNPLANNED, user_id, cause, target_id, instance_id, dict(options or {}))
    if found is not None:
        await connection.execute(
            "update cascades set seq = seq + 1, rung_at = now(), caused_at = now() where user_id = $1 and id = $2",
            user_id, found,
        )  # fmt: skip
        return CascadeId(found)
    cascade = CascadeId(new_id())
    await connection.execute(
        "insert into cascades (user_id, id, cause, target_id, instance_id, actor, label, options)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8)",
        user_id, cascade, cause, target_id, instance_id, actor, label, dict(options or {}),
    )  # fmt: skip
    return cascade


def event(kind: str, subject: str, key: object, data: dict[str, object]) -> dict[str, object]:
    """Return one event as ``studio_emit`` takes it; ids in ``data`` may be UUIDs."""
    plain = {name: str(value) if isinstance(value, UUID) else value for name, value in data.items()}
    return {"type": kind, "subject": subject, "key": str(key), "data": plain}


async def emit(connection: Any, user_id: UserId, *events: dict[str, object]) -> None:
    """Append events in the caller's transaction: the last thing it does (lock order, CASCADES rule 7)."""
    await connection.execute("select studio_emit($1, $2)", user_id, list(events))
