from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.prose import grouped, headline, paragraphs, points, sentences, shortened, tidied, topic, whole, without_aside

TEXTS = st.text(alphabet=st.sampled_from(list("aAb .!?\n\"'-#1*()…\t")), max_size=200)


def test_abbreviations_initials_and_list_numbers_do_not_end_a_sentence() -> None:
    text = "Dr. Verne, J. Verne, e.g. at 5 a.m. wrote. So do I. Yes!\n1. first"
    assert sentences(text) == ["Dr. Verne, J. Verne, e.g. at 5 a.m. wrote.", "So do I.", "Yes!", "1. first"]


@given(TEXTS)
def test_sentences_together_hold_everything_but_white_space(text: str) -> None:
    assert "".join("".join(sentences(text)).split()) == "".join(text.split())


@given(TEXTS)
def test_paragraphs_together_hold_everything_but_white_space(text: str) -> None:
    assert "".join("".join(paragraphs(text)).split()) == "".join(text.split())


def test_the_points_of_an_outline_are_its_items_without_their_marks() -> None:
    assert points("# Plan\n- one\n* two\n3. three", count_max=4) == ["one", "two", "three"]


def test_more_points_than_wanted_are_joined_with_their_neighbours() -> None:
    assert points("- a\n- b\n- c\n- d\n- e", count_max=2) == ["a; b", "c; d; e"]


def test_the_points_of_prose_are_its_paragraphs_or_else_its_sentences() -> None:
    assert points("One. Two.\n\nThree.", count_max=4) == ["One. Two.", "Three."]
    assert points("One. Two.", count_max=4) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Storm\n\nIt rained.", "Storm"),
        ("The Storm\n\n- rain", "The Storm"),
        ("It rained.\n\nIt stopped.", None),
        ("- rain\n\n- wind", None),
        ("rain", None),
        ("", None),
    ],
)
def test_a_headline_is_told_from_a_first_paragraph(text: str, title: str | None) -> None:
    assert headline(text) == title


def test_a_headline_is_no_point_of_its_own() -> None:
    assert points("Storm\n\nIt rained. It stopped.", count_max=4) == ["It rained.", "It stopped."]
    assert points("# Storm", count_max=4) == ["Storm"]


@given(st.lists(st.text("ab", min_size=1), max_size=30), st.integers(1, 8))
def test_groups_keep_every_part_in_order_and_none_is_empty(parts: list[str], count_max: int) -> None:
    groups = grouped(parts, count_max=count_max, joint="|")
    assert len(groups) == min(count_max, len(parts))
    assert "|".join(groups).split("|") == (parts or [""])


@pytest.mark.parametrize(
    ("title", "about"),
    [
        ("Chapter 1: Introduction to AI", "Introduction to AI"),
        ("Part II - The Sea", "The Sea"),
        ("Chapter 1", "Chapter 1"),
        ("Chapters of a life", "Chapters of a life"),
    ],
)
def test_a_title_is_about_what_follows_its_number(title: str, about: str) -> None:
    assert topic(title) == about


def test_an_answer_that_was_cut_off_ends_with_its_last_whole_sentence() -> None:
    assert tidied("One is here. Two is here. Three is", cut_off=True) == "One is here. Two is here."


def test_an_answer_cut_off_in_its_first_sentence_ends_with_a_whole_word() -> None:
    assert tidied("The sea was wild, and the sai", cut_off=True) == "The sea was wild, and the."


def test_talk_around_an_answer_is_removed() -> None:
    answer = 'Here\'s a rewritten version of your text:\n\n"The boat left. It sank."\n\nI made a few changes.'
    assert tidied(answer, cut_off=False) == "The boat left. It sank."
    assert tidied("Sure, here is one: The boat left.", cut_off=False) == "The boat left."


def test_an_answer_is_one_paragraph_without_repeated_sentences_or_open_quotes() -> None:
    assert tidied('He left.\nHe left. She said "no. It rained.', cut_off=False) == "He left. It rained."


def test_a_sentence_that_goes_round_in_circles_is_dropped_if_another_is_left() -> None:
    stuck = "AI is AI and the AI of AI and the AI of AI and the AI."
    assert tidied(f"Machines learn. {stuck}", cut_off=False) == "Machines learn."
    assert tidied(stuck, cut_off=False) == stuck


def test_a_copied_aside_is_removed() -> None:
    assert without_aside("The basics (AI) are easy.", "AI") == "The basics are easy."
    assert without_aside("The basics are easy.", None) == "The basics are easy."


@given(TEXTS, st.booleans())
def test_a_tidied_answer_is_one_line_and_never_only_blank(text: str, cut_off: bool) -> None:  # noqa: FBT001
    result = tidied(text, cut_off=cut_off)
    assert "\n" not in result
    assert result == "" or result.strip()


@given(TEXTS)
def test_whole_sentences_end_with_a_mark_unless_nothing_is_left(text: str) -> None:
    result = whole(text)
    assert not result or result.rstrip("\"')")[-1] in ".!?…"


@given(st.text("ab ", max_size=60), st.integers(1, 30))
def test_a_shortened_text_is_a_beginning_within_the_bound(text: str, chars_max: int) -> None:
    result = shortened(text, chars_max=chars_max)
    assert len(result) <= chars_max
    assert text.strip().startswith(result)
    assert result or not text.strip()
