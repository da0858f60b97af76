from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from domain.canonical import same
from domain.documents import Document
from domain.errors import Invalid
from domain.merge import ABSENT, Merge, OnConflict, _Keys, _Merging, merge, unmerged
from domain.merge_paragraphs import merge_paragraphs
from domain.paragraphs import align, split
from tests.domain.values import json_document, objects, tags, text_document, texts, titles, values


@st.composite
def three(draw: st.DrawFn) -> tuple[Document, Document, Document]:
    text = draw(st.booleans())

    def one() -> Document:
        more = {"title": draw(titles), "tags": draw(tags), "metadata": draw(objects)}
        return text_document(draw(texts()), **more) if text else json_document(draw(st.one_of(values, nested)), **more)

    return one(), one(), one()


nested = st.dictionaries(st.sampled_from("abc"), st.one_of(texts(), st.dictionaries(st.sampled_from("ab"), texts())))


def of(text: str) -> Document:
    return text_document(text)


def merged(base: str, ours: str, theirs: str, **options: Any) -> Merge:
    return merge(of(base), of(ours), of(theirs), **options)


def lines(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs)


@given(texts())
def test_a_text_is_cut_and_joined_exactly(text: str) -> None:
    prose = split(text)
    assert prose.join() == text
    assert all(paragraph.strip(" \t\r\n") for paragraph in prose.paragraphs)
    assert len(prose.separators) == max(0, len(prose.paragraphs) - 1)


@given(texts(), texts())
def test_alignment_ascends_and_keeps_headings_apart(base: str, other: str) -> None:
    left, right = split(base).paragraphs, split(other).paragraphs
    found = [(index, counterpart) for index, counterpart in enumerate(align(left, right)) if counterpart is not None]
    assert len(align(left, right)) == len(left)
    counterparts = [counterpart for _, counterpart in found]
    assert counterparts == sorted(set(counterparts))
    assert all(left[a].startswith("#") == right[b].startswith("#") or "\n" in left[a] + right[b] for a, b in found)


@given(three())
def test_a_merge_obeys_its_laws(sides: tuple[Document, Document, Document]) -> None:
    base, ours, theirs = sides
    assert merge(base, base, theirs) == Merge(document=theirs, conflicts=(), changed=theirs != base)
    assert merge(base, ours, base) == Merge(document=ours, conflicts=(), changed=False)
    assert merge(base, ours, ours) == Merge(document=ours, conflicts=(), changed=False)


@given(texts(), texts())
def test_paragraphs_obey_the_same_laws_without_short_cuts(base: str, other: str) -> None:
    one, two = split(base), split(other)
    for sides, expected in (((one, one, two), other), ((one, two, one), other), ((one, two, two), other)):
        assert merge_paragraphs(*sides, take_theirs=False) == (expected, [])


@given(texts(), texts(), texts())
def test_no_human_paragraph_is_lost(base: str, ours: str, theirs: str) -> None:
    result = merged(base, ours, theirs)
    remaining = list(split(result.document.body).paragraphs)
    machine = list(split(base).paragraphs)
    for paragraph in split(ours).paragraphs:
        if paragraph in machine:
            machine.remove(paragraph)
        else:
            assert paragraph in remaining
            remaining.remove(paragraph)


@given(texts(), texts(), texts())
def test_nothing_appears_that_no_side_wrote(base: str, ours: str, theirs: str) -> None:
    written = {paragraph for text in (ours, theirs) for paragraph in split(text).paragraphs}
    assert set(split(merged(base, ours, theirs).document.body).paragraphs) <= written


@given(texts(), texts(), texts())
def test_every_machine_paragraph_is_in_the_document_or_in_a_conflict(base: str, ours: str, theirs: str) -> None:
    result = merged(base, ours, theirs)
    offered = " ".join(conflict.theirs for conflict in result.conflicts if conflict.theirs is not ABSENT)
    for paragraph in set(split(theirs).paragraphs) - set(split(base).paragraphs):
        assert paragraph in result.document.body or paragraph in offered


@given(three())
def test_a_clean_merge_does_not_depend_on_the_side(sides: tuple[Document, Document, Document]) -> None:
    base, ours, theirs = sides
    one, two = merge(base, ours, theirs), merge(base, theirs, ours)
    assert len(one.conflicts) == len(two.conflicts)
    if not one.conflicts:
        assert one.document == two.document


@given(three())
def test_changed_says_whether_the_document_differs(sides: tuple[Document, Document, Document]) -> None:
    result = merge(*sides)
    assert result.changed == (result.document != sides[1])


