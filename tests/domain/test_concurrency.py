"""The rules of concurrent edits: nothing that anybody wrote is lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.concurrency import ConflictPolicy, Resolution, merged, overwritten, policy_of
from domain.deltas import DeltaStatus, State
from domain.documents import Document
from domain.errors import Fault, Invalid
from domain.operations import apply_operations
from domain.schema_checks import definition_faults
from tests.domain.values import json_document, text_document

PARAGRAPHS = st.lists(st.sampled_from(["one", "two two", "three three three", "# Head", "a b c d"]), max_size=5)
DATA = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 3), max_size=4)


def anything(_document: Document) -> None:
    """A schema that takes everything."""


def merging(base: Document, ours: Document, theirs: Document, check: Any = anything) -> Resolution:
    return merged(base, State(document=ours, version=2), theirs, definition=True, check=check)


def overwriting(base: Document, ours: Document, theirs: Document) -> Resolution:
    return overwritten(base, State(document=ours, version=2), theirs, check=anything)


def after(resolution: Resolution, ours: Document) -> Document:
    """The document that a resolution leads to."""
    return ours if resolution.draft is None else resolution.draft.document


def of(*paragraphs: str) -> Document:
    return text_document("\n\n".join(paragraphs))


@pytest.mark.parametrize(
    ("asked", "stated", "policy"),
    [
        (None, None, "reject"),
        (None, "merge", "merge"),
        ("last_write_wins", "merge", "last_write_wins"),
        ("reject", "merge", "reject"),
        (None, "shout", "reject"),
    ],
    ids=str,
)
def test_the_request_decides_then_the_schema_then_nobody(asked: Any, stated: Any, policy: str) -> None:
    definition = True if stated is None else {"x-on-conflict": stated}
    assert policy_of(asked, definition) == policy
    assert [fault.pointer for fault in definition_faults(definition)] == (
        ["/x-on-conflict"] if stated == "shout" else []
    )


@given(PARAGRAPHS, PARAGRAPHS)
def test_who_did_nothing_changes_nothing_and_who_is_alone_gets_all(base: list[str], other: list[str]) -> None:
    first, second = of(*base), of(*other)
    for resolve in (merging, overwriting):
        assert after(resolve(first, second, first), second) == second
        assert after(resolve(first, first, second), first) == second
        assert resolve(first, second, second).draft is None


@given(PARAGRAPHS, st.integers(0, 5), st.integers(0, 5))
def test_paragraphs_that_two_people_insert_both_stay_wherever_they_stand(base: list[str], one: int, two: int) -> None:
    ours, theirs = list(base), list(base)
    ours.insert(min(one, len(base)), "ours is new")
    theirs.insert(min(two, len(base)), "theirs is new")
    resolution = merging(of(*base), of(*ours), of(*theirs))
    text = after(resolution, of(*ours)).body
    assert ("ours is new" in text, "theirs is new" in text) == (True, True)
    assert resolution.conflicts == ()
    assert resolution.aside is None


@given(PARAGRAPHS, PARAGRAPHS, PARAGRAPHS, st.sampled_from([merging, overwriting]))
def test_every_word_of_either_side_is_in_the_document_or_aside(
    base: list[str], ours: list[str], theirs: list[str], resolve: Any
) -> None:
    first = of(*base)
    own, other = of(*ours, "word of ours here"), of("word of theirs here", *theirs)
    resolution = resolve(first, own, other)
    kept = after(resolution, own).body + ("" if resolution.aside is None else str(resolution.aside.draft.patch))
    assert ("ours" in kept, "theirs" in kept) == (True, True)


@given(DATA, DATA, DATA)
def test_json_merges_by_field_and_a_clash_leaves_ours_with_theirs_aside(base: Any, ours: Any, theirs: Any) -> None:
    own, other = json_document(ours), json_document(theirs)
    resolution = merging(json_document(base), own, other)
    body = after(resolution, own).body
    for name in base.keys() | ours.keys() | theirs.keys():
        was, mine, its = (side.get(name) for side in (base, ours, theirs))
        assert body.get(name) == (mine if its in (was, mine) else its if mine == was else mine)
    if resolution.aside is not None:
        assert resolution.aside.status is DeltaStatus.PROPOSED
        root = after(resolution, own).to_json()
        offered = apply_operations(root, resolution.aside.draft.patch)["data"]
        for conflict in resolution.conflicts:
            assert offered.get(conflict["pointer"][len("/data/") :]) == conflict.get("theirs")


@given(DATA, DATA, DATA)
def test_the_last_write_wins_field_by_field_and_the_rest_stays(base: Any, ours: Any, theirs: Any) -> None:
    own = json_document(ours)
    resolution = overwriting(json_document(base), own, json_document(theirs))
    body = after(resolution, own).body
    for name in base.keys() | ours.keys() | theirs.keys():
        was, mine, its = (side.get(name) for side in (base, ours, theirs))
        assert body.get(name) == (mine if its == was else its)
    lost = [name for name in ours if body.get(name) != ours[name] and ours[name] != base.get(name)]
    assert (resolution.aside is None) == (not resolution.conflicts)
    if lost:
        assert resolution.aside is not None
        assert resolution.aside.status is DeltaStatus.REJECTED


def test_what_a_last_write_overwrites_of_a_long_text_is_shown_and_not_the_text() -> None:
    lines = [f"Line {number} of a long text." for number in range(2000)]
    base, ours, theirs = (
        of(*lines[:1000], middle, *lines[1000:])
        for middle in ("The old words stood here.", "Carla wrote this anew.", "Dirk has other ideas!")
    )
    resolution = overwriting(base, ours, theirs)
    assert after(resolution, ours) == theirs
    [found] = resolution.conflicts
    assert theirs.body[found["start"] : found["end"]] == found["theirs"] == "Dirk has other ideas!"
    assert (found["pointer"], found["paragraph"], found["base"]) == ("/content", 1000, "The old words stood here.")
    assert resolution.aside is not None
    assert apply_operations(theirs.to_json(), resolution.aside.draft.patch) == ours.to_json()


def test_a_name_that_a_last_write_overwrites_is_one_value() -> None:
    base, ours, theirs = (json_document({"name": name}) for name in ("Ann", "Carla", "Dirk"))
    [found] = overwriting(base, ours, theirs).conflicts
    assert found == {"pointer": "/data/name", "base": "Ann", "ours": "Carla", "theirs": "Dirk"}


def test_a_last_write_that_has_all_that_came_before_overwrites_nothing() -> None:
    resolution = overwriting(of("One here.", "Two."), of("One there.", "Two."), of("One there.", "Three."))
    assert (resolution.conflicts, resolution.aside) == ((), None)


def test_a_merge_that_the_schema_refuses_is_a_conflict_and_a_last_write_is_refused() -> None:
    def few(document: Document) -> None:
        if len(document.body) > 2:
            raise Invalid("too many", faults=[Fault("/data", "schema_violation", "too many")])

    base, ours, theirs = (json_document(dict.fromkeys(names, 1)) for names in ("a", "ab", "ac"))
    resolution = merging(base, ours, theirs, check=few)
    assert (resolution.draft, len(resolution.conflicts) > 0) == (None, True)
    assert resolution.aside is not None
    assert resolution.aside.draft.document == theirs
    with pytest.raises(Invalid):
        overwritten(base, State(document=ours, version=2), theirs, check=few)


def test_a_text_that_became_a_reference_to_bytes_is_one_conflict() -> None:
    binary = {"hash": f"sha256:{'0' * 64}", "size": 3}
    base, ours = text_document("one"), text_document("two")
    theirs = Document.parse({"content_type": base.content_type, "binary": binary})
    resolution = merging(base, ours, theirs)
    assert resolution.draft is None
    assert resolution.aside is not None
    assert after(overwriting(base, ours, theirs), ours) == theirs


def test_names_and_states_are_no_texts_whose_paragraphs_could_stand_side_by_side() -> None:
    base, ours, theirs = (json_document({"state": state}) for state in ("", "open", "closed"))
    resolution = merging(base, ours, theirs)
    assert resolution.draft is None
    assert [conflict["pointer"] for conflict in resolution.conflicts] == ["/data/state"]


def test_the_policies_are_those_of_the_reference() -> None:
    assert list(ConflictPolicy) == ["reject", "merge", "last_write_wins"]
