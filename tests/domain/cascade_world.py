"""A small world around the model of cascades: people, a relay, workflows and runs, with everything that goes wrong.

Every transaction that it executes is recorded as a ``Step``, so that the same scenario can be replayed against
another implementation of the moves (``scenario``, ``replay``). All choices come from one ``Random``.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from random import Random

from domain.cascades import Claim, Closing, Schedule
from domain.derivations import Derivation, Draft, Execution, Pinned
from domain.facts import MAX_WAIT_SECONDS
from domain.ids import BlobId, CascadeId, InstanceId, RunId
from domain.runs import RunStatus
from domain.settling import Ending, Settled
from tests.domain.cascade_checks import (
    Violation,
    check_alone,
    check_closed,
    check_rest,
    check_started,
    check_turn,
    needed_before,
)
from tests.domain.cascade_people import People, Step, plain

WINDOW = 3
LOSSES_MAX = 3
DRAIN_STEPS_MAX = 3_000
LOST_ACK = 0.15
STEP = "call"
"""The paid step of a run that has one."""
CALLS_MAX = 3
"""How often it is called at most, where its answers are of no use."""


@dataclass(slots=True)
class Workflow:
    """A living Cascade workflow: what it does next, and whether it was told to look again."""

    cascade_id: CascadeId
    phase: str = "plan"
    inbox: bool = False
    seq: int = 0
    timer: float | None = None
    lost: list[RunId] = field(default_factory=list)


@dataclass(slots=True)
class Attempt:
    """A living execution of a run; a zombie is one that Temporal has given up, and that goes on all the same."""

    run_id: RunId
    cascade_id: CascadeId
    inputs: tuple[Pinned, ...]
    digest: str
    slots: dict[str, BlobId]
    coarse: bool
    zombie: bool = False
    drafts: list[Draft] | None = None
    failure: str | None = None
    worst: int = 0
    reserved: bool = False
    charged: bool = False
    call: int = 1


def machine_hash(slot: str, digest: str, inputs: tuple[Pinned, ...], *, coarse: bool) -> str:
    """The function of its inputs that a provider is; a coarse one often answers the same (early cut-off)."""
    read = ";".join(f"{pinned.blob_id}={pinned.hash}" for pinned in inputs)
    number = zlib.crc32(f"{slot}|{digest}|{read}".encode())
    return f"m{number % 2}" if coarse else f"m{number:08x}"


def fails(digest: str, inputs: tuple[Pinned, ...]) -> bool:
    """Some inputs a provider cannot take: the run fails, whenever it is tried."""
    return zlib.crc32(f"{digest}|{inputs}".encode()) % 25 == 0


def asks(digest: str, inputs: tuple[Pinned, ...], every: int) -> bool:
    """One in ``every`` inputs needs a person's approval before a run goes on."""
    return zlib.crc32(f"ask|{digest}|{inputs}".encode()) % every == 0


def merged_hash(ours: str | None, theirs: str) -> str:
    """Merge: a document is a machine part and human units after ``+``; a unit with ``!`` wins over the machine."""
    units = [] if ours is None else ours.split("+")[1:]
    if ours is not None and any(unit.startswith("!") for unit in units):
        return ours
    return "+".join([theirs, *units])


def worst_of(derivation: Derivation) -> int:
    """What a run may cost at most: inline ones are free, and one of three workflows."""
    number = derivation.provider_id.int
    return 2 + number // 3 % 7 if derivation.execution == Execution.WORKFLOW and number % 3 else 0


def is_coarse(instance_id: InstanceId) -> bool:
    return instance_id.int % 3 == 0


