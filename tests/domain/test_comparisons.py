from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import comparisons
from domain.canonical import canonical
from domain.comparisons import compare
from domain.documents import Document
from domain.readings import Style, readable
from domain.words import Unit
from tests.domain.values import json_document, json_documents, text_document, texts, values

units = st.sampled_from(list(Unit))


def spans(before: str, after: str, unit: str) -> list[tuple[str, str, str]]:
    shown = compare(text_document(before), text_document(after), unit).to_json()
    return [
        (span["op"], span["before"]["text"], span["after"]["text"])
        for field in shown["fields"]
        if field["pointer"] == "/content"
        for span in field["spans"]
    ]


@given(texts(), texts(), units)
def test_the_spans_cover_both_texts_in_order(before: str, after: str, unit: Unit) -> None:
    found = compare(text_document(before), text_document(after), unit)
    if before == after:
        assert not found.fields
        return
    [field] = found.fields
    sides = [[getattr(span, side) for span in field.spans] for side in ("before", "after")]
    for text, stretches in zip((before, after), sides, strict=True):
        assert [stretch.start for stretch in stretches] == [0, *(stretch.end for stretch in stretches[:-1])]
        assert "".join(text[stretch.start : stretch.end] for stretch in stretches) == text
        assert all(stretch.text == text[stretch.start : stretch.end] for stretch in stretches)
    for span in field.spans:
        assert (span.op == "equal") == (span.before.text == span.after.text)
        assert (span.op == "insert") == (not span.before.text)
        assert (span.op == "delete") == (not span.after.text)


@given(st.one_of(values), st.one_of(values))
def test_documents_differ_exactly_if_a_field_does(before: Any, after: Any) -> None:
    found = compare(json_document(before), json_document(after))
    assert found.to_json()["equal"] == (canonical(before) == canonical(after))


@given(json_documents, json_documents, units)
def test_exchanging_the_documents_exchanges_what_is_counted(one: Document, two: Document, unit: Unit) -> None:
    there, back = compare(one, two, unit), compare(two, one, unit)
    assert bool(there.fields) == bool(back.fields)
    inserts = [change.pointer for change in there.fields if change.op == "insert" and change.pointer.count("/") == 1]
    deletes = [change.pointer for change in back.fields if change.op == "delete" and change.pointer.count("/") == 1]
    assert inserts == deletes


BEFORE = "The old fox ran. It was quick.\n\nThe end of the story."
AFTER = "The red fox ran. It was quick.\n\nAn insertion.\n\nThe end of the story."


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        (
            "paragraph",
            [
                ("replace", "The old fox ran. It was quick.", "The red fox ran. It was quick."),
                ("equal", "\n\n", "\n\n"),
                ("insert", "", "An insertion.\n\n"),
                ("equal", "The end of the story.", "The end of the story."),
            ],
        ),
        (
            "sentence",
            [
                ("replace", "The old fox ran.", "The red fox ran."),
                ("equal", " It was quick.\n\n", " It was quick.\n\n"),
                ("insert", "", "An insertion.\n\n"),
                ("equal", "The end of the story.", "The end of the story."),
            ],
        ),
        (
            "word",
            [
                ("equal", "The ", "The "),
                ("replace", "old", "red"),
                ("equal", " fox ran. It was quick.\n\n", " fox ran. It was quick.\n\n"),
                ("insert", "", "An insertion.\n\n"),
                ("equal", "The end of the story.", "The end of the story."),
            ],
        ),
    ],
)
def test_a_text_is_compared_by_the_unit_asked_for(unit: str, expected: list[tuple[str, str, str]]) -> None:
    assert spans(BEFORE, AFTER, unit) == expected


def test_units_are_counted() -> None:
    for unit, counts in (("paragraph", (2, 1)), ("sentence", (2, 1)), ("word", (3, 1))):
        found = compare(text_document(BEFORE), text_document(AFTER), unit)
        assert (found.inserted, found.deleted) == counts


def test_neighbouring_words_that_were_replaced_read_as_one() -> None:
    assert spans("It was an old red house there.", "It was a new big house there.", "word") == [
        ("equal", "It was ", "It was "),
        ("replace", "an old red", "a new big"),
        ("equal", " house there.", " house there."),
    ]


