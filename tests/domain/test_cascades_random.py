"""The model of cascades under random people and faults; a failure names the call that repeats it.

``STUDIO_SOAK_EXAMPLES=5000 pytest tests/domain/test_cascades_random.py -k soak -s`` plays more of every kind of world,
from ``STUDIO_SOAK_SEED`` (0) on.
"""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.cascades import Schedule
from domain.derivations import Derivation
from tests.domain.cascade_checks import Violation
from tests.domain.cascade_mutants import MUTANTS
from tests.domain.cascade_world import World, play, replay, scenario
from tests.domain.cascade_worlds import WORLDS, DecidingWorld, FrailWorld, LimitedWorld, PayingWorld, RepeatingWorld
from tests.domain.soaks import SOAK_EXAMPLES, Tally

RULES = {
    "SeesCurrentVersions": 10,
    "NeverFences": 30,
    "AccumulatesPending": 30,
    "ClaimsOnlyNewRuns": 10,
    "PlansAgain": 60,
    "FencesBeforeStatus": 10,
    "RingsNobodyAtTheEnd": 60,
    "RingsNoFormerOwner": 10,
    "CutsOffOneLevel": 20,
    "ClosesWhileOthersWork": 20,
}
"""Which rule is taken out, and within how many seeds the checks must notice."""
FRAIL_RULES = {
    "GoesOnWhileItMayBeCured": 40,
    "FailureStopsAtTheChild": 40,
    "UsesWhatWasNeverMade": 40,
    "MixesUnsaid": 60,
}
"""The same for what failures mean further down, in a world where they are frequent."""

DECIDING_RULES = {
    "KeepsParkedRuns": 20,
    "ParksWhatIsOutOfDate": 40,
    "ParksInSilence": 60,
    "ApprovesInSilence": 30,
    "CancelsInSilence": 40,
    "CancelsWithoutEndingRuns": 10,
    "CancelsWithoutPlanning": 30,
    "RetriesInSilence": 20,
}
"""The same for what people decide, in a world where they often do."""

PAYING_RULES = {
    "ReleasesNothingAtTheEnd": 10,
    "ReservesTwice": 40,
    "ChargesTwice": 20,
    "ChargesOnlyTheFirst": 20,
    "KeepsNoLine": 20,
    "CallsNobodyUp": 20,
}
"""The same for money, in a world where it is short."""
REPEATING_RULES = {"PutsNothingOff": 5}
"""The same for what runs too often."""
FOUND_BY = {"ParksInSilence": 49, "CancelsInSilence": 22, "RingsNobodyAtTheEnd": 14, "CallsNobodyUp": 14}
"""The seed to begin with where many before it notice nothing."""
REACHED = {
    "cut off", "settle settled", "settle superseded", "settle moved", "settle already", "fail failed",
    "fail superseded", "lose lost", "close_cascade rung", "close_cascade waiting", "close_cascade closed",
    "hold failed", "hold inactive", "hold retired", "cascade completed", "cascade partial",
    "cascade superseded", "cascade cancelled", "hold approval", "hold cancelled", "park parked", "approve done",
    "approve refused", "reject done", "cancel_run done", "cancel_cascade done", "retry_run done",
    "restore", "reprocess", "redefine", "remove_member", "deactivate", "redrive", "upgrade", "publish", "set_policy",
    "provisional skipped", "provisional last_good", "stale",
}  # fmt: skip
"""What random scenarios are about: moves with their answers, holds, states of cascades."""


def played(seed: int, *, disasters: bool = False, steps: int = 150, world: type[World] = World) -> World:
    try:
        return scenario(seed, steps=steps, disasters=disasters, world=world)
    except Exception as err:
        call = f"scenario({seed}, {steps=}, {disasters=}, world={world.__module__}.{world.__name__})"
        err.add_note(f"repeat: tests.domain.cascade_world.{call}")
        raise


@pytest.mark.parametrize("batch", range(3))
def test_no_schedule_of_faults_breaks_an_invariant(batch: int) -> None:
    for seed in range(batch * 20, batch * 20 + 20):
        played(seed)


def test_a_lost_temporal_or_a_restored_database_is_survived_by_reconciling() -> None:
    for seed in range(25):
        played(seed, disasters=True)


