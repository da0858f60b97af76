"""The random world of the model of cascades around PostgreSQL itself: ``SqlSchedule`` has the model's moves.

Here the world does not follow a trace: people, workflows and runs act on what the rows say. So everything may happen
that ``tests/domain/cascade_world.py`` knows, deletions, loops, debounce and facts planned late included, where the two
implementations choose different ways to the same end. What must hold after each move, at each claim and at rest is
checked by the model's own checks over the rows, and by ``invariants``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any
from uuid import UUID

from domain.cascades import Claim, Closing, Schedule
from domain.controls import Control
from domain.derivations import (
    Anchor,
    Budget,
    Cause,
    Charge,
    Derivation,
    Draft,
    Execution,
    Input,
    Instance,
    OnParentFailure,
    Output,
    Provisional,
    Run,
    Supersede,
)
from domain.ids import BlobId, BucketId, BudgetId, CascadeId, DerivationId, InstanceId, RunId
from domain.runs import Hold, RunStatus
from domain.settling import LOSSES_MAX, Ending, Settled
from tests.domain.cascade_checks import (
    Violation,
    check_alone,
    check_closed,
    check_documents,
    check_heads,
    check_history,
    check_started,
    expect,
    reads_current,
)
from tests.domain.cascade_people import Step
from tests.domain.cascade_world import DRAIN_STEPS_MAX, Workflow, World
from tests.domain.cascade_worlds import DecidingWorld, FrailWorld, LimitedWorld, PayingWorld
from tests.storage import invariants
from tests.storage.schedule_player import Player
from tests.storage.schedule_rows import blob_of, cascade_of, delta_of, id_of, run_of, time_of

_ROWS = """
select jsonb_build_object(
  'blobs', (select jsonb_agg(jsonb_build_object('id', b.id, 'schema', schema_id, 'version', version,
      'hash', cutoff_hash, 'planned', planned_version, 'planned_hash', case when planned_version > 0
        and (deleted_at is null or planned_version < version) then planned_hash end, 'deleted', deleted_at is not null,
      'made', (select x.provider_id is not null from deltas x where x.user_id = $1 and x.blob_id = b.id
        and x.to_version = b.version and x.status = 'applied'),
      'members', (select jsonb_agg(jsonb_build_array(bucket_id, position, inherited_from)) from bucket_blobs m
        where m.user_id = $1 and m.blob_id = b.id)) order by b.id) from blobs b where user_id = $1),
  'deltas', (select jsonb_agg(jsonb_build_array(blob_id, from_version, to_version, cutoff_hash, operation, cascade_id,
      run_id, machine_hash) order by blob_id, to_version) from deltas where user_id = $1 and status = 'applied'),
  'derivations', (select jsonb_agg(jsonb_build_object('id', d.id, 'instance', d.instance_id, 'anchor', d.anchor_id,
      'execution', d.execution, 'supersede', d.supersede, 'want', d.want_digest, 'unsettled', d.unsettled,
      'unchanged', w.digest is not distinct from d.used_digest, 'complete', w.complete, 'pending', d.pending_inputs,
      'place', d.budget_place, 'needed', d.budget_needed,
      'hold', d.hold, 'run', d.run_id, 'attempt', d.attempt, 'owner', d.owner_cascade_id, 'force', d.force,
      'policy', d.on_parent_failure, 'failing', d.failing, 'provisional', d.provisional,
      'fresh', extract(epoch from d.fresh_after - '2026-01-01 00:00:00+00'::timestamptz)::float8,
      'due', extract(epoch from d.run_after - '2026-01-01 00:00:00+00'::timestamptz)::float8,
      'dirty', extract(epoch from d.dirty_since - '2026-01-01 00:00:00+00'::timestamptz)::float8,
      'inputs', (select jsonb_agg(jsonb_build_array(i.blob_id, i.role, i.position, i.required, i.tracks, i.used_version,
        i.used_hash)) from derivation_inputs i where i.user_id = $1 and i.derivation_id = d.id),
      'outputs', (select jsonb_agg(jsonb_build_array(o.slot, o.blob_id, o.machine_hash, o.machine_run_id))
        from derivation_outputs o where o.user_id = $1 and o.derivation_id = d.id)) order by d.id)
    from derivations d
    join studio_want($1, (select array_agg(id) from derivations where user_id = $1)) w on w.id = d.id
    where d.user_id = $1),
  'runs', (select jsonb_agg(jsonb_build_object('id', id, 'derivation', derivation_id, 'attempt', attempt, 'cascade',
      cascade_id, 'inputs', inputs, 'resumed', resumed, 'digest', definition_digest || ':' || settings_digest,
      'approved', exists (select from run_steps s where s.user_id = $1 and s.run_id = runs.id and s.type = 'approval'
        and s.status = 'done'), 'status', status)
      order by id) from runs where user_id = $1),
  'budget', (select jsonb_agg(jsonb_build_object('id', id, 'limit', limit_amount, 'spent', spent)) from budgets
    where user_id = $1),
  'reservations', (select jsonb_agg(jsonb_build_array(run_id, step_id, attempt, amount)) from reservations
    where user_id = $1),
  'charges', (select jsonb_agg(jsonb_build_array(run_id, step_id, attempt, amount, overrun)) from charges
    where user_id = $1),
  'cascades', (select jsonb_agg(jsonb_build_object('id', id, 'cause', cause, 'target', target_id, 'instance',
      instance_id, 'planned', planned_at is not null, 'status', status, 'seq', seq, 'sent', sent_seq,
      'superseded_by', superseded_by)) from cascades where user_id = $1))
