"""The protocol of cascades as a pure model: plan, claim, settle, close, fail, doorbells, reconcile.

This is the reference that the SQL functions are compared with, move by move. Each public method of ``Schedule``
is one transaction under the user's lock; it can be executed again at any time (rule 3). The rules are numbered as
in CASCADES.md and explained in ``docs/explanation/cascades.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.budgets import Budgeting
from domain.controls import Controls
from domain.derivations import OPEN, Cascade, CascadeStatus, Derivation, Execution, OnDelete, Run
from domain.facts import move
from domain.ids import CascadeId, DerivationId, RunId
from domain.runs import Hold, RunStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a cascade has to do: every run of its own that is to be carried out, old and new, and when to look again.

    ``closed`` are the derivations settled without a run, ``seq`` is the doorbell as seen (for ``close_cascade``),
    ``claimable`` counts what the window left over.
    """

    runs: tuple[RunId, ...] = ()
    next_run_after: float | None = None
    closed: tuple[DerivationId, ...] = ()
    seq: int = 0
    claimable: int = 0


class Closing(StrEnum):
    """Whether the workflow of a cascade may end: ``rung`` means look again, ``waiting`` wait for a doorbell."""

    CLOSED = "closed"
    RUNG = "rung"
    WAITING = "waiting"


