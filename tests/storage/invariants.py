"""Holding a user's rows against the invariants, as assertions (``storage/invariants.py`` has the queries)."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from storage.invariants import ALWAYS, AT_REST, HISTORY, violations

__all__ = ["ALWAYS", "AT_REST", "HISTORY", "violations"]


async def check(connection: Any, user_id: UUID) -> None:
    """Raise AssertionError unless the invariants that hold after every transaction hold."""
    broken = await violations(connection, user_id, ALWAYS)
    assert not broken, broken


async def check_history(connection: Any, user_id: UUID) -> None:
    """Raise AssertionError unless everything holds that is about what has been made, whoever is awake."""
    broken = await violations(connection, user_id, ALWAYS | HISTORY)
    assert not broken, broken


async def check_at_rest(connection: Any, user_id: UUID) -> None:
    """Raise AssertionError unless everything holds that holds when nothing is under way."""
    broken = await violations(connection, user_id, ALWAYS | HISTORY | AT_REST)
    assert not broken, broken
