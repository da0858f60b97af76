"""What sets cascades in motion beside edits: deletion, activation, membership, and what is refused."""

from __future__ import annotations

import pytest

from domain import discovery
from domain.derivations import Anchor, CascadeStatus, Supersede
from domain.errors import Conflict, Gone, NotFound
from domain.ids import BlobId, DerivationId, InstanceId
from domain.runs import Hold
from domain.settling import Ending
from tests.domain.cascade_checks import check_acyclic
from tests.domain.cascade_mutants import MUTANTS
from tests.domain.cascade_story import Story, bucket, chain, uid


@pytest.fixture
def story() -> Story:
    return Story()


# --- deletion and activation ------------------------------------------------------------------------------


def test_a_deleted_source_retires_what_it_feeds_and_its_restoration_needs_no_run(story: Story) -> None:
    outline, expand, _ = chain(story)
    topic = story.create("t", "topic")
    story.rest()
    story.do("delete", blob_id=topic)
    assert story.rest() == []
    outlined = story.output(outline, topic, "outlined")
    assert story.derivation(outline, topic).hold == Hold.RETIRED
    assert story.derivation(expand, outlined.id).hold is None
    assert not outlined.deleted
    story.do("restore", blob_id=topic)
    assert story.rest() == []
    assert story.derivation(outline, topic).hold is None


def test_outputs_deleted_with_their_source_come_back_with_it(story: Story) -> None:
    outline, expand, _ = chain(story, on_delete="delete")
    topic = story.create("t", "topic")
    story.rest()
    outlined = story.output(outline, topic, "outlined")
    story.do("delete", blob_id=topic)
    assert story.rest() == []
    assert outlined.deleted
    assert story.derivation(expand, outlined.id).hold == Hold.RETIRED
    story.do("restore", blob_id=topic)
    assert story.rest() == ["outline", "expand", "polish"]
    assert not outlined.deleted


def test_what_a_join_made_goes_once_its_collection_is_empty(story: Story) -> None:
    book = story.instance("book", "chapter", "book", anchor=Anchor.BUCKET, on_delete="delete")
    kept = story.instance("kept", "chapter", "index", anchor=Anchor.BUCKET)
    chapter = story.create("c", "chapter", shelf=0)
    story.rest()
    made, index = (story.output(i, bucket("shelf"), s) for i, s in ((book, "book"), (kept, "index")))
    story.do("remove_member", bucket_id=bucket("shelf"), blob_id=chapter)
    assert story.rest() == []
    assert (made.deleted, index.deleted) == (True, False)
    story.do("add_member", bucket_id=bucket("shelf"), blob_id=chapter, position=0)
    assert sorted(story.rest()) == ["book", "kept"]
    assert not made.deleted


def test_an_output_that_a_person_deleted_is_not_made_again_until_restored(story: Story) -> None:
    outline = story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic")
    story.rest()
    outlined = story.output(outline, topic, "outlined")
    story.plan(cascade := story.edit(topic, "b"))
    [run] = story.claim(cascade)
    story.do("delete", blob_id=outlined.id)
    assert story.settle(run) == Ending.SUPERSEDED
    assert story.claim(cascade) == []
    assert story.rest() == []
    assert story.derivation(outline, topic).hold == Hold.RETIRED
    story.do("restore", blob_id=outlined.id)
    assert story.rest() == ["outline"]
    assert outlined.hash == "outlined(b)"


def test_what_is_below_a_switched_off_provider_goes_on_with_its_last_output(story: Story) -> None:
    outline, expand, polish = chain(story)
    topic = story.create("t", "topic")
    story.rest()
    outlined = story.output(outline, topic, "outlined")
    chapter = story.output(expand, outlined.id, "chapter")
    story.do("deactivate", instance_id=expand)
    story.edit(topic, "b")
    assert story.rest() == ["outline"]
    assert story.derivation(expand, outlined.id).hold == Hold.INACTIVE
    story.edit(chapter.id, "mine")
    assert story.rest() == ["polish"]
    assert not story.derivation(polish, chapter.id).unsettled
    story.do("activate", instance_id=expand)
    assert story.rest() == ["expand", "polish"]


def test_a_provider_that_is_switched_on_finds_what_is_there(story: Story) -> None:
    topic = story.create("t", "topic")
    story.rest()
    outline = story.instance("outline", "topic", "outlined")
    assert story.rest() == ["outline"]
    assert story.output(outline, topic, "outlined").version == 1