@given(three())
def test_the_policy_decides_conflicts_only(sides: tuple[Document, Document, Document]) -> None:
    human, machine = merge(*sides), merge(*sides, on_conflict="take_machine")
    waiting = merge(*sides, on_conflict=OnConflict.WAIT)
    assert human.conflicts == waiting.conflicts
    if human.conflicts:
        assert waiting.document == sides[1]
        assert not waiting.changed
        assert machine.conflicts
    else:
        assert human == machine == waiting


def test_a_human_paragraph_survives_a_text_reworded_throughout() -> None:
    base = lines(
        "# Intro",
        "Machines learn from data.",
        "They need many examples.",
        "Errors shrink step by step.",
        "In the end they predict.",
    )
    ours = base.replace("They need many examples.", "My own words about examples, with care.")
    theirs = lines(
        "# Introduction",
        "From data, machines learn.",
        "Many examples are needed by them.",
        "Gradually the errors get small.",
        "Finally predictions are made.",
    )
    result = merged(base, ours, theirs)
    assert result.document.body == lines(
        "# Introduction",
        "From data, machines learn.",
        "My own words about examples, with care.",
        "Gradually the errors get small.",
        "Finally predictions are made.",
    )
    [conflict] = result.conflicts
    assert conflict.to_json() == {
        "pointer": "/content",
        "paragraph": 2,
        "start": 44,
        "end": 83,
        "base": "They need many examples.",
        "ours": "My own words about examples, with care.",
        "theirs": "Many examples are needed by them.",
    }


REWORDED = (
    [
        "The history of the subject begins in the last century.",
        "In the beginning the subject was small.",
        "Researchers then found a new way.",
        "It is used today in the whole of industry.",
        "The end of the story is open.",
    ],
    [
        "A hundred years ago it all started.",
        "At first few people cared about it.",
        "A better method was discovered by the scientists in the field.",
        "Nowadays factories everywhere rely on it.",
        "Nobody knows what comes next in the story of the subject.",
    ],
)


def test_common_words_do_not_move_paragraphs_that_were_reworded_in_place() -> None:
    assert align(*REWORDED) == align(*reversed(REWORDED)) == [0, 1, 2, 3, 4]


def test_likeness_moves_paragraphs_where_one_was_inserted_and_one_removed() -> None:
    base = REWORDED[0]
    other = ["Something new stands first.", *(f"Indeed, {text.lower()}" for text in base[:4])]
    assert align(base, other) == [1, 2, 3, 4, None]


def test_unspaced_scripts_align_by_characters() -> None:
    base = ["機械学習はデータから学ぶ。", "例がたくさん必要である。", "誤差は少しずつ減る。"]
    other = ["はじめに。", "機械はデータから学習する。", "たくさんの例が必要だ。", "誤差は徐々に減る。"]
    assert align(base, other) == [1, 2, 3]


def test_different_paragraphs_merge_without_a_conflict() -> None:
    result = merged(lines("a", "b", "c"), lines("a", "B human", "c"), lines("a machine", "b", "c", "d"))
    assert result.document.body == lines("a machine", "B human", "c", "d")
    assert not result.conflicts


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected", "conflicts"),
    [
        ("A\n\nB\n", "A\n", "A\n\nB\n\nC\n", "A\n\nC\n", 0),
        ("A", "A\n\nhuman", "A2", "A2\n\nhuman", 0),
        ("A\r\n\r\nB", "A\r\n\r\nB\r\n\r\nhuman", "A2\r\n\r\nB", "A2\r\n\r\nB\r\n\r\nhuman", 0),
        ("A\n\nB", "A\n\nhuman\n\nB", "A\n\nmachine\n\nB", "A\n\nhuman\n\nB", 1),
        ("A\n\nB", "A\n\nx\n\nB", "A\n\nx\n\ny\n\nB", "A\n\nx\n\ny\n\nB", 0),
        ("A\n\nB", "A", "A\n\nB machine", "A", 1),
        ("A\n\nB", "A\n\nB human", "A", "A\n\nB human", 1),
        ("A\n\nB", "A\n\n\n\nB", "A machine\n\nB", "A machine\n\n\n\nB", 0),
        ("A\n\nB", "", "A\n\nB\n\nC", "C", 0),
        ("", "human\n\nwords", "machine\n\nwords too", "human\n\nwords", 1),
        ("one line", "human line", "machine line", "human line", 1),
    ],
)
def test_texts_merge_by_paragraph(base: str, ours: str, theirs: str, expected: str, conflicts: int) -> None:
    result = merged(base, ours, theirs)
    assert result.document.body == expected
    assert len(result.conflicts) == conflicts


