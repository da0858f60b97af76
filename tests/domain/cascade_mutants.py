"""The model with one rule taken out each: the checks must notice, or they do not show that the rule is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from domain.cascades import Schedule
from domain.controls import Control
from domain.derivations import Blob, Cascade, CascadeStatus, Derivation, Input, OnParentFailure, Run
from domain.ids import BlobId, CascadeId, DerivationId, RunId
from domain.planning import Planned
from domain.runs import Hold, RunStatus
from domain.settling import Ending

Answer = TypeVar("Answer")


class SeesCurrentVersions(Schedule):
    """Rule 1, first half: the schedule looks at what readers see."""

    def sees(self, blob: Blob) -> tuple[int, str | None]:
        return blob.version, None if blob.deleted else blob.hash


class NeverFences(Schedule):
    """Rule 1, second half: whoever moves an input leaves the run in place."""

    def input_moved(self, derivation: Derivation, now: float) -> None:
        running, derivation.run_id = derivation.run_id, None
        super().input_moved(derivation, now)
        derivation.run_id = running


class AccumulatesPending(Schedule):
    """Rule 2: whoever frees a dependant takes one off, whoever unsettles adds what he newly knows of."""

    def recount(self, derivation_ids: Iterable[DerivationId]) -> None:
        for found in derivation_ids:
            row = self.derivations[found]
            row.pending_inputs = max(row.pending_inputs, self.pending(found))

    def close(self, derivation: Derivation) -> None:
        before = {found: self.derivations[found].pending_inputs for found in self.dependants(derivation.id)}
        super().close(derivation)
        for found, count in before.items():
            row = self.derivations[found]
            row.pending_inputs = max(0, count - 1)
            if row.unsettled and row.pending_inputs == 0:
                self.ring(row.owner_cascade_id)


class ClaimsOnlyNewRuns(Schedule):
    """Rule 3, claim: runs of an earlier claim, whose answer was lost, are not returned again."""

    def _unfinished(self, cascade: Cascade, started: list[RunId]) -> tuple[RunId, ...]:
        return tuple(started)


class PlansAgain(Schedule):
    """Rule 3, plan: a plan whose acknowledgement was lost is executed again."""

    def plan(self, cascade_id: CascadeId, now: float) -> Planned:
        cascade = self.cascades[cascade_id]
        return super().plan(cascade_id, now) if cascade.planned_at is None else self._plan(cascade, now)


class FencesBeforeStatus(Schedule):
    """Rule 3, settle: the fence is looked at before the run's own status."""

    def _fence(self, run: Run | None) -> Ending | None:
        if run is not None and self.derivations[run.derivation_id].run_id != run.id:
            run.status = RunStatus.SUPERSEDED
            return Ending.SUPERSEDED
        return super()._fence(run)


class RingsNobodyAtTheEnd(Schedule):
    """Rule 4: the end of a run rings neither its owner nor its claimer."""

    def end_run(self, derivation: Derivation, run: Run, status: RunStatus) -> None:
        before = set(self.bells)
        super().end_run(derivation, run, status)
        self.bells = before


class RingsNoFormerOwner(Schedule):
    """Rule 4: plan takes derivations over without a word to their owners."""

    def _supersede(self, former: Iterable[CascadeId], cascade: Cascade) -> None:
        del former, cascade


class CutsOffOneLevel(Schedule):
    """Rule 5: claim looks once for what needs no run, and rings nobody for what that frees."""

    def _close_unchanged(self, cascade: Cascade, now: float) -> list[DerivationId]:
        ready = [d for d in self.owned(cascade.id) if self._ready(d) and self._due(d, now)]
        return [d.id for d in ready if self._close_without_run(d, cascade, now)]


class FailsOverNewerInputs(Schedule):
    """A run left to finish that fails holds its derivation although newer inputs wait (rule 6)."""

    def _current(self, derivation: Derivation, run: Run) -> bool:
        del derivation, run
        return True


class ForgetsRemovedInputs(Schedule):
    """*want* covers definition and settings only, so an input that left a join is no change."""

    def want(self, derivation_id: DerivationId) -> str:
        row = self.derivations[derivation_id]
        return f"{row.definition_digest}:{row.settings_digest}"