"""


class SqlSchedule(Schedule):
    """The moves of the model, made by PostgreSQL; after each, the rows are read into the model's tables.

    Lives in a thread of its own: every move waits for the event loop that has the connection.
    """

    def __init__(self, player: Player, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.player = player
        self.loop = loop
        self.seconds = 0.0
        self.ended: set[CascadeId] = set()
        """Cascades whose last claim said that they are closed."""

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=60)

    def _do(self, move: str, **args: Any) -> Any:
        answer, rows = self.wait(self._played(Step(move, args, None)))
        self._load(rows)
        return answer

    async def _played(self, step: Step) -> tuple[Any, dict[str, Any]]:
        await self.player.at(self.seconds)
        answer = await self.player.play(step)
        rows = await self.player.connection.fetchval(_ROWS, self.player.user)
        return answer, {name: found or [] for name, found in rows.items()}

    # --- moves ----------------------------------------------------------------------------------------------------

    def register(self, instance: Instance) -> None:
        self.instances[instance.id] = instance
        self._do("register", instance=instance)

    def activate(self, instance_id: InstanceId, cascade_id: CascadeId) -> CascadeId:
        self.instances[instance_id].active = True
        return self._cause_of("activate", instance_id=instance_id, cascade_id=cascade_id)

    def deactivate(self, instance_id: InstanceId, cascade_id: CascadeId) -> CascadeId:
        self.instances[instance_id].active = False
        return self._cause_of("deactivate", instance_id=instance_id, cascade_id=cascade_id)

    def redefine(
        self, instance_id: InstanceId, definition_digest: str, settings_digest: str, cascade_id: CascadeId
    ) -> CascadeId:
        return self._cause_of(
            "redefine", instance_id=instance_id, definition_digest=definition_digest,
            settings_digest=settings_digest, cascade_id=cascade_id,
        )  # fmt: skip

    def set_policy(self, instance_id: InstanceId, policy: OnParentFailure, cascade_id: CascadeId) -> CascadeId:
        return self._cause_of("set_policy", instance_id=instance_id, policy=policy, cascade_id=cascade_id)

    def publish(self, instance_id: InstanceId, definition_digest: str) -> None:
        self._do("publish", instance_id=instance_id, definition_digest=definition_digest)

    def upgrade(self, instance_id: InstanceId, cascade_id: CascadeId) -> CascadeId:
        return self._cause_of("upgrade", instance_id=instance_id, cascade_id=cascade_id)

    def redrive(self, derivation_ids: Iterable[DerivationId], cascade_id: CascadeId) -> CascadeId:
        return self._cause_of("redrive", derivation_ids=list(derivation_ids), cascade_id=cascade_id)

    def reprocess(
        self, derivation_id: DerivationId, cascade_id: CascadeId, *, subtree: bool = False, fresh: bool = False
    ) -> CascadeId:
        return self._cause_of(
            "reprocess", derivation_id=derivation_id, cascade_id=cascade_id, subtree=subtree, fresh=fresh
        )

    def create(
        self,
        blob_id: BlobId,
        schema_id: str,
        content: str,
        cascade_id: CascadeId,
        buckets: Mapping[BucketId, int] | None = None,
    ) -> CascadeId:
        return self._cause_of(
            "create", blob_id=blob_id, schema_id=schema_id, content=content, cascade_id=cascade_id,
            buckets=buckets or {},
        )  # fmt: skip

    def edit(self, blob_id: BlobId, content: str, cascade_id: CascadeId) -> CascadeId:
        return self._cause_of("edit", blob_id=blob_id, content=content, cascade_id=cascade_id)

    def delete(self, blob_id: BlobId, cascade_id: CascadeId) -> CascadeId:
        return self._cause_of("delete", blob_id=blob_id, cascade_id=cascade_id)

    def restore(self, blob_id: BlobId, cascade_id: CascadeId) -> CascadeId:
        return self._cause_of("restore", blob_id=blob_id, cascade_id=cascade_id)

    def add_member(self, bucket_id: BucketId, blob_id: BlobId, position: int, cascade_id: CascadeId) -> CascadeId:
        return self._cause_of(
            "add_member", bucket_id=bucket_id, blob_id=blob_id, position=position, cascade_id=cascade_id
        )

    def remove_member(self, bucket_id: BucketId, blob_id: BlobId, cascade_id: CascadeId) -> CascadeId:
        return self._cause_of("remove_member", bucket_id=bucket_id, blob_id=blob_id, cascade_id=cascade_id)

    def _cause_of(self, move: str, **args: Any) -> CascadeId:
        return CascadeId(UUID(self._do(move, **args)))

    def plan(self, cascade_id: CascadeId, now: float) -> Any:
        return self._do("plan", cascade_id=cascade_id, now=now)

    def claim(self, cascade_id: CascadeId, run_ids: Sequence[RunId], now: float, window: int) -> Claim:
        self.player.runs_per_user = self.runs_per_user
        found = self._do("claim", cascade_id=cascade_id, run_ids=list(run_ids), now=now, window=window)
        return self.claimed(cascade_id, found, now)

    def claimed(self, cascade_id: CascadeId, found: Mapping[str, Any], now: float) -> Claim:
        """What a claim has answered, in the model's words."""
        (self.ended.add if found["closed"] else self.ended.discard)(cascade_id)
        runs = tuple(RunId(UUID(run)) for run in found["runs"])
        later = [d.run_after for d in self.owned(cascade_id) if d.run_after is not None and d.run_after > now]
        self.player.runs.update({run: run for run in runs})
        return Claim(runs=runs, next_run_after=min(later, default=None) if found["timer"] else None)

    def settle(self, run_id: RunId, drafts: Sequence[Draft], now: float) -> Settled:
        before = self.runs[run_id].status
        answer = self._do("settle", run_id=run_id, drafts=list(drafts), now=now)
        again = before == RunStatus.SETTLED and answer == "settled"
        return Settled(status=Ending.ALREADY if again else Ending(answer))

    def fail(self, run_id: RunId, code: str) -> Ending:
        answer = self._do("fail", run_id=run_id, code=code)
        return Ending.FAILED if answer == "failed" else Ending.SUPERSEDED

    def lose(self, run_id: RunId, losses_max: int = LOSSES_MAX) -> Ending:
        before = self.runs[run_id].status
        answer = self._do("lose", run_id=run_id, losses_max=losses_max)
        done = before == RunStatus.RUNNING and answer in ("lost", "failed")
        return Ending(answer) if done else Ending.SUPERSEDED

    def park(self, run_id: RunId) -> Ending:
        answer = self._do("park", run_id=run_id)
        return {"parked": Ending.PARKED, "running": Ending.ALREADY}.get(answer, Ending.SUPERSEDED)

    def approve(self, run_id: RunId) -> Control:
        return Control(self._do("approve", run_id=run_id))

    def reject(self, run_id: RunId, now: float) -> Control:
        return Control(self._do("reject", run_id=run_id, now=now))

    def cancel_run(self, run_id: RunId) -> Control:
        return Control(self._do("cancel_run", run_id=run_id))

    def cancel_cascade(self, cascade_id: CascadeId, now: float) -> Control:
        return Control(self._do("cancel_cascade", cascade_id=cascade_id, now=now))

    def retry_run(self, run_id: RunId) -> Control:
        return Control(self._do("retry_run", run_id=run_id))

    def retry_cascade(self, cascade_id: CascadeId) -> Control:
        return Control(self._do("retry_cascade", cascade_id=cascade_id))

    def begin(self, run_id: RunId, step_id: str, worst: int, attempt: int = 1) -> RunStatus:
        return RunStatus(self._do("begin", run_id=run_id, step_id=step_id, worst=worst, attempt=attempt))

    def charge(self, run_id: RunId, step_id: str, amount: int, attempt: int = 1) -> bool:
        return bool(self._do("charge", run_id=run_id, step_id=step_id, amount=amount, attempt=attempt))

    def set_budget(self, budget_id: BudgetId, limit: int | None, cascade_id: CascadeId) -> CascadeId | None:
        found = self._do("set_budget", budget_id=budget_id, limit=limit, cascade_id=cascade_id)
        return None if found is None else CascadeId(UUID(found))

    def top_up(self, amount: int, cascade_id: CascadeId) -> CascadeId | None:
        found = self._do("top_up", amount=amount, cascade_id=cascade_id)
        return None if found is None else CascadeId(UUID(found))

    def sent(self, cascade_id: CascadeId, seq: int) -> None:
        self._do("sent", cascade_id=cascade_id, seq=seq)

    def close_cascade(self, cascade_id: CascadeId, seen_seq: int) -> Closing:
        """Claim has said whether the workflow may end."""
        del seen_seq
        return Closing.CLOSED if cascade_id in self.ended else Closing.WAITING

    # --- rows -----------------------------------------------------------------------------------------------------

    def _load(self, rows: dict[str, Any]) -> None:
        self.blobs = {blob.id: blob for blob in map(blob_of, rows["blobs"])}
        self.deltas = [delta_of(row) for row in rows["deltas"]]
        self.runs = {run.id: run for run in map(run_of, rows["runs"])}
        made_away = {row["id"] for row in rows["blobs"] if row["deleted"] and row["made"]}
        self.derivations, self.inputs, self.outputs, self.producers, self.consumers = {}, {}, {}, {}, {}
        for row in rows["derivations"]:
            self._load_derivation(row, made_away)
        cascades = {cascade.id: cascade for cascade in map(cascade_of, rows["cascades"])}
        self._load_money(rows)
        known = [found for found in self.cascades if found in cascades]
        self.cascades = {found: cascades[found] for found in [*known, *(set(cascades) - set(known))]}

    def _load_money(self, rows: dict[str, Any]) -> None:
        budgets = [Budget(id=BudgetId(UUID(b["id"])), limit=b["limit"], spent=b["spent"]) for b in rows["budget"]]
        self.budget = budgets[0] if budgets else None
        self.reservations = {(RunId(UUID(run)), *key): amount for run, *key, amount in rows["reservations"]}
        charges = [
            Charge(run_id=RunId(UUID(run)), step_id=step, attempt=attempt, amount=amount, overrun=overrun)
            for run, step, attempt, amount, overrun in rows["charges"]
        ]
        self.charges = {(charge.run_id, charge.step_id, charge.attempt): charge for charge in charges}

    def _load_derivation(self, row: dict[str, Any], made_away: set[str]) -> None:
        found = DerivationId(UUID(row["id"]))
        hold = None if row["hold"] is None else Hold(row["hold"])
        provisional = None if row["provisional"] is None else Provisional(row["provisional"])
        if hold is None and not row["unsettled"] and not row["complete"] and provisional is None:
            hold = Hold.RETIRED  # the model's word for what has nothing to work on
        self.derivations[found] = Derivation(
            id=found, provider_id=InstanceId(UUID(row["instance"])), anchor_id=UUID(row["anchor"]),
            execution=Execution(row["execution"]), supersede=Supersede(row["supersede"]), want_digest=row["want"],
            used_digest=row["want"] if row["unchanged"] else "another", unsettled=row["unsettled"],
            pending_inputs=row["pending"], hold=hold, run_id=id_of(row["run"]), attempt=row["attempt"],
            owner_cascade_id=id_of(row["owner"]), run_after=time_of(row["due"]), dirty_since=time_of(row["dirty"]),
            force=row["force"], fresh_after=time_of(row["fresh"]),
            budget_place=row["place"], budget_needed=row["needed"],
            on_parent_failure=OnParentFailure(row["policy"]), failing=row["failing"], provisional=provisional,
        )  # fmt: skip
        self.inputs[found] = {}
        for blob_id, role, position, required, tracks, version, content in row["inputs"] or []:
            blob = BlobId(UUID(blob_id))
            self.inputs[found][blob] = Input(
                derivation_id=found, blob_id=blob, role=role, position=position, required=required, tracks=tracks,
                used_version=None if content is None else version, used_hash=content,
            )  # fmt: skip
            self.consumers.setdefault(blob, set()).add(found)
        self.outputs[found] = {}
        for slot, blob_id, head, run in row["outputs"] or []:
            blob = BlobId(UUID(blob_id))
            machine = None if blob_id in made_away else head
            self.outputs[found][slot] = Output(
                derivation_id=found, slot=slot, blob_id=blob, machine_hash=machine, machine_run_id=id_of(run)
            )
            self.producers[blob] = found

    def unchanged(self, derivation: Derivation) -> bool:
        """SQL's own answer: its *used* is one digest over everything."""
        return derivation.used_digest == derivation.want_digest


