"""Plans in PostgreSQL: a write is rehearsed and undone, or made and held against what its plan said.

Both are stages (``Database.staged``) around the very code that writes, and use the same functions
(``storage/functions/32_previews.sql``): the cascades of the write are planned in its own transaction, under the user
lock, and read. A rehearsal then goes back to its savepoint, reads how things are, and rolls back. A bound write
commits if the ETag is that of its plan.

While a write is rehearsed, or made under a plan, the user's other writes and moves wait: ``cascades.plan_timeout``
bounds how long, from the lock to the end of the transaction, however many statements that takes.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from domain.errors import Conflict, Gone, NotFound, Unavailable
from domain.estimates import Sample, sample_of
from domain.ids import new_id
from domain.plans import Forecast, Node, Plan, Root, moved, target_of
from domain.runs import Hold
from storage.database import Database
from storage.idempotency import Keep, unkept

KEPT_DAYS = 1
"""How long after it expired a plan that nothing came of is kept."""

_STAGE = "select studio_stage($1, $2, $3, $4)"
_MADE_OF = "select studio_made_of($1, $2)"
_PLAN = "select * from studio_plan_staged($1, $2, $3, $4)"
_ROOTS = "select * from studio_roots($1, $2)"
_PRINTS = "select id, print, run_after from studio_prints($1, $2)"
_OUTLOOK = "select * from studio_outlook($1, $2)"
_STATES = """
select d.id, d.unsettled, d.hold, d.hold_detail->>'code' as hold_code, d.run_id, d.attempt, d.pending_inputs
from unnest($2::uuid[]) x(id)
cross join lateral (select * from derivations where user_id = $1 and id = x.id offset 0) d
"""
_APPROVALS = """
select distinct digest from definitions where digest = any($1) and position('"type":"approval"' in ir) > 0
"""
_UNPLANNED = "select count(*)::int from cascades where user_id = $1 and planned_at is null"
_INSERT = """
insert into plans (user_id, id, path, etag, roots, prints, outputs, body, blob_id, expires_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) returning created_at
"""
_CLEAN = "delete from plans where user_id = $1 and used_at is null and expires_at < $2"
_FIND = "select * from plans where user_id = $1 and id = $2"
_USED = "update plans set used_at = now(), used_key = $3, cascade_id = $4 where user_id = $1 and id = $2"
_ACTUAL = """
select c.id, c.status, c.cut_off, c.touched, c.created_at, c.ended_at,
  (select count(*)::int from runs r where r.user_id = $1 and r.cascade_id = c.id) as runs,
  (select count(*)::int from runs r where r.user_id = $1 and r.cascade_id = c.id and r.status = 'failed') as failed,
  (select coalesce(sum((r.usage->>'total_tokens')::numeric), 0)::float8 from runs r
    where r.user_id = $1 and r.cascade_id = c.id) as tokens,
  (select coalesce(sum(x.amount), 0) from charges x where x.user_id = $1 and x.cascade_id = c.id)::float8 as cost,
  array(select distinct r.derivation_id from runs r where r.user_id = $1 and r.cascade_id = c.id) as ran
from cascades c where c.user_id = $1 and c.id = any($2)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far planning goes, how long it may take, and for how long a plan holds."""

    depth_max: int
    nodes_max: int
    window: int
    timeout: timedelta
    expires: timedelta
    history_runs: int
    nodes_shown: int

    @property
    def timeout_ms(self) -> int:
        """What PostgreSQL holds a single statement to, should nobody be left who looks at the clock."""
        return max(round(self.timeout.total_seconds() * 1000), 1)


class _Clocked:
    """What both stages have: a clock for the time that a transaction holds the user's lock."""

    def __init__(self, user_id: UUID, bounds: Bounds) -> None:
        self.user_id = user_id
        self.clock = asyncio.timeout(None)
        self._bounds = bounds

    async def _locked(self, connection: Any, plan_id: UUID, outputs: Sequence[UUID]) -> None:
        """Take the lock and mark the transaction; from here on the time counts. Waiting for the lock does not."""
        await connection.execute(_STAGE, self.user_id, plan_id, outputs, self._bounds.timeout_ms)
        self.clock.reschedule(asyncio.get_running_loop().time() + self._bounds.timeout.total_seconds())

    async def _done(self) -> None:
        """Stop the clock before the transaction ends: a commit is not interrupted."""
        if self.clock.expired():
            await asyncio.sleep(0)  # here the cancellation arrives that is on its way, and not in the commit
        self.clock.reschedule(None)