def test_a_provider_switched_off_and_on_before_either_is_planned_is_on(story: Story) -> None:
    outline = story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic")
    story.rest()
    off = story.do("deactivate", instance_id=outline)
    on = story.do("activate", instance_id=outline)
    story.plan(on, off)
    assert story.derivation(outline, topic).hold is None


def test_new_settings_run_again_what_they_concern(story: Story) -> None:
    outline, *_ = chain(story)
    story.create("t", "topic")
    story.rest()
    story.do("redefine", instance_id=outline, definition_digest="outline", settings_digest="s2")
    assert story.rest() == ["outline"]


# --- discovery --------------------------------------------------------------------------------------------


def test_a_provider_never_takes_what_it_has_helped_to_make(story: Story) -> None:
    story.instance("polish", "text", "text")
    back = story.instance("back", "text", "text")
    topic = story.create("t", "text")
    assert sorted(story.rest()) == ["back", "back", "polish", "polish"]
    assert story.output(back, topic, "text").version == 1
    check_acyclic(story.schedule)


def test_matching_stops_at_its_depth(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "DEPTH_MAX", 2)
    chain(story)
    story.create("t", "topic")
    assert story.rest() == ["outline", "expand"]


def test_one_plan_makes_a_bounded_number_of_derivations(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "NODES_MAX", 2)
    chain(story)
    story.create("t", "topic")
    assert story.rest() == ["outline", "expand"]


def test_a_blob_in_a_book_brings_its_derived_blobs_along_and_takes_them_out_again(story: Story) -> None:
    outline, expand, _ = chain(story)
    compile_ = story.instance("compile", "chapter", "manuscript", anchor=Anchor.BUCKET)
    topics = [story.create(f"t{n}", "topic", str(n)) for n in range(2)]
    story.rest()
    for position, topic in enumerate(topics):
        story.do("add_member", bucket_id=bucket("book"), blob_id=topic, position=2 - position)
    assert story.rest()[-1] == "compile"
    manuscript = story.output(compile_, bucket("book"), "manuscript")
    assert manuscript.hash == "manuscript(chapter(outlined(1)),chapter(outlined(0)))"
    story.do("remove_member", bucket_id=bucket("book"), blob_id=topics[0])
    assert story.rest() == ["compile"]
    assert manuscript.hash == "manuscript(chapter(outlined(1)))"
    left = story.output(expand, story.output(outline, topics[0], "outlined").id, "chapter")
    assert left.buckets == {}


@pytest.mark.parametrize("kind", ["model", "ForgetsRemovedInputs"])
def test_a_member_that_leaves_or_changes_its_place_is_a_change_of_the_join(kind: str) -> None:
    story = Story(MUTANTS[kind]() if kind in MUTANTS else None)
    story.instance("compile", "chapter", "manuscript", anchor=Anchor.BUCKET)
    first, second = story.create("a", "chapter", "a", book=1), story.create("b", "chapter", "b", book=2)
    story.rest()
    noticed = ["compile"] if kind == "model" else []
    story.do("add_member", bucket_id=bucket("book"), blob_id=first, position=3)
    assert story.rest() == noticed
    story.do("remove_member", bucket_id=bucket("book"), blob_id=second)
    assert story.rest() == noticed


def test_a_book_without_chapters_retires_its_manuscript(story: Story) -> None:
    compile_ = story.instance("compile", "chapter", "manuscript", anchor=Anchor.BUCKET)
    chapter = story.create("a", "chapter", book=1)
    story.rest()
    story.do("remove_member", bucket_id=bucket("book"), blob_id=chapter)
    assert story.rest() == []
    assert story.derivation(compile_, bucket("book")).hold == Hold.RETIRED
    story.do("add_member", bucket_id=bucket("book"), blob_id=chapter, position=1)
    assert story.rest() == ["compile"]
    assert story.derivation(compile_, bucket("book")).hold is None


def test_an_output_that_a_person_took_out_of_a_bucket_stays_while_its_anchor_is_there(story: Story) -> None:
    outline = story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic", book=4)
    story.rest()
    outlined = story.output(outline, topic, "outlined")
    story.do("add_member", bucket_id=bucket("book"), blob_id=outlined.id, position=9)
    story.do("remove_member", bucket_id=bucket("book"), blob_id=outlined.id)
    assert outlined.buckets[bucket("book")].position == 4
    with pytest.raises(NotFound):
        story.do("remove_member", bucket_id=bucket("book"), blob_id=outlined.id)


