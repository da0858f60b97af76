from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.merge import ABSENT, Merge, merge
from domain.merge_words import REGIONS_MAX, merge_words, overwritten_words
from domain.paragraphs import split
from domain.words import words
from tests.domain.test_merge import merged, of
from tests.domain.values import json_document, text_document, texts


def by_word(base: str, ours: str, theirs: str, **options: Any) -> Merge:
    return merged(base, ours, theirs, words=True, **options)


@st.composite
def edits(draw: st.DrawFn) -> tuple[str, str, str]:
    """Return a text and two edits of it, in which each inserted word tells who inserted it."""
    words = draw(
        st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat.", "It", "was", "\n\n", "dog"]), max_size=25)
    )
    sides = []
    for mark in "OT":
        side = list(words)
        for count in range(draw(st.integers(0, 4))):
            low = draw(st.integers(0, len(side)))
            high = draw(st.integers(low, min(len(side), low + 3)))
            side[low:high] = [f"{mark}{count}{n}" for n in range(draw(st.integers(0, 2)))]
        sides.append(" ".join(side))
    return " ".join(words), sides[0], sides[1]


@given(edits())
def test_no_word_that_a_person_inserted_is_lost(sides: tuple[str, str, str]) -> None:
    _, ours, theirs = sides
    result = by_word(*sides)
    kept = result.document.body.split()
    offered = " ".join(str(conflict.theirs) for conflict in result.conflicts).split()
    assert {word for word in ours.split() if word.startswith("O")} <= set(kept)
    assert {word for word in theirs.split() if word.startswith("T")} <= {*kept, *offered}
    assert set(kept) <= {*ours.split(), *theirs.split()}


@given(edits())
def test_merging_by_word_obeys_the_laws(sides: tuple[str, str, str]) -> None:
    base, ours, theirs = sides
    for one, two, expected in ((base, theirs, theirs), (ours, base, ours), (ours, ours, ours)):
        assert by_word(base, one, two) == Merge(document=of(expected), conflicts=(), changed=expected != one)
        # without the short cut for texts that are equal as a whole
        assert merge_words(base, one, two, take_theirs=False) == (expected, [])


@given(st.one_of(edits(), st.tuples(texts(), texts(), texts())))
def test_a_clean_merge_by_word_does_not_depend_on_the_side(sides: tuple[str, str, str]) -> None:
    base, ours, theirs = sides
    one, two = by_word(base, ours, theirs), by_word(base, theirs, ours)
    assert len(one.conflicts) == len(two.conflicts)
    assert one.conflicts or one.document == two.document
    taken = by_word(base, theirs, ours, on_conflict="take_machine")
    assert taken.document == one.document