def test_objects_merge_by_member_arrays_whole_and_texts_inside_by_paragraph() -> None:
    base = {"t": lines("a", "b"), "n": {"x": 1, "y": 1}, "l": [1], "gone": 1, "k": 0}
    ours = {"t": lines("a human", "b"), "n": {"x": 2, "y": 1}, "l": [1, 2], "gone": 1, "k": 0, "mine": None}
    theirs = {"t": lines("a", "b machine"), "n": {"x": 1, "y": 3}, "l": [0, 1], "k": True, "its": []}
    result = merge(json_document(base), json_document(ours), json_document(theirs))
    assert same(
        result.document.body,
        {
            "t": lines("a human", "b machine"),
            "n": {"x": 2, "y": 3},
            "l": [1, 2],
            "k": True,
            "mine": None,
            "its": [],
        },
    )
    assert [conflict.to_json() for conflict in result.conflicts] == [
        {"pointer": "/data/l", "base": [1], "ours": [1, 2], "theirs": [0, 1]}
    ]


def test_a_member_deleted_here_and_changed_there_is_a_conflict_without_the_absent_side() -> None:
    result = merge(json_document({"a/b": 1}), json_document({}), json_document({"a/b": None}))
    assert result.document.body == {}
    assert [conflict.to_json() for conflict in result.conflicts] == [
        {"pointer": "/data/a~1b", "base": 1, "theirs": None}
    ]
    taken = merge(json_document({"a": 1}), json_document({"a": 2}), json_document({}), on_conflict="take_machine")
    assert taken.document.body == {}


def test_title_and_metadata_are_safe_too() -> None:
    base = text_document("x", title="machine", metadata={"n": 1, "m": 1})
    ours = text_document("x", title="human", metadata={"n": 2, "m": 1})
    theirs = text_document("y", title="machine", metadata={"n": 1, "m": 2})
    assert merge(base, ours, theirs).document == text_document("y", title="human", metadata={"n": 2, "m": 2})


def test_a_machine_may_not_change_the_content_type() -> None:
    with pytest.raises(Invalid) as caught:
        merge(of("x"), of("x"), json_document("x"))
    assert caught.value.problem_code == "immutable_field"


def test_what_breaks_its_schema_when_merged_is_one_conflict() -> None:
    base, ours, theirs = json_document({"a": 1}), json_document({"a": 2}, title="t"), json_document({"b": 1})
    kept, taken = unmerged(base, ours, theirs), unmerged(base, ours, theirs, on_conflict="take_machine")
    assert (kept.document, kept.changed) == (ours, False)
    assert (taken.document, taken.changed) == (theirs, True)
    assert [conflict.to_json() for conflict in kept.conflicts] == [
        {"pointer": "/data", "base": {"a": 1}, "ours": {"a": 2}, "theirs": {"b": 1}}
    ]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="newest"):
        merge(of("x"), of("y"), of("z"), on_conflict="newest")


@given(
    st.lists(st.sampled_from(["a", "b", "c"]), max_size=30),
    st.lists(st.sampled_from(["a", "b", "d"]), max_size=30),
)
def test_repeated_paragraphs_align(base: list[str], other: list[str]) -> None:
    assume(base and other)
    counterparts = [place for place in align(base, other) if place is not None]
    assert counterparts == sorted(set(counterparts))


@pytest.mark.parametrize("shape", ["same words", "all different", "equal", "one line"])
def test_the_cost_of_a_merge_is_bounded(shape: str) -> None:
    def text(side: int) -> str:
        if shape == "one line":
            return f"{side} " + " \t" * 200_000 + "x\n"
        return lines(
            *(
                f"{side * (shape != 'equal')} word{n * side if shape == 'all different' else ''} " * 5
                for n in range(3000)
            )
        )

    started = time.process_time()
    merged(text(1), text(2), text(3))
    assert time.process_time() - started < 5


def test_tags_merge_as_a_set() -> None:
    base, ours, theirs = (text_document("x", tags=list(tags)) for tags in ("abc", "acd", "eab"))
    result = merge(base, ours, theirs)
    assert (result.document.tags, result.conflicts) == (("e", "a", "d"), ())
    many = [text_document("x", tags=[f"{mark}{n}" for n in range(30)]) for mark in "ot"]
    assert [conflict.pointer for conflict in merge(text_document("x"), *many).conflicts] == ["/tags"]


def test_a_reference_to_bytes_is_never_half_of_each_side() -> None:
    merging = _Merging(take_theirs=False, words=True, keys=_Keys(of("x"), schema=None))
    sides = ({"hash": "a", "size": 1}, {"hash": "b", "size": 1}, {"hash": "c", "size": 2})
    assert merging.value("", tuple({"binary": side} for side in sides)) == {"binary": sides[1]}  # type: ignore[arg-type]
    assert [conflict.pointer for conflict in merging.conflicts] == ["/binary"]