def test_a_provider_that_reacts_once_keeps_reading_the_version_it_saw(story: Story) -> None:
    welcome = story.instance("welcome", "topic", "greeting", tracks=False)
    topic = story.create("t", "topic", "1")
    story.rest()
    story.edit(topic, "2")
    assert story.rest() == []
    story.do("reprocess", derivation_id=story.derivation(welcome, topic).id)
    assert story.rest() == ["welcome"]
    assert story.output(welcome, topic, "greeting").hash == "greeting(1)"


def test_a_join_asleep_is_recounted_when_a_member_in_the_making_leaves_it(story: Story) -> None:
    outline = story.instance("outline", "topic", "outlined")
    compile_ = story.instance("compile", "outlined", "manuscript", anchor=Anchor.BUCKET)
    topic = story.create("t", "topic", book=1)
    story.rest()
    story.do("deactivate", instance_id=compile_)
    story.rest()
    story.plan(story.edit(topic, "b"))
    made = story.derivation(compile_, bucket("book"))
    assert (made.pending_inputs, story.derivation(outline, topic).unsettled) == (1, True)
    story.do("activate", instance_id=compile_)
    story.plan(story.do("remove_member", bucket_id=bucket("book"), blob_id=topic))
    assert (made.pending_inputs, made.hold) == (0, Hold.INACTIVE)


# --- bad input --------------------------------------------------------------------------------------------


def test_what_does_not_exist_or_is_deleted_cannot_be_changed(story: Story) -> None:
    unknown = BlobId(uid("nobody"))
    with pytest.raises(NotFound):
        story.edit(unknown, "a")
    with pytest.raises(NotFound):
        story.do("reprocess", derivation_id=DerivationId(unknown))
    with pytest.raises(NotFound):
        story.do("activate", instance_id=InstanceId(unknown))
    topic = story.create("t", "topic")
    with pytest.raises(Conflict):
        story.do("restore", blob_id=topic)
    with pytest.raises(Conflict):
        story.create("t", "topic")
    story.do("delete", blob_id=topic)
    with pytest.raises(Gone):
        story.edit(topic, "b")


def test_reconcile_rings_what_has_something_to_do_and_nothing_else(story: Story) -> None:
    story.instance("outline", "topic", "outlined")
    topic = story.create("t", "topic")
    story.rest()
    assert story.schedule.reconcile() == ()
    cascade = story.edit(topic, "b")
    assert story.schedule.reconcile() == (cascade,)
    story.plan(cascade)
    story.claim(cascade)
    assert story.schedule.reconcile() == (cascade,)


def test_reconcile_rings_a_cascade_that_a_restored_backup_calls_partial_though_nothing_is_left(story: Story) -> None:
    story.create("t", "topic")
    story.rest()
    [cascade] = story.schedule.cascades.values()
    cascade.status = CascadeStatus.PARTIAL
    assert story.schedule.reconcile() == (cascade.id,)
    story.rest()
    assert cascade.status == CascadeStatus.COMPLETED


@pytest.mark.parametrize(("subtree", "runs"), [(False, [2, 1, 1]), (True, [2, 2, 2])])
def test_what_is_asked_again_runs_again_and_the_whole_subtree_only_if_that_was_asked(
    *, story: Story, subtree: bool, runs: list[int]
) -> None:
    instances = [story.instance(name, f"s{n}", f"s{n + 1}") for n, name in enumerate(("one", "two", "three"))]
    story.create("t", "s0")
    story.rest()
    derivations = [d for i in instances for d in story.schedule.derivations.values() if d.provider_id == i]
    story.do("reprocess", derivation_id=derivations[0].id, subtree=subtree)
    story.rest()
    assert [d.attempt for d in derivations] == runs
    assert not any(d.force for d in derivations)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_run_left_to_finish_answers_who_asks_again_unless_the_answer_has_to_be_fresh(
    *, story: Story, fresh: bool
) -> None:
    story.instance("one", "s0", "s1", supersede=Supersede.FINISH)
    topic = story.create("t", "s0")
    story.rest()
    [derivation] = story.schedule.derivations.values()
    story.plan(first := story.edit(topic, "b"))
    [run] = story.claim(first)
    story.plan(story.do("reprocess", derivation_id=derivation.id, fresh=fresh))
    story.settle(run)
    story.rest()
    assert derivation.attempt == (3 if fresh else 2)
    assert (derivation.force, derivation.fresh_after) == (False, None)