def test_data_is_compared_by_member_and_item() -> None:
    before = {"a": 1, "gone": None, "list": [1, {"x": 1}, 3], "prose": "an old house", "name": "x-1"}
    after = {"a": 1.0, "new": [], "list": [0, 1, {"x": 2}, 3], "prose": "a new house", "name": "x-2"}
    shown = compare(json_document(before, title="One", tags=["a"]), json_document(after, title="Two", tags=["a", "b"]))
    assert [change.to_json() for change in shown.fields if change.op != "text"] == [
        {"pointer": "/data/a", "op": "replace", "before": 1, "after": 1.0},
        {"pointer": "/data/gone", "op": "delete", "before": None},
        {"pointer": "/data/list/0", "op": "insert", "after": 0},
        {"pointer": "/data/list/2/x", "was": "/data/list/1/x", "op": "replace", "before": 1, "after": 2},
        {"pointer": "/data/name", "op": "replace", "before": "x-1", "after": "x-2"},
        {"pointer": "/data/new", "op": "insert", "after": []},
        {"pointer": "/tags/1", "op": "insert", "after": "b"},
    ]
    assert [change.pointer for change in shown.fields if change.op == "text"] == ["/data/prose", "/title"]


def test_long_equal_stretches_show_their_ends_only() -> None:
    before, after = "a " * 500 + "old", "a " * 500 + "new"
    [field] = compare(text_document(before), text_document(after)).to_json()["fields"]
    equal = field["spans"][0]
    assert equal["op"] == "equal"
    assert equal["before"] == {"start": 0, "end": 1000, "text": "a " * 50, "tail": "a " * 50}
    assert len(canonical(field)) < 1000


def test_an_answer_is_bounded_whatever_the_documents_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparisons, "CHANGES_MAX", 10)
    monkeypatch.setattr(comparisons, "CHARACTERS_MAX", 2_000)
    before = "\n\n".join(f"This is paragraph {n} of the text." for n in range(300))
    found = compare(text_document(before), text_document(before.replace("This", "That")))
    assert found.truncated
    assert len(found.fields[0].spans) <= 21
    assert found.fields[0].spans[-1].after.end == len(before)
    wide = compare(json_document({}), json_document({str(n): n for n in range(300)}))
    assert wide.truncated
    assert len(wide.fields) == 10
    large = compare(json_document({"a": ""}), json_document({"a": ["x" * 5_000]})).to_json()
    assert large["fields"][0]["after"] == {"abbreviated": True, "bytes": 5_004}
    assert large["truncated"]


def test_a_text_can_be_compared_with_data() -> None:
    found = compare(text_document("a"), json_document(1))
    assert {change.pointer: change.op for change in found.fields} == {
        "/content": "delete",
        "/content_type": "replace",
        "/data": "insert",
    }


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="letter"):
        compare(text_document("a"), text_document("b"), "letter")


def test_a_comparison_is_read_as_styled_text() -> None:
    shown = compare(text_document("an old fox"), text_document("a red fox", tags=["t"])).to_json()
    assert [(segment.style, segment.text) for segment in readable(shown)] == [
        (Style.HEADING, "/content\n"),
        (Style.DELETE, "an old"),
        (Style.INSERT, "a red"),
        (Style.EQUAL, " fox"),
        (Style.EQUAL, "\n"),
        (Style.HEADING, "/tags/0\n"),
        (Style.INSERT, '"t"\n'),
    ]


def test_what_is_left_out_is_counted_in_the_reading() -> None:
    shown = compare(text_document("a " * 500 + "old"), text_document("a " * 500 + "new")).to_json()
    assert [segment.text for segment in readable(shown) if segment.style is Style.OMITTED] == [
        "\n[800 characters more]\n"
    ]


@pytest.mark.parametrize("unit", list(Unit))
def test_the_cost_of_a_comparison_is_bounded(unit: Unit) -> None:
    before = text_document("\n\n".join(f"paragraph {n} has its words. " * 10 for n in range(4000)))
    after = text_document("\n\n".join(f"section {n % 7} had other words. " * 10 for n in range(4000)))
    started = time.process_time()
    compare(before, after, unit)
    assert time.process_time() - started < 30
