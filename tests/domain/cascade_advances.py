"""A world whose advances keep sketches in hand while everything else happens.

They settle some and claim more, fail one, forget what they have answered, are given up and go on all the same, or
die: then the next one puts its runs on record. People change what sketches have read, there and back again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from domain.cascades import Schedule
from domain.derivations import OPEN, Draft, Execution, Instance
from domain.graphs import reachable
from domain.ids import BlobId, CascadeId, DerivationId, RunId
from domain.runs import RunStatus
from tests.domain.cascade_checks import check_started
from tests.domain.cascade_sketches import Sketch, Sketched, SketchingSchedule
from tests.domain.cascade_world import LOSSES_MAX, Attempt, Workflow, World, fails, is_coarse


@dataclass(eq=False, slots=True)
class Advance:
    """One activity that advances a cascade; a zombie is one that Temporal has given up, and that goes on."""

    cascade_id: CascadeId
    hand: dict[DerivationId, Sketch]
    last: Sketched
    drafts: dict[RunId, list[Draft]] = field(default_factory=dict)
    stopping: bool = False
    zombie: bool = False


class SketchingWorld(World):
    """A world whose inline runs are sketches. To be mixed in before another kind of world."""

    eager = 0.08
    """How often an advance takes its next step, rather than somebody else."""
    dying = 0.05
    """How often an advance dies or is given up at one of its steps."""

    def __init__(self, random: Random, schedule: Schedule | None = None, *, disasters: bool = False) -> None:
        self.advances: list[Advance] = []
        self.verdicts: dict[str, int] = {}
        """What became of sketches, counted."""
        self.haunted = False
        super().__init__(random, SketchingSchedule() if schedule is None else schedule, disasters=disasters)

    # --- the workflow ---------------------------------------------------------------------------------------------

    def _enabled(self, flow: Workflow) -> bool:
        return flow.phase != "advance" and super()._enabled(flow)

    def _flow_claim(self, flow: Workflow) -> None:
        """Begin an advance; without sketches it is over at once."""
        flow.inbox = False
        while flow.lost:
            self.do("lose", run_id=flow.lost.pop(), losses_max=LOSSES_MAX)
        found = self._look("sketch", flow.cascade_id, busy=[], begins=True)
        if self._lost_ack():
            self._count("dropped", len(found.sketches))
            return
        advance = Advance(flow.cascade_id, {s.derivation_id: s for s in found.sketches}, found)
        self._started(advance, found)
        flow.phase = "advance"
        self.advances.append(advance)
        if not advance.hand:
            self._over(advance)

    def _look(self, name: str, cascade_id: CascadeId, *, window: int | None = None, **more: Any) -> Sketched:
        """A claim, alone or after a settlement; what it begins is checked."""
        fresh = [RunId(self.uuid()) for _ in range(self.window)]
        known = set(self.schedule.runs) | {sketch.run_id for sketch in more.get("sketches", ())}
        found: Sketched = self.do(
            name, cascade_id=cascade_id, run_ids=fresh, now=self.now,
            window=self.window if window is None else window, **more,
        )  # fmt: skip
        for run_id in sorted(set(self.schedule.runs) - known):
            check_started(self.schedule, self.schedule.runs[run_id], self.expected)
        for sketch in found.sketches:
            check_started(self.schedule, sketch.run(), self.expected)
        for verdict in found.verdicts.values():
            self._count(verdict, 1)
        return found

    def _count(self, verdict: str, number: int) -> None:
        self.verdicts[verdict] = self.verdicts.get(verdict, 0) + number

    def _started(self, advance: Advance, found: Sketched) -> None:
        advance.last = found
        if advance.zombie:
            return
        alive = {e.run_id for e in self.executions if not e.zombie}
        self.executions += [self._execution(run_id) for run_id in found.runs if run_id not in alive]

    def _over(self, advance: Advance, *, again: bool = False) -> None:
        """The activity answers, or dies (``again``); nobody hears a zombie."""
        self.advances.remove(advance)
        self._count("dropped", len(advance.hand))
        if advance.zombie:
            return
        flow = self.workflows[advance.cascade_id]
        flow.seq, flow.timer = advance.last.seq, advance.last.next_run_after
        flow.phase = "claim" if again or advance.stopping else "wait" if advance.last.runs else "close"

    # --- an advance -----------------------------------------------------------------------------------------------

    def carry_on(self, advance: Advance) -> None:
        """One step of an advance."""
        if self.faults and self.chance(self.dying):
            self._over(advance, again=True)
            return
        if self.faults and not advance.zombie and self.chance(self.dying):
            self.haunted = advance.zombie = True  # its time is up for Temporal; the next one begins
            self.workflows[advance.cascade_id].phase = "claim"
            return
        if self.faults and self.chance(0.05):  # its own time is up: what it has not begun is as if it had not been
            advance.stopping = True
            for sketch in [s for s in advance.hand.values() if s.run_id not in advance.drafts]:
                del advance.hand[sketch.derivation_id]
        if not advance.hand:
            self._over(advance)
        elif self.chance(0.2) and not advance.stopping:
            found = self._look("sketch", advance.cascade_id, busy=list(advance.hand), begins=False)
            self._take(advance, found, [])
        elif self.chance(0.4):
            self._evaluate(advance)
        else:
            self._settle_some(advance)

    def _some(self, advance: Advance) -> list[Sketch]:
        hand = [advance.hand[found] for found in sorted(advance.hand)]
        return self.random.sample(hand, self.random.randint(1, len(hand)))

    def _evaluate(self, advance: Advance) -> list[Sketch]:
        """Merge some with their outputs as they stand; what cannot be carried out fails. Returns the others."""
        able = []
        for sketch in self._some(advance):
            if sketch.run_id in advance.drafts:
                able.append(sketch)
            elif fails(sketch.used_digest, sketch.inputs) or (self.faults and self._breaks_at(sketch)):
                self._count("fail " + self.do(
                    "fail_sketch", cascade_id=advance.cascade_id, sketch=sketch, code="provider_failed"
                ), 1)  # fmt: skip
                if not self._lost_ack():
                    del advance.hand[sketch.derivation_id]
            else:
                advance.drafts[sketch.run_id] = self._merge(self._attempt(sketch))
                able.append(sketch)
        return able

    def _breaks_at(self, sketch: Sketch) -> bool:
        """Whether one fails that need not; not the first time: then there would be no output to go on with."""
        return self.chance(0.04 if sketch.attempt == 1 else 0.12)

    def _attempt(self, sketch: Sketch) -> Attempt:
        slots = {slot: row.blob_id for slot, row in self.schedule.outputs[sketch.derivation_id].items()}
        coarse = is_coarse(self.schedule.derivations[sketch.derivation_id].provider_id)
        return Attempt(sketch.run_id, sketch.cascade_id, sketch.inputs, sketch.used_digest, slots, coarse)

    def _settle_some(self, advance: Advance) -> None:
        batch = self._evaluate(advance)
        mine = {sketch.derivation_id for sketch in batch}
        found = self._look(
            "settle_sketches", advance.cascade_id, sketches=batch, drafts=[advance.drafts[s.run_id] for s in batch],
            busy=[other for other in advance.hand if other not in mine], window=0 if advance.stopping else None,
        )  # fmt: skip
        if self._lost_ack():  # it asks again, or dies
            if self.chance(0.5):
                self._over(advance, again=True)
            return
        self._take(advance, found, batch)

    def _take(self, advance: Advance, found: Sketched, batch: Sequence[Sketch]) -> None:
        for sketch in batch:
            del advance.hand[sketch.derivation_id]
        advance.hand |= {sketch.derivation_id: sketch for sketch in found.sketches}
        self._started(advance, found)
        if not advance.hand:
            self._over(advance)

    # --- people ---------------------------------------------------------------------------------------------------

    def _catalogue(self) -> Iterator[Instance]:
        for instance in super()._catalogue():
            yield replace(instance, execution=Execution.INLINE) if self.chance(0.6) else instance

    def person(self) -> None:
        """What people do, often where a sketch is in hand."""
        hands = [sketch for advance in self.advances for sketch in advance.hand.values()]
        if hands and self.chance(0.6):
            self._meddle(self.random.choice(sorted(hands, key=lambda sketch: sketch.run_id)))
        elif self.chance(0.5):
            self._edit()
        else:
            super().person()

    def _meddle(self, sketch: Sketch) -> None:
        """Change what a sketch has read, there and back again, what that stems from, or what it makes."""
        row = self.schedule.inputs[sketch.derivation_id]
        above = reachable([sketch.derivation_id], self.schedule._sources)
        stems = {found for name in (sketch.derivation_id, *above) for found in self.schedule.inputs[name]}
        made = {found.blob_id for found in self.schedule.outputs[sketch.derivation_id].values()}
        roots = [blob for blob in self._blobs(derived=False) if blob.id in stems]
        read = {pinned.blob_id: pinned.hash for pinned in sketch.inputs}
        back = [blob for blob in roots if blob.id in read and row[blob.id].used_hash not in (None, read[blob.id])]
        if back and self.chance(0.6):  # what it had used before needs no run
            blob = self.random.choice(back)
            for content in (row[blob.id].used_hash, read[blob.id]):
                self._change(blob.id, str(content), at_once=0.9)
        elif roots and self.chance(0.8):
            self._change(self.random.choice(roots).id, self.random.choice("ab"), at_once=0.7)
        elif found := [blob for blob in self._blobs(derived=True) if blob.id in made]:
            self.units += 1
            self._change(found[0].id, f"{found[0].hash}+u{self.units}", at_once=0.7)

    def _change(self, blob_id: BlobId, content: str, *, at_once: float) -> None:
        """Edit a blob; mostly planned at once, often claimed by somebody who dies over it."""
        cascade = self.do("edit", blob_id=blob_id, content=content, cascade_id=self.cascade_id())
        if self.chance(at_once):
            self.do("plan", cascade_id=cascade, now=self.now)
            if self.chance(at_once / 2):
                self._count("dropped", len(self._look("sketch", cascade, busy=[], begins=True).sketches))

    # --- time -----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        dice = self.random.random()
        if self.advances and dice < self.eager:
            self.carry_on(self.random.choice(self.advances))
        elif self.advances and dice < 3 * self.eager:
            self.person()
        else:
            super().step()

    def _drain_once(self) -> bool:
        if self.advances and self.chance(0.5):
            self.carry_on(self.random.choice(self.advances))
            return True
        return super()._drain_once() or bool(self.advances) or (self.haunted and self._expire())

    def _expire(self) -> bool:
        """What housekeeping does about zombies: nobody has begun what they claimed, nor heard what they closed.

        Leases run out, and workflows look again whose cascade is not open.
        """
        self.haunted = False
        for flow in self.workflows.values():
            flow.inbox = flow.inbox or self.schedule.cascades[flow.cascade_id].status not in OPEN
        alive = {e.run_id for e in self.executions if not e.zombie}
        rows = self.schedule.runs.values()
        for run_id in sorted(r.id for r in rows if r.status == RunStatus.RUNNING and r.id not in alive):
            self.do("lose", run_id=run_id, losses_max=LOSSES_MAX)
        return bool(self.unsent() or self.awake())
