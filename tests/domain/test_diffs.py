from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import diffs
from domain.diffs import diff, patch_bytes
from domain.operations import apply_operations

unicode_texts = st.text(st.characters(codec="utf-8"), max_size=400)
_pieces = st.one_of(
    st.sampled_from(
        [
            "the quick brown fox ",
            "jumps\r\n",
            "\n",
            "\r\n\r\n",
            "我爱你。",
            "👩‍💻",
            "e\u0301",
            "\u2028",
            "\x85",
            "x" * 90,
        ]
    ),
    st.text(st.characters(codec="utf-8"), max_size=30),
)


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, str]:
    """Return a text, with line ends of every kind or none at its end, and an edit of it."""
    pieces = draw(st.lists(_pieces, max_size=30))
    after = list(pieces)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(after)))
        after[at : at + draw(st.integers(0, 2))] = draw(st.lists(_pieces, max_size=2))
    return "".join(pieces), "".join(after)


@given(st.one_of(edited(), st.tuples(unicode_texts, unicode_texts)))
def test_a_patch_of_a_text_and_its_inverse_are_exact(texts: tuple[str, str]) -> None:
    before, after = texts
    patch, inverse = diff({"content": before}, {"content": after})
    assert apply_operations({"content": before}, patch) == {"content": after}
    assert apply_operations({"content": after}, inverse) == {"content": before}
    assert (patch == []) == (before == after)


@given(edited())
def test_a_patch_is_never_longer_than_the_text_again(texts: tuple[str, str]) -> None:
    before, after = texts
    patch, inverse = diff({"content": before}, {"content": after})
    whole = len(patch_bytes([{"op": "replace", "path": "/content", "value": after}]))
    other = len(patch_bytes([{"op": "replace", "path": "/content", "value": before}]))
    assert len(patch_bytes(patch)) + len(patch_bytes(inverse)) <= 2 * (whole + other) + 8 * diffs.SPLICE_OVERHEAD


WORDS = ["river", "stone", "light", "under", "quiet", "house", "morning", "the", "of", "and", "to", "a"]


def book_of(shape: str) -> str:
    """Return 400 KB of prose: in paragraphs of many lines, of one very long line, or all in a single line."""
    chance = random.Random(11)
    if shape == "unspaced":
        return "".join(chr(chance.randrange(0x4E00, 0x6000)) for _ in range(130_000))
    if shape == "one token":
        return "".join(chance.choice("0123456789abcdef") for _ in range(400_000))
    words = [chance.choice(WORDS) for _ in range(72_000)]
    ends = {"lines": 12, "long lines": 1_000, "one line": 10**9}[shape]
    return "".join(word + ("\n" if at % ends == ends - 1 else " ") for at, word in enumerate(words))


@pytest.mark.parametrize("shape", ["lines", "long lines", "one line", "unspaced", "one token"])
@pytest.mark.parametrize("edits", [1, 2, 5])
def test_a_small_edit_of_a_long_text_is_a_small_patch(shape: str, edits: int) -> None:
    before = after = book_of(shape)
    for edit in range(edits):
        at = len(before) * (edit + 1) // (edits + 1)
        after = after[:at] + "EDITED" + after[at + 4 :]
    patch, inverse = diff({"content": before}, {"content": after})
    assert len(patch) == edits
    assert max(len(patch_bytes(patch)), len(patch_bytes(inverse))) < 120 * edits


@pytest.mark.parametrize("shape", ["lines", "long lines"])
def test_a_paragraph_written_anew_is_stored_once_on_each_side(shape: str) -> None:
    lines = book_of(shape).splitlines(keepends=True)
    middle = len(lines) // 2
    paragraph = "An altogether different paragraph, which has one sentence.\n"
    after = "".join([*lines[:middle], paragraph, *lines[middle + 1 :]])
    patch, inverse = diff({"content": "".join(lines)}, {"content": after})
    assert len(patch_bytes(patch)) < len(paragraph) + len(lines[middle]) + 300
    assert len(patch_bytes(inverse)) < len(paragraph) + len(lines[middle]) + 300


def test_a_moved_paragraph_is_two_splices() -> None:
    lines = book_of("lines").splitlines(keepends=True)
    moved = [*lines[:100], *lines[110:3_000], *lines[100:110], *lines[3_000:]]
    patch, _ = diff({"content": "".join(lines)}, {"content": "".join(moved)})
    assert len(patch_bytes(patch)) < 3 * sum(map(len, lines[100:110]))


def test_data_is_stored_by_field_and_texts_inside_by_part() -> None:
    book = book_of("lines")
    before: dict[str, Any] = {"data": {"chapters": [{"id": n, "text": book[:20_000], "words": n} for n in range(20)]}}
    after = {"data": {"chapters": [dict(chapter) for chapter in before["data"]["chapters"]]}}
    after["data"]["chapters"][7]["words"] = 8
    after["data"]["chapters"][9]["text"] = book[:10_000] + "edited " + book[10_000:20_000]
    del after["data"]["chapters"][12]
    patch, inverse = diff(before, after)
    assert sorted(operation["op"] for operation in patch) == ["remove", "replace", "splice"]
    assert len(patch_bytes(patch)) < 300
    assert len(patch_bytes(inverse)) < 21_000  # the chapter that comes back


def test_many_edits_of_a_long_line_are_bounded_in_number() -> None:
    before = book_of("one line")
    after = before.replace("stone", "pebble")
    patch, inverse = diff({"content": before}, {"content": after})
    assert len(patch) <= diffs.OPERATIONS_STORED_MAX
    assert apply_operations({"content": after}, inverse) == {"content": before}
