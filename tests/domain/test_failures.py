"""What a failure means further down: block, use the last good output, or skip; and what happens when it is over."""

from __future__ import annotations

import pytest

from domain.derivations import Anchor, CascadeStatus, Derivation, OnParentFailure, Provisional
from domain.ids import BlobId, InstanceId
from domain.runs import Hold
from tests.domain.cascade_mutants import MUTANTS
from tests.domain.cascade_story import Story, bucket

BLOCK, LAST_GOOD, SKIP = OnParentFailure.BLOCK, OnParentFailure.USE_LAST_GOOD, OnParentFailure.SKIP


@pytest.fixture
def story() -> Story:
    return Story()


def line(story: Story, policy: OnParentFailure, *more: OnParentFailure) -> tuple[BlobId, list[InstanceId]]:
    """A topic, an outline of it, what reads the outline by ``policy``, and so on; all made once."""
    policies = [BLOCK, policy, *more]
    names = ["outline", "expand", "polish", "print"]
    made = [
        story.instance(name, "topic" if number == 0 else names[number - 1], name, on_parent_failure=found)
        for number, (name, found) in enumerate(zip(names, policies, strict=False))
    ]
    topic = story.create("t", "topic")
    story.rest()
    return topic, made


def content(story: Story, name: str) -> str | None:
    [blob] = [b for b in story.schedule.blobs.values() if b.schema_id == name]
    return blob.hash


def row(story: Story, name: str) -> Derivation:
    [found] = [d for d in story.schedule.derivations.values() if d.definition_digest == name]
    return found


def test_by_default_what_is_below_a_failure_waits_and_keeps_its_output(story: Story) -> None:
    topic, _ = line(story, BLOCK)
    story.edit(topic, "b")
    assert story.rest("outline") == ["outline"]
    assert content(story, "expand") == "expand(outline(a))"
    assert (row(story, "expand").unsettled, row(story, "expand").failing) == (True, True)
    assert story.schedule.blocked_by(row(story, "expand")) == [row(story, "outline").id]


def test_the_last_good_output_stands_in_and_nothing_runs_for_it_twice(story: Story) -> None:
    topic, _ = line(story, LAST_GOOD)
    story.edit(topic, "b")
    assert story.rest("outline") == ["outline"], "made of the last good output it is already"
    assert row(story, "expand").provisional == Provisional.LAST_GOOD
    cascade = list(story.schedule.cascades.values())[-1]
    assert cascade.status == CascadeStatus.PARTIAL, "something of it is still held"
    story.edit(topic, "c")
    assert sorted(story.rest()) == ["expand", "outline"]
    assert (content(story, "expand"), row(story, "expand").provisional) == ("expand(outline(c))", None)


def joined(story: Story, policy: OnParentFailure) -> tuple[BlobId, BlobId, InstanceId]:
    story.instance("write", "topic", "chapter")
    book = story.instance("book", "chapter", "book", anchor=Anchor.BUCKET, on_parent_failure=policy)
    first, second = story.create("1", "topic", "a", book=1), story.create("2", "topic", "b", book=2)
    story.rest()
    assert story.derivation(book, bucket("book")).provisional is None
    return first, second, book


def failed_member(story: Story, first: BlobId, second: BlobId) -> None:
    """Both topics change; the chapter of the first cannot be written."""
    story.edit(first, "A")
    story.rest("write")
    story.edit(second, "B")


def test_a_join_goes_on_with_the_last_good_chapter_among_new_ones_and_says_so(story: Story) -> None:
    first, second, book = joined(story, LAST_GOOD)
    failed_member(story, first, second)
    assert story.rest() == ["write", "book"]
    assert content(story, "book") == "book(chapter(a),chapter(B))"
    last = max(story.schedule.runs.values(), key=lambda run: (story.name_of(run) == "book", run.attempt))
    assert [pinned.stale for pinned in last.inputs] == [True, False]
    assert story.derivation(book, bucket("book")).provisional == Provisional.LAST_GOOD
    failed = [d.id for d in story.schedule.derivations.values() if d.hold == Hold.FAILED]
    story.do("redrive", derivation_ids=failed)
    assert story.rest() == ["write", "book"], "when the failure is over, it is made of what is new"
    assert content(story, "book") == "book(chapter(A),chapter(B))"
    assert story.derivation(book, bucket("book")).provisional is None