class Rehearsal(_Clocked):
    """The stage of a write that is undone (``storage.database.Stage``)."""

    keeps = False

    def __init__(self, user_id: UUID, bounds: Bounds, *, along: UUID | None) -> None:
        super().__init__(user_id, bounds)
        self.plan_id = new_id()
        self.blob_id = new_id()
        self.forecast = Forecast()
        self.caused = False
        """Whether the write set anything in motion: then whatever its route answers is beside the point."""
        self._along = along

    async def before(self, connection: Any) -> None:
        """Lock, mark the transaction, and remember where to go back to."""
        outputs: list[UUID] = []
        if self._along is not None:
            await connection.execute("select studio_enter($1)", self.user_id)
            outputs = await connection.fetchval(_MADE_OF, self.user_id, self._along)
        await self._locked(connection, self.plan_id, outputs)
        await connection.execute("savepoint rehearsed")

    async def after(self, connection: Any) -> None:
        """Plan what was caused, read it, go back, and read how things are."""
        await self._look(connection)
        await self._done()

    async def _look(self, connection: Any) -> None:
        caused, found = await _planned(connection, self.user_id, self.plan_id, self._bounds)
        if not caused:
            return
        await connection.execute("select studio_cut_staged($1, $2)", self.user_id, caused)
        ids = [UUID(node) for node in found.prints]
        rows = await connection.fetch(_OUTLOOK, self.user_id, ids)
        approvals = await connection.fetch(_APPROVALS, list({row["definition_digest"] for row in rows}))
        await connection.execute("rollback to savepoint rehearsed")
        known = {row["id"]: _known(row) for row in await connection.fetch(_STATES, self.user_id, ids)}
        digests = {row["digest"] for row in approvals}
        found.nodes = [
            node_of(row, approvals=digests, known=known.get(row["id"]), due=found.due[str(row["id"])]) for row in rows
        ]
        found.history = await _history(connection, self.user_id, rows, self._bounds.history_runs)
        found.unplanned = await connection.fetchval(_UNPLANNED, self.user_id)
        self.forecast, self.caused = found, True


class Binding(_Clocked):
    """The stage of a write that names a plan (``storage.database.Stage``)."""

    keeps = True

    def __init__(self, user_id: UUID, plan: Plan, bounds: Bounds, *, key: str | None) -> None:
        super().__init__(user_id, bounds)
        self.plan = plan
        self.used = False
        self._key = key

    async def before(self, connection: Any) -> None:
        """Lock, and mark the transaction."""
        await self._locked(connection, self.plan.id, self.plan.outputs)

    async def after(self, connection: Any) -> None:
        """Plan what was caused, and let it be if it is what the plan said."""
        caused, found = await _planned(connection, self.user_id, self.plan.id, self._bounds)
        if caused:
            await self._use(connection, found, caused[0])
        await self._done()

    async def finish(self, database: Database) -> None:
        """End a write that has caused nothing: that, too, must be what the plan said."""
        if not self.used:
            async with database.transaction(self.user_id) as connection:
                await self._use(connection, Forecast(), None)

    async def _use(self, connection: Any, found: Forecast, cascade_id: UUID | None) -> None:
        plan = await _find(connection, self.user_id, self.plan.id, lock=True)
        if plan.status != "open":
            raise _closed(plan)
        if found.etag != plan.etag:
            raise moved(plan, found)
        await connection.execute(_USED, self.user_id, plan.id, self._key, cascade_id)
        self.used = True


_REHEARSAL: ContextVar[Rehearsal | None] = ContextVar("rehearsal", default=None)


class Plans:
    """A user's plans."""

    def __init__(self, database: Database, bounds: Bounds) -> None:
        self._database = database
        self.bounds = bounds

    @property
    def rehearsal(self) -> Rehearsal | None:
        """The rehearsal that is going on here, None in earnest."""
        return _REHEARSAL.get()

    @asynccontextmanager
    async def rehearsed(self, user_id: UUID, *, along: UUID | None = None) -> AsyncIterator[Rehearsal]:
        """Undo whatever is written in this block; ``forecast`` of the rehearsal says what it would set in motion.

        ``along`` is a blob that the block deletes or restores. Raises Unavailable ``plan_too_slow``.
        """
        rehearsal = Rehearsal(user_id, self.bounds, along=along)
        token = _REHEARSAL.set(rehearsal)
        try:
            async with _in_time(rehearsal, self.bounds), self._database.staged(rehearsal):
                yield rehearsal
        finally:
            _REHEARSAL.reset(token)

    @asynccontextmanager
    async def bound(self, user_id: UUID, plan: Plan, *, key: str | None) -> AsyncIterator[None]:
        """Let what is written in this block stand only if it sets in motion what the plan says; a plan is used once.

        Raises Conflict ``plan_moved`` with the difference, ``plan_used``; Gone ``plan_expired``; Unavailable.
        """
        if plan.status != "open":
            raise _closed(plan)
        binding = Binding(user_id, plan, self.bounds, key=key)
        async with _in_time(binding, self.bounds):
            async with self._database.staged(binding):
                yield
            await binding.finish(self._database)

    async def add(
        self,
        user_id: UUID,
        rehearsal: Rehearsal,
        *,
        path: str,
        body: Callable[[datetime, datetime], Mapping[str, Any]],
        keep: Keep[Plan] = unkept,
    ) -> Plan:
        """Keep a plan until it expires; what is old and unused goes."""
        found, created = rehearsal.forecast, datetime.now(UTC)
        expires = created + self.bounds.expires
        outputs = [UUID(output["blob_id"]) for node in found.nodes for output in node.outputs]
        roots = [root.to_json() for root in found.roots]
        shown = dict(body(created, expires))
        async with self._database.transaction(user_id) as connection:
            await connection.execute(_CLEAN, user_id, created - timedelta(days=KEPT_DAYS))
            await connection.execute(
                _INSERT, user_id, rehearsal.plan_id, target_of(path), found.etag, roots, dict(found.prints), outputs,
                shown, rehearsal.blob_id, expires,
            )  # fmt: skip
            stored = await _find(connection, user_id, rehearsal.plan_id)
            await keep(connection, stored)
        return stored

    async def get(self, user_id: UUID, plan_id: UUID) -> Plan:
        """Return a plan. Raises NotFound."""
        async with self._database.transaction(user_id) as connection:
            return await _find(connection, user_id, plan_id)

    async def actual(self, user_id: UUID, cascade_ids: Sequence[UUID]) -> dict[UUID, Mapping[str, Any]]:
        """Return what became of cascades: runs, tokens, money, and which derivations ran."""
        rows = await self._database.rows(user_id, _ACTUAL, user_id, list(cascade_ids))
        return {row["id"]: dict(row) for row in rows}


