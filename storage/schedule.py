"""The moves of CASCADES.md over PostgreSQL: each call is one function of ``storage/functions``, one round trip.

The functions take the user lock; nothing slow happens inside it. Content for S3 is put before, merges are decided
before, and ``settle`` answers ``moved`` where an output changed in between (rule 7).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import astuple, dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

import orjson

from domain.documents import document_hash
from domain.memo import Begun, Lookup, Recall
from domain.prices import Quote, StepCharge
from domain.providers import WAIT_SECONDS_MAX
from domain.settling import LOSSES_MAX
from domain.works import Claim, ClaimedRun, Prepared, RunWork, Settlement, Sketch, Sketching, StepRecord
from storage.bell import Bell
from storage.contents import Contents
from storage.database import Database
from storage.gates import Gate
from storage.settlements import OUTPUT_COLUMNS, columns_of, prepared, step_columns
from storage.sketches import read_sketches, record_of, sketches_of
from storage.works import Works

DETAIL_CHARACTERS_MAX = 2000
ATTEMPTS_KEPT_MAX = 20
"""Failed attempts of a step whose reasons are kept, the last ones; all of them are counted."""
USER_GATES_MAX = 10_000
"""Users whose gate is remembered; beyond it, gates that nobody waits at are dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How often one derivation, and what stems from one root, may run within a window; more is put off."""

    runs_max: int = 1_000
    root_max: int = 100_000
    window: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """How many runs a user may have at a time, and everybody together that call a service, by its name."""

    runs_per_user: int | None = None
    services: Mapping[str, int] = field(default_factory=dict)


class PostgresSchedule:
    """Plan, claim, load, settle, fail, and the steps of runs. One per process: it gates per user."""

    def __init__(
        self,
        database: Database,
        contents: Contents,
        *,
        lease: timedelta,
        depth_max: int,
        nodes_max: int,
        repeats: Repeats | None = None,
        places: Places | None = None,
        losses_max: int = LOSSES_MAX,
        bell: Bell | None = None,
    ) -> None:
        self._database = database
        self._contents = contents
        self._works = Works(database, contents)
        self._lease = lease
        self._bounds = (depth_max, nodes_max)
        self._repeats = repeats or Repeats()
        places = places or Places()
        self._limits = {"runs_per_user": places.runs_per_user, "services": dict(places.services)}
        self._losses_max = losses_max
        self._bell = bell or Bell(database)
        self._gates: dict[UUID, Gate] = {}

    async def plan(self, user_id: UUID, cascade_id: UUID) -> bool:
        """Decide what the cascade touches; False when that was done before."""
        async with self._gate(user_id):
            row = await self._database.call(
                "select * from plan_cascade($1, $2, $3, $4)", user_id, cascade_id, *self._bounds
            )
        return bool(row and row["planned"])

    async def plan_and_claim(self, user_id: UUID, cascade_id: UUID, *, window: int, sketching: Sketching) -> Claim:
        """``plan``, unless that is done, and ``claim``, in one transaction."""
        async with self._gate(user_id, first=True, rings=False):
            row = await self._database.call(
                _PLAN_AND_CLAIM, user_id, cascade_id, *self._claiming(window, (), sketching), *self._bounds
            )
        return self._told(row)

    async def claim(
        self,
        user_id: UUID,
        cascade_id: UUID,
        *,
        window: int,
        busy: Sequence[UUID] = (),
        sketching: Sketching = Sketching.NONE,
    ) -> Claim:
        """Take what is ready, settle what is unchanged, answer every unfinished run.

        ``sketching``: of the inline runs, sketches; ``busy`` are the derivations of those that are not settled yet.
        Goes before settlements that wait: what it takes is evaluated while they settle.
        """
        async with self._gate(user_id, first=True, rings=False):
            row = await self._database.call(_CLAIM, user_id, cascade_id, *self._claiming(window, busy, sketching))
        return self._told(row)

    async def prepare(self, user_id: UUID, settlements: Sequence[Settlement]) -> Prepared:
        """All of ``settle_and_claim`` that needs no transaction: large documents are stored. Raises Unavailable."""
        return await prepared(self._contents, user_id, settlements)

    async def settle_and_claim(
        self,
        user_id: UUID,
        cascade_id: UUID,
        prepared: Prepared,
        sketches: Sequence[Sketch],
        *,
        window: int,
        busy: Sequence[UUID] = (),
        sketching: Sketching = Sketching.NONE,
    ) -> tuple[dict[UUID, str], Claim]:
        """``settle`` these, runs and sketches, then ``claim``, in one transaction.

        A sketch is ``moved`` or ``superseded`` where it stands no more: the next claim has what became of it.
        """
        sketched = {sketch.run_id for sketch in sketches}
        runs = [settled.run_id for settled in prepared.settlements if settled.run_id not in sketched]
        async with self._gate(user_id):
            row = await self._database.call(
                _SETTLE_AND_CLAIM,
                user_id,
                cascade_id,
                runs,
                prepared.usages,
                *prepared.columns,
                prepared.unchanged,
                [record_of(sketch) for sketch in sketches],
                *self._claiming(window, busy, sketching),
            )
        verdicts = {UUID(run_id): status for run_id, status in (row["verdicts"] or {}).items()} if row else {}
        self._remember(user_id, prepared.settlements, verdicts)
        return verdicts, _claim_of(row)

    async def fail_sketch(self, user_id: UUID, cascade_id: UUID, sketch: Sketch, *, code: str, detail: str) -> str:
        """Record a sketch that cannot be carried out, and that it has failed; ``superseded`` if it stands no more."""
        async with self._gate(user_id):
            row = await self._database.call(
                "select fail_sketch($1, $2, $3, $4, $5) as status",
                user_id, cascade_id, record_of(sketch), code, _shown(detail),
            )  # fmt: skip
        return str(row["status"]) if row else "superseded"

    def _told(self, row: Any) -> Claim:
        claim = _claim_of(row)
        if claim.runs or claim.sketches:
            self._bell.ring_late()  # that they have started can be told with their end
        else:
            self._bell.ring()
        return claim

    def _claiming(self, window: int, busy: Sequence[UUID], sketching: Sketching) -> tuple[Any, ...]:
        repeats = self._repeats
        bounds = (self._lease, repeats.runs_max, repeats.root_max, repeats.window, self._limits)
        return window, *bounds, list(busy), sketching.value

    async def read_sketches(self, user_id: UUID, sketches: Sequence[Sketch]) -> Sequence[RunWork | Exception | None]:
        """What these read, in their order; or why that cannot be read. Raises Unavailable."""
        return await read_sketches(self._works, user_id, sketches)

    async def load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        """What these runs read; runs that have ended are left out."""
        return await self._works.load(user_id, run_ids)

    async def settle(self, user_id: UUID, settlements: Sequence[Settlement], *, caller: UUID | None) -> dict[UUID, str]:
        """End runs: ``settled``, ``superseded``, or ``moved`` when an output changed since the merge."""
        ready = await self.prepare(user_id, settlements)
        steps = await step_columns(self._contents, user_id, settlements)
        async with self._gate(user_id), self._database.connection() as connection:
            rows = await connection.fetch(
                _SETTLE_WHOLE if steps else _SETTLE,
                user_id,
                [settled.run_id for settled in settlements],
                ready.usages,
                caller,
                *ready.columns,
                ready.unchanged,
                *steps,
            )
        verdicts = {row["run_id"]: row["status"] for row in rows}
        self._remember(user_id, settlements, verdicts)
        return verdicts

    def _remember(self, user_id: UUID, settlements: Sequence[Settlement], verdicts: Mapping[UUID, str]) -> None:
        """Keep what was written: the next level reads it."""
        for settled in settlements:
            if verdicts.get(settled.run_id) == "settled":
                for output in settled.outputs:
                    if output.effect == "change":
                        data = output.document.to_bytes()
                        self._works.keep(user_id, output.document, document_hash(data), len(data))

    async def fail(self, user_id: UUID, run_id: UUID, *, code: str, detail: str, usage: Mapping[str, Any]) -> str:
        """End a run for good as failed; its descendants are blocked by it."""
        async with self._gate(user_id):
            row = await self._database.call(
                "select fail_run($1, $2, $3, $4, $5) as status", user_id, run_id, code, _shown(detail), dict(usage)
            )
        return str(row["status"]) if row else "superseded"

    async def correct_clock(self, user_id: UUID) -> int:
        """Bring back what is further ahead than it can have been set, after the clock was put back; how much it was."""
        longest = max(timedelta(seconds=WAIT_SECONDS_MAX), self._repeats.window)
        async with self._gate(user_id):
            row = await self._database.call(
                "select correct_clock($1, $2, $3) as corrected", user_id, self._lease, longest
            )
        return int(row["corrected"]) if row else 0

    async def lose(self, user_id: UUID, run_id: UUID) -> str:
        """Free the place of a run that nothing carries out any more: ``lost``, ``failed`` if it was one too many.

        Of a run that has ended, or waits for a person, it answers what it is.
        """
        async with self._gate(user_id):
            row = await self._database.call("select lose_run($1, $2, $3) as status", user_id, run_id, self._losses_max)
        return str(row["status"]) if row else "superseded"

    async def extend(self, user_id: UUID, run_id: UUID) -> None:
        """Give a run that is carried out after all another lease."""
        async with self._database.transaction(user_id) as connection:
            await connection.execute(
                "update runs set lease_until = now() + $3 where user_id = $1 and id = $2 and status = 'running'",
                user_id,
                run_id,
                self._lease,
            )

    async def park(self, user_id: UUID, run_id: UUID, step_id: str, position: int, prompt: str) -> str:
        """Let a run wait for a person: ``parked``; ``running`` if the step was approved, else what it has ended as."""
        async with self._gate(user_id):
            row = await self._database.call(
                "select park_run($1, $2, $3, $4, $5) as status", user_id, run_id, step_id, position, _shown(prompt)
            )
        return str(row["status"]) if row else "superseded"

    async def cancel(self, user_id: UUID, run_id: UUID, *, actor: str) -> str:
        """End a run that somebody does not want: ``done``, ``already``, or ``refused`` if it has ended otherwise."""
        async with self._gate(user_id):
            row = await self._database.call("select cancel_run($1, $2, $3) as answer", user_id, run_id, actor)
        return str(row["answer"]) if row else "unknown"

    async def cancel_cascade(self, user_id: UUID, cascade_id: UUID, *, actor: str) -> str:
        """End a cascade and hold what it owns: ``done``, ``already``, or ``refused`` if there is nothing to end."""
        async with self._gate(user_id):
            row = await self._database.call(
                "select cancel_cascade($1, $2, $3, $4, $5) as answer", user_id, cascade_id, actor, *self._bounds
            )
        return str(row["answer"]) if row else "unknown"

    async def status(self, user_id: UUID, run_id: UUID) -> str:
        """What a run is: ``running``, ``parked``, or what it has ended as; ``superseded`` if nobody knows it."""
        row = await self._database.row(
            user_id, "select status from runs where user_id = $1 and id = $2", user_id, run_id
        )
        return str(row["status"]) if row else "superseded"

    async def begin_step(self, user_id: UUID, run_id: UUID, step_id: str, position: int, kind: str) -> str:
        """Record that a step is under way and extend the run's lease; answer the run's status."""
        return (await self.begin_call(user_id, run_id, step_id, position, kind, None)).status

    async def begin_call(
        self,
        user_id: UUID,
        run_id: UUID,
        step_id: str,
        position: int,
        kind: str,
        lookup: Lookup | None,
        quote: Quote | None = None,
    ) -> Begun:
        """``begin_step`` for a step that calls a service, which may ask the memo first; one round trip.

        Unless the memo has the answer, what the call may cost is reserved; if the budget does not have that, the run
        ends as ``blocked_budget``. Only what costs something takes its user's lock.
        """
        asked = (None, None) if lookup is None else (lookup.key, lookup.patience)
        step = (user_id, run_id, step_id, position, kind, self._lease, *asked)
        if quote is None:
            row = await self._database.call(_BEGIN, *step)
        else:
            async with self._gate(user_id):
                row = await self._database.call(_BEGIN_PAID, *step, quote.worst, dict(quote.used))
        if row is None or row["status"] != "running":
            return Begun(status=row["status"] if row else "superseded")
        recall = Recall.OFF if row["memo"] is None else Recall(row["memo"])
        if recall is not Recall.HIT:
            return Begun(status=row["status"], recall=recall, attempt=row["attempt"])
        return Begun(
            status=row["status"],
            recall=recall,
            answer=orjson.loads(await self._contents.read(user_id, row)),
            usage=row["usage"],
            maker=row["maker"],
        )

    async def end_step(self, user_id: UUID, run_id: UUID, record: StepRecord, charge: StepCharge | None = None) -> None:
        """Record what a step added, and charge this attempt; of both the first stays."""
        await self._end_step(user_id, run_id, record, charge)

    async def end_call(
        self,
        user_id: UUID,
        run_id: UUID,
        record: StepRecord,
        charge: StepCharge | None = None,
        *,
        key: str,
        answer: Any,
    ) -> None:
        """``end_step``, and the answer goes into the memo, whatever has become of the run: it is paid for."""
        placed = await self._contents.put(user_id, orjson.dumps(answer))
        memo = (key, dict(record.usage), placed.hash, *columns_of(placed))
        await self._end_step(user_id, run_id, record, charge, *memo)

    async def _end_step(
        self, user_id: UUID, run_id: UUID, record: StepRecord, charge: StepCharge | None, *memo: object
    ) -> None:
        placed = await self._contents.put(user_id, orjson.dumps(dict(record.entries)))
        query = _END_MEMO if memo else _END
        step = (
            user_id, run_id, record.step_id, dict(record.usage), placed.hash, *columns_of(placed),
            record.reused_from, *memo,
        )  # fmt: skip
        if charge is None:
            await self._database.call(query, *step)
            return
        async with self._gate(user_id), self._database.transaction(user_id) as connection:
            await connection.execute(_CHARGE, user_id, run_id, record.step_id, *astuple(charge))
            await connection.execute(query, *step)

    async def distrust(self, user_id: UUID, run_id: UUID) -> None:
        """What the steps of this run were answered is not good: the memo forgets it."""
        await self._database.call("select studio_distrust($1, $2)", user_id, run_id)

    async def fail_step(
        self, user_id: UUID, run_id: UUID, step_id: str, code: str, detail: str, charge: StepCharge | None = None
    ) -> None:
        """Record why an attempt of a step failed; a later success replaces the last word, not the list of attempts.

        ``charge``: it was answered all the same.
        """
        gate = nullcontext() if charge is None else self._gate(user_id)
        async with gate, self._database.transaction(user_id) as connection:
            if charge is not None and not await connection.fetchval(
                _CHARGE, user_id, run_id, step_id, *astuple(charge)
            ):
                return  # recorded before, and the acknowledgement got lost
            await connection.execute(
                "update run_steps set status = 'failed', error = $4, ended_at = now(), attempts = attempts + 1, "
                "errors = (case when jsonb_array_length(errors) < $5 then errors else errors - 0 end) "
                "|| jsonb_build_array($4 || jsonb_build_object('attempt', attempts + 1, 'at', now())) "
                "where user_id = $1 and run_id = $2 and step_id = $3 and status <> 'done'",
                user_id,
                run_id,
                step_id,
                {"code": code, "detail": _shown(detail)},
                ATTEMPTS_KEPT_MAX,
            )

    async def steps(self, user_id: UUID, run_id: UUID) -> list[StepRecord]:
        """The finished steps of a run, in order."""
        rows = await self._database.rows(
            user_id,
            "select s.step_id, s.usage, s.reused_from, c.hash, c.size, c.codec, c.body, c.location from run_steps s "
            "join contents c on c.user_id = s.user_id and c.hash = s.output_hash "
            "where s.user_id = $1 and s.run_id = $2 and s.status = 'done' order by s.position",
            user_id,
            run_id,
        )
        return [
            StepRecord(
                step_id=row["step_id"],
                entries=orjson.loads(await self._contents.read(user_id, row)),
                usage=row["usage"],
                reused_from=row["reused_from"],
            )
            for row in rows
        ]

    @asynccontextmanager
    async def _gate(self, user_id: UUID, *, first: bool = False, rings: bool = True) -> AsyncIterator[None]:
        """Let one move per user through at a time, before it takes a connection (CASCADES rule 7).

        Moves leave events and doorbells behind: once one has committed, the relay is told.
        """
        if len(self._gates) > USER_GATES_MAX:
            self._gates = {user: gate for user, gate in self._gates.items() if gate.locked()}
        async with self._gates.setdefault(user_id, Gate()).passed(first=first):
            yield
        if rings:
            self._bell.ring()


_BEGIN = "select * from begin_step($1, $2, $3, $4, $5, $6, $7, $8)"
_BEGIN_PAID = "select * from begin_paid_step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
_CHARGE = "select charge_step($1, $2, $3, $4, $5, $6, $7, $8, $9)"
_END = "select end_step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
_END_MEMO = "select end_step($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)"
_OUTPUTS = ", ".join(f"${index + 5}::{kind}[]" for index, kind in enumerate(OUTPUT_COLUMNS))  # types of our own
_NEXT = len(OUTPUT_COLUMNS) + 5
_SETTLE = f"select * from settle_runs($1, $2, $3, $4, {_OUTPUTS}, ${_NEXT})"  # noqa: S608
_SETTLE_WHOLE = (  # the steps after the end: who settles has the user's lock before any other
    f"with s as materialized ({_SETTLE}), e as materialized (select end_steps($1, "  # noqa: S608 - as above
    + ", ".join(f"${_NEXT + 1 + index}" for index in range(10))
    + ") from (select count(*) from s) c) select s.* from s cross join e"
)
_SETTLE_AND_CLAIM = (
    f"select * from settle_and_claim($1, $2, $3, $4, {_OUTPUTS}, "  # noqa: S608
    + ", ".join(f"${_NEXT + index}" for index in range(10))
    + ")"
)
_PLAN_AND_CLAIM = "select * from plan_and_claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
_CLAIM = "select * from claim_runs($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"


def _shown(detail: str) -> str:
    """What somebody else's answer may be quoted as: PostgreSQL text holds no NUL."""
    return detail.replace("\0", "\ufffd")[:DETAIL_CHARACTERS_MAX]


def _claimed(run: Mapping[str, Any]) -> ClaimedRun:
    return ClaimedRun(
        run_id=UUID(run["run_id"]),
        derivation_id=UUID(run["derivation_id"]),
        provider_id=run["provider_id"],
        execution=run["execution"],
        label=run["label"],
        workflow_id=run["workflow_id"],
        resumed=run["resumed"],
    )


def _claim_of(row: Any) -> Claim:
    if row is None:
        return Claim(runs=(), running=0, due_in_seconds=None, closed=True, status="unknown", cut_off=0)
    return Claim(
        runs=tuple(_claimed(run) for run in row["runs"]),
        running=row["running"],
        due_in_seconds=row["due_in"],
        closed=row["closed"],
        status=row["status"],
        cut_off=row["cut_off"],
        more=row["more"],
        sketches=sketches_of(row["sketches"]),
        sketching=row["sketching"],
    )