def test_a_join_that_skips_keeps_its_output_until_every_member_is_there(story: Story) -> None:
    first, second, book = joined(story, SKIP)
    failed_member(story, first, second)
    assert story.rest() == ["write"]
    assert content(story, "book") == "book(chapter(a),chapter(b))"
    assert story.derivation(book, bucket("book")).provisional == Provisional.SKIPPED
    story.edit(first, "AA")
    assert story.rest() == ["write", "book"]
    assert content(story, "book") == "book(chapter(AA),chapter(B))"


@pytest.mark.parametrize(("policy", "holds"), [(LAST_GOOD, True), (SKIP, False)])
def test_what_was_never_made_cannot_be_used_but_can_be_skipped(
    story: Story,
    policy: OnParentFailure,
    holds: bool,  # noqa: FBT001
) -> None:
    story.instance("outline", "topic", "outline")
    story.instance("expand", "outline", "expand", on_parent_failure=policy)
    topic = story.create("t", "topic")
    assert story.rest("outline") == ["outline"]
    assert row(story, "expand").unsettled == holds
    story.edit(topic, "b")
    assert story.rest() == ["outline", "expand"]


def test_two_parents_that_fail_one_after_the_other_and_recover_one_after_the_other(story: Story) -> None:
    first, second, _book = joined(story, LAST_GOOD)
    for topic in (first, second):
        story.edit(topic, "x")
        assert story.rest("write") == ["write"]
    story.edit(second, "B")
    assert story.rest() == ["write", "book"]
    assert content(story, "book") == "book(chapter(a),chapter(B))"
    story.edit(first, "A")
    assert story.rest() == ["write", "book"]
    assert content(story, "book") == "book(chapter(A),chapter(B))"


def test_a_parent_that_fails_recovers_and_fails_again_costs_below_what_changed(story: Story) -> None:
    topic, _ = line(story, LAST_GOOD)
    for round_ in "bcd":
        story.edit(topic, f"{round_}1")
        assert story.rest("outline") == ["outline"]
        assert row(story, "expand").provisional == Provisional.LAST_GOOD
        story.edit(topic, f"{round_}2")
        assert sorted(story.rest()) == ["expand", "outline"]


def test_a_failure_reaches_through_who_waits_to_who_need_not(story: Story) -> None:
    """outline fails; expand waits for it; polish uses what expand made last, and print reads polish as usual."""
    topic, _ = line(story, BLOCK, LAST_GOOD, BLOCK)
    story.edit(topic, "b")
    assert story.rest("outline") == ["outline"]
    assert (row(story, "expand").failing, row(story, "polish").provisional) == (True, Provisional.LAST_GOOD)
    assert (row(story, "print").unsettled, row(story, "print").provisional) == (False, None)
    story.do("reprocess", derivation_id=row(story, "print").id)
    assert story.rest() == ["print"]
    [pinned] = max(
        (r for r in story.schedule.runs.values() if story.name_of(r) == "print"), key=lambda r: r.attempt
    ).inputs
    assert pinned.stale, "what is further up is said as well"


def test_nothing_goes_on_while_what_failed_may_still_be_cured(story: Story) -> None:
    """expand has failed and outline is at work again: its output may be all that expand needs."""
    topic, _ = line(story, BLOCK, LAST_GOOD)
    story.edit(topic, "b")
    story.rest("expand")
    assert row(story, "polish").provisional == Provisional.LAST_GOOD
    cascade = story.edit(topic, "c")
    story.plan(cascade)
    [run] = story.claim(cascade)
    assert (row(story, "expand").hold, row(story, "expand").failing) == (Hold.FAILED, False)
    assert (row(story, "polish").unsettled, row(story, "polish").pending_inputs) == (True, 1)
    story.settle(run)
    assert story.rest() == ["expand", "polish"]


