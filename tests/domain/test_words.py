# ruff: noqa: RUF001 - the ambiguous characters are what is tested
from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.words import Unit, is_prose, sentences, tokens, word_runs, words

anything = st.text(
    st.one_of(
        st.sampled_from(" \t\r\n.!?…'\"’-—a1éक्षिन我爱สวัสดี한👩‍💻🏽🇩🇪\u0301\u200b\u00a0"), st.characters(codec="utf-8")
    ),
    max_size=60,
)


@given(anything, st.sampled_from(list(Unit)))
def test_every_cut_is_exact(text: str, unit: Unit) -> None:
    cut = tokens(text, unit)
    assert "".join(cut) == text
    assert all(cut)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop.", ["Don't", " ", "stop", "."]),
        ("a well-known, 3.14", ["a", " ", "well-known", ",", " ", "3.14"]),
        ("on 2024-01-02 at 10:30", ["on", " ", "2024-01-02", " ", "at", " ", "10:30"]),
        ("see https://x.y/z?q=1.", ["see", " ", "https://x.y/z?q=1", "."]),
        ("**so** it...", ["**", "so", "**", " ", "it", "..."]),
        ("a\r\n\nb", ["a", "\r\n", "\n", "b"]),
        ("हिन्दी में", ["हिन्दी", " ", "में"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("我爱。", ["我", "爱", "。"]),
        ("สวัส", ["ส", "วั", "ส"]),
        ("한국어 말", ["한국어", " ", "말"]),
        ("می\u200cخواهم", ["می\u200cخواهم"]),
        ("👩‍💻🇩🇪🇫🇷👍🏽", ["👩‍💻", "🇩🇪", "🇫🇷", "👍🏽"]),
    ],
)
def test_words_follow_the_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two? Three!", ["One.", "Two?", "Three!"]),
        ("Mr. Smith paid $3.14. He left.", ["Mr. Smith paid $3.14.", "He left."]),
        ('"Stop!" he said. "Go!" She ran.', ['"Stop!" he said.', '"Go!"', "She ran."]),
        ("J. R. R. Tolkien wrote. I did.", ["J. R. R. Tolkien wrote.", "I did."]),
        ("See no. 5 and fig. 3 there. He said no. Then", ["See no. 5 and fig. 3 there.", "He said no.", "Then"]),
        ("He waited... and left. Well... No.", ["He waited... and left.", "Well...", "No."]),
        ("Birds, e.g. Ravens, fly. They do.", ["Birds, e.g. Ravens, fly.", "They do."]),
        ("1. First.\n2. Second.\n- third", ["1. First.", "2. Second.", "- third"]),
        ("我爱你。「是。」他说。", ["我爱你。", "「是。」", "他说。"]),
        ("यह है। वह है।", ["यह है।", "वह है।"]),
        ("A title\n\nA text. (It ends.)", ["A title", "A text.", "(It ends.)"]),
    ],
)
def test_sentences_end_where_a_reader_says(text: str, expected: list[str]) -> None:
    assert [piece for piece in sentences(text) if not piece.isspace()] == expected


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("two words", True),
        ("我爱你", True),
        ("draft", False),
        ("2024-01-02", False),
        ("2024-01-02T10:30:00Z", False),
        ("550e8400-e29b-41d4-a716-446655440000", False),
        ("https://x.y/a b", True),
        ("", False),
    ],
)
def test_prose_is_told_from_names(text: str, prose: bool) -> None:  # noqa: FBT001
    assert is_prose(text) is prose


def test_words_that_two_sentences_share_by_chance_do_not_align() -> None:
    before = words("The cat sat on the mat of the house. It was late.")
    after = words("A storm broke over the hills and the rivers rose. It was late.")
    kept = {before[low + step] for low, _, length in word_runs(before, after) for step in range(length)}
    assert "the" not in kept
    assert {"It", "was", "late"} <= kept


@pytest.mark.parametrize(
    "unit",
    ["a+", "a://", "a", "a-", "'", ".", ". ", "1.", "\u0301", 'a."', " ", ".\"'", "\n ", "\u200d", "我。", "🇩"],
    ids=lambda unit: unit.encode("unicode_escape").decode(),
)
def test_no_text_is_cut_in_quadratic_time(unit: str) -> None:
    text = unit * (300_000 // len(unit)) + "é"
    started = time.process_time()
    words(text)
    sentences(text)
    is_prose(text)
    assert time.process_time() - started < 20