# --- the world ----------------------------------------------------------------------------------------------------


class SqlWorld(World):
    """The world of the model around a ``SqlSchedule``."""

    player: type[Player] = Player
    schedule_of: type[SqlSchedule] = SqlSchedule

    def __init__(self, random: Random, schedule: SqlSchedule, *, disasters: bool = False) -> None:
        self.sql = schedule
        super().__init__(random, schedule, disasters=disasters)

    def do(self, name: str, **args: Any) -> Any:
        self.sql.seconds = self.now
        return super().do(name, **args)

    def _catalogue(self) -> Iterator[Instance]:
        """SQL's joins collect one schema."""
        for instance in super()._catalogue():
            if instance.anchor == Anchor.BUCKET:
                yield replace(instance, input_schemas=frozenset(sorted(instance.input_schemas)[:1]))
            else:
                yield instance

    def _flow_claim(self, flow: Workflow) -> None:
        """As the model's, but SQL makes the runs' ids, and closes in claim."""
        flow.inbox = False
        while flow.lost:
            self.do("lose", run_id=flow.lost.pop(), losses_max=LOSSES_MAX)
        known = set(self.schedule.runs)
        claim = self.do("claim", cascade_id=flow.cascade_id, run_ids=[], now=self.now, window=self.window)
        for run_id in sorted(set(self.schedule.runs) - known):
            check_started(self.schedule, self.schedule.runs[run_id], self.expected)
        if flow.cascade_id in self.sql.ended:
            check_closed(self.schedule, flow.cascade_id)
        if self._lost_ack():
            return
        alive = {e.run_id for e in self.executions if not e.zombie}
        self.executions += [self._execution(run_id) for run_id in claim.runs if run_id not in alive]
        flow.timer = claim.next_run_after
        flow.phase = "wait" if claim.runs else "close"

    def _flow_close(self, flow: Workflow) -> None:
        flow.phase = "end" if flow.cascade_id in self.sql.ended else "wait"

    def _settle_down(self) -> None:
        for _ in range(DRAIN_STEPS_MAX):
            if not self._drain_once():
                self.check_rest()
                return
        raise Violation(f"Not at rest after {DRAIN_STEPS_MAX} steps.")

    def alone(self) -> None:
        before, causes = set(self.schedule.runs), len(self.schedule.cascades)
        self.controls = False
        while len(self.schedule.cascades) == causes:
            self.person()
        self.faults = False
        self._settle_down()
        self.faults = self.controls = True
        check_alone_in_sql(self.schedule, [run for run in self.schedule.runs.values() if run.id not in before])

    def check_rest(self) -> None:
        """(6), (7), (10), (11): by the model's checks where both mean the same, by SQL's own for the rest."""
        expect(not self.unsent() and not self.workflows and not self.executions, "somebody is still awake")
        self.sql.wait(invariants.check_at_rest(self.sql.player.connection, self.sql.player.user))
        for derivation in self.schedule.derivations.values():
            self._check_derivation(derivation)
        check_history(self.schedule)

    def _check_derivation(self, derivation: Derivation) -> None:
        name = derivation.id
        if derivation.unsettled:
            held = derivation.hold is not None or self.schedule.blocked_by(derivation)
            expect(held, f"(6) {name}: unsettled at rest, with nothing that holds it")
            if derivation.hold in (Hold.FAILED, Hold.BUDGET):
                last = max((r for r in self.schedule.runs.values() if r.derivation_id == name), key=lambda r: r.attempt)
                expect(reads_current(self.schedule, last), f"(rule 6) {name}: failed, but not on its newest inputs")
            return
        if derivation.hold == Hold.INACTIVE or not self.schedule.instances[derivation.provider_id].active:
            return
        if derivation.provisional == Provisional.SKIPPED:
            return
        # SQL retires what needs something deleted, even if it has read that once and would not look again.
        rows = self.schedule.inputs[name].values()
        gone = any(row.required and self.schedule.blobs[row.blob_id].deleted for row in rows)
        supplied = self.schedule.supplied(derivation) and not gone
        wanted = supplied and not self.schedule.output_deleted(derivation)
        expect(wanted == (derivation.hold is None), f"(rule 9) {name}: {derivation.hold}, supplied {wanted}")
        if derivation.hold is None:
            check_heads(self.schedule, derivation, self.expected, "(6)")
            check_documents(self.schedule, derivation)


class SqlDecidingWorld(DecidingWorld, SqlWorld):
    """The same in which people decide as much as they write."""


class SqlPayingWorld(PayingWorld, SqlWorld):
    """The same, where nearly everything costs and money is short."""


class SqlLimitedWorld(LimitedWorld, SqlWorld):
    """The same, where places are few."""


class SqlFrailWorld(SqlWorld, FrailWorld):
    """The same, where providers fail often and most derivations go on without what has failed."""


def check_alone_in_sql(schedule: Schedule, started: list[Run]) -> None:
    """(9), as the model has it; what was asked for is named by blob and instance."""
    causes = list(schedule.cascades.values())
    if causes[-1].cause == Cause.REPROCESS:
        causes[-1].cause = Cause.PROVIDER
    check_alone(schedule, started)
