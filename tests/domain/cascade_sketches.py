"""Sketches in words of the model of cascades: inline runs that nothing has recorded until they settle (decision 32).

One that settles is a claim and a settlement in one step; one that is dropped has never been.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from domain.cascades import Schedule
from domain.derivations import Cascade, Derivation, Draft, Execution, Pinned, Run
from domain.facts import MAX_WAIT_SECONDS, move
from domain.ids import CascadeId, DerivationId, RunId
from domain.settling import Ending

MOVED = Ending.MOVED.value
SUPERSEDED = Ending.SUPERSEDED.value
SETTLED = Ending.SETTLED.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketch:
    """A run as a claim answers it before anything records it; ``run_id`` is what it will be if it settles."""

    run_id: RunId
    derivation_id: DerivationId
    cascade_id: CascadeId
    attempt: int
    inputs: tuple[Pinned, ...]
    used_digest: str
    fresh_after: float | None
    started_at: float
    closings: int = 0
    """How often its derivation had settled."""

    def run(self) -> Run:
        """Return the run that it becomes."""
        return Run(
            id=self.run_id, derivation_id=self.derivation_id, attempt=self.attempt, cascade_id=self.cascade_id,
            inputs=self.inputs, used_digest=self.used_digest, started_at=self.started_at, fresh_after=self.fresh_after,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sketched:
    """What a claim with sketches answers, and what became of those that were settled before it, by run."""

    runs: tuple[RunId, ...] = ()
    sketches: tuple[Sketch, ...] = ()
    next_run_after: float | None = None
    seq: int = 0
    verdicts: Mapping[str, str] = field(default_factory=dict)


class SketchingSchedule(Schedule):
    """The model with three more moves: claim with sketches, settle some and claim, fail one."""

    def __init__(self) -> None:
        super().__init__()
        self.sketching: set[CascadeId] = set()
        """Cascades with an advance that has sketches in hand, or had when it died."""
        self.closings: Counter[DerivationId] = Counter()
        """How often each has settled: who has been settled in between waits for another run, if for the same inputs."""
        self._busy: frozenset[DerivationId] = frozenset()
        self._sketches: list[Sketch] | None = None

    @move
    def sketch(
        self, cascade_id: CascadeId, run_ids: Sequence[RunId], now: float, window: int,
        busy: Sequence[DerivationId], *, begins: bool,
    ) -> Sketched:  # fmt: skip
        """Claim, as an advance that ``begins`` or goes on: inline runs are sketched, but not those in hand (``busy``).

        Who begins where the mark is set follows one that died, and has its runs recorded.
        """
        may = not begins or cascade_id not in self.sketching
        self._busy, self._sketches = frozenset(busy), [] if may else None
        try:
            claim = _CLAIM(self, cascade_id, run_ids, now, max(0, window - len(busy)))
            found = tuple(self._sketches or ())
        finally:
            self._busy, self._sketches = frozenset(), None
        held = bool(found or busy) if may else cascade_id in self.sketching and self._inline(claim.runs)
        (self.sketching.add if held else self.sketching.discard)(cascade_id)
        return Sketched(runs=claim.runs, sketches=found, next_run_after=claim.next_run_after, seq=claim.seq)

    @move
    def settle_sketches(
        self, cascade_id: CascadeId, sketches: Sequence[Sketch], drafts: Sequence[Sequence[Draft]],
        run_ids: Sequence[RunId], now: float, window: int, busy: Sequence[DerivationId],
    ) -> Sketched:  # fmt: skip
        """Settle those that still stand, and claim in the same transaction."""
        self.clock = now
        rows = [(sketch, made, self._standing(sketch, now)) for sketch, made in zip(sketches, drafts, strict=True)]
        verdicts = {}
        for sketch, made, standing in sorted(rows, key=lambda row: row[2] == "current"):
            verdicts[str(sketch.run_id)] = self._settle_sketch(sketch, cascade_id, made, now, stands=bool(standing))
        found = _SKETCH(self, cascade_id, run_ids, now, window, busy, begins=False)
        return Sketched(
            runs=found.runs, sketches=found.sketches, next_run_after=found.next_run_after, seq=found.seq,
            verdicts=verdicts,
        )  # fmt: skip

    @move
    def fail_sketch(self, cascade_id: CascadeId, sketch: Sketch, code: str) -> str:
        """Record one that cannot be carried out, and fail it, if it still stands."""
        if not self._standing(sketch, self.clock):
            return SUPERSEDED
        self._record(sketch, cascade_id)
        return str(_FAIL(self, sketch.run_id, code))

    def _settle_sketch(
        self, sketch: Sketch, cascade_id: CascadeId, made: Sequence[Draft], now: float, *, stands: bool
    ) -> str:
        if not stands:  # settled before, its answer lost; else nothing remains of it
            known = self.runs.get(sketch.run_id)
            return SUPERSEDED if known is None else known.status.value
        outputs = self.outputs[sketch.derivation_id]
        if any(self.blobs[outputs[draft.slot].blob_id].version != draft.version for draft in made):
            return MOVED
        self._record(sketch, cascade_id)
        return str(_SETTLE(self, sketch.run_id, made, now).status)

    def _standing(self, sketch: Sketch, now: float) -> str:
        """Say whether a sketch is ``current``, stands although what it read has ``moved``, or does not stand.

        Its derivation waits for just this run. What has moved stands where everyone has waited for long (rule 6), and
        nothing below has gone on without it.
        """
        row = self.derivations[sketch.derivation_id]
        if not row.unsettled or row.run_id is not None or row.hold is not None or row.attempt != sketch.attempt - 1:
            return ""
        if self.closings[row.id] != sketch.closings:
            return ""
        fresh = row.fresh_after == sketch.fresh_after
        if row.pending_inputs == 0 and fresh and self._current(row, sketch.run()):
            return "current"
        waited = row.dirty_since is not None and now - row.dirty_since >= MAX_WAIT_SECONDS
        return "moved" if waited and not row.failing else ""

    def _record(self, sketch: Sketch, cascade_id: CascadeId) -> None:
        row = self.derivations[sketch.derivation_id]
        row.attempt, row.run_id = sketch.attempt, sketch.run_id
        run = self.runs[sketch.run_id] = sketch.run()
        run.cascade_id = cascade_id

    def _inline(self, run_ids: Sequence[RunId]) -> bool:
        rows = (self.derivations[self.runs[found].derivation_id] for found in run_ids)
        return any(row.execution == Execution.INLINE for row in rows)

    def close(self, derivation: Derivation) -> None:
        """Settle a derivation, and count it."""
        self.closings[derivation.id] += 1
        super().close(derivation)

    def _ready(self, derivation: Derivation) -> bool:
        return derivation.id not in self._busy and super()._ready(derivation)

    def _start(self, derivation: Derivation, run_id: RunId, cascade: Cascade) -> RunId:
        """Of those that may be sketched nothing is written but which definition they want."""
        instance = self.instances[derivation.provider_id]
        inline = derivation.execution == Execution.INLINE and instance.max_concurrency is None
        if self._sketches is None or not inline:
            return super()._start(derivation, run_id, cascade)
        if instance.published:
            derivation.definition_digest = instance.definition_digest
            self._want_again(derivation.id)
        self._sketches.append(Sketch(
            run_id=run_id, derivation_id=derivation.id, cascade_id=cascade.id, attempt=derivation.attempt + 1,
            inputs=self.marked_inputs(derivation.id), used_digest=derivation.want_digest,
            fresh_after=derivation.fresh_after, started_at=self.clock, closings=self.closings[derivation.id],
        ))  # fmt: skip
        return run_id


# The moves without the transaction around them: several of them are one here.
_CLAIM: Any = Schedule.claim.__wrapped__  # type: ignore[attr-defined]
_SETTLE: Any = Schedule.settle.__wrapped__  # type: ignore[attr-defined]
_FAIL: Any = Schedule.fail.__wrapped__  # type: ignore[attr-defined]
_SKETCH: Any = SketchingSchedule.sketch.__wrapped__  # type: ignore[attr-defined]