class ClosesWhileOthersWork(Schedule):
    """A cascade closes as soon as nothing of its own runs or is claimable, whatever it waits for."""

    def _moving(self, cascade_id: CascadeId) -> bool:
        return bool(self._running(cascade_id)) or any(self._ready(d) for d in self.owned(cascade_id))


class HoldsRingNobodyBelow(Schedule):
    """A failure rings its owner and claimer, not the cascades that wait further down."""

    def _ring_below(self, derivation: Derivation) -> None:
        del derivation


class GoesOnWhileItMayBeCured(Schedule):
    """An input that failed is not waited for although what it is made from is still in the making."""

    def _failing(self, derivation: Derivation, waits: list[Derivation]) -> bool:
        failed = derivation.hold == Hold.FAILED
        return failed if derivation.unsettled else super()._failing(derivation, waits)


class FailureStopsAtTheChild(Schedule):
    """Only who failed counts as failing, not who waits for it in vain: the next below waits although it need not."""

    def _failing(self, derivation: Derivation, waits: list[Derivation]) -> bool:
        return derivation.hold == Hold.FAILED and super()._failing(derivation, waits)


class NeverComesBack(Schedule):
    """What went on below a failure stays as it is when the failure is over without a plan that reaches it."""

    def _take_back(self, lapsed: list[DerivationId]) -> None:
        for found in lapsed:
            self.derivations[found].provisional = None


class MixesUnsaid(Schedule):
    """A run on a last good output does not say so."""

    def _stale_blob(self, blob_id: BlobId) -> bool:
        del blob_id
        return False


class SaysOnlyWhatFailed(Schedule):
    """A run says that an input failed, not that something further up did."""

    def stale(self, derivation_id: DerivationId) -> bool:
        return self.derivations[derivation_id].failing


class UsesWhatWasNeverMade(Schedule):
    """``use_last_good`` goes on without an output that was never there."""

    def waived(self, row: Input) -> bool:
        maker = self.producer(row.blob_id)
        block = self.derivations[row.derivation_id].on_parent_failure == OnParentFailure.BLOCK
        return maker is not None and maker.failing and row.live and not block


class ParksWhatIsOutOfDate(Schedule):
    """Park: a person is asked about a run whose inputs have moved."""

    def park(self, run_id: RunId) -> Ending:
        self._current = lambda *_: True  # type: ignore[method-assign]
        try:
            return super().park(run_id)
        finally:
            del self._current


class KeepsParkedRuns(Schedule):
    """Park: a parked run is kept like one that is left to finish when its input moves."""

    def input_moved(self, derivation: Derivation, now: float) -> None:
        hold = derivation.hold
        if hold == Hold.APPROVAL and self.kept(derivation, now):
            derivation.hold = None
        super().input_moved(derivation, now)
        if derivation.run_id is not None:
            derivation.hold = hold


class ParksInSilence(Schedule):
    """Park: nobody hears of it, and whoever waits below waits in vain."""

    def park(self, run_id: RunId) -> Ending:
        return silently(self, super().park, run_id)


class ReportsOnParkedRuns(Schedule):
    """Park: whoever was given up may still settle or fail the run that waits for a person."""

    def _fence(self, run: Run | None) -> Ending | None:
        if run is not None and run.status == RunStatus.PARKED and self.derivations[run.derivation_id].run_id == run.id:
            return None
        return super()._fence(run)


class ApprovesInSilence(Schedule):
    """Resume: nobody hears of it, and the run is never carried on."""

    def approve(self, run_id: RunId) -> Control:
        return silently(self, super().approve, run_id)


class CancelsInSilence(Schedule):
    """Cancel: nobody hears of it."""

    def cancel_run(self, run_id: RunId) -> Control:
        return silently(self, super().cancel_run, run_id)

    def cancel_cascade(self, cascade_id: CascadeId, now: float) -> Control:
        return silently(self, super().cancel_cascade, cascade_id, now)


class CancelsWithoutEndingRuns(Schedule):
    """Cancel: what is queued is held, what runs goes on."""

    def _stop(self, run: Run, code: str) -> Derivation:
        del code
        return self.derivations[run.derivation_id]


