"""Texts as units: paragraphs, sentences, words. Every cut is exact: ``"".join(tokens) == text``.

Blanks between units are tokens of their own. Words follow Unicode: marks stay with what they modify, emoji sequences
and flags in one piece; in scripts that put no spaces between words (Chinese, Japanese, Thai, Khmer, Lao, Burmese,
Tibetan) each character is a word. Sentences are found by punctuation, with the care that abbreviations, initials,
numbers, quotations and ellipses need; there is no dictionary, so a rare abbreviation may cut a sentence in two.
"""

# ruff: noqa: RUF001

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from itertools import chain, zip_longest
from typing import Final

from domain.alignment import STEPS_MAX, Run, runs
from domain.paragraphs import split


class Unit(StrEnum):
    """How finely texts are compared."""

    PARAGRAPH = "paragraph"
    SENTENCE = "sentence"
    WORD = "word"


KEPT_SHARE_MIN: Final = 1 / 3
"""A sentence that kept fewer of its words was written anew; the words it still has in common are chance."""
_FEW_WORDS: Final = 3

_UNSPACED: Final = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ec0-\u0edf\u0f40-\u0f6c\u1000-\u102a\u103f"
    "\u1050-\u1055\u1780-\u17b3\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_FLAG: Final = "\U0001f1e6-\U0001f1ff"
_MODIFIERS: Final = "\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f"
_ZERO_WIDTH_JOINER: Final = "\u200d"
_MARKED_PLANES: Final = chain(range(0x300, 0x20000), range(0xE0100, 0xE01F0))

_ABBREVIATIONS: Final = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms mx dr prof rev hon st sr jr gen col capt lt sgt messrs mme mlle e.g i.e cf viz vs al approx dept "
        "est inc ltd co corp bros mt ave blvd z.b d.h u.a bzw evtl ggf vgl hr fr bspw usf ph.d",
    )
)
_NUMBERED: Final = frozenset(
    re.findall(r"\S+", "no nos nr fig figs p pp vol art sec ch chap eq ed ca c § tab abs kap s v vv")
)
"""Abbreviations only if a number follows: "no. 5", but "He said no. Then"."""
_STOPS: Final = ".!?…‽؟۔।॥።"
_CLOSERS: Final = "\"'”’»›)\\]}*_"
_OPENERS: Final = "\"'“‘«‹([{*_¿¡„"
_SENTENCE_END: Final = re.compile(
    rf"(?P<maybe>(?<![{_STOPS}])[{_STOPS}]++[{_CLOSERS}]*+)(?=\s)"
    r"|[。！？｡]+[」』）】”’〉》]*"
    r"|(?=\r?\n[^\S\n]*(?:[-*+•]\s|\d{1,4}[.)]\s|[#>|]))"
)
_BLANKS: Final = re.compile(r"\s*")
_LOOK_BACK: Final = 24


def tokens(text: str, unit: Unit) -> list[str]:
    """Return a text cut into units and the blanks between them; none is empty."""
    return _CUTS[unit](text)


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text and what separates them."""
    prose = split(text)
    pairs = zip_longest(prose.paragraphs, prose.separators, fillvalue="")
    return [piece for piece in (prose.lead, *chain.from_iterable(pairs), prose.tail) if piece]


def sentences(text: str) -> list[str]:
    """Return the sentences of a text and the blanks between them; a paragraph or an item of a list ends one."""
    return [piece for paragraph in paragraphs(text) for piece in _sentences_of(paragraph)]


def words(text: str) -> list[str]:
    """Return the words of a text, its punctuation and its blanks; each line break is a token."""
    return (_ascii_pattern() if text.isascii() else _pattern()).findall(text)


def is_word(token: str) -> bool:
    """Tell whether a token is a word and not punctuation or blanks."""
    return token[0].isalnum() or token[0] == "_"


def is_prose(text: str) -> bool:
    """Tell whether a text is made of several words, and not a name, a number, a date or an address."""
    return sum(map(is_word, words(text.strip()[:_PROSE_CHARACTERS]))) > 1 and (
        re.search(r"\S\s+\S", text) is not None or _unspaced().search(text) is not None
    )


_PROSE_CHARACTERS: Final = 1000


def word_runs(before: Sequence[str], after: Sequence[str], *, steps: int = STEPS_MAX) -> list[Run]:
    """Return the equal stretches of two texts in words, without those that are equal by chance.

    Two sentences about different things still share their *the* and their spaces; a merge that kept those in place
    would weave two sentences into one that nobody wrote.
    """
    found = runs(before, after, steps=steps)
    if len(found) <= 1 and len(before) == len(after) == sum(length for *_, length in found):
        return found
    kept = bytearray(len(before))
    for low, _, length in found:
        kept[low : low + length] = b"\1" * length
    for low, high in _sentence_spans(before):
        of_words = [index for index in range(low, high) if is_word(before[index])]
        if len(of_words) > _FEW_WORDS and sum(kept[index] for index in of_words) < KEPT_SHARE_MIN * len(of_words):
            kept[low:high] = bytes(high - low)
    return [piece for run in found for piece in _remaining(run, kept)]


def _remaining(run: Run, kept: bytearray) -> Iterator[Run]:
    low, other, length = run
    at = kept.find(1, low, low + length)
    while at >= 0:
        end = kept.find(0, at, low + length)
        end = low + length if end < 0 else end
        yield at, other + at - low, end - at
        at = kept.find(1, end, low + length)


def _sentence_spans(before: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield sentences by their tokens, roughly: to the next full stop or line break."""
    low = 0
    for index, token in enumerate(before):
        if token[0] in ".!?…。！？।؟\n\r":
            yield low, index + 1
            low = index + 1
    if low < len(before):
        yield low, len(before)


