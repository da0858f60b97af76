"""What new machine output does to the document there: nothing, a version, a moved head, an offer, a hold."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.diffs import verified
from domain.documents import Document, document_hash
from domain.schemas import Schema
from domain.settlements import output_cutoff, settle_output
from domain.works import RunOutput, SettledOutput
from tests.domain.values import json_document, titles, values

ANYTHING = Schema(slug="any-v1", version="1.0.0", definition=True)
CLOCK = Schema(
    slug="clock-v1",
    version="1.0.0",
    definition={"type": "object", "properties": {"at": {"type": "integer", "x-volatile": True}}},
)
NARROW = Schema(slug="narrow-v1", version="1.0.0", definition={"type": "object", "maxProperties": 2})


def output(
    current: Document | None, machine: Document | None = None, *, on_conflict: str = "keep_human", **more: Any
) -> RunOutput:
    values_: dict[str, Any] = {
        "slot": "keep", "blob_id": UUID(int=1), "version": 0 if current is None else 3, "deleted": False,
        "current": current, "machine": machine, "schema": ANYTHING, "on_conflict": on_conflict,
    }  # fmt: skip
    return RunOutput(**(values_ | more))


def effects(made: tuple[SettledOutput, ...]) -> list[str]:
    return [one.effect for one in made]


def data(**members: Any) -> Document:
    return json_document(members)


documents = st.builds(lambda body, title: json_document(body, title=title), values, titles)
policies = st.sampled_from(["keep_human", "take_machine", "wait"])


@given(documents)
def test_a_first_output_is_taken_as_it_is(staged: Document) -> None:
    [made] = settle_output(output(None), staged)
    assert (made.effect, made.document, made.machine, made.expected) == ("change", staged, staged, 0)
    assert (made.patch, made.inverse, made.base_hash, made.conflicts) == (None, None, None, ())


@given(documents, policies)
def test_what_equals_the_head_does_nothing_whatever_people_did(staged: Document, policy: str) -> None:
    assert settle_output(output(data(mine=1), staged, on_conflict=policy), staged) == ()
    assert settle_output(output(staged, staged, on_conflict=policy), staged) == ()


@given(documents, documents, policies)
def test_what_nobody_edited_becomes_what_the_machine_says(head: Document, staged: Document, policy: str) -> None:
    made = settle_output(output(head, head, on_conflict=policy), staged)
    if head == staged:
        assert made == ()
    else:
        [one] = made
        assert (one.effect, one.document, one.conflicts) == ("change", staged, ())


@given(documents, documents, documents, policies)
def test_every_patch_leads_where_it_says_and_every_head_is_the_machines(
    head: Document, current: Document, staged: Document, policy: str
) -> None:
    made = settle_output(output(current, head, on_conflict=policy), staged)
    before = current
    for one in made:
        assert one.machine is staged
        assert one.expected == 3
        assert one.base_hash == document_hash(head.to_bytes())
        if one.effect == "head":
            assert (one.patch, one.document) == (None, current)
            continue
        assert one.patch is not None
        assert one.inverse is not None
        verified(before.to_json(), one.document.to_json(), orjson.loads(one.patch), orjson.loads(one.inverse))
        before = one.document
    allowed = {
        "keep_human": [[], ["change"], ["head"], ["change", "offer"], ["head", "offer"]],
        "take_machine": [[], ["change"], ["head"]],
        "wait": [[], ["change"], ["head"], ["hold"]],
    }
    assert effects(made) in allowed[policy]
    assert all(one.conflicts for one in made if one.effect in ("offer", "hold"))


def test_a_person_and_the_machine_may_change_different_things() -> None:
    [made] = settle_output(output(data(a="mine", b=1), data(a="x", b=1)), data(a="x", b=2))
    assert (made.effect, made.document.body, made.conflicts) == ("change", {"a": "mine", "b": 2}, ())
    assert made.machine.body == {"a": "x", "b": 2}


def test_where_the_human_side_wins_everywhere_the_head_moves_and_the_rest_is_offered() -> None:
    head, offer = settle_output(output(data(a="mine"), data(a="x")), data(a="y"))
    assert (head.effect, head.document.body, head.machine.body) == ("head", {"a": "mine"}, {"a": "y"})
    assert (offer.effect, offer.document.body) == ("offer", {"a": "y"})
    assert offer.conflicts == ({"pointer": "/data/a", "base": "x", "ours": "mine", "theirs": "y"},)
    # The next run has that head: the same conflict does not come back, a new one does.
    assert settle_output(output(data(a="mine"), head.machine), data(a="y")) == ()
    assert effects(settle_output(output(data(a="mine"), head.machine), data(a="z"))) == ["head", "offer"]


def test_an_offer_takes_the_merge_and_the_machines_side_of_what_is_in_dispute() -> None:
    change, offer = settle_output(output(data(a="mine", b=1), data(a="x", b=1)), data(a="y", b=2))
    assert (change.document.body, offer.document.body) == ({"a": "mine", "b": 2}, {"a": "y", "b": 2})
    assert change.conflicts == offer.conflicts


def test_take_machine_replaces_and_records_what_it_replaced() -> None:
    [made] = settle_output(output(data(a="mine"), data(a="x"), on_conflict="take_machine"), data(a="y"))
    assert (made.effect, made.document.body) == ("change", {"a": "y"})
    assert made.conflicts[0]["ours"] == "mine"


def test_wait_changes_nothing_and_holds_the_offer() -> None:
    [made] = settle_output(output(data(a="mine", b=1), data(a="x", b=1), on_conflict="wait"), data(a="y", b=2))
    assert (made.effect, made.document.body) == ("hold", {"a": "y", "b": 2})


@pytest.mark.parametrize(
    ("policy", "kept"),
    [("keep_human", {"a": 1, "mine": 1}), ("take_machine", {"a": 2, "new": 1})],
)
def test_a_merge_that_the_output_schema_refuses_is_one_conflict_about_the_whole(
    policy: str, kept: dict[str, Any]
) -> None:
    made = settle_output(output(data(a=1, mine=1), data(a=1), on_conflict=policy, schema=NARROW), data(a=2, new=1))
    assert effects(made) == (["head", "offer"] if policy == "keep_human" else ["change"])
    assert made[0].document.body == kept
    assert made[0].conflicts == () or made[0].conflicts[0]["pointer"] == "/data"
    assert made[-1].conflicts[0] == {
        "pointer": "/data", "base": {"a": 1}, "ours": {"a": 1, "mine": 1}, "theirs": {"a": 2, "new": 1},
    }  # fmt: skip
    assert made[-1].document.body == {"a": 2, "new": 1}


def test_fields_that_only_tell_the_time_are_no_difference() -> None:
    at_1, at_2 = data(a="x", at=1), data(a="x", at=2)
    assert settle_output(output(at_1, at_1, schema=CLOCK), at_2) == ()
    assert output_cutoff(at_1, CLOCK) == output_cutoff(at_2, CLOCK)
    assert output_cutoff(at_1, ANYTHING) != output_cutoff(at_2, ANYTHING)
    # What a definition computes per run is volatile as well.
    assert settle_output(output(at_1, at_1), at_2, ("/at",)) == ()
    [made] = settle_output(output(at_1, at_1, schema=CLOCK), data(a="y", at=2))
    assert made.document.body == {"a": "y", "at": 2}


def test_a_title_is_a_difference_that_cut_off_does_not_see() -> None:
    old, new = json_document({"a": 1}, title="Old"), json_document({"a": 1}, title="New")
    [made] = settle_output(output(old, old), new)
    assert (made.effect, made.document.title) == ("change", "New")
    assert made.cutoff_hash == output_cutoff(old, ANYTHING)


def test_a_deleted_output_stays_as_it_is() -> None:
    assert settle_output(output(data(a=1), data(a=1), deleted=True), data(a=2)) == ()