class World(People):
    """One user's people, relay, workflows and workers around one schedule."""

    window = WINDOW
    asking = 7
    """One in so many inputs needs an approval."""

    def __init__(self, random: Random, schedule: Schedule | None = None, *, disasters: bool = False) -> None:
        super().__init__(random, schedule)
        self.disasters = disasters
        self.workflows: dict[CascadeId, Workflow] = {}
        self.executions: list[Attempt] = []
        self.backup: Schedule | None = None
        self.shaken = False
        self.faults = True
        self.lossy = True

    # --- the relay ----------------------------------------------------------------------------------------

    def unsent(self) -> list[CascadeId]:
        return sorted(c.id for c in self.schedule.cascades.values() if c.seq > c.sent_seq)

    def relay(self, cascade_id: CascadeId) -> None:
        """Start or signal the cascade's workflow, then note it; killed in between, it rings twice."""
        seq = self.schedule.cascades[cascade_id].seq
        self.workflows.setdefault(cascade_id, Workflow(cascade_id)).inbox = True
        if not self._lost_ack():
            self.do("sent", cascade_id=cascade_id, seq=seq)

    # --- workflows ----------------------------------------------------------------------------------------

    def awake(self) -> list[Workflow]:
        return [w for _, w in sorted(self.workflows.items()) if self._enabled(w)]

    def _enabled(self, flow: Workflow) -> bool:
        due = flow.timer is not None and flow.timer <= self.now
        return flow.phase != "wait" or flow.inbox or due or bool(flow.lost)

    def advance(self, flow: Workflow) -> None:
        """One step of a Cascade workflow; a lost acknowledgement leaves it where it was."""
        getattr(self, f"_flow_{flow.phase}")(flow)

    def _flow_plan(self, flow: Workflow) -> None:
        self.do("plan", cascade_id=flow.cascade_id, now=self.now)
        if not self._lost_ack():
            flow.phase = "claim"

    def _flow_claim(self, flow: Workflow) -> None:
        flow.inbox = False
        while flow.lost:
            self.do("lose", run_id=flow.lost.pop(), losses_max=LOSSES_MAX)
        fresh = [RunId(self.uuid()) for _ in range(self.window)]
        known = set(self.schedule.runs)
        claim: Claim = self.do(
            "claim", cascade_id=flow.cascade_id, run_ids=fresh, now=self.now, window=self.window
        )  # fmt: skip
        for run_id in sorted(set(self.schedule.runs) - known):
            check_started(self.schedule, self.schedule.runs[run_id], self.expected)
        if self._lost_ack():
            return
        alive = {e.run_id for e in self.executions if not e.zombie}
        for run_id in claim.runs:
            if run_id not in alive:
                self.executions.append(self._execution(run_id))
        flow.seq, flow.timer = claim.seq, claim.next_run_after
        flow.phase = "wait" if claim.runs else "close"

    def _flow_wait(self, flow: Workflow) -> None:
        flow.phase = "claim"

    def _flow_close(self, flow: Workflow) -> None:
        answer = self.do("close_cascade", cascade_id=flow.cascade_id, seen_seq=flow.seq)
        if answer == Closing.CLOSED:
            check_closed(self.schedule, flow.cascade_id)
        if not self._lost_ack():
            flow.phase = {Closing.CLOSED: "end", Closing.RUNG: "claim", Closing.WAITING: "wait"}[answer]

    def _flow_end(self, flow: Workflow) -> None:
        """Temporal lets no workflow end that has a signal it has not seen."""
        if flow.inbox:
            flow.phase = "claim"
        else:
            del self.workflows[flow.cascade_id]

    # --- runs ---------------------------------------------------------------------------------------------

    def _execution(self, run_id: RunId) -> Attempt:
        run = self.schedule.runs[run_id]
        outputs = self.schedule.outputs[run.derivation_id]
        instance_id = self.schedule.derivations[run.derivation_id].provider_id
        slots = {slot: row.blob_id for slot, row in outputs.items()}
        return Attempt(
            run_id, run.cascade_id, run.inputs, run.used_digest, slots, is_coarse(instance_id),
            worst=worst_of(self.schedule.derivations[run.derivation_id]),
        )  # fmt: skip

    def expected(self, slot: str, digest: str, inputs: tuple[Pinned, ...], instance_id: InstanceId) -> str:
        return machine_hash(slot, digest, inputs, coarse=is_coarse(instance_id))

    def work(self, execution: Attempt) -> None:
        """One step of a run: reserve, call and charge, merge, then report until the report is acknowledged."""
        if execution.worst and not execution.reserved:
            self._reserve(execution)
            return
        if execution.worst and not execution.charged:
            self._charge(execution)
            return
        if execution.failure is None and execution.drafts is None:
            if asks(execution.digest, execution.inputs, self.asking) and not self._approved(execution):
                ending = self.do("park", run_id=execution.run_id)
                if ending != Ending.ALREADY and not self._lost_ack():
                    self._finish(execution)
                return
            if fails(execution.digest, execution.inputs) or (self.faults and self._breaks(execution)):
                execution.failure = "provider_failed"
            else:
                execution.drafts = self._merge(execution)
            return
        if execution.failure is not None:
            ending = self.do("fail", run_id=execution.run_id, code=execution.failure)
        else:
            ending = self._settle(execution)
        if ending == Ending.MOVED:
            execution.drafts = None
        elif not self._lost_ack():
            self._finish(execution)

    def _useless(self) -> bool:
        """Whether an answer that was paid for is of no use."""
        return False

    def _breaks(self, execution: Attempt) -> bool:
        """Whether a run fails that need not."""
        del execution
        return self.chance(0.04)

    def _reserve(self, execution: Attempt) -> None:
        ahead, key = needed_before(self.schedule, execution.run_id), (execution.run_id, STEP, execution.call)
        had = any(found[:2] == key[:2] for found in self.schedule.reservations)
        status = self.do("begin", run_id=execution.run_id, step_id=STEP, worst=execution.worst, attempt=key[2])
        if key in self.schedule.reservations and not had:
            check_turn(self.schedule, ahead)
        if self._lost_ack():
            return
        if status == RunStatus.RUNNING:
            execution.reserved = True
        else:
            self._finish(execution)

    def _charge(self, execution: Attempt) -> None:
        """Mostly less than the worst case, now and then more; some calls fail and cost nothing that we know of."""
        if not self.chance(0.1):
            amount = self.random.randint(0, execution.worst) + (3 if self.chance(0.05) else 0)
            key, before = (execution.run_id, STEP, execution.call), self.schedule.funds().spent
            paid = key in self.schedule.charges
            self.do("charge", run_id=execution.run_id, step_id=STEP, amount=amount, attempt=execution.call)
            if paid and self.schedule.funds().spent != before:
                raise Violation(f"(12) charged again: {execution.run_id}")
            if execution.run_id in self.schedule.runs and key not in self.schedule.charges:
                raise Violation(f"(12) paid and not charged: {execution.run_id}")
        if self._lost_ack():
            return
        if execution.call < CALLS_MAX and self._useless():  # another attempt
            execution.call, execution.reserved = execution.call + 1, False
        else:
            execution.charged = True

    def _approved(self, execution: Attempt) -> bool:
        run = self.schedule.runs.get(execution.run_id)
        return run is not None and run.approved

    def _merge(self, execution: Attempt) -> list[Draft]:
        drafts = []
        for slot, blob_id in sorted(execution.slots.items()):
            blob = self.schedule.blobs.get(blob_id)
            made = machine_hash(slot, execution.digest, execution.inputs, coarse=execution.coarse)
            ours, version = (None, 0) if blob is None else (blob.hash, blob.version)
            drafts.append(Draft(slot=slot, machine_hash=made, merged_hash=merged_hash(ours, made), version=version))
        return drafts

    def merging(self) -> list[BlobId]:
        found = {blob_id for e in self.executions if e.drafts for blob_id in e.slots.values()}
        return sorted(found & {blob.id for blob in self._blobs()})

    def _settle(self, execution: Attempt) -> Ending:
        before = self.schedule.runs.get(execution.run_id)
        settled_before = before is not None and before.status == RunStatus.SETTLED
        answer: Settled = self.do("settle", run_id=execution.run_id, drafts=execution.drafts or [], now=self.now)
        if settled_before and answer.status != Ending.ALREADY:
            raise Violation(f"A repeated settle answers {answer.status}, not that the run has settled.")
        return answer.status

    def _finish(self, execution: Attempt) -> None:
        self.executions.remove(execution)
        parent = self.workflows.get(execution.cascade_id)
        if parent is not None and not execution.zombie:
            parent.inbox = True

    # --- what goes wrong ----------------------------------------------------------------------------------

    def _lost_ack(self) -> bool:
        return self.lossy and self.chance(LOST_ACK)

    def mishap(self) -> None:
        """A worker dies, a run is terminated or taken for dead; perhaps Temporal or the database is lost."""
        kinds = [self._zombie, self._terminate, self._suspect]
        if self.disasters:
            kinds += [self._lose_temporal, self._lose_database]
        self.random.choice(kinds)()

    def _zombie(self) -> None:
        """An execution is given up and started again, while the old one goes on."""
        if self.executions:
            chosen = self.random.choice(self.executions)
            self.executions.append(replace(chosen, zombie=True))

    def _terminate(self) -> None:
        """An operator terminates a run's workflow; its parent hears of it."""
        living = [e for e in self.executions if not e.zombie and e.cascade_id in self.workflows]
        if living:
            chosen = self.random.choice(living)
            chosen.zombie = self.chance(0.5)
            if not chosen.zombie:
                self.executions.remove(chosen)
            self.workflows[chosen.cascade_id].lost.append(chosen.run_id)

    def _suspect(self) -> None:
        """A lease has expired although the run is still under way."""
        running = sorted(r.id for r in self.schedule.runs.values() if r.status == RunStatus.RUNNING)
        if running:
            self.do("lose", run_id=self.random.choice(running), losses_max=LOSSES_MAX)

    def _lose_temporal(self) -> None:
        """Temporal's database is lost; some workers go on with what they were doing."""
        self.workflows.clear()
        self.executions = [replace(e, zombie=True) for e in self.executions if self.chance(0.5)]
        self.shaken = True

    def _lose_database(self) -> None:
        """PostgreSQL is restored from a backup; Temporal and the workers know of things that never happened."""
        if self.backup is None:
            self.backup = copy.deepcopy(self.schedule)
        else:
            self.schedule, self.backup = self.backup, None
            self.trace.append(Step("restore_backup", {}, None))
            self.shaken = True

    def reconcile(self) -> None:
        """What housekeeping does: runs without an execution are lost, what is due is rung.

        A workflow may wait for something that a restored database has never heard of: each looks again.
        """
        for flow in self.workflows.values():
            flow.inbox = True
        alive = {e.run_id for e in self.executions if not e.zombie}
        for run in sorted(self.schedule.runs.values(), key=lambda r: r.id):
            if run.status == RunStatus.RUNNING and run.id not in alive:
                self.do("lose", run_id=run.id, losses_max=LOSSES_MAX)
        self.do("reconcile")
        self.shaken = False

    # --- time ---------------------------------------------------------------------------------------------

    def step(self) -> None:
        """One thing happens, somewhere."""
        self.now = round(self.now + self.random.choice([0.0, 0.1, 1.0]), 6)
        if self.chance(0.01):
            self.now += MAX_WAIT_SECONDS
        dice = self.random.random()
        unsent, awake = self.unsent(), self.awake()
        if dice < 0.16:
            self.person()
        elif dice < 0.19:
            self.mishap()
        elif dice < 0.38 and unsent:
            self.relay(self.random.choice(unsent))
        elif dice < 0.7 and awake:
            self.advance(self.random.choice(awake))
        elif self.executions:
            self.work(self.random.choice(self.executions))

    def drain(self) -> None:
        """Let everything that can happen happen, without further faults, until nothing can; then check rest."""
        self.faults = self.lossy = False
        if self.shaken:
            self.reconcile()
        self._settle_down()
        self.faults = self.lossy = True

    def alone(self) -> None:
        """From rest, one cause alone: acknowledgements get lost, nothing else goes wrong. Then check (9)."""
        before, causes = set(self.schedule.runs), len(self.schedule.cascades)
        self.controls = False
        while len(self.schedule.cascades) == causes:
            self.person()
        self.faults = False
        self._settle_down()
        self.faults = self.controls = True
        check_alone(self.schedule, [run for run in self.schedule.runs.values() if run.id not in before])

    def _settle_down(self) -> None:
        for _ in range(DRAIN_STEPS_MAX):
            if not self._drain_once():
                check_rest(self)
                return
        raise Violation(f"Not at rest after {DRAIN_STEPS_MAX} steps.")

    def _drain_once(self) -> bool:
        unsent, awake = self.unsent(), self.awake()
        possible = [(self.relay, found) for found in unsent]
        possible += [(self.advance, flow) for flow in awake]  # type: ignore[misc]
        possible += [(self.work, found) for found in self.executions]  # type: ignore[misc]
        if possible:
            act, on = self.random.choice(possible)
            act(on)
            return True
        timers = [flow.timer for flow in self.workflows.values() if flow.timer is not None and flow.timer > self.now]
        self.now = min(timers, default=self.now)
        return bool(timers)


def scenario(
    seed: int, *, steps: int = 150, rests: int = 2, disasters: bool = False, world: type[World] = World
) -> World:
    """Play one scenario: ``rests`` times ``steps`` random steps and then rest, where everything is checked.

    ``world.trace`` is the list of transactions, ``world.schedule`` the state that they lead to.
    """
    return play(world(Random(seed), disasters=disasters), steps=steps, rests=rests)


def play(world: World, *, steps: int, rests: int) -> World:
    """Drive a world to rest several times, and let one cause run alone each time; raises Violation."""
    for _ in range(rests):
        for _ in range(steps):
            world.step()
        world.drain()
        world.alone()
    return world


def replay(schedule: Schedule, trace: Iterable[Step]) -> None:
    """Execute a recorded scenario; raises Violation at the first move that answers otherwise."""
    for number, step in enumerate(trace):
        answer = plain(getattr(schedule, step.move)(**step.fresh()))
        if answer != step.result:
            raise Violation(f"Step {number}, {step.move}: {answer} instead of {step.result}.")
