"""The protocol of cascades, rule by rule, on graphs small enough to be read."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import pytest

from domain import discovery
from domain.cascades import Closing, Schedule
from domain.derivations import Anchor, Blob, CascadeStatus, Derivation, Draft, Instance, Run, Supersede
from domain.errors import Conflict, Gone, NotFound
from domain.facts import MAX_WAIT_SECONDS
from domain.ids import BlobId, BucketId, CascadeId, DerivationId, InstanceId, RunId, derivation_id, output_blob_id
from domain.runs import UNFINISHED, Hold, RunStatus
from domain.settling import Ending
from tests.domain.cascade_checks import check_acyclic, check_step
from tests.domain.cascade_mutants import MUTANTS

HERE = UUID(int=7)


def uid(name: str) -> UUID:
    return uuid5(HERE, name)


class Story:
    """A schedule with names instead of ids, and one pair of hands for all workflows."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        self.schedule = Schedule() if schedule is None else schedule
        self.count = 0
        self.now = 0.0

    def instance(self, name: str, reads: str, makes: str, **more: Any) -> InstanceId:
        instance = Instance(
            id=InstanceId(uid(name)), input_schemas=frozenset(reads.split()),
            outputs=tuple((made, made) for made in makes.split()), definition_digest=name, **more,
        )  # fmt: skip
        self.schedule.register(instance)
        self.do("activate", instance_id=instance.id)
        return instance.id

    def do(self, move: str, **args: Any) -> CascadeId:
        """A person's move, under a cascade of its own; what it answers."""
        answer: CascadeId = getattr(self.schedule, move)(**args, cascade_id=self.new_cascade())
        check_step(self.schedule, self.now)
        return answer

    def new_cascade(self) -> CascadeId:
        self.count += 1
        return CascadeId(UUID(int=self.count, version=4))

    def create(self, name: str, schema: str, content: str = "a", **buckets: int) -> BlobId:
        blob_id = BlobId(uid(name))
        inside = {bucket(found): position for found, position in buckets.items()}
        self.do("create", blob_id=blob_id, schema_id=schema, content=content, buckets=inside)
        return blob_id

    def edit(self, blob_id: BlobId, content: str) -> CascadeId:
        return self.do("edit", blob_id=blob_id, content=content)

    def plan(self, *cascades: CascadeId) -> None:
        for found in cascades:
            self.schedule.plan(found, self.now)
            check_step(self.schedule, self.now)

    def claim(self, cascade_id: CascadeId, window: int = 9) -> list[Run]:
        """Claim, and return the runs to be seen to."""
        self.count += 1
        fresh = [RunId(UUID(int=(self.count << 16) + n, version=4)) for n in range(window)]
        claim = self.schedule.claim(cascade_id, fresh, self.now, window)
        check_step(self.schedule, self.now)
        return [self.schedule.runs[found] for found in claim.runs]

    def settle(self, run: Run, made: str | None = None) -> Ending:
        """Settle a run with what it made: by default its inputs in brackets, after the slot."""
        drafts = []
        for slot, row in self.schedule.outputs[run.derivation_id].items():
            content = made or f"{slot}({','.join(pinned.hash for pinned in run.inputs)})"
            version = self.schedule.blobs[row.blob_id].version
            drafts.append(Draft(slot=slot, machine_hash=content, merged_hash=content, version=version))
        ending = self.schedule.settle(run.id, drafts, self.now).status
        check_step(self.schedule, self.now)
        return ending

    def rest(self) -> list[str]:
        """Serve every cascade until none has anything to do; return what ran, in order, by instance name."""
        ran = []
        while todo := [c.id for c in self.schedule.cascades.values() if c.seq > c.sent_seq or self.due(c.id)]:
            for cascade_id in todo:
                self.schedule.sent(cascade_id, self.schedule.cascades[cascade_id].seq)
                self.plan(cascade_id)
                for run in self.claim(cascade_id):
                    ran.append(self.name_of(run))
                    self.settle(run)
                self.close(cascade_id)
        return ran

    def due(self, cascade_id: CascadeId) -> bool:
        return any(d.run_id is None and self.schedule._ready(d) for d in self.schedule.owned(cascade_id))

    def close(self, cascade_id: CascadeId) -> Closing:
        return self.schedule.close_cascade(cascade_id, self.schedule.cascades[cascade_id].seq)

    def name_of(self, run: Run) -> str:
        instance_id = self.schedule.derivations[run.derivation_id].provider_id
        return self.schedule.instances[instance_id].definition_digest

    def derivation(self, instance: InstanceId, anchor: UUID) -> Derivation:
        return self.schedule.derivations[derivation_id(instance, anchor)]

    def output(self, instance: InstanceId, anchor: UUID, slot: str) -> Blob:
        return self.schedule.blobs[output_blob_id(derivation_id(instance, anchor), slot)]

    def live(self) -> list[Run]:
        return [run for run in self.schedule.runs.values() if run.status in UNFINISHED]


def bucket(name: str) -> BucketId:
    return BucketId(uid(f"bucket {name}"))


@pytest.fixture
def story() -> Story:
    return Story()


def chain(story: Story, **more: Any) -> tuple[InstanceId, InstanceId, InstanceId]:
    return (
        story.instance("outline", "topic", "outlined", **more),
        story.instance("expand", "outlined", "chapter", **more),
        story.instance("polish", "chapter", "polished", **more),
    )


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
    story.instance("outline", "topic", "outlined", debounce_seconds=5.0)
    story.rest()
    story.create("t", "topic")
    cascade = list(story.schedule.cascades)[-1]
    story.plan(cascade)
    claim = story.schedule.claim(cascade, [RunId(uid("x"))], 0.0, 9)
    assert (claim.runs, claim.next_run_after) == ((), 5.0)
    assert story.close(cascade) == Closing.WAITING
    story.now = 5.0
    assert len(story.claim(cascade)) == 1


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
