"""Where a cascade was stopped by a bound, in words: ``cascades.error`` as plan and claim leave it.

Two bounds stop what would grow (``depth``, ``nodes``): what is beyond them is not made. One puts off what would repeat
(``runs``): it goes on by itself once its window has passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from domain.derivations import Anchor, Derivation
from domain.ids import BlobId
from domain.limits import Limits

SETTINGS = {
    "depth": "cascades.depth_max",
    "nodes": "cascades.nodes_max",
    "derivation": "cascades.runs_per_derivation_max",
    "root": "cascades.runs_per_root_max",
}
"""The setting behind each bound; of ``runs`` by what they were counted."""


def bound_words(error: Mapping[str, Any]) -> str:
    """Say which bound a cascade met, where, and what becomes of the rest; other errors are said by their code."""
    bound, limit = error.get("bound"), error.get("limit")
    stopped = error.get("stopped") or []
    where = stopped[0] if stopped else {}
    if bound == "depth":
        return (
            f"It stopped at blob {where.get('blob_id')}: what provider {where.get('provider_id')} would make of it"
            f" would be deeper than {limit} derivations ({SETTINGS['depth']})."
        )
    if bound == "nodes":
        return (
            f"It stopped at blob {where.get('blob_id')}, before provider {where.get('provider_id')}: one cascade makes"
            f" at most {limit} new derivations ({SETTINGS['nodes']})."
        )
    if bound == "runs":
        per = str(error.get("per") or "derivation")
        what = f"Derivation {where.get('derivation_id')}" if per == "derivation" else f"Root {where.get('root_id')}"
        return (
            f"{what} has had {limit} runs within the window ({SETTINGS.get(per, per)}), which looks like a loop;"
            f" the rest goes on at {error.get('until')}."
        )
    return str(error.get("detail") or error.get("code") or "It met an error.")


def explained(error: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the error of a cascade with its ``detail``; None if there is none."""
    return None if error is None else {**error, "detail": bound_words(error)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How many runs a derivation, and all that stems from one root, may have within a window of so many seconds."""

    derivation: int
    root: int
    window: float


class Bounded(Limits):
    """Puts off what runs too often, against loops that no lineage shows: it goes on once its window has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.repeats: Repeats | None = None
        self.root_runs: dict[UUID, tuple[float, int]] = {}
        """By root: since when it is counted, and how many."""

    def within_bounds(self, chosen: Sequence[Derivation]) -> list[Derivation]:
        """Return those that may run now, which counts them; the others are put off."""
        if self.repeats is None:
            return list(chosen)
        free: list[Derivation] = []
        asked: Counter[UUID] = Counter()
        for derivation in chosen:
            root = self._root(derivation)
            due = self._due_again(derivation, self.repeats)
            if due is None:
                asked[root] += 1
                since, counted = self._counted(root, self.repeats.window)
                due = _end(since, self.repeats.window) if counted + asked[root] > self.repeats.root else None
            if due is None:
                free.append(derivation)
            else:
                derivation.run_after = due
        for root, started in Counter(map(self._root, free)).items():
            since, counted = self._counted(root, self.repeats.window)
            self.root_runs[root] = since, counted + started
        return free

    def _due_again(self, derivation: Derivation, repeats: Repeats) -> float | None:
        """Return when a derivation may run again that has had its runs within the window."""
        first = derivation.attempt - repeats.derivation + 1
        if first < 1:
            return None
        runs = (r for r in self.runs.values() if r.attempt == first and r.derivation_id == derivation.id)
        ends = (_end(run.started_at, repeats.window) for run in runs)
        return next((end for end in ends if end > self.clock), None)

    def _counted(self, root: UUID, window: float) -> tuple[float, int]:
        since, runs = self.root_runs.get(root, (self.clock, 0))
        return (since, runs) if _end(since, window) > self.clock else (self.clock, 0)

    def _root(self, derivation: Derivation) -> UUID:
        """Return what a derivation stems from: a bucket that it joins, else the root of the blob that it is made of."""
        if self.instances[derivation.provider_id].anchor == Anchor.BUCKET:
            return derivation.anchor_id
        made = self.producers.get(BlobId(derivation.anchor_id))
        if made is None:
            return derivation.anchor_id
        above = self.derivations[made]
        joined = self.instances[above.provider_id].anchor == Anchor.BUCKET
        return derivation.anchor_id if joined else self._root(above)


def _end(since: float, window: float) -> float:
    """Return when a window ends, to the microsecond."""
    return round(since + window, 6)
