"""What a scenario is, and how its configurations are interleaved: rounds outside, configurations inside."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from bench.figures import Figure
from bench.sizes import Sizes
from bench.stage import Stage

Measure = Callable[[], Awaitable[Mapping[str, float]]]
"""Measures one configuration once: samples by name."""
Configurations = Mapping[str, Measure]
Setting = Callable[[Stage, Sizes], AbstractAsyncContextManager[Configurations]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One measured path: its figures, and a context that prepares its configurations and cleans up after them.

    ``worker`` says whether the worker runs meanwhile; where it would only compete for the cores, it does not.
    """

    name: str
    figures: Sequence[Figure]
    setting: Setting
    worker: bool = False
    warm_up: bool = True
    """Whether a first round does not count; a setting may have seen to it already."""


async def measure(scenario: Scenario, stage: Stage, sizes: Sizes, *, rounds: int) -> list[dict[str, float]]:
    """Return the samples of each round. One more round before the first may warm caches up and does not count."""
    if scenario.worker:
        await stage.let_work()
    taken: list[dict[str, float]] = []
    async with scenario.setting(stage, sizes) as configurations:
        for _ in range(rounds + scenario.warm_up):
            taken.append({})
            for once in configurations.values():
                taken[-1].update(await once())
    return taken[int(scenario.warm_up) :]