class Schedule(Controls, Budgeting):
    """The schedule of one user. Times are seconds; the caller's clock only grows."""

    # --- claim --------------------------------------------------------------------------------------------

    @move
    def claim(self, cascade_id: CascadeId, run_ids: Sequence[RunId], now: float, window: int) -> Claim:
        """Settle what needs no run, start runs for what is ready, and return all that this cascade must see to.

        ``run_ids`` are new ids for the runs to be made, ``window`` bounds how many of the cascade's run at once.
        """
        self.clock = now
        cascade = self.cascades.get(cascade_id)
        if cascade is None:
            return Claim()
        if not self._already_planned(cascade):
            self._plan(cascade, now)  # the database was restored to before the plan that our caller remembers
        closed = self._close_unchanged(cascade, now)
        self.call_up()
        room = max(0, window - len(self._running(cascade_id)))
        unused = [found for found in run_ids if found not in self.runs]
        while True:  # again where all of them have run too often and are put off: others are behind them
            ready = [d for d in self.owned(cascade_id) if self._ready(d) and self._due(d, now)]
            asked = self.choose(cascade, ready, min(room, len(unused)))
            chosen = self.within_bounds(asked)
            if chosen or not asked:
                break
        ready = [d for d in ready if self._due(d, now)]
        started = [self._start(d, run, cascade) for d, run in zip(chosen, unused, strict=False)]
        self.offer()
        later = [d.run_after for d in self.owned(cascade_id) if self._ready(d) and not self._due(d, now)]
        runs = self._unfinished(cascade, started)
        if started or later or ready or (runs and cascade.status != CascadeStatus.CANCELLED):
            cascade.status = CascadeStatus.RUNNING
        self.bells.discard(cascade_id)
        return Claim(
            runs=runs, next_run_after=min((at for at in later if at is not None), default=None),
            closed=tuple(closed), seq=cascade.seq, claimable=len(ready) - len(started),
        )  # fmt: skip

    def _ready(self, derivation: Derivation) -> bool:
        free = derivation.hold is None and derivation.run_id is None
        return derivation.unsettled and free and derivation.pending_inputs == 0

    def _due(self, derivation: Derivation, now: float) -> bool:
        return derivation.run_after is None or derivation.run_after <= now

    def _close_unchanged(self, cascade: Cascade, now: float) -> list[DerivationId]:
        """Settle without a run what is ready and unchanged or without supply, until nothing more is (rule 5)."""
        closed: list[DerivationId] = []
        while True:
            ready = [d for d in self.owned(cascade.id) if self._ready(d) and self._due(d, now)]
            ready = [d for d in ready if self._close_without_run(d, cascade, now)]
            if not ready:
                return closed
            closed += [d.id for d in ready]

    def _close_without_run(self, derivation: Derivation, cascade: Cascade, now: float) -> bool:
        skipped = self.skipped(derivation)
        supplied = skipped or self.supplied(derivation)
        if not supplied or self.output_deleted(derivation):
            derivation.hold = Hold.RETIRED
            if not supplied:
                self._withdraw(derivation, cascade, now)
        elif not skipped and (derivation.force or not self.unchanged(derivation)):
            return False
        self.close(derivation)
        return True

    def _withdraw(self, derivation: Derivation, cascade: Cascade, now: float) -> None:
        """Delete the outputs of a derivation that has nothing left to read, if its provider says so (rule 9)."""
        if self.instances[derivation.provider_id].on_delete != OnDelete.DELETE or not self.bereft(derivation):
            return
        for row in self.outputs[derivation.id].values():
            blob = self.blobs[row.blob_id]
            if row.machine_hash is None or blob.deleted:
                continue
            self.append(blob, blob.hash, deleted=True, cascade_id=cascade.id)
            row.machine_hash = derivation.used_digest = None
            if self.advance(blob):
                self.blobs_moved([blob.id], now)
                self.recount(self.readers([blob.id]))

    def _running(self, cascade_id: CascadeId) -> list[Run]:
        rows = self.runs.values()
        return [run for run in rows if run.cascade_id == cascade_id and run.status == RunStatus.RUNNING]

    def _unfinished(self, cascade: Cascade, started: list[RunId]) -> tuple[RunId, ...]:
        """Return every run of the cascade under way, not only those just started (rule 3).

        A parked one needs nobody; once it is approved it is under way again.
        """
        del started
        return tuple(sorted(run.id for run in self._running(cascade.id)))

    def _start(self, derivation: Derivation, run_id: RunId, cascade: Cascade) -> RunId:
        """Pin the inputs as the schedule sees them, and make the run the one that is waited for.

        What runs anyway runs with the newest definition of a provider that others define.
        """
        if self.instances[derivation.provider_id].published:
            derivation.definition_digest = self.instances[derivation.provider_id].definition_digest
            self._want_again(derivation.id)
        derivation.attempt += 1
        derivation.run_id = run_id
        self.runs[run_id] = Run(
            id=run_id, derivation_id=derivation.id, attempt=derivation.attempt, cascade_id=cascade.id,
            inputs=self.marked_inputs(derivation.id), used_digest=derivation.want_digest, started_at=self.clock,
            fresh_after=derivation.fresh_after,
        )  # fmt: skip
        self._take_over(derivation, self.runs[run_id])
        return run_id

    def _take_over(self, derivation: Derivation, run: Run) -> None:
        """Take over the finished steps of a run that was lost, cancelled or could not be paid, on the same inputs.

        They are the same, and paid; of them the model knows the approval. Only a workflow has steps.
        """
        before = None if derivation.resume_run_id is None else self.runs[derivation.resume_run_id]
        if before is None or derivation.force or derivation.execution != Execution.WORKFLOW:
            return
        read, reads = ([(found.blob_id, found.hash) for found in one.inputs] for one in (before, run))
        run.approved = before.approved and before.used_digest == run.used_digest and read == reads

    # --- ending and beginning again -----------------------------------------------------------------------

    @move
    def close_cascade(self, cascade_id: CascadeId, seen_seq: int) -> Closing:
        """End a cascade, unless a doorbell rang since ``seen_seq`` or something of its own can still move."""
        cascade = self.cascades.get(cascade_id)
        if cascade is None:
            return Closing.CLOSED
        if cascade.seq != seen_seq or not self._already_planned(cascade):
            return Closing.RUNG
        if self._moving(cascade_id):
            return Closing.WAITING
        if cascade.status == CascadeStatus.CANCELLED:
            return Closing.CLOSED
        if self.owned(cascade_id):
            cascade.status = CascadeStatus.PARTIAL
        elif cascade.superseded_by is not None:
            cascade.status = CascadeStatus.SUPERSEDED
        else:
            cascade.status = CascadeStatus.COMPLETED
        return Closing.CLOSED

    @move
    def sent(self, cascade_id: CascadeId, seq: int) -> None:
        """Note that the doorbell was delivered up to ``seq``; a later ring is delivered again (rule 4)."""
        cascade = self.cascades.get(cascade_id)
        if cascade is not None:
            cascade.sent_seq = max(cascade.sent_seq, seq)

    @move
    def reconcile(self) -> tuple[CascadeId, ...]:
        """Ring every cascade that still has something to do, and recount; for what no living workflow owns."""
        self.recount(self.derivations)
        due = [c.id for c in self.cascades.values() if self._unfinished_business(c)]
        self.ring(*due)
        return tuple(sorted(due))

    def _unfinished_business(self, cascade: Cascade) -> bool:
        emptied = cascade.status == CascadeStatus.PARTIAL and not self.owned(cascade.id)
        return cascade.status in OPEN or emptied or self._moving(cascade.id)

    def _moving(self, cascade_id: CascadeId) -> bool:
        """Tell whether something of this cascade runs, or can go on before anybody lifts a hold.

        What waits for another cascade's work counts: whoever ends that wait, by settling or by a hold, rings.
        """
        if self._running(cascade_id):
            return True
        # Also what another cascade has claimed, and is left to finish below a hold.
        return any(
            (d.run_id is not None and self.runs[d.run_id].status == RunStatus.RUNNING)
            or (d.hold is None and not self.blocked_by(d))
            for d in self.owned(cascade_id)
        )
