"""Limits: how many runs a user, and one of their providers, may have at a time, and who takes a place that is free.

A claim takes what the limits leave. What it has to leave for want of a place is noted as a wait; whoever frees a place
offers it: the first who wait are rung, and until they have looked, others leave their places alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from domain.derivations import Cascade, Derivation, Run
from domain.facts import Facts
from domain.ids import CascadeId, InstanceId
from domain.runs import RunStatus

BULK_CAUSES = frozenset({"batch", "provider", "provider_change", "redrive", "reprocess", "top_up"})
"""Causes that make much work at once: what people wait for goes first."""

Limit = InstanceId | None
"""What is limited: the runs of one provider, or (None) all of the user."""


def interactive(cause: str) -> bool:
    """Tell whether a person waits for what this cause sets in motion."""
    return cause not in BULK_CAUSES


@dataclass(slots=True, kw_only=True)
class Wait:
    """A cascade that had to leave ready derivations for want of a place; ``rung`` until it has looked again.

    ``since`` is when it was last held back without being served, so that those who wait take turns.
    """

    cascade_id: CascadeId
    limit: Limit
    since: float
    rung: bool = False


Rank = tuple[bool, int, float]


class Limits(Facts):
    """Counts places, hands them out, and remembers who waits for one."""

    def __init__(self) -> None:
        super().__init__()
        self.runs_per_user: int | None = None
        self.room_waits: dict[tuple[CascadeId, Limit], Wait] = {}

    def choose(self, cascade: Cascade, ready: Iterable[Derivation], window: int) -> list[Derivation]:
        """Return those to start now: by priority, level and id, as far as window and limits have room.

        Notes what the cascade waits for.
        """
        ordered = sorted(ready, key=lambda d: (d.priority, d.level, d.id))
        rooms: dict[Limit, int] = {None: self._room(cascade, None)}
        chosen: list[Derivation] = []
        held: set[Limit] = set()
        for derivation in ordered:
            provider = derivation.provider_id
            if len(chosen) == window:
                break
            if rooms[None] <= len(chosen):
                held.add(None)
                break
            if self._cap(provider) is not None:
                left = rooms.setdefault(provider, self._room(cascade, provider))
                if left <= 0:
                    held.add(provider)
                    continue
                rooms[provider] = left - 1
            chosen.append(derivation)
        self._note(cascade, held, served=bool(chosen))
        return chosen

    def offer(self) -> None:
        """Ring those who wait for a place that is free: no more of them than there are places."""
        free: dict[Limit, int] = {}
        for wait in sorted(self.room_waits.values(), key=lambda w: (*self._rank(w.cascade_id, w.limit), w.cascade_id)):
            if wait.limit not in free:
                promised = sum(w.rung for w in self.room_waits.values() if w.limit == wait.limit)
                free[wait.limit] = self._places(wait.limit) - promised
            if not wait.rung and free[wait.limit] > 0:
                wait.rung = True
                free[wait.limit] -= 1
                self.ring(wait.cascade_id)

    def end_run(self, derivation: Derivation, run: Run, status: RunStatus) -> None:
        """End a run, and offer its place."""
        super().end_run(derivation, run, status)
        self.offer()

    def running(self, limit: Limit) -> int:
        """Count the runs under way that a limit counts."""
        rows = [run for run in self.runs.values() if run.status == RunStatus.RUNNING]
        return len([run for run in rows if limit in (None, self.derivations[run.derivation_id].provider_id)])

    def _note(self, cascade: Cascade, held: set[Limit], *, served: bool) -> None:
        for key in [key for key in self.room_waits if key[0] == cascade.id and key[1] not in held]:
            del self.room_waits[key]
        for limit in held:
            wait = self.room_waits.setdefault(
                (cascade.id, limit), Wait(cascade_id=cascade.id, limit=limit, since=self.clock)
            )
            wait.rung, wait.since = False, self.clock if served else wait.since

    def _cap(self, limit: Limit) -> int | None:
        return self.runs_per_user if limit is None else self.instances[limit].max_concurrency

    def _places(self, limit: Limit) -> int:
        cap = self._cap(limit)
        return len(self.derivations) if cap is None else cap - self.running(limit)

    def _room(self, cascade: Cascade, limit: Limit) -> int:
        """Return what a cascade may take: one place is left to each that waits for it and comes before this one."""
        mine = self._rank(cascade.id, limit)
        waiting: Sequence[Wait] = [
            w for w in self.room_waits.values() if w.limit == limit and w.cascade_id != cascade.id
        ]
        return max(0, self._places(limit) - sum(self._rank(w.cascade_id, limit) < mine for w in waiting))

    def _rank(self, cascade_id: CascadeId, limit: Limit) -> Rank:
        """Who comes first: what people wait for, then who has fewest runs, then who has waited longest."""
        wait = self.room_waits.get((cascade_id, limit))
        runs = sum(r.cascade_id == cascade_id and r.status == RunStatus.RUNNING for r in self.runs.values())
        since = float("inf") if wait is None else wait.since
        return not interactive(self.cascades[cascade_id].cause), runs, since
