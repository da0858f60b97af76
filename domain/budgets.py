"""Budgets: what a paid step may cost at most is reserved before it is called, what it did cost is charged once.

Amounts are whole micro-dollars. A budget is optional: without one nothing is reserved, and nobody waits. A step whose
worst case does not fit ends its run and holds its derivation (``budget``); no workflow is kept waiting. Who is held
stands in a line, strictly first come first served: nobody takes what somebody before them needs, so that a large need
is not passed by small ones for ever. Whenever money comes (a top-up) or comes back (a call cost less than reserved, a
run ended), ``call_up`` lifts the holds of those at the head of the line whose needs fit together, and rings their
cascades; they keep their place until they have reserved, or need nothing any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from domain.derivations import Budget, Cascade, Cause, Charge, Derivation, Run
from domain.errors import Conflict, Fault
from domain.facts import move
from domain.ids import BudgetId, CascadeId, RunId
from domain.prices import money
from domain.runs import Hold, RunStatus
from domain.settling import Settling

UNIT = "micro_usd"
AMOUNT_MAX = 10**15
"""A billion dollars: what a limit or a top-up may be at most, so that sums stay in 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Funds:
    """How a budget stands; ``limit`` None: everything is allowed."""

    limit: int | None
    spent: int = 0
    reserved: int = 0

    @property
    def remaining(self) -> int | None:
        """What is neither spent nor reserved."""
        return None if self.limit is None else self.limit - self.spent - self.reserved


def limit_too_low(funds: Funds, limit: int) -> Conflict:
    """Return the error of a limit below what is spent and reserved."""
    least = funds.spent + funds.reserved
    used = f"{money(funds.spent)} are spent and {money(funds.reserved)} reserved"
    detail = f"{used}: the limit cannot be below {money(least)}, and {money(limit)} is."
    members = {"spent": funds.spent, "reserved": funds.reserved, "minimum": least, "unit": UNIT}
    return Conflict(detail, code="budget_in_use", members=members, faults=[Fault("/limit", "budget_in_use", detail)])


def no_budget() -> Conflict:
    """Return the error of a top-up where nothing is limited."""
    return Conflict("Nothing is limited, so there is nothing to raise: set a limit first.", code="no_budget")


