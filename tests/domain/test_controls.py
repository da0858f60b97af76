"""What becomes of a person's approval when the run that it was given to ends."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.cascades import Schedule
from domain.controls import Control
from domain.derivations import Derivation, Execution, Run
from domain.ids import CascadeId
from domain.settling import LOSSES_MAX, Ending
from tests.domain.cascade_story import Story


def approved(story: Story, **more: object) -> tuple[CascadeId, Run]:
    """A cascade, and its only run, which a person was asked about and has approved."""
    story.instance("outline", "topic", "outlined", execution=Execution.WORKFLOW, **more)
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(*story.schedule.cascades)
    [run] = story.claim(cascade)
    assert story.schedule.park(run.id) == Ending.PARKED
    assert story.schedule.approve(run.id) == Control.DONE
    return cascade, run


def lose(schedule: Schedule, run: Run) -> None:
    schedule.lose(run.id)


def lose_once_too_often(schedule: Schedule, run: Run) -> None:
    schedule.derivations[run.derivation_id].losses = LOSSES_MAX - 1
    schedule.lose(run.id)
    schedule.retry_run(run.id)


def cancel(schedule: Schedule, run: Run) -> None:
    schedule.cancel_run(run.id)
    schedule.retry_run(run.id)


def fail(schedule: Schedule, run: Run) -> None:
    schedule.fail(run.id, "provider_failed")
    schedule.retry_run(run.id)


def move(schedule: Schedule, run: Run) -> None:
    schedule.lose(run.id)
    found: Derivation = schedule.derivations[run.derivation_id]
    found.want_digest = "another"


@pytest.mark.parametrize(
    ("end", "again"), [(lose, False), (lose_once_too_often, False), (cancel, False), (fail, True), (move, True)]
)
def test_a_person_is_asked_again_if_the_run_failed_or_reads_something_else(
    end: Callable[[Schedule, Run], None], *, again: bool
) -> None:
    story = Story()
    cascade, run = approved(story)
    end(story.schedule, run)
    [other] = story.claim(cascade)
    assert (other.attempt, other.approved) == (2, not again)
    assert story.schedule.park(other.id) == (Ending.PARKED if again else Ending.ALREADY)
    assert story.schedule.approve(other.id) == (Control.DONE if again else Control.ALREADY)


def test_an_approval_is_passed_on_from_run_to_run() -> None:
    story = Story()
    cascade, run = approved(story)
    for _ in range(2):
        story.schedule.lose(run.id)
        [run] = story.claim(cascade)
    assert run.approved
    story.schedule.fail(run.id, "provider_failed")
    story.schedule.retry_run(run.id)
    [run] = story.claim(cascade)
    assert not run.approved