@given(st.one_of(edits(), st.tuples(texts(), texts(), texts())), st.booleans(), st.booleans())
def test_spans_are_where_the_side_that_was_kept_stands(
    sides: tuple[str, str, str],
    words: bool,  # noqa: FBT001
    take: bool,  # noqa: FBT001
) -> None:
    result = merged(*sides, words=words, on_conflict="take_machine" if take else "keep_human")
    text = result.document.body
    for conflict in result.conflicts:
        side = conflict.theirs if take else conflict.ours
        if conflict.start is None:
            assert not words
            continue
        assert conflict.end is not None
        assert conflict.paragraph is not None
        shown = text[conflict.start : conflict.end]
        assert shown == ("" if side is ABSENT else side) or not words
        assert shown.split() == ("" if side is ABSENT else side).split()
        paragraphs = split(text).paragraphs
        starts = split(text).starts()
        if words and paragraphs:
            assert conflict.paragraph == max(
                [n for n in range(len(paragraphs)) if starts[n] <= conflict.start], default=0
            )


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        ("The quick brown fox.", "The slow brown fox.", "The quick brown dog.", "The slow brown dog."),
        ("The quick brown fox.", "The slow brown fox.", "The quick red fox.", "The slow red fox."),
        ("The cat sat.", "The dog sat.", "The big cat sat.", "The big dog sat."),
        ("One. Two here now.", "One.\n\nTwo here now.", "1. Two there now.", "1.\n\nTwo there now."),
        ("One.\n\nTwo here.", "One. Two here.", "One.\n\nTwo there.", "One. Two there."),
        ("A b c.\n\nD e f.", "A b c.\n\nD e g.", "A b c.\n\nNew.\n\nD e f.", "A b c.\n\nNew.\n\nD e g."),
        ("a b", "a b\n", "x b", "x b\n"),
        ("a\n\nb", "a\n\n\n\nb", "a x\n\nb", "a x\n\n\n\nb"),
        ("a  b", "a b", "a   b", "a   b"),
        ("我爱你。", "我很爱你。", "我爱他。", "我很爱他。"),
        ("It is 3.14 now.", "It is 3.15 now.", "It is 3.14 then.", "It is 3.15 then."),
    ],
)
def test_different_words_of_one_paragraph_both_count(base: str, ours: str, theirs: str, expected: str) -> None:
    for result in (by_word(base, ours, theirs), by_word(base, theirs, ours)):
        assert (result.document.body, result.conflicts) == (expected, ())


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "conflict"),
    [
        ("The quick fox ran.", "The slow fox ran.", "The rapid fox ran.", (4, 8, 0, "quick", "slow", "rapid")),
        (
            "Day 2024-01-02 it was.",
            "Day 2024-02-02 it was.",
            "Day 2024-01-03 it was.",
            (4, 14, 0, "2024-01-02", "2024-02-02", "2024-01-03"),
        ),
        ("a\n\nThe fox ran.", "a\n\nThe fox sat.", "a\n\nThe fox swam.", (11, 14, 1, "ran", "sat", "swam")),
        (
            "It is an old house.",
            "It is a new hut.",
            "It is the red barn.",
            (6, 15, 0, "an old house", "a new hut", "the red barn"),
        ),
        ("The fox ran off.", "The ran off.", "The wolf ran off.", (4, 4, 0, "fox ", None, "wolf ")),
    ],
    ids=["word", "date", "second paragraph", "neighbours are one conflict", "deleted here, changed there"],
)
def test_only_words_that_both_changed_conflict(
    base: str, ours: str, theirs: str, conflict: tuple[int, int, int, str, str | None, str]
) -> None:
    result = by_word(base, ours, theirs)
    assert result.document.body == ours
    [found] = [conflict.to_json() for conflict in result.conflicts]
    names = ("start", "end", "paragraph", "base", "ours", "theirs")
    expected = {name: value for name, value in zip(names, conflict, strict=True) if value is not None}
    assert found == {"pointer": "/content", **expected}


@given(edits())
def test_every_side_of_a_conflict_fits_where_the_conflict_is(sides: tuple[str, str, str]) -> None:
    """Ours makes the merged text, theirs the other one, and the base brings no blank that stands beside it already."""
    kept, taken = by_word(*sides), by_word(*sides, on_conflict="take_machine")
    assert put(kept, "ours") == kept.document.body
    assert put(kept, "theirs") == taken.document.body
    for conflict in kept.conflicts:
        cuts = [words("" if side is ABSENT else side) for side in (conflict.base, conflict.ours, conflict.theirs)]
        assert not all(cuts) or (len({cut[0] for cut in cuts}) > 1 and len({cut[-1] for cut in cuts}) > 1)


def put(result: Merge, name: str) -> str:
    """Return the merged text with one side at the place of every conflict."""
    text = str(result.document.body)
    for conflict in reversed(result.conflicts):
        side = getattr(conflict, name)
        text = text[: conflict.start] + ("" if side is ABSENT else side) + text[conflict.end :]
    return text


REWRITTEN = st.lists(
    st.sampled_from(["Carla wrote this anew.", "Dirk has other ideas!", "The old words stood here.", "It was late."]),
    min_size=1,
    max_size=3,
).map(" ".join)


@given(REWRITTEN, REWRITTEN, REWRITTEN)
@example(
    "Dirk has other ideas!", "Carla wrote this anew.", "The old words stood here. Dirk has other ideas!"
)  # added before what the other wrote anew
def test_the_base_of_a_conflict_stands_as_it_stood(base: str, ours: str, theirs: str) -> None:
    sides = [f"Start. {side} End." for side in (base, ours, theirs)]
    result = by_word(sides[0], sides[1], sides[2])
    text = put(result, "base")
    assert not re.search(r"\s\s|[.!]{2}|\s[.!]|[.!]\w", text)
    assert text.startswith("Start. ")
    assert text.endswith(" End.")


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        (
            "Start. The old words stood here. End.",
            "Start. Carla wrote this anew. End.",
            "Start. Dirk has other ideas! End.",
            ("The old words stood here.", "Carla wrote this anew.", "Dirk has other ideas!"),
        ),
        (
            "Start. The old words stood here. End.",
            "Start. Carla wrote this anew. End.",
            "Start. Dirk has other ideas. End.",
            ("The old words stood here", "Carla wrote this anew", "Dirk has other ideas"),
        ),
        ("The cat sat.", "The big cat sat.", "The red cat sat.", (None, "big ", "red ")),
    ],
    ids=["blank before", "full stop of all three", "inserted by both"],
)
def test_the_sides_of_a_conflict_are_cut_at_the_same_places(
    base: str, ours: str, theirs: str, expected: tuple[str | None, str, str]
) -> None:
    result = by_word(base, ours, theirs)
    [found] = [conflict.to_json() for conflict in result.conflicts]
    assert tuple(found.get(name) for name in ("base", "ours", "theirs")) == expected
    assert (put(result, "base"), put(result, "ours"), put(result, "theirs")) == (base, ours, theirs)


