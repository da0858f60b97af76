"""What people decide about work that is under way: ``60_controls.sql``, and who waits for a decision."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from domain.controls import Decided
from domain.errors import Conflict, Fault, NotFound
from domain.ids import CascadeId, RunId, UserId
from domain.runs import RunStatus
from domain.steps import approval
from storage.contents import Contents
from storage.database import Database
from storage.idempotency import Keep, unkept

_APPROVALS = """
select r.id as run_id, r.label, r.provider_id, r.cascade_id, r.derivation_id, d.anchor_kind, d.anchor_id, r.inputs,
  d.hold_detail->>'step_id' as step_id, d.hold_detail->>'prompt' as prompt,
  (d.hold_detail->>'since')::timestamptz as since, array(select o.blob_id from derivation_outputs o
    where o.user_id = r.user_id and o.derivation_id = r.derivation_id order by o.slot) as blob_ids
from runs r cross join lateral (select * from derivations where user_id = r.user_id and id = r.derivation_id offset 0) d
where r.user_id = $1 and r.status = 'parked' and ($2::uuid is null or r.id > $2) order by r.id limit $3
"""
_ASKED = """
select step_id from run_steps where user_id = $1 and run_id = $2 and type = 'approval'
order by status = 'waiting' desc, position desc limit 1
"""
_STATUS = "select status from runs where user_id = $1 and id = $2"
_OWNER = """
select coalesce(d.owner_cascade_id, r.cascade_id) from runs r
join derivations d on d.user_id = r.user_id and d.id = r.derivation_id where r.user_id = $1 and r.id = $2
"""


Act = Callable[[Any], Awaitable[str]]


class Controls:
    """Approve, reject, cancel, retry: each one transaction under the user lock."""

    def __init__(
        self, database: Database, contents: Contents, *, lease: timedelta, depth_max: int, nodes_max: int
    ) -> None:
        self._database = database
        self._contents = contents
        self._lease = lease
        self._bounds = (depth_max, nodes_max)

    async def approvals(self, user_id: UserId, *, limit: int, after: UUID | None) -> list[asyncpg.Record]:
        """Return up to ``limit`` runs that wait for a person, in the order in which they began, beyond ``after``."""
        return await self._database.rows(user_id, _APPROVALS, user_id, after, limit)

    async def approve(
        self,
        user_id: UserId,
        run_id: RunId,
        *,
        step_id: str | None,
        comment: str | None,
        actor: str,
        keep: Keep[Decided] = unkept,
    ) -> Decided:
        """Let a parked run go on; ``step_id`` is the step that was shown, for a run may ask more than once.

        Raises NotFound, Conflict ``not_waiting``.
        """
        step = step_id or await self._asked(user_id, run_id)
        entries = approval(step, by=actor, comment=comment, at=datetime.now(UTC).isoformat())
        placed = await self._contents.put(user_id, orjson.dumps(entries))

        async def act(connection: Any) -> str:
            return str(
                await connection.fetchval(
                    "select approve_run($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                    user_id, run_id, step, actor, self._lease, placed.hash, placed.size, placed.stored_size,
                    placed.codec, placed.body, placed.location, comment,
                )
            )  # fmt: skip

        return await self._decide(user_id, run_id, act, "not_waiting", keep, step=step)

    async def reject(
        self,
        user_id: UserId,
        run_id: RunId,
        *,
        step_id: str | None,
        comment: str,
        actor: str,
        keep: Keep[Decided] = unkept,
    ) -> Decided:
        """End a parked run whose output is not wanted. Raises NotFound, Conflict ``not_waiting``."""
        step = step_id or await self._asked(user_id, run_id)

        async def act(connection: Any) -> str:
            query = "select reject_run($1, $2, $3, $4, $5)"
            return str(await connection.fetchval(query, user_id, run_id, step, comment, actor))

        return await self._decide(user_id, run_id, act, "not_waiting", keep, step=step)

    async def cancel_run(self, user_id: UserId, run_id: RunId, *, actor: str, keep: Keep[Decided] = unkept) -> Decided:
        """End a run. Raises NotFound, Conflict ``not_running``."""

        async def act(connection: Any) -> str:
            return str(await connection.fetchval("select cancel_run($1, $2, $3)", user_id, run_id, actor))

        return await self._decide(user_id, run_id, act, "not_running", keep)

    async def retry_run(self, user_id: UserId, run_id: RunId, *, actor: str, keep: Keep[Decided] = unkept) -> Decided:
        """Let what a run failed at, or was cancelled at, run again. Raises NotFound, Conflict ``nothing_to_retry``."""

        async def act(connection: Any) -> str:
            return str(await connection.fetchval("select retry_run($1, $2, $3)", user_id, run_id, actor))

        return await self._decide(user_id, run_id, act, "nothing_to_retry", keep)

    async def cancel_cascade(
        self, user_id: UserId, cascade_id: CascadeId, *, actor: str, keep: Keep[Decided] = unkept
    ) -> Decided:
        """End a cascade and hold what it owns. Raises NotFound, Conflict ``not_running``."""
        async with self._database.locked(user_id) as connection:
            outcome = await connection.fetchval(
                "select cancel_cascade($1, $2, $3, $4, $5)", user_id, cascade_id, actor, *self._bounds
            )
            _require(outcome, "cascade", "not_running", "Nothing of this cascade runs, or is about to.")
            decided = Decided(outcome=outcome, cascade_id=cascade_id)
            await keep(connection, decided)
        return decided

    async def retry_cascade(
        self, user_id: UserId, cascade_id: CascadeId, *, actor: str, keep: Keep[Decided] = unkept
    ) -> Decided:
        """Let everything of a cascade that failed or was cancelled run again.

        Raises NotFound, Conflict ``nothing_to_retry``.
        """
        async with self._database.locked(user_id) as connection:
            outcome = await connection.fetchval("select retry_cascade($1, $2, $3)", user_id, cascade_id, actor)
            _require(outcome, "cascade", "nothing_to_retry", "Nothing of this cascade has failed or is cancelled.")
            decided = Decided(outcome=outcome, cascade_id=cascade_id)
            await keep(connection, decided)
        return decided

    async def _decide(
        self, user_id: UserId, run_id: RunId, act: Act, code: str, keep: Keep[Decided], *, step: str | None = None
    ) -> Decided:
        async with self._database.locked(user_id) as connection:
            outcome = await act(connection)
            status = await connection.fetchval(_STATUS, user_id, run_id)
            if outcome == "refused" and status == RunStatus.PARKED and step is not None:
                raise _asks_elsewhere(step, await connection.fetchval(_ASKED, user_id, run_id))
            _require(outcome, "run", code, f"The run is {status}.")
            decided = Decided(outcome=outcome, cascade_id=CascadeId(await connection.fetchval(_OWNER, user_id, run_id)))
            await keep(connection, decided)
        return decided

    async def _asked(self, user_id: UserId, run_id: RunId) -> str:
        """The step that a run waits at, else the one that was decided last."""
        row = await self._database.row(user_id, _ASKED, user_id, run_id)
        return str(row["step_id"]) if row else ""


def _asks_elsewhere(step: str, asked: str) -> Conflict:
    detail = f"The run waits at its step {asked}, not at {step}: name {asked}, or no step."
    return Conflict(detail, code="not_waiting", faults=[Fault("/step_id", "not_waiting", detail)])


def _require(outcome: str, noun: str, code: str, detail: str) -> None:
    if outcome == "unknown":
        raise NotFound(f"There is no such {noun}.")
    if outcome == "refused":
        raise Conflict(detail, code=code)