@pytest.mark.parametrize("world", [FrailWorld, DecidingWorld, PayingWorld, LimitedWorld, RepeatingWorld])
def test_where_one_thing_happens_much_no_invariant_breaks(world: type[World]) -> None:
    for seed in range(20):
        played(seed, world=world, disasters=seed % 4 == 0)


@settings(max_examples=20, deadline=None, database=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 200))
def test_no_schedule_of_any_length_breaks_an_invariant(seed: int, steps: int) -> None:
    played(seed, steps=steps)


def missed(name: str, world: type[World], seeds: int) -> None:
    """Fail unless the checks notice, within so many scenarios, that a rule was taken out."""
    first = FOUND_BY.get(name, 0)
    for seed in range(first, first + seeds):
        try:
            play(world(Random(seed), MUTANTS[name]()), steps=150, rests=2)
        except Violation:
            return
    pytest.fail(f"{MUTANTS[name].__doc__} Nothing was noticed in {seeds} scenarios.")


@pytest.mark.parametrize("name", RULES)
def test_each_rule_is_missed_when_it_is_taken_out(name: str) -> None:
    missed(name, World, RULES[name])


@pytest.mark.parametrize("name", FRAIL_RULES)
def test_each_rule_of_failures_is_missed_when_it_is_taken_out(name: str) -> None:
    missed(name, FrailWorld, FRAIL_RULES[name])


@pytest.mark.parametrize("name", DECIDING_RULES)
def test_each_rule_of_decisions_is_missed_when_it_is_taken_out(name: str) -> None:
    missed(name, DecidingWorld, DECIDING_RULES[name])


@pytest.mark.parametrize("name", PAYING_RULES)
def test_each_rule_of_money_is_missed_when_it_is_taken_out(name: str) -> None:
    missed(name, PayingWorld, PAYING_RULES[name])


@pytest.mark.parametrize("name", REPEATING_RULES)
def test_each_rule_of_repeats_is_missed_when_it_is_taken_out(name: str) -> None:
    missed(name, RepeatingWorld, REPEATING_RULES[name])


def test_a_recorded_scenario_replays_to_the_same_state() -> None:
    for seed in range(8):
        world = played(seed)
        again = Schedule()
        replay(again, world.trace)
        assert again.snapshot() == world.schedule.snapshot()


class Watched(Schedule):
    """Remembers how derivations were settled below failures: few of them are so at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def close(self, derivation: Derivation) -> None:
        super().close(derivation)
        self.seen.add(f"provisional {derivation.provisional}")


def test_the_scenarios_reach_what_they_are_about() -> None:
    seen: set[str] = set()
    for seed in range(90):
        if seen >= REACHED:
            return
        schedule = Watched()
        world = play((World, FrailWorld, DecidingWorld)[seed % 3](Random(seed), schedule), steps=150, rests=2)
        seen |= schedule.seen
        for step in world.trace:
            seen.add(step.move)
            answer = step.result["status"] if isinstance(step.result, dict) and "status" in step.result else step.result
            seen.add(f"{step.move} {answer}" if isinstance(answer, str) and len(answer) < 20 else step.move)
            if step.move == "claim" and step.result["closed"]:
                seen.add("cut off")
        seen.update(f"hold {d.hold}" for d in world.schedule.derivations.values() if d.hold)
        seen.update("stale" for run in world.schedule.runs.values() if any(found.stale for found in run.inputs))
        seen.update(f"cascade {c.status}" for c in world.schedule.cascades.values())
    assert seen >= REACHED


@pytest.mark.skipif(not SOAK_EXAMPLES, reason="a soak: set STUDIO_SOAK_EXAMPLES")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("disasters", [False, True], ids=["faults", "disasters"])
@pytest.mark.parametrize("world", WORLDS)
def test_soak(world: type[World], disasters: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    kind = f"{world.__name__}-{'disasters' if disasters else 'faults'}"
    tally = Tally(f"model, {kind}", f"'tests/domain/test_cascades_random.py::test_soak[{kind}]'")
    for seed in tally.seeds():
        try:
            played(seed, disasters=disasters, world=world)
        except Exception as error:  # noqa: BLE001 - whatever it raises is a counterexample
            tally.failed(seed, error)
    tally.close()