@asynccontextmanager
async def _in_time(stage: _Clocked, bounds: Bounds) -> AsyncIterator[None]:
    """End the block when a transaction of its stage takes too long. Raises Unavailable ``plan_too_slow``."""
    try:
        async with stage.clock:
            yield
    except (asyncpg.QueryCanceledError, TimeoutError) as error:
        if isinstance(error, TimeoutError) and not stage.clock.expired():
            raise
        raise _too_slow(bounds) from error


async def _planned(connection: Any, user_id: UUID, plan_id: UUID, bounds: Bounds) -> tuple[list[UUID], Forecast]:
    row = await connection.fetchrow(_PLAN, user_id, plan_id, bounds.depth_max, bounds.nodes_max)
    if not row["cascades"]:
        return [], Forecast()
    caused: list[UUID] = row["cascades"]
    roots = [Root(**dict(found)) for found in await connection.fetch(_ROOTS, user_id, caused)]
    rows = await connection.fetch(_PRINTS, user_id, caused)
    prints, due = ({str(found["id"]): found[name] for found in rows} for name in ("print", "run_after"))
    return caused, Forecast(roots=roots, prints=prints, due=due, problem=row["problem"])


async def _history(connection: Any, user_id: UUID, rows: Sequence[Any], runs_max: int) -> dict[str, Sequence[Sample]]:
    slugs = list({row["provider_id"] for row in rows})
    found: dict[str, list[Sample]] = defaultdict(list)
    for row in await connection.fetch("select * from studio_run_history($1, $2, $3)", user_id, slugs, runs_max):
        found[row["provider_id"]].append(sample_of(row))
    return dict(found)


async def _find(connection: Any, user_id: UUID, plan_id: UUID, *, lock: bool = False) -> Plan:
    row = await connection.fetchrow(f"{_FIND} for update" if lock else _FIND, user_id, plan_id)
    if row is None:
        raise NotFound("There is no such plan.")
    return Plan(**{column.name: row[column.name] for column in fields(Plan)})


def _known(row: Any) -> dict[str, Any]:
    return {name: row[name] for name in ("unsettled", "hold", "hold_code", "run_id", "attempt", "pending_inputs")}


def node_of(
    row: Any, *, approvals: Collection[str], known: Mapping[str, Any] | None, due: datetime | None = None
) -> Node:
    """Return a row of ``studio_outlook`` as a node; ``known`` is the derivation's row of before."""
    names = {column.name for column in fields(Node)} & set(row.keys())
    hold = None if row["hold"] is None else Hold(row["hold"])
    values = {name: row[name] for name in names} | {"hold": hold}
    return Node(**values, approval=row["definition_digest"] in approvals, known=known, run_after=due)


def _closed(plan: Plan) -> Conflict | Gone:
    if plan.status == "used":
        detail = f"The plan was used at {plan.used_at:%Y-%m-%dT%H:%M:%SZ}: it counts once."
        return Conflict(detail, code="plan_used", members={"cascade_id": plan.cascade_id and str(plan.cascade_id)})
    detail = f"The plan held until {plan.expires_at:%Y-%m-%dT%H:%M:%SZ}."
    return Gone(detail, code="plan_expired", members={"expires_at": plan.expires_at.isoformat()})


def _too_slow(bounds: Bounds) -> Unavailable:
    seconds = bounds.timeout.total_seconds()
    return Unavailable(f"Planning would take longer than {seconds:g} s.", code="plan_too_slow")
