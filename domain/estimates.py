"""What work will take, from what such work took: ranges over recorded runs, sums over many, and the longest way.

Nothing here guesses. A range is what the middle of the recorded runs took (p10 to p90); work without any record counts
as unknown and is left out of the sums, which say how much they leave out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any
from uuid import UUID

LOW, HIGH = 0.1, 0.9
"""The shares of recorded runs that lie below a range's ends."""
SAMPLES_MIN = 3
"""Runs of a definition from which it is measured by itself; with fewer, those of its provider's others count too."""


@dataclass(frozen=True, slots=True)
class Range:
    """From ``low`` to ``high``, both included."""

    low: float
    high: float

    def __add__(self, other: Range) -> Range:
        """Both, one after the other."""
        return Range(self.low + other.low, self.high + other.high)

    def perhaps(self) -> Range:
        """The same work if it may not be done at all."""
        return Range(0.0, self.high)


NOTHING = Range(0.0, 0.0)


class Basis(StrEnum):
    """Which runs a measure was taken from."""

    DEFINITION = "definition"
    PROVIDER = "provider"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A run that has settled; ``cost``, in micro-dollars, is None where nothing was charged."""

    definition_digest: str
    tokens: float
    cost: float | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What one run of a definition takes, and how many runs say so."""

    tokens: Range | None = None
    cost: Range | None = None
    seconds: Range | None = None
    runs: int = 0
    basis: Basis = Basis.UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One piece of work: what it waits for, what it takes, whether it is sure to be done.

    ``spared``: its paid results are kept from an earlier run. ``delay``: seconds before it may begin (debounce).
    """

    id: UUID
    measure: Measure
    waits: Sequence[UUID] = ()
    certain: bool = True
    spared: bool = False
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """A sum, and how many pieces of work it leaves out because nothing is recorded about them."""

    range: Range
    unknown: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What many pieces of work take together; None where nothing at all is recorded."""

    tokens: Total | None
    cost: Total | None
    seconds: Total | None
    critical: Range | None
    """The longest way alone, as if any number of runs went on at a time."""


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the others lies, between two neighbours in proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    index = int(place)
    low, high = ordered[index], ordered[min(index + 1, len(ordered) - 1)]
    return min(max(low + (high - low) * (place - index), low), high)


def range_of(values: Sequence[float]) -> Range | None:
    """Return what the middle of the values spans, None without any."""
    return Range(percentile(values, LOW), percentile(values, HIGH)) if values else None


def measure(samples: Iterable[Sample], definition_digest: str) -> Measure:
    """Return what a run of this definition takes: from its own runs, else from those of its provider."""
    known = list(samples)
    own = [sample for sample in known if sample.definition_digest == definition_digest]
    used, basis = (own, Basis.DEFINITION) if len(own) >= min(SAMPLES_MIN, len(known)) else (known, Basis.PROVIDER)
    if not used:
        return Measure()
    return Measure(
        tokens=range_of([sample.tokens for sample in used]),
        cost=range_of([sample.cost for sample in used if sample.cost is not None]),
        seconds=range_of([sample.seconds for sample in used]),
        runs=len(used),
        basis=basis,
    )


def free(measure: Measure) -> Measure:
    """Return the measure of what calls nobody who takes money: that is known without any record."""
    return replace(measure, cost=NOTHING)


def sample_of(row: Mapping[str, Any]) -> Sample:
    """Return a settled run as a sample: ``usage`` is what its steps recorded, ``cost`` what they were charged."""
    usage, cost = row["usage"], row["cost"]
    return Sample(
        definition_digest=row["definition_digest"],
        tokens=float(usage.get("total_tokens") or 0),
        cost=None if cost is None else float(cost),
        seconds=max(float(row["seconds"] or 0), 0.0),
    )


def estimate(works: Sequence[Work], *, window: int) -> Estimate:
    """Return what all of the work takes, at most ``window`` at a time; it must be free of cycles."""
    return Estimate(
        tokens=_total([_paid(work, work.measure.tokens) for work in works]),
        cost=_total([_paid(work, work.measure.cost) for work in works]),
        seconds=_makespan(works, window),
        critical=None if all(work.measure.seconds is None for work in works) else _critical(works),
    )


def _paid(work: Work, range_: Range | None) -> Range | None:
    if range_ is None:
        return None
    if work.spared:
        return NOTHING
    return range_ if work.certain else range_.perhaps()


def _lasting(work: Work) -> Range:
    seconds = work.measure.seconds or NOTHING
    return seconds if work.certain and not work.spared else seconds.perhaps()


def _total(ranges: Sequence[Range | None]) -> Total | None:
    known = [found for found in ranges if found is not None]
    if not known:
        return None
    return Total(range=sum(known, NOTHING), unknown=len(ranges) - len(known))


def _makespan(works: Sequence[Work], window: int) -> Total | None:
    """Return how long it takes from beginning to end.

    No order is faster than the longest way, nor than all work spread evenly. None that never leaves a place empty while
    something could run is slower than the longest way with what goes on beside it (Graham's bound).
    """
    unknown = sum(work.measure.seconds is None for work in works)
    if unknown == len(works):
        return None
    lasting = {work.id: _lasting(work) for work in works}
    low = max(_critical(works).low, sum(found.low for found in lasting.values()) / window)
    share = 1 - 1 / window
    ways = longest({work.id: (work.delay + share * lasting[work.id].high, work.waits) for work in works})
    return Total(range=Range(low, ways + sum(found.high for found in lasting.values()) / window), unknown=unknown)


def _critical(works: Sequence[Work]) -> Range:
    low = longest({work.id: (work.delay * work.certain + _lasting(work).low, work.waits) for work in works})
    return Range(low, longest({work.id: (work.delay + _lasting(work).high, work.waits) for work in works}))


def longest(weights: Mapping[UUID, tuple[float, Sequence[UUID]]]) -> float:
    """Return the weight of the heaviest way through what waits for one another; who is unknown weighs nothing."""
    ends: dict[UUID, float] = {}
    for start in weights:
        pending = [start]
        while pending:  # depth first without recursion: chains are a thousand long
            node = pending[-1]
            if node in ends:
                pending.pop()
                continue
            weight, waits = weights[node]
            missing = [above for above in waits if above in weights and above not in ends]
            if missing:
                pending.extend(missing)
                continue
            ends[node] = weight + max((ends[above] for above in waits if above in ends), default=0.0)
            pending.pop()
    return max(ends.values(), default=0.0)
