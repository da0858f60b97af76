"""The protocol of cascades, rule by rule: waves, repetition, superseding, failures, owners."""

from __future__ import annotations

import pytest

from domain.cascades import Closing
from domain.derivations import Anchor, CascadeStatus, Draft, Run, Supersede
from domain.facts import MAX_WAIT_SECONDS
from domain.ids import CascadeId, RunId
from domain.runs import Hold, RunStatus
from domain.settling import Ending
from tests.domain.cascade_mutants import MUTANTS
from tests.domain.cascade_story import Story, bucket, chain, uid


@pytest.fixture
def story() -> Story:
    return Story()


# --- a wave -----------------------------------------------------------------------------------------------


def test_one_blob_sets_its_whole_chain_in_motion_each_part_once(story: Story) -> None:
    *_, polish = chain(story)
    topic = story.create("t", "topic", "ai")
    assert story.rest() == ["outline", "expand", "polish"]
    [chapter] = [b for b in story.schedule.blobs.values() if b.schema_id == "chapter"]
    assert story.output(polish, chapter.id, "polished").hash == "polished(chapter(outlined(ai)))"
    assert all(c.status == CascadeStatus.COMPLETED for c in story.schedule.cascades.values())
    story.edit(topic, "ml")
    assert story.rest() == ["outline", "expand", "polish"]


def test_a_join_of_two_branches_runs_once_from_one_generation_across_two_edits_in_flight(story: Story) -> None:
    left = story.instance("left", "topic", "half")
    right = story.instance("right", "topic", "half")
    join = story.instance("join", "half", "whole", anchor=Anchor.BUCKET)
    topic = story.create("t", "topic", "1", book=1)
    story.rest()
    first = story.edit(topic, "2")
    story.plan(first)
    one, two = story.claim(first)
    story.settle(one)
    second = story.edit(topic, "3")
    assert second != first
    story.plan(second)
    assert story.settle(two) == Ending.SUPERSEDED
    ran = story.rest()
    assert sorted(ran) == ["join", "left", "right"]
    made = story.derivation(join, bucket("book"))
    vectors = [sorted(p.hash for p in r.inputs) for r in story.schedule.runs.values() if r.derivation_id == made.id]
    assert vectors == [["half(1)", "half(1)"], ["half(3)", "half(3)"]]
    assert story.derivation(left, topic).used_digest != story.derivation(right, topic).used_digest


def test_an_output_that_stays_the_same_stops_the_wave_all_the_way_down(story: Story) -> None:
    chain(story)
    topic = story.create("t", "topic", "ai")
    story.rest()
    cascade = story.edit(topic, "AI")
    story.plan(cascade)
    [run] = story.claim(cascade)
    story.settle(run, "outlined(ai)")
    claim = story.schedule.claim(cascade, [], story.now, 9)
    assert len(claim.closed) == 2
    assert claim.runs == ()
    assert story.close(cascade) == Closing.CLOSED
    assert not any(d.unsettled for d in story.schedule.derivations.values())


def test_an_edit_back_before_plan_moves_nothing(story: Story) -> None:
    chain(story)
    topic = story.create("t", "topic", "ai")
    story.rest()
    assert story.edit(topic, "b") == story.edit(topic, "ai")
    assert story.rest() == []
    assert story.schedule.blobs[topic].planned_version == 3


def test_a_burst_folds_into_one_cascade_and_one_run(story: Story) -> None:
    story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic")
    story.rest()
    joined = {story.edit(topic, f"v{n}") for n in range(5)}
    assert len(joined) == 1
    assert story.rest() == ["outline"]


def test_an_edit_of_a_derived_blob_moves_what_is_below_it_and_not_what_made_it(story: Story) -> None:
    outline, expand, _ = chain(story)
    topic = story.create("t", "topic", "ai")
    story.rest()
    outlined = story.output(outline, topic, "outlined")
    cascade = story.edit(outlined.id, "mine")
    assert outlined.planned_hash == "outlined(ai)"
    story.plan(cascade)
    assert outlined.planned_hash == "mine"
    assert not story.derivation(outline, topic).unsettled
    assert story.derivation(expand, outlined.id).unsettled
    assert story.rest() == ["expand", "polish"]


# --- again, late, lost ------------------------------------------------------------------------------------


def test_a_claim_whose_answer_was_lost_returns_the_same_runs_again(story: Story) -> None:
    chain(story)
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(*story.schedule.cascades)
    first = story.claim(cascade)
    assert first == story.claim(cascade)
    assert len(first) == 1


def test_a_settle_reported_again_has_already_happened(story: Story) -> None:
    story.instance("outline", "topic", "outlined")
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(*story.schedule.cascades)
    [run] = story.claim(cascade)
    assert story.settle(run) == Ending.SETTLED
    assert story.settle(run) == Ending.ALREADY
    assert run.status == RunStatus.SETTLED