class CancelsWithoutPlanning(Schedule):
    """Cancel: a cascade that was not planned never is, and the schedule never sees its edit."""

    def cancel_cascade(self, cascade_id: CascadeId, now: float) -> Control:
        cascade = self.cascades.get(cascade_id)
        if cascade is not None and cascade.planned_at is None:
            cascade.planned_at, cascade.status = now, CascadeStatus.CANCELLED
            return Control.DONE
        return super().cancel_cascade(cascade_id, now)


class RetriesInSilence(Schedule):
    """Retry: nobody hears of it, and what is free again is never claimed."""

    def retry_run(self, run_id: RunId) -> Control:
        return silently(self, super().retry_run, run_id)

    def retry_cascade(self, cascade_id: CascadeId) -> Control:
        return silently(self, super().retry_cascade, cascade_id)


class ReleasesNothingAtTheEnd(Schedule):
    """Money: a run that has ended keeps what it reserved."""

    def release(self, run_id: RunId) -> None:
        del run_id


class ReservesTwice(Schedule):
    """Money: what was called and charged is reserved again when its worker asks once more."""

    def begin(self, run_id: RunId, step_id: str, worst: int, attempt: int = 1) -> RunStatus:
        charge = self.charges.pop((run_id, step_id, attempt), None)
        answer = super().begin(run_id, step_id, worst, attempt)
        if charge is not None:
            self.charges[run_id, step_id, attempt] = charge
        return answer


class ChargesTwice(Schedule):
    """Money: a charge whose acknowledgement was lost is made again."""

    def charge(self, run_id: RunId, step_id: str, amount: int, attempt: int = 1) -> bool:
        before = self.charges.pop((run_id, step_id, attempt), None)
        answer = super().charge(run_id, step_id, amount, attempt)
        if before is not None:
            self.charges[run_id, step_id, attempt] = before
        return answer


class ChargesOnlyTheFirst(Schedule):
    """Money: an attempt that is paid after one whose answer was of no use is not counted."""

    def charge(self, run_id: RunId, step_id: str, amount: int, attempt: int = 1) -> bool:
        if any(key[:2] == (run_id, step_id) for key in self.charges):
            return False
        return super().charge(run_id, step_id, amount, attempt)


class PutsNothingOff(Schedule):
    """Bounds: what has had its runs runs again at once."""

    def within_bounds(self, chosen: Sequence[Derivation]) -> list[Derivation]:
        return list(chosen)


class KeepsNoLine(Schedule):
    """Money: whoever comes first with a need that fits takes it, whoever has waited for longer."""

    def _left_for(self, derivation: Derivation) -> int:
        del derivation
        return self.funds().remaining or 0


class CallsNobodyUp(Schedule):
    """Money: who is held is called up by a top-up only, not by what comes back."""

    def finish_move(self) -> None:
        pass


def silently(schedule: Schedule, act: Callable[..., Answer], *args: Any) -> Answer:
    """Make a move of which no doorbell tells."""
    before = {found: cascade.seq for found, cascade in schedule.cascades.items()}
    answer = act(*args)
    for found, seq in before.items():
        schedule.cascades[found].seq = seq
    return answer


MUTANTS: dict[str, type[Schedule]] = {
    kind.__name__: kind
    for kind in (
        SeesCurrentVersions, NeverFences, AccumulatesPending, ClaimsOnlyNewRuns, PlansAgain, FencesBeforeStatus,
        RingsNobodyAtTheEnd, RingsNoFormerOwner, CutsOffOneLevel,
        FailsOverNewerInputs, ForgetsRemovedInputs, ClosesWhileOthersWork, HoldsRingNobodyBelow,
        GoesOnWhileItMayBeCured, FailureStopsAtTheChild, NeverComesBack, MixesUnsaid, SaysOnlyWhatFailed,
        UsesWhatWasNeverMade,
        ParksWhatIsOutOfDate, KeepsParkedRuns, ParksInSilence, ReportsOnParkedRuns, ApprovesInSilence,
        CancelsInSilence, CancelsWithoutEndingRuns, CancelsWithoutPlanning, RetriesInSilence,
        ReleasesNothingAtTheEnd, ReservesTwice, ChargesTwice, ChargesOnlyTheFirst, KeepsNoLine, CallsNobodyUp,
        PutsNothingOff,
    )
}  # fmt: skip