def _sentences_of(paragraph: str) -> Iterator[str]:
    start = 0
    for match in _SENTENCE_END.finditer(paragraph):
        end = match.end()
        if end <= start or (match["maybe"] and not _ends(paragraph, start, match)):
            continue
        blanks = _BLANKS.match(paragraph, end)
        following = blanks.end() if blanks else end
        yield paragraph[start:end]
        if following > end:
            yield paragraph[end:following]
        start = following
    if start < len(paragraph):
        yield paragraph[start:]


def _ends(paragraph: str, start: int, match: re.Match[str]) -> bool:
    """Tell whether a full stop (or its like) before a blank ends the sentence that began at ``start``."""
    blanks = _BLANKS.match(paragraph, match.end())
    following = paragraph[blanks.end() : blanks.end() + 1] if blanks else ""
    if following.islower():
        return False
    if match["maybe"] != ".":
        return True
    before = paragraph[max(start, match.start() - _LOOK_BACK) : match.start()]
    word = before[len(before.rstrip()) :] or (before.split() or [""])[-1].lstrip(_OPENERS)
    if word.isdigit():
        return match.start() - len(word) > start  # "1. First item"
    initial = len(word) == 1 and word.isupper() and word != "I"
    numbered = word.lower() in _NUMBERED and following.isdigit()
    return not (initial or numbered or word.lower() in _ABBREVIATIONS)


@functools.cache
def _ascii_pattern() -> re.Pattern[str]:
    return _compiled(r"\w+", r"[^\w\s]")


@functools.cache
def _pattern() -> re.Pattern[str]:
    marks = _marks()
    letter = rf"[^\W{_UNSPACED}]"
    modified = rf"[{marks}{_MODIFIERS}]*"
    spaced = rf"(?:{letter}+[{marks}\u200c{_ZERO_WIDTH_JOINER}]*)+"
    cluster = rf"(?:[{_FLAG}]{{2}}|.){modified}(?:{_ZERO_WIDTH_JOINER}\S{modified})*"
    return _compiled(spaced, rf"[{_UNSPACED}][{marks}]*|{cluster}")


def _compiled(word: str, other: str) -> re.Pattern[str]:
    joined = rf"{word}(?:(?:['’\u00ad\u2010\u2011-]|(?<=\d)[.,:/](?=\d)){word})*"
    # Bounded before ://, so that no text is scanned again and again for an address that is not there.
    address = r"[A-Za-z]{1,12}://\S*[\w/]"
    blanks = r"[^\S\r\n]+|\r\n?|\n"
    signs = r"\.+|-+|\*+|#+|=+|~+|`+"
    return re.compile(rf"{address}|{joined}|{blanks}|{signs}|{other}", re.DOTALL)


@functools.cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(rf"[{_UNSPACED}]")


@functools.cache
def _marks() -> str:
    """Return the combining marks of Unicode as ranges of a character class; Python's patterns have no name for them."""
    ranges: list[list[int]] = []
    for point in _MARKED_PLANES:
        if unicodedata.category(chr(point))[0] == "M":
            if ranges and ranges[-1][1] == point - 1:
                ranges[-1][1] = point
            else:
                ranges.append([point, point])
    return "".join(f"{chr(low)}-{chr(high)}" for low, high in ranges)


_CUTS: Final[dict[Unit, Callable[[str], list[str]]]] = {
    Unit.PARAGRAPH: paragraphs,
    Unit.SENTENCE: sentences,
    Unit.WORD: words,
}
