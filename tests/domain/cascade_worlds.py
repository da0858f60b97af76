"""Worlds of the model of cascades in which one thing happens much more often than it would by chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

from domain.bounds import Repeats
from domain.cascades import Schedule
from domain.derivations import Execution, Instance, OnParentFailure
from domain.ids import BudgetId
from tests.domain.cascade_checks import check_repeats
from tests.domain.cascade_world import Attempt, Workflow, World


class DecidingWorld(World):
    """A world in which people approve, reject, cancel and retry as much as they write."""

    asking = 3

    def person(self) -> None:
        controls = [self._decide] * 3 + [self._cancel_run, self._cancel_cascade] + [self._retry] * 2
        self.random.choice([super().person] * 5 + [self._edit] * 2 + (controls if self.controls else []))()


class FrailWorld(World):
    """A world in which providers fail often, and most derivations go on without what has failed."""

    def _breaks(self, execution: Attempt) -> bool:
        """Not the first time: then there would be no output to go on with."""
        run = self.schedule.runs.get(execution.run_id)
        return run is not None and self.chance(0.05 if run.attempt == 1 else 0.5)

    def _catalogue(self) -> Iterator[Instance]:
        for instance in super()._catalogue():
            yield replace(instance, on_parent_failure=self.random.choice(_FRAIL), tracks=True)

    def person(self) -> None:
        self.random.choice(
            [super().person] * 4 + [self._edit] * 4 + [self._redrive] * 2 + [self._set_policy, self._switch]
        )()


_FRAIL = (OnParentFailure.BLOCK, *[OnParentFailure.USE_LAST_GOOD] * 2, *[OnParentFailure.SKIP] * 2)


class PayingWorld(World):
    """A world in which nearly everything costs, and money is short, comes in small sums and is taken away again."""

    def __init__(self, random: Random, schedule: Schedule | None = None, *, disasters: bool = False) -> None:
        super().__init__(random, schedule, disasters=disasters)
        self.do("set_budget", budget_id=BudgetId(self.uuid()), limit=random.randrange(20), cascade_id=self.cascade_id())

    def _catalogue(self) -> Iterator[Instance]:
        for instance in super()._catalogue():
            yield replace(instance, execution=Execution.WORKFLOW)

    def _useless(self) -> bool:
        return self.chance(0.1)

    def person(self) -> None:
        self.random.choice([super().person] * 4 + [self._edit] * 4 + [self._budget] * 3)()


class LimitedWorld(World):
    """A world in which places are few: of the user, and of some providers; priorities differ."""

    def __init__(self, random: Random, schedule: Schedule | None = None, *, disasters: bool = False) -> None:
        schedule = Schedule() if schedule is None else schedule
        schedule.runs_per_user = random.choice([None, 1, 2, 2, 4])
        super().__init__(random, schedule, disasters=disasters)

    def _catalogue(self) -> Iterator[Instance]:
        for instance in super()._catalogue():
            cap = (None, None, 1, 2)[instance.id.int % 4]
            yield replace(instance, max_concurrency=cap, priority=1 + instance.id.int % 5)


class RepeatingWorld(World):
    """A world in which few runs of the same are allowed within a window: much is put off, and goes on by itself."""

    def __init__(self, random: Random, schedule: Schedule | None = None, *, disasters: bool = False) -> None:
        schedule = Schedule() if schedule is None else schedule
        schedule.repeats = Repeats(derivation=random.choice([1, 2, 3]), root=random.choice([2, 4, 8]), window=20.0)
        super().__init__(random, schedule, disasters=disasters)

    def person(self) -> None:
        self.random.choice([super().person] * 3 + [self._edit] * 5)()

    def _flow_claim(self, flow: Workflow) -> None:
        super()._flow_claim(flow)
        check_repeats(self.schedule, self.now)


WORLDS = (World, FrailWorld, DecidingWorld, PayingWorld, LimitedWorld, RepeatingWorld)
"""Every kind: a soak plays all of them."""