class Budgeting(Settling):
    """The moves of money; ``call_up`` belongs to the end of every move that may have freed some."""

    # --- what people do -----------------------------------------------------------------------------------

    @move
    def set_budget(self, budget_id: BudgetId, limit: int | None, cascade_id: CascadeId) -> CascadeId | None:
        """Set what may be spent, counting from the first limit on, or (None) no limit: what is spent counts on.

        Answers the cascade of a raise that lifts holds. Raises Conflict ``budget_in_use`` below what is in use.
        """
        if self.budget is None:
            self.budget = Budget(id=budget_id, limit=limit)
        if limit is None:
            return self._lift_limit(self.budget, cascade_id)
        funds = self.funds()
        if limit < funds.spent + funds.reserved:
            raise limit_too_low(funds, limit)
        self.budget.limit = limit
        return self._note_lift(cascade_id) if self.call_up() else None

    def _lift_limit(self, budget: Budget, cascade_id: CascadeId) -> CascadeId | None:
        """Nobody waits, and nothing is reserved, where nothing is limited."""
        budget.limit = None
        self.reservations.clear()
        held = [d for d in self.derivations.values() if d.hold == Hold.BUDGET]
        for derivation in self.derivations.values():
            derivation.budget_place = derivation.budget_needed = None
        for derivation in held:
            derivation.hold = None
            self.ring(derivation.owner_cascade_id)
        self.recount(derivation.id for derivation in held)
        return self._note_lift(cascade_id) if held else None

    @move
    def top_up(self, amount: int, cascade_id: CascadeId) -> CascadeId | None:
        """Raise the limit; answers the cascade if that lifts holds. Raises Conflict ``no_budget``."""
        if self.budget is None or self.budget.limit is None:
            raise no_budget()
        self.budget.limit += amount
        return self._note_lift(cascade_id) if self.call_up() else None

    def _note_lift(self, cascade_id: CascadeId) -> CascadeId:
        """Record that money came and holds were lifted. Who was held goes on in the cascades that own them."""
        self.cascades[cascade_id] = Cascade(id=cascade_id, cause=Cause.TOP_UP, roots=(cascade_id,))
        return cascade_id

    # --- what runs do -------------------------------------------------------------------------------------

    @move
    def begin(self, run_id: RunId, step_id: str, worst: int, attempt: int = 1) -> RunStatus:
        """Reserve what a step may cost at most, before it is called; answers the status of its run.

        What an attempt before has reserved and not used, another one takes over.
        Where that does not fit, or somebody before it in the line needs it, the run ends as ``blocked_budget``.
        """
        run = self.runs.get(run_id)
        if run is None or run.status != RunStatus.RUNNING:
            return RunStatus.SUPERSEDED if run is None else run.status
        if self.funds().limit is None or worst <= 0 or (run_id, step_id, attempt) in self.charges:
            return RunStatus.RUNNING
        if (had := self._reservation(run_id, step_id)) is not None:
            self.reservations[run_id, step_id, max(had, attempt)] = self.reservations.pop((run_id, step_id, had))
            return RunStatus.RUNNING
        derivation = self.derivations[run.derivation_id]
        if worst > self._left_for(derivation):
            self._block(derivation, run, worst)
            return RunStatus.BLOCKED_BUDGET
        self.reservations[run_id, step_id, attempt] = worst
        derivation.budget_place = derivation.budget_needed = None
        return RunStatus.RUNNING

    @move
    def charge(self, run_id: RunId, step_id: str, amount: int, attempt: int = 1) -> bool:
        """Charge what an attempt of a step did cost, once, whatever became of its run; its reservation comes back.

        A call that was made has cost something, also if its run has ended meanwhile, or its answer is of no use and
        the step is called again. What a later attempt has taken over stays reserved. What neither the reservation nor
        the budget covers is an overrun: recorded, and not spent.
        """
        if run_id not in self.runs or (run_id, step_id, attempt) in self.charges:
            return False
        had = self._reservation(run_id, step_id)
        if had is not None and had <= attempt:
            del self.reservations[run_id, step_id, had]
        overrun = 0
        if self.budget is not None:
            left = self.funds().remaining
            overrun = 0 if left is None else max(0, amount - left)
            self.budget.spent += amount - overrun
        charge = Charge(run_id=run_id, step_id=step_id, attempt=attempt, amount=amount, overrun=overrun)
        self.charges[run_id, step_id, attempt] = charge
        return True

    def _reservation(self, run_id: RunId, step_id: str) -> int | None:
        """Return the attempt that a step's reservation is for."""
        return next((key[2] for key in self.reservations if key[:2] == (run_id, step_id)), None)

    def _block(self, derivation: Derivation, run: Run, worst: int) -> None:
        """End a run that cannot be paid. One that was left to finish although its inputs moved sets no hold."""
        self.end_run(derivation, run, RunStatus.BLOCKED_BUDGET)
        derivation.resume_run_id = run.id
        if not self._current(derivation, run):
            self.recount([derivation.id])
            return
        if derivation.budget_place is None:
            derivation.budget_place = self.next_place
            self.next_place += 1
        derivation.hold, derivation.budget_needed = Hold.BUDGET, worst
        self.recount([derivation.id])
        self._ring_below(derivation)

    # --- the line -----------------------------------------------------------------------------------------

    def funds(self) -> Funds:
        """Return how the budget stands."""
        if self.budget is None:
            return Funds(limit=None)
        reserved = sum(self.reservations.values())
        return Funds(limit=self.budget.limit, spent=self.budget.spent, reserved=reserved)

    def line(self) -> Sequence[Derivation]:
        """Return who waits for money in the order of coming: held, or called up and not yet reserved.

        Who waits for an input stands aside and keeps their place.
        """
        rows = (d for d in self.derivations.values() if d.budget_place is not None and d.unsettled)
        ready = [d for d in rows if d.pending_inputs == 0 and d.hold in (None, Hold.BUDGET)]
        return sorted(ready, key=lambda d: d.budget_place or 0)

    def call_up(self) -> bool:
        """Lift the holds at the head of the line as far as the money goes; tell whether any was lifted."""
        free = self.funds().remaining
        lifted = []
        for derivation in self.line():
            needed = derivation.budget_needed or 0
            if free is not None and needed > free:
                break
            free = None if free is None else free - needed
            if derivation.hold == Hold.BUDGET:
                derivation.hold = None
                lifted.append(derivation.owner_cascade_id)
        self.ring(*lifted)
        return bool(lifted)

    def _left_for(self, derivation: Derivation) -> int:
        """Return what a derivation may reserve: what is left, less what those before it in the line need."""
        place = derivation.budget_place
        ahead = (d for d in self.line() if place is None or (d.budget_place or 0) < place)
        return (self.funds().remaining or 0) - sum(d.budget_needed or 0 for d in ahead)

    def finish_move(self) -> None:
        """Give on what this move has freed."""
        super().finish_move()
        self.call_up()
