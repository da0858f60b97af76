"""Budgets: reading and setting what a user may spend, and what was charged; ``storage/schedule.py`` spends it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg

from domain.budgets import AMOUNT_MAX, Funds, limit_too_low, no_budget
from domain.errors import Fault, Forbidden, Invalid, VersionConflict
from domain.ids import CascadeId, UserId
from storage.database import Database
from storage.idempotency import Keep, unkept

_READ = """
select b.id, b.limit_amount, b.spent, b.reserved, b.managed, b.version, b.updated_at,
  x.waiting, x.needed
from (select $1::uuid as user_id) u left join budgets b on b.user_id = u.user_id
cross join lateral (select count(*)::int as waiting, coalesce(sum(budget_needed), 0)::bigint as needed from derivations
  where user_id = $1 and budget_place is not null and hold = 'budget') x
"""
_HELD = "select array_agg(id) from derivations where user_id = $1 and budget_place is not null and hold = 'budget'"
_GOES_ON = """
select distinct owner_cascade_id from derivations
where user_id = $1 and id = any($2) and hold is distinct from 'budget' order by 1 limit $3
"""
_SET = "select * from set_budget($1, $2, $3, $4, $5, $6, $7, $8)"
_CHARGES = """
select id, run_id, step_id, attempt, cascade_id, derivation_id, provider_id, service, model, prompt_tokens,
  completion_tokens, amount, overrun, created_at
from charges where user_id = $1 and ($2::uuid is null or id < $2) and ($3::uuid is null or cascade_id = $3)
  and ($4::uuid is null or run_id = $4) and ($5::text is null or provider_id = $5)
order by id desc limit $6
"""


RESUMED_SHOWN_MAX = 100
"""Cascades that go on which an answer names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """How a user's budget stands, and how many derivations wait for how much more."""

    id: UUID | None
    funds: Funds
    managed: bool
    version: int
    updated_at: datetime | None
    waiting: int
    needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """A budget after it was set: how many holds that lifted, the cascade that says so, and those that go on."""

    state: BudgetState
    lifted: int
    cascade_id: CascadeId | None
    resumed: Sequence[UUID] = ()


class Budgets:
    """The budget of each user: one, or none."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: UUID) -> BudgetState:
        """Return how a user's budget stands; without one ``funds.limit`` is None."""
        async with self._database.transaction(user_id) as connection:
            return await _read(connection, user_id)

    async def put(
        self,
        user_id: UUID,
        limit: int | None,
        *,
        actor: str,
        cascade_id: CascadeId,
        expected: Collection[int] | None = None,
        manages: bool = False,
        keep: Keep[Raised] = unkept,
    ) -> Raised:
        """Set the limit in micro-dollars, None: no limit. Whoever waits goes on as far as the money goes.

        ``manages``: an admin does so, and the user themself cannot change it any more. Raises Conflict
        ``budget_in_use`` below what is spent and reserved, Forbidden ``budget_managed``, VersionConflict.
        """
        async with self._database.locked(UserId(user_id)) as connection:
            done = await _set(connection, user_id, limit, None, actor, cascade_id, expected, manages=manages)
            await keep(connection, done)
        return done

    async def top_up(
        self, user_id: UUID, amount: int, *, actor: str, cascade_id: CascadeId, keep: Keep[Raised] = unkept
    ) -> Raised:
        """Raise the limit. Raises Conflict ``no_budget``, Forbidden ``budget_managed``."""
        async with self._database.locked(UserId(user_id)) as connection:
            done = await _set(connection, user_id, None, amount, actor, cascade_id, None, manages=False)
            await keep(connection, done)
        return done

    async def charges(
        self,
        user_id: UUID,
        *,
        limit: int,
        before: UUID | None = None,
        cascade_id: UUID | None = None,
        run_id: UUID | None = None,
        provider_id: str | None = None,
    ) -> list[asyncpg.Record]:
        """Return up to ``limit`` charges older than ``before``, newest first."""
        return await self._database.rows(user_id, _CHARGES, user_id, before, cascade_id, run_id, provider_id, limit)


async def _read(connection: Any, user_id: UUID) -> BudgetState:
    row = await connection.fetchrow(_READ, user_id)
    return BudgetState(
        id=row["id"],
        funds=Funds(limit=row["limit_amount"], spent=row["spent"] or 0, reserved=row["reserved"] or 0),
        managed=bool(row["managed"]),
        version=row["version"] or 1,
        updated_at=row["updated_at"],
        waiting=row["waiting"],
        needed=row["needed"],
    )


async def _set(
    connection: Any,
    user_id: UUID,
    limit: int | None,
    add: int | None,
    actor: str,
    cascade_id: CascadeId,
    expected: Collection[int] | None,
    *,
    manages: bool,
) -> Raised:
    versions = None if expected is None else list(expected)
    held = await connection.fetchval(_HELD, user_id)
    row = await connection.fetchrow(_SET, user_id, limit, add, AMOUNT_MAX, versions, cascade_id, actor, manages)
    if row["problem"] is not None:
        raise _refusal(row, limit)
    state = await _read(connection, user_id)
    if not row["lifted"]:
        return Raised(state=state, lifted=0, cascade_id=None)
    on = [found["owner_cascade_id"] for found in await connection.fetch(_GOES_ON, user_id, held, RESUMED_SHOWN_MAX)]
    return Raised(state=state, lifted=row["lifted"], cascade_id=cascade_id, resumed=on)


def _refusal(row: asyncpg.Record, limit: int | None) -> Exception:
    """What a refused change means."""
    funds = Funds(limit=row["limit_amount"], spent=row["spent"], reserved=row["reserved"])
    match row["problem"]:
        case "managed":
            return Forbidden("An admin has set this budget, and only an admin changes it.", code="budget_managed")
        case "version":
            members = {"current_version": row["version"]}
            return VersionConflict(f"The budget is at version {row['version']}.", members=members)
        case "none":
            return no_budget()
        case "in_use":
            return limit_too_low(funds, limit or 0)
    detail = f"The limit would be more than {AMOUNT_MAX} micro-dollars."
    return Invalid(detail, faults=[Fault("/amount", "number_out_of_range", detail)])
