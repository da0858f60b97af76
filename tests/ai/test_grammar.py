# ruff: noqa: SIM905 - a list of words reads best as words

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.grammar import correct
from ai.revisions import Correction, Edit, Revision, applied

FRAGMENTS = st.sampled_from(
    "the a an i its it's own was we they he don't dont alot teh hour university AI apple . , ? ! ... of could `a`"
    " https://x.org/a_b - # 1. \n\n \n The She e.g. then rather ( ) \" ' “ ” *".split(" ")
)
TEXTS = st.lists(st.tuples(FRAGMENTS, st.sampled_from(["", " ", "  ", "\n", "\n\n"])), max_size=30).map(
    lambda parts: "".join(word + space for word, space in parts)
)


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ("We saw the the ship.", "We saw the ship.", "doubled_word"),
        ("It is a apple.", "It is an apple.", "article"),
        ("It took an hour and a university.", "It took an hour and a university.", None),
        ("This is an university.", "This is a university.", "article"),
        ("This is a AI.", "This is an AI.", "article"),
        ("The sea  was wide.", "The sea was wide.", "spacing"),
        ("The sea , the sky.", "The sea, the sky.", "spacing"),
        ("The sea,the sky.", "The sea, the sky.", "spacing"),
        ("The sea was wide. it was blue.", "The sea was wide. It was blue.", "sentence_capital"),
        ("the sea was wide.", "The sea was wide.", "sentence_capital"),
        ("You and i, we know.", "You and I, we know.", "pronoun_i"),
        ("You know i've seen it.", "You know I've seen it.", "pronoun_i"),
        ("We know its a ship.", "We know it's a ship.", "its_or_it_is"),
        ("The ship has it's own captain.", "The ship has its own captain.", "its_or_it_is"),
        ("They could of known.", "They could have known.", "could_have"),
        ("We was late.", "We were late.", "agreement"),
        ("He don't know that.", "He doesn't know that.", "agreement"),
        ("They didnt know.", "They didn't know.", "apostrophe"),
        ("Teh ship is here.", "The ship is here.", "spelling"),
        ("It is larger then the other.", "It is larger than the other.", "comparison"),
        ("It rained. Then the ship left", "It rained. Then the ship left.", "final_period"),
    ],
)
def test_a_mistake_is_corrected_and_named(before: str, after: str, rule: str | None) -> None:
    text, corrections = correct(before)
    assert text == after
    assert [found.rule for found in corrections] == ([rule] if rule else [])


@pytest.mark.parametrize(
    "text",
    [
        "The Voyage of the Grey Gull",  # a title has no full stop
        "We have vitamin A in milk, and plan a or b.",
        "One of you was there, and he and she don't agree.",
        "This is its going rate, and the might of the empire.",
        "He had had enough of that that day.",
        "Use `teh  code` and https://teh.example/a,b with care.",
        "“Why?” he said, and they left... then it rained.",
        "At 5 a.m. we met Dr. Verne, e.g. at the sea.",
        "- the first\n- the second",
        "Il a une amie , et il a aimé la mer  bleue.",
        "An honest man with an historic unit of the MRI.",
        "",
    ],
)
def test_what_may_be_right_is_left_alone(text: str) -> None:
    assert correct(text) == (text, [])


def test_offsets_are_those_of_the_text_that_was_sent() -> None:
    text, corrections = correct("so we took the the boat. And then i left")
    assert text == "So we took the boat. And then I left."
    assert corrections == [
        Correction(0, "s", "S", "sentence_capital"),
        Correction(11, "the the", "the", "doubled_word"),
        Correction(34, "i", "I", "pronoun_i"),
        Correction(39, "t", "t.", "final_period"),
    ]


def test_two_rules_on_one_word_are_one_correction() -> None:
    _, corrections = correct("its a ship. It left.")
    assert corrections == [Correction(0, "its", "It's", "its_or_it_is+sentence_capital")]


@given(TEXTS)
def test_the_corrections_explain_the_whole_difference(text: str) -> None:
    result, corrections = correct(text)
    assert applied(text, corrections) == result


@given(TEXTS)
def test_correcting_a_corrected_text_changes_nothing(text: str) -> None:
    result, _ = correct(text)
    assert correct(result) == (result, [])


@given(st.text("ab ", max_size=20), st.data())
def test_a_revision_explains_any_edits_against_the_original(text: str, data: st.DataObject) -> None:
    revision = Revision(text)
    for rule in ("one", "two", "three"):
        now = revision.text
        cuts = sorted(data.draw(st.sets(st.integers(0, len(now)), max_size=4)))
        spans = zip(cuts[::2], cuts[1::2], strict=False)  # of an odd number the last cut is left over
        edits = [Edit(start, end, data.draw(st.text("xy", max_size=3))) for start, end in spans]
        expected = now
        for edit in reversed(edits):
            expected = expected[: edit.start] + edit.after + expected[edit.end :]
        revision.apply(edits, rule=rule)
        assert revision.text == expected
        assert applied(text, revision.corrections) == expected


def test_a_correction_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        applied("abc", [Correction(1, "x", "y", "rule")])
