"""What people decide, rule by rule: parked runs, cancelled and retried work, runs that are lost again and again."""

from __future__ import annotations

import pytest

from domain.cascades import Closing
from domain.controls import Control
from domain.derivations import CascadeStatus, Run, Supersede
from domain.facts import MAX_WAIT_SECONDS
from domain.ids import BlobId, CascadeId
from domain.runs import Hold, RunStatus
from domain.settling import Ending
from tests.domain.cascade_mutants import MUTANTS
from tests.domain.cascade_story import Story, chain, uid


@pytest.fixture
def story() -> Story:
    return Story()


def begun(story: Story) -> tuple[CascadeId, Run]:
    """A chain of three whose first derivation runs."""
    chain(story)
    cascade = story.schedule.cascades[story.edit(story.create("t", "topic", "a"), "b")].id
    story.plan(*story.schedule.cascades)
    [run] = story.claim(cascade)
    return cascade, run


def test_a_parked_run_keeps_its_place_and_lets_its_cascade_close(story: Story) -> None:
    cascade, run = begun(story)
    assert story.schedule.park(run.id) == Ending.PARKED
    assert story.schedule.park(run.id) == Ending.PARKED
    assert not story.claim(cascade)
    assert story.close(cascade) == Closing.CLOSED
    assert story.schedule.cascades[cascade].status == CascadeStatus.PARTIAL
    assert story.schedule.approve(run.id) == Control.DONE
    assert story.schedule.approve(run.id) == Control.ALREADY
    assert [found.id for found in story.claim(cascade)] == [run.id]
    assert story.settle(run) == Ending.SETTLED
    assert story.schedule.approve(run.id) == Control.REFUSED


@pytest.mark.parametrize("mutant", [None, "ReportsOnParkedRuns"])
def test_nobody_reports_on_a_parked_run(mutant: str | None) -> None:
    story = Story(MUTANTS[mutant]() if mutant else None)
    _, run = begun(story)
    story.schedule.park(run.id)
    fenced = {Ending.SUPERSEDED}
    answers = {story.schedule.lose(run.id), story.schedule.fail(run.id, "late"), story.settle(run)}
    assert (answers == fenced) == (mutant is None)
    assert (run.status == RunStatus.PARKED) == (mutant is None)


def test_an_input_that_moves_takes_the_question_back_even_where_runs_are_left_to_finish(story: Story) -> None:
    story.instance("one", "topic", "out", supersede=Supersede.FINISH)
    topic = story.create("t", "topic")
    cascade = next(iter(reversed(story.schedule.cascades)))
    story.plan(*story.schedule.cascades)
    [run] = story.claim(cascade)
    story.schedule.park(run.id)
    story.now += 2 * MAX_WAIT_SECONDS
    story.plan(story.edit(topic, "newer"))
    assert run.status == RunStatus.SUPERSEDED
    assert story.schedule.approve(run.id) == Control.REFUSED


def test_a_cancelled_derivation_goes_on_with_a_later_cause_from_further_up(story: Story) -> None:
    cascade, run = begun(story)
    assert story.schedule.cancel_cascade(cascade, story.now) == Control.DONE
    assert story.schedule.cancel_cascade(cascade, story.now) == Control.ALREADY
    assert run.status == RunStatus.CANCELLED
    assert {d.hold for d in story.schedule.derivations.values()} == {Hold.CANCELLED}
    assert story.close(cascade) == Closing.CLOSED
    assert story.schedule.cascades[cascade].status == CascadeStatus.CANCELLED
    story.plan(story.edit(BlobId(uid("t")), "c"))
    assert {d.hold for d in story.schedule.derivations.values()} == {None}
    assert story.schedule.retry_cascade(cascade) == Control.REFUSED


def test_a_retry_lifts_a_failure_as_well_and_the_same_cascade_goes_on(story: Story) -> None:
    cascade, run = begun(story)
    story.schedule.fail(run.id, "broken")
    assert story.schedule.cancel_run(run.id) == Control.REFUSED
    assert story.schedule.cancel_cascade(cascade, story.now) == Control.REFUSED
    assert story.schedule.retry_run(run.id) == Control.DONE
    assert story.schedule.retry_run(run.id) == Control.ALREADY
    [second] = story.claim(cascade)
    assert second.attempt == run.attempt + 1


def test_a_run_that_is_lost_again_and_again_has_failed_unless_its_input_has_moved(story: Story) -> None:
    cascade, run = begun(story)
    assert story.schedule.lose(run.id, 2) == Ending.LOST
    story.plan(story.edit(BlobId(uid("t")), "c"))
    cascade = next(iter(reversed(story.schedule.cascades)))
    answers = []
    for _ in range(2):
        [run] = story.claim(cascade)
        answers.append(story.schedule.lose(run.id, 2))
    assert answers == [Ending.LOST, Ending.FAILED]
    derivation = story.schedule.derivations[run.derivation_id]
    assert (derivation.hold, derivation.hold_code, derivation.losses) == (Hold.FAILED, "run_lost", 0)
