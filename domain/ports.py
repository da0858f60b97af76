"""What the rules need from the world, as Protocols. ``storage`` and ``activities/adapters`` implement them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from domain.memo import Begun, Lookup
from domain.prices import Quote, StepCharge
from domain.steps import ServiceCall
from domain.works import Claim, Prepared, RunWork, Settlement, Sketch, Sketching, StepRecord


class Schedule(Protocol):
    """The moves of CASCADES.md, each one transaction under the user lock."""

    async def plan_and_claim(self, user_id: UUID, cascade_id: UUID, *, window: int, sketching: Sketching) -> Claim:
        """Decide what the cascade touches, unless that is done, and ``claim``: how an advance begins."""
        ...

    async def claim(
        self,
        user_id: UUID,
        cascade_id: UUID,
        *,
        window: int,
        busy: Sequence[UUID] = (),
        sketching: Sketching = Sketching.NONE,
    ) -> Claim:
        """Take what is ready, settle what is unchanged, answer every unfinished run, and sketches if it may sketch."""
        ...

    async def prepare(self, user_id: UUID, settlements: Sequence[Settlement]) -> Prepared:
        """All of ``settle_and_claim`` that needs no transaction: who waits for its turn has that behind it."""
        ...

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
        """``settle`` and ``claim`` in one transaction."""
        ...

    async def read_sketches(self, user_id: UUID, sketches: Sequence[Sketch]) -> Sequence[RunWork | Exception | None]:
        """What these read, in their order; or why that cannot be read."""
        ...

    async def fail_sketch(self, user_id: UUID, cascade_id: UUID, sketch: Sketch, *, code: str, detail: str) -> str:
        """Record a sketch that cannot be carried out, and that it has failed."""
        ...

    async def load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        """What these runs read; runs that have ended are left out."""
        ...

    async def settle(self, user_id: UUID, settlements: Sequence[Settlement], *, caller: UUID | None) -> dict[UUID, str]:
        """End runs: ``settled``, ``superseded``, or ``moved`` when an output changed since the merge."""
        ...

    async def fail(self, user_id: UUID, run_id: UUID, *, code: str, detail: str, usage: Mapping[str, Any]) -> str:
        """End a run for good as failed; its descendants are blocked by it."""
        ...

    async def lose(self, user_id: UUID, run_id: UUID) -> str:
        """Free the place of a run that nothing carries out any more: ``lost``, ``failed`` if it was one too many.

        Of a run that has ended, or waits for a person, it answers what it is.
        """
        ...

    async def extend(self, user_id: UUID, run_id: UUID) -> None:
        """Give a run that is carried out after all another lease: until that is over, nobody takes it for lost."""
        ...

    async def park(self, user_id: UUID, run_id: UUID, step_id: str, position: int, prompt: str) -> str:
        """Let a run wait for a person: ``parked``; ``running`` if the step was approved, else what it has ended as."""
        ...

    async def cancel(self, user_id: UUID, run_id: UUID, *, actor: str) -> str:
        """End a run that somebody does not want: ``done``, ``already``, or ``refused`` if it has ended otherwise."""
        ...

    async def cancel_cascade(self, user_id: UUID, cascade_id: UUID, *, actor: str) -> str:
        """End a cascade and hold what it owns: ``done``, ``already``, or ``refused`` if there is nothing to end."""
        ...

    async def status(self, user_id: UUID, run_id: UUID) -> str:
        """What a run is: ``running``, ``parked``, or what it has ended as; ``superseded`` if nobody knows it."""
        ...

    async def correct_clock(self, user_id: UUID) -> int:
        """Bring back what is further ahead than it can have been set, after the clock was put back; how much it was."""
        ...

    async def begin_step(self, user_id: UUID, run_id: UUID, step_id: str, position: int, kind: str) -> str:
        """Record that a step is under way and extend the run's lease; answer the run's status."""
        ...

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
        ends as ``blocked_budget``.
        """
        ...

    async def fail_step(
        self, user_id: UUID, run_id: UUID, step_id: str, code: str, detail: str, charge: StepCharge | None = None
    ) -> None:
        """Record why the latest attempt of a step failed, and charge what it did cost; a later success replaces it."""
        ...

    async def end_step(self, user_id: UUID, run_id: UUID, record: StepRecord, charge: StepCharge | None = None) -> None:
        """Record what a step added, and charge this attempt; of both the first stays."""
        ...

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
        ...

    async def distrust(self, user_id: UUID, run_id: UUID) -> None:
        """What the steps of this run were answered is not good: the memo forgets it."""
        ...

    async def steps(self, user_id: UUID, run_id: UUID) -> list[StepRecord]:
        """The finished steps of a run, in order."""
        ...


class Services(Protocol):
    """The services that definitions may call by name."""

    async def call(self, call: ServiceCall, *, key: str, patience: timedelta) -> Any:
        """Call and return the answer's JSON. ``key`` makes a repeated call recognisable, ``patience`` bounds it.

        Raises ProviderFailed (``service_rejected``, ``egress_denied``) for good, Unusable if the service has done its
        work and its answer is of no use (too large, no JSON, ``invalid_output``), Unavailable
        (``service_unavailable``, members ``retry_after``) where a retry may help.
        """
        ...
