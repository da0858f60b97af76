from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.metrics import STYLES, TONES, analyse, readability, syllables

SIMPLE = "The cat sat on the mat. The dog ran. We had fun."
HARD = (
    "Notwithstanding considerable institutional heterogeneity, contemporary organisational restructuring"
    " necessitates comprehensive interdisciplinary collaboration, accordingly facilitating accountability."
)
WORD_LISTS = st.lists(
    st.sampled_from(["cat", "consideration", "sea", "wonderful", "I", "algorithm", "B52"]), min_size=1
)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("cat", 1),
        ("table", 2),
        ("make", 1),
        ("machine", 2),
        ("learning", 2),
        ("wanted", 2),
        ("rhythm", 1),
        ("a", 1),
    ],
)
def test_syllables_follow_english_spelling(word: str, count: int) -> None:
    assert syllables(word) == count


def test_the_reading_ease_is_flesch_s_formula() -> None:
    measures = readability("The cat sat on the mat.")
    assert (measures.words, measures.sentences, measures.syllables_per_word) == (6, 1, 1.0)
    assert measures.readability_score == 100.0  # 206.835 - 1.015 * 6 - 84.6 = 116.1, at most 100
    assert measures.complexity == 0.0  # 0.39 * 6 + 11.8 - 15.59 = -1.45, at least 0


def test_simple_prose_scores_easier_than_hard_prose() -> None:
    simple, hard = readability(SIMPLE), readability(HARD)
    assert simple.readability_score > 90
    assert hard.readability_score < 20
    assert simple.complexity < 3
    assert hard.complexity > 15


def test_a_text_without_words_measures_zero() -> None:
    assert readability(" \n... 。").readability_score == 0.0
    assert analyse("...").detected_style in STYLES


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("Hey, I'm gonna grab some stuff, it's really awesome, you know!", "casual"),
        ("The ship sailed into the storm, and the wind whispered to the ancient captain.", "creative"),
        ("The API server stores JSON data; each query uses an index to reduce latency.", "technical"),
        ("Furthermore, the committee must consider the significant implications of the proposal.", "formal"),
    ],
)
def test_the_style_is_detected_from_the_words(text: str, style: str) -> None:
    assert analyse(text).detected_style == style


@pytest.mark.parametrize(
    ("text", "tone"),
    [
        ("What a day! How we laughed!", "excited"),
        ("What is intelligence? Who decides?", "inquisitive"),
        ("The day was good and everyone was happy.", "positive"),
        ("The terrible storm broke the ship; all was lost.", "sombre"),
        ("The ship has two masts.", "neutral"),
    ],
)
def test_the_tone_is_detected_from_marks_and_words(text: str, tone: str) -> None:
    assert analyse(text).tone == tone


@given(st.text(max_size=300))
def test_every_text_has_measures_within_their_ranges(text: str) -> None:
    style = analyse(text)
    assert style.tone in TONES
    assert style.detected_style in STYLES
    assert 0 <= style.readability_score <= 100
    assert style.complexity >= 0
    measures = readability(text)
    assert 0 <= measures.lexical_diversity <= 1
    assert 0 <= measures.long_word_ratio <= 1


@given(WORD_LISTS)
def test_repeating_a_sentence_keeps_its_readability(found: list[str]) -> None:
    once = " ".join(found) + "."
    twice = f"{once} {once}"
    assert readability(twice).words_per_sentence == readability(once).words_per_sentence
    assert readability(twice).readability_score == readability(once).readability_score


@given(WORD_LISTS)
def test_full_stops_make_a_text_easier_to_read(found: list[str]) -> None:
    assert readability(". ".join(found)).readability_score >= readability(" ".join(found)).readability_score