@pytest.mark.parametrize("kind", ["model", "NeverComesBack"])
def test_a_failure_that_ends_without_a_cascade_takes_back_what_was_skipped(kind: str) -> None:
    """Its provider is switched off: what it made last is what there is."""
    story = Story(MUTANTS[kind]() if kind in MUTANTS else None)
    first, second, book = joined(story, SKIP)
    story.edit(first, "A")
    story.edit(second, "B")
    story.rest("write")
    story.edit(second, "BB")
    story.rest()
    join = story.derivation(book, bucket("book"))
    assert join.provisional == Provisional.SKIPPED
    [writer] = [i for i in story.schedule.instances.values() if i.definition_digest == "write"]
    cascade = story.schedule.deactivate(writer.id, story.new_cascade())
    story.schedule.plan(cascade, 0.0)
    assert join.unsettled == (kind == "model")
    if kind == "model":
        assert story.rest() == ["book"]
        assert content(story, "book") == "book(chapter(a),chapter(BB))"


def test_another_policy_holds_at_once_for_what_waits_and_for_what_went_on(story: Story) -> None:
    topic, made = line(story, BLOCK)
    story.edit(topic, "b")
    story.rest("outline")
    story.do("set_policy", instance_id=made[1], policy=SKIP)
    assert story.rest() == []
    assert row(story, "expand").provisional == Provisional.SKIPPED
    story.do("set_policy", instance_id=made[1], policy=BLOCK)
    assert story.rest() == []
    assert (row(story, "expand").unsettled, row(story, "expand").pending_inputs) == (True, 1)


def test_what_is_asked_for_by_name_while_it_is_skipped_runs_when_the_failure_is_over(story: Story) -> None:
    topic, _ = line(story, SKIP)
    story.edit(topic, "b")
    story.rest("outline")
    story.do("reprocess", derivation_id=row(story, "expand").id)
    assert story.rest() == []
    story.edit(topic, "a")
    assert story.rest() == ["expand"], "the topic is back, the outline was never lost, and expand was asked for"


# --- redrive and newer definitions ------------------------------------------------------------------------


def test_a_redrive_tries_only_what_is_still_failed_and_with_the_definition_of_now(story: Story) -> None:
    topic, [outline, _] = line(story, BLOCK)
    story.edit(topic, "b")
    story.rest("outline")
    failed, below = row(story, "outline"), row(story, "expand")
    story.schedule.redefine(outline, "fixed", "", story.new_cascade())
    story.plan(story.do("redrive", derivation_ids=[failed.id, below.id]))
    assert (failed.hold, failed.definition_digest, below.force) == (None, "fixed", False)
    assert story.rest() == ["fixed", "expand"]
    story.do("redrive", derivation_ids=[failed.id])
    assert story.rest() == [], "it has settled since"


def test_a_newer_definition_of_somebody_elses_provider_redoes_nothing_until_asked(story: Story) -> None:
    outline = story.instance("outline", "topic", "outline", published=True)
    one, two = story.create("1", "topic"), story.create("2", "topic")
    story.rest()
    story.schedule.publish(outline, "newer")
    story.edit(one, "b")
    assert story.rest() == ["newer"], "what runs anyway runs with the newer one"
    assert story.derivation(outline, two).definition_digest == "outline"
    story.do("set_policy", instance_id=outline, policy=SKIP)
    assert story.rest() == []
    story.do("upgrade", instance_id=outline)
    assert story.rest() == ["newer"], "only what is of an older definition"
    assert story.derivation(outline, two).definition_digest == "newer"
    story.do("upgrade", instance_id=outline)
    assert story.rest() == []