@given(edits())
def test_what_a_text_overwrites_is_told_place_by_place(sides: tuple[str, str, str]) -> None:
    base, ours, theirs = sides
    clashes = overwritten_words(base, ours, theirs)
    restored = theirs
    for clash in reversed(clashes):
        assert theirs[clash.start : clash.end] == (clash.theirs or "")
        restored = restored[: clash.start] + (clash.ours or "") + restored[clash.end :]
    assert {word for word in ours.split() if word.startswith("O")} <= {*restored.split()}
    assert overwritten_words(base, base, theirs) == []


def test_a_long_text_shows_the_places_that_it_overwrites_and_not_too_many() -> None:
    lines = [f"Line {number} of a long text." for number in range(2 * REGIONS_MAX)]

    def text(word: str, places: range) -> str:
        return "\n\n".join(line.replace("long", word) if n in places else line for n, line in enumerate(lines))

    base, few = text("long", range(0)), range(5, 8)
    [first, *others] = overwritten_words(base, text("short", few), text("dull", few))
    assert (first.base, first.ours, first.theirs, first.paragraph) == ("long", "short", "dull", 5)
    assert len(others) == 2
    every = range(len(lines))
    clashes = overwritten_words(base, text("short", every), text("dull", every))
    assert len(clashes) == REGIONS_MAX
    assert all(clash.theirs == text("dull", every)[clash.start : clash.end] for clash in clashes)
    assert clashes[0].base == "long text.\n\nLine 1 of a long"


def test_two_sentences_written_anew_are_not_woven_into_one() -> None:
    base = "The cat sat on the mat of the house. It was late."
    ours = "A storm broke over the hills that day. It was late."
    theirs = "The cat sat on the red mat of the house. It was very late."
    result = by_word(base, ours, theirs)
    assert result.document.body == "A storm broke over the hills that day. It was very late."
    [conflict] = result.conflicts
    assert "red mat" in conflict.theirs


def test_strings_in_data_merge_by_word_if_they_are_prose_and_names_do_not() -> None:
    base = {"text": "an old house there", "day": "2024-01-02", "name": "draft"}
    ours = {"text": "an old hut there", "day": "2024-02-02", "name": "final"}
    theirs = {"text": "a old house there", "day": "2024-01-03", "name": "sent"}
    sides = (json_document(base, title="The Fox"), json_document(ours, title="The Red Fox"))
    result = merge(*sides, json_document(theirs, title="A Fox"), words=True)
    assert result.document == json_document({**ours, "text": "a old hut there"}, title="A Red Fox")
    assert [(conflict.pointer, conflict.start) for conflict in result.conflicts] == [
        ("/data/day", None),
        ("/data/name", None),
    ]


def test_titles_that_would_grow_too_long_are_one_conflict() -> None:
    base, more = "one " * 100, "more " * 19
    ours, theirs = text_document("x", title=more + base), text_document("x", title=base + more)
    result = merge(text_document("x", title=base), ours, theirs, words=True)
    assert (result.document, [conflict.pointer for conflict in result.conflicts]) == (ours, ["/title"])


@pytest.mark.parametrize("shape", ["few", "every paragraph", "rewritten", "one line"])
def test_the_cost_of_a_merge_by_word_of_100_000_words_is_bounded(shape: str) -> None:
    def text(side: int) -> str:
        step = {"few": 10_000, "every paragraph": 100, "rewritten": 1, "one line": 5_000}[shape]
        words = [f"side{side}-{n}" if side and (n + side) % step == 0 else f"word{n % 5_003}" for n in range(100_000)]
        ends = 10**9 if shape == "one line" else 100
        return "".join(word + ("\n\n" if n % ends == ends - 1 else " ") for n, word in enumerate(words))

    sides = text(0), text(1), text(2)
    started = time.process_time()
    by_word(*sides)
    assert time.process_time() - started < 30