@pytest.mark.parametrize("kind", ["model", "PlansAgain"])
def test_a_plan_executed_again_after_its_run_asks_for_no_other_run(kind: str) -> None:
    story = Story(MUTANTS[kind]() if kind in MUTANTS else None)
    outline = story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic")
    story.rest()
    cascade = story.do("reprocess", derivation_id=story.derivation(outline, topic).id)
    story.plan(cascade)
    [run] = story.claim(cascade)
    story.settle(run)
    story.plan(cascade)
    assert (story.claim(cascade) == []) == (kind == "model")


def test_a_run_that_nobody_executes_any_more_is_replaced_and_its_late_result_refused(story: Story) -> None:
    story.instance("outline", "topic", "outlined")
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(*story.schedule.cascades)
    [run] = story.claim(cascade)
    assert story.schedule.lose(run.id) == Ending.LOST
    [other] = story.claim(cascade)
    assert (other.attempt, story.settle(run)) == (2, Ending.SUPERSEDED)
    assert story.settle(other) == Ending.SETTLED


def test_a_run_unknown_to_a_restored_database_is_superseded_and_an_unknown_cascade_empty(story: Story) -> None:
    run_id, cascade_id = RunId(uid("r")), CascadeId(uid("c"))
    assert story.schedule.settle(run_id, [], 0.0).status == Ending.SUPERSEDED
    assert story.schedule.fail(run_id, "provider_failed") == story.schedule.lose(run_id) == Ending.SUPERSEDED
    assert story.schedule.claim(cascade_id, [], 0.0, 9).runs == ()
    assert not story.schedule.plan(cascade_id, 0.0).planned
    assert story.schedule.close_cascade(cascade_id, 3) == Closing.CLOSED


def test_a_workflow_that_remembers_a_plan_which_a_restored_database_forgot_plans_again(story: Story) -> None:
    story.instance("outline", "topic", "outlined")
    story.rest()
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    assert story.close(cascade) == Closing.RUNG
    assert [story.name_of(run) for run in story.claim(cascade)] == ["outline"]


def test_a_draft_merged_with_an_older_version_is_sent_back(story: Story) -> None:
    outline = story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic")
    story.rest()
    cascade = story.edit(topic, "b")
    story.plan(cascade)
    [run] = story.claim(cascade)
    draft = Draft(slot="outlined", machine_hash="m", merged_hash="m", version=1)
    story.edit(story.output(outline, topic, "outlined").id, "mine")
    assert story.schedule.settle(run.id, [draft], 0.0).status == Ending.MOVED
    assert run.status == RunStatus.RUNNING
    assert story.settle(run) == Ending.SETTLED


# --- superseding ------------------------------------------------------------------------------------------


def test_a_run_whose_own_input_did_not_move_is_left_alone(story: Story) -> None:
    outline, expand, _ = chain(story)
    topic = story.create("t", "topic")
    story.rest()
    outlined = story.output(outline, topic, "outlined")
    first = story.edit(outlined.id, "mine")
    story.plan(first)
    [below] = story.claim(first)
    second = story.edit(topic, "b")
    story.plan(second)
    assert below.status == RunStatus.RUNNING
    assert story.derivation(expand, outlined.id).owner_cascade_id == second
    assert story.schedule.cascades[first].superseded_by == second
    assert story.settle(below) == Ending.SETTLED
    assert story.derivation(expand, outlined.id).unsettled


def test_a_run_that_finishes_is_followed_by_one_with_the_newest_inputs(story: Story) -> None:
    outline = story.instance("outline", "topic", "outlined", supersede=Supersede.FINISH)
    topic = story.create("t", "topic", "1")
    story.rest()
    story.plan(first := story.edit(topic, "2"))
    [old] = story.claim(first)
    story.plan(story.edit(topic, "3"))
    assert story.settle(old) == Ending.SETTLED
    assert story.output(outline, topic, "outlined").hash == "outlined(2)"
    assert story.rest() == ["outline"]
    assert story.output(outline, topic, "outlined").hash == "outlined(3)"


def test_after_a_long_time_of_edits_a_run_is_left_to_finish(story: Story) -> None:
    story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic", "1")
    story.rest()
    story.plan(first := story.edit(topic, "2"))
    [old] = story.claim(first)
    story.now = MAX_WAIT_SECONDS - 1
    story.plan(second := story.edit(topic, "3"))
    assert old.status == RunStatus.SUPERSEDED
    [newer] = story.claim(second)
    story.now = MAX_WAIT_SECONDS
    story.plan(story.edit(topic, "4"))
    assert newer.status == RunStatus.RUNNING


