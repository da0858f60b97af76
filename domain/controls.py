"""What people decide about work that is under way: approve, reject, cancel, retry (CASCADES.md, Moves).

Each of these moves may be asked for again: who repeats one is answered ``already``, who comes too late ``refused``.
The rules, and why they are so, are in ``docs/decisions/0023-cancel-is-a-hold.md``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from domain.bounds import Bounded
from domain.derivations import OPEN, CascadeStatus, Derivation, Run
from domain.facts import move
from domain.ids import CascadeId, RunId
from domain.planning import Planning
from domain.runs import UNFINISHED, Hold, RunStatus
from domain.settling import Ending, Settling

REJECTED = "rejected"
"""The code of a run that a person did not approve."""
RETRYABLE = frozenset({Hold.FAILED, Hold.CANCELLED})
"""Holds that a retry lifts: nobody but a person has to say anything more."""


class Control(StrEnum):
    """What a decision came to: it took effect, or had taken effect before, or there is nothing left to decide."""

    DONE = "done"
    ALREADY = "already"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a decision came to (``done``, or ``already`` if it had been made before), and the cascade that goes on."""

    outcome: str
    cascade_id: CascadeId


class Controls(Planning, Settling, Bounded):
    """Runs wait for people and go on, stop and start again, by facts of the schedule alone."""

    # --- approval -----------------------------------------------------------------------------------------

    @move
    def park(self, run_id: RunId) -> Ending:
        """Let a run wait for a person: it stays its derivation's, nobody carries it out, and cascades may close.

        A run that was left to finish on inputs that have moved is superseded here: nobody is asked about it. Nor is
        anybody asked again: a run that was approved goes on.
        """
        run = self.runs.get(run_id)
        ended = self._fence(run)
        if run is None or ended is not None:
            return Ending.PARKED if run is not None and run.status == RunStatus.PARKED else Ending.SUPERSEDED
        if run.approved:
            return Ending.ALREADY
        derivation = self.derivations[run.derivation_id]
        if not self._current(derivation, run):
            self.end_run(derivation, run, RunStatus.SUPERSEDED)
            self.recount([derivation.id])
            return Ending.SUPERSEDED
        run.status = RunStatus.PARKED
        self.release(run.id)
        self.offer()
        derivation.hold, derivation.hold_code = Hold.APPROVAL, None
        self.ring(derivation.owner_cascade_id, run.cascade_id)
        self._ring_below(derivation)
        return Ending.PARKED

    @move
    def approve(self, run_id: RunId) -> Control:
        """Let a parked run go on where it stopped: whoever claimed it starts it again."""
        run = self.runs.get(run_id)
        if run is None or run.status != RunStatus.PARKED:
            again = run is not None and run.status == RunStatus.RUNNING and run.approved
            return Control.ALREADY if again else Control.REFUSED
        derivation = self.derivations[run.derivation_id]
        run.status, run.resumed, run.approved = RunStatus.RUNNING, run.resumed + 1, True
        derivation.hold = None
        self.ring(derivation.owner_cascade_id, run.cascade_id)
        return Control.DONE

    @move
    def reject(self, run_id: RunId, now: float) -> Control:
        """End a parked run: what it would have made is not wanted, and what is below waits.

        Whenever it is tried again, its answers are to be fresh: the old ones are what was turned down.
        """
        self.clock = now
        run = self.runs.get(run_id)
        if run is None or run.status != RunStatus.PARKED:
            again = run is not None and run.status == RunStatus.CANCELLED and run.error == REJECTED
            return Control.ALREADY if again else Control.REFUSED
        derivation = self._stop(run, REJECTED)
        derivation.fresh_after = now
        self._hold([derivation], REJECTED)
        return Control.DONE

    # --- cancel and retry ---------------------------------------------------------------------------------

    @move
    def cancel_run(self, run_id: RunId) -> Control:
        """End a run, parked or not; its derivation is held until somebody retries or a later cause touches it."""
        run = self.runs.get(run_id)
        if run is None or run.status not in UNFINISHED:
            return Control.ALREADY if run is not None and run.status == RunStatus.CANCELLED else Control.REFUSED
        derivation = self._stop(run, Hold.CANCELLED)
        self._hold([derivation])
        return Control.DONE

    @move
    def cancel_cascade(self, cascade_id: CascadeId, now: float) -> Control:
        """Hold everything that a cascade owns, and end its runs. One that was not planned is planned first.

        So nothing is lost: the schedule has seen the cause, and what it affects says that it was cancelled. What a
        later cause took over is the later one's, and goes on.
        """
        self.clock = now
        cascade = self.cascades.get(cascade_id)
        if cascade is None:
            return Control.REFUSED
        unplanned = not self._already_planned(cascade)
        if unplanned:
            self._plan(cascade, now)
        owned = self.owned(cascade_id)
        live = [self.runs[d.run_id] for d in owned if d.run_id is not None]
        if not (unplanned or live or self._queued(owned)):
            return Control.ALREADY if cascade.status == CascadeStatus.CANCELLED else Control.REFUSED
        for run in live:
            self._stop(run, Hold.CANCELLED)
        self._hold([d for d in owned if d.hold in (None, Hold.BUDGET)])
        cascade.status = CascadeStatus.CANCELLED
        self.ring(cascade_id)
        return Control.DONE

    def _queued(self, derivations: Iterable[Derivation]) -> bool:
        """Tell whether any of these goes on before anybody lifts a hold, or as soon as there is money."""
        return any(d.hold == Hold.BUDGET or (d.hold is None and not self.blocked_by(d)) for d in derivations)

    @move
    def retry_run(self, run_id: RunId) -> Control:
        """Lift what holds a run's derivation, if it failed or was cancelled: its owner claims it again."""
        run = self.runs.get(run_id)
        if run is None:
            return Control.REFUSED
        derivation = self.derivations[run.derivation_id]
        if self._lift([derivation]):
            return Control.DONE
        return Control.ALREADY if derivation.unsettled and derivation.hold is None else Control.REFUSED

    @move
    def retry_cascade(self, cascade_id: CascadeId) -> Control:
        """Lift what failed or was cancelled of everything that a cascade owns, and start the cascade again."""
        cascade = self.cascades.get(cascade_id)
        if cascade is None:
            return Control.REFUSED
        if self._lift(self.owned(cascade_id)):
            return Control.DONE
        return Control.ALREADY if cascade.status in OPEN else Control.REFUSED

    def _lift(self, derivations: Iterable[Derivation]) -> bool:
        held = [d for d in derivations if d.unsettled and d.hold in RETRYABLE]
        for derivation in held:
            derivation.hold, derivation.hold_code, derivation.losses = None, None, 0
            owner = derivation.owner_cascade_id
            if owner in self.cascades:
                self.cascades[owner].status = CascadeStatus.RUNNING
                self.ring(owner)
        self.recount([d.id for d in held])
        return bool(held)

    def _hold(self, derivations: list[Derivation], code: str | None = None) -> None:
        for derivation in derivations:
            derivation.hold, derivation.hold_code = Hold.CANCELLED, code
        self.recount([d.id for d in derivations])
        for derivation in derivations:
            self._ring_below(derivation)

    def _stop(self, run: Run, code: str) -> Derivation:
        derivation = self.derivations[run.derivation_id]
        run.error = code
        self.end_run(derivation, run, RunStatus.CANCELLED)
        derivation.resume_run_id = run.id if code == Hold.CANCELLED else None
        return derivation
