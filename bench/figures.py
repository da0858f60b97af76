"""What is measured and how it is judged: samples by round, ratios, goals, floors. Pure."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

BUDGETS_FILE = Path(__file__).with_name("budgets.toml")

Verdict = Literal["met", "missed", "no goal", "broken"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A bound on a ratio, or on a count that has no raw counterpart."""

    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: float) -> bool:
        """Tell whether a value keeps it."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f">= {self.at_least:g}" if self.at_least is not None else f"<= {self.at_most:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table: our sample, the raw sample under it, and what the ratio should be.

    ``ours`` and ``raw`` are names of samples. Without ``raw`` the figure is a count and is judged itself: a time
    or a rate always has a raw limit, because alone it says more about the machine than about us. ``number`` is
    the goal's in ``docs/reference/performance.md``.
    """

    key: str
    title: str
    unit: str
    ours: str
    raw: str | None = None
    goal: Bound | None = None
    number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A figure as measured: medians over rounds, and the ratio's median with its range."""

    figure: Figure
    ours: float
    raw: float | None
    ratio: float
    lowest: float
    highest: float
    verdict: Verdict
    floor: Bound | None = None


Round = Mapping[str, float]
"""The samples of one round, by name."""


def percentile(values: Sequence[float], fraction: float) -> float:
    """Return the value below which ``fraction`` of them lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def judge(figure: Figure, rounds: Sequence[Round], floors: Mapping[str, Bound]) -> Result:
    """Compare within each round, where both sides saw the same machine, and take the median of the ratios."""
    ours = [samples[figure.ours] for samples in rounds]
    raw = None if figure.raw is None else [samples[figure.raw] for samples in rounds]
    ratios = ours if raw is None else [mine / theirs for mine, theirs in zip(ours, raw, strict=True)]
    ratio, floor = median(ratios), floors.get(figure.key)
    return Result(
        figure=figure,
        ours=median(ours),
        raw=None if raw is None else median(raw),
        ratio=ratio,
        lowest=min(ratios),
        highest=max(ratios),
        verdict=_verdict(figure.goal, floor, ratio),
        floor=floor,
    )


def _verdict(goal: Bound | None, floor: Bound | None, ratio: float) -> Verdict:
    if floor is not None and not floor.holds(ratio):
        return "broken"
    if goal is None:
        return "no goal"
    return "met" if goal.holds(ratio) else "missed"


def read_budgets(path: Path = BUDGETS_FILE) -> dict[str, Bound]:
    """Read the floors that fail a run: ``[figure-key]`` with ``at_least`` or ``at_most``.

    Raises ValueError for a table that has neither or anything else.
    """
    floors = {}
    for key, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        if not isinstance(table, dict) or len(table) != 1 or not set(table) <= {"at_least", "at_most"}:
            raise ValueError(f"{path.name}: [{key}] takes at_least or at_most, one of them")
        floors[key] = Bound(**{name: float(value) for name, value in table.items()})
    return floors