@pytest.mark.parametrize("kind", ["model", "FailsOverNewerInputs"])
def test_a_failure_on_inputs_that_have_moved_holds_nothing(kind: str) -> None:
    story = Story(MUTANTS[kind]() if kind in MUTANTS else None)
    outline = story.instance("outline", "topic", "outlined", supersede=Supersede.FINISH)
    topic = story.create("t", "topic", "1")
    story.rest()
    story.plan(first := story.edit(topic, "2"))
    [old] = story.claim(first)
    story.plan(story.edit(topic, "3"))
    assert story.schedule.fail(old.id, "provider_failed") == Ending.FAILED
    assert (story.derivation(outline, topic).hold is None) == (kind == "model")


# --- failures and owners ----------------------------------------------------------------------------------


def test_a_failure_holds_what_is_below_while_siblings_finish_and_an_edit_lifts_it(story: Story) -> None:
    outline, expand, _ = chain(story)
    story.instance("tag", "topic", "tagged")
    topic = story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(*story.schedule.cascades)
    for run in story.claim(cascade):
        if story.name_of(run) == "outline":
            story.schedule.fail(run.id, "provider_failed")
        else:
            story.settle(run)
    assert story.close(cascade) == Closing.CLOSED
    assert story.schedule.cascades[cascade].status == CascadeStatus.PARTIAL
    held = story.derivation(outline, topic)
    below = story.derivation(expand, story.output(outline, topic, "outlined").id)
    assert (held.hold, held.hold_code) == (Hold.FAILED, "provider_failed")
    assert story.schedule.blocked_by(below) == [held.id]
    story.edit(topic, "b")
    assert sorted(story.rest()) == ["expand", "outline", "polish", "tag"]
    assert story.schedule.cascades[cascade].status == CascadeStatus.SUPERSEDED


def waiting_below(story: Story) -> tuple[CascadeId, Run]:
    """A cascade that owns only what waits for a run of an earlier one; return it and that run."""
    outline, expand, _ = chain(story)
    topic = story.create("t", "topic")
    story.rest()
    story.plan(first := story.edit(topic, "b"))
    [run] = story.claim(first)
    outlined = story.output(outline, topic, "outlined")
    story.plan(second := story.do("reprocess", derivation_id=story.derivation(expand, outlined.id).id))
    assert story.claim(second) == []
    return second, run


@pytest.mark.parametrize("kind", ["model", "ClosesWhileOthersWork"])
def test_a_cascade_stays_open_while_it_waits_for_anothers_work(kind: str) -> None:
    story = Story(MUTANTS[kind]() if kind in MUTANTS else None)
    second, run = waiting_below(story)
    assert story.close(second) == (Closing.WAITING if kind == "model" else Closing.CLOSED)
    seq = story.schedule.cascades[second].seq
    story.settle(run)
    assert story.schedule.cascades[second].seq == seq + 1


@pytest.mark.parametrize("kind", ["model", "HoldsRingNobodyBelow"])
def test_a_failure_rings_the_cascades_that_wait_below_it(kind: str) -> None:
    story = Story(MUTANTS[kind]() if kind in MUTANTS else None)
    second, run = waiting_below(story)
    seq = story.schedule.cascades[second].seq
    story.schedule.fail(run.id, "provider_failed")
    assert story.schedule.cascades[second].seq == seq + (kind == "model")
    assert story.close(second) == Closing.CLOSED
    assert story.schedule.cascades[second].status == CascadeStatus.PARTIAL


def test_a_doorbell_that_rang_since_the_claim_keeps_the_cascade_open(story: Story) -> None:
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(cascade)
    claim = story.schedule.claim(cascade, [], 0.0, 9)
    story.schedule.ring(cascade)
    story.schedule.cascades[cascade].seq += 1
    assert story.schedule.close_cascade(cascade, claim.seq) == Closing.RUNG


def test_the_window_bounds_what_runs_at_once_and_claim_says_what_is_left(story: Story) -> None:
    for number in range(5):
        story.instance(f"i{number}", "topic", f"o{number}")
    story.rest()
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(cascade)
    assert len(story.claim(cascade, window=2)) == 2
    assert story.schedule.claim(cascade, [RunId(uid("x"))], 0.0, 2).claimable == 3


def test_a_debounced_derivation_waits_for_its_time(story: Story) -> None:
    story.instance("outline", "topic", "outlined", quiet_seconds=5.0)
    story.rest()
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(cascade)
    claim = story.schedule.claim(cascade, [RunId(uid("x"))], 0.0, 9)
    assert (claim.runs, claim.next_run_after) == ((), 5.0)
    assert story.close(cascade) == Closing.WAITING
    story.now = 5.0
    assert len(story.claim(cascade)) == 1
