"""Text as paragraphs: how it is cut, put together again exactly, and how paragraphs of two versions correspond.

Paragraphs are separated by blank lines. A machine that writes a text again rewords nearly everything, so that
equal paragraphs alone would align almost nothing; here equal ones are anchors, and between two anchors
paragraphs are paired by likeness of words, in order, a heading only with a heading.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from domain.alignment import Pair, Region, regions, runs

PARAGRAPHS_MAX = 20_000
"""A text of more paragraphs is merged as one piece."""
COMPARISONS_MAX = 100_000
"""Pairs compared for likeness per alignment (about a quarter of a second); longer gaps are cut into pieces."""
COMPARED_CHARACTERS_MAX = 4_000
"""Of a longer paragraph only the beginning counts for likeness."""
COMPARED_PAIRS_MAX = 1_000
"""The same where pairs of characters count."""
PAIRING_BONUS = 0.3
"""Pairing unlike paragraphs beats leaving both alone, and beats the chance likeness of common words (about 0.2):
a text reworded throughout keeps its positions."""
EQUAL_BONUS = 0.5
DEFAULT_SEPARATOR = "\n\n"

# The lookbehind lets a run of blanks be tried once only: without it the time is quadratic.
_SEPARATOR = re.compile(r"(?<![ \t\r])[ \t\r]*\n(?:[ \t\r]*\n)+")
_LEAD = re.compile(r"(?:[ \t\r]*\n)*")
_WORD = re.compile(r"\w+")
_BLANK = " \t\r\n"
_FEW_WORDS = 5


@dataclass(frozen=True, slots=True)
class Prose:
    """A text as its paragraphs and everything between them: ``separators[i]`` follows ``paragraphs[i]``."""

    lead: str
    paragraphs: tuple[str, ...]
    separators: tuple[str, ...]
    tail: str

    def join(self) -> str:
        """Return the text, exactly as it was cut."""
        parts = [self.lead]
        for index, paragraph in enumerate(self.paragraphs):
            parts.append(paragraph)
            if index < len(self.separators):
                parts.append(self.separators[index])
        return "".join([*parts, self.tail])

    def body(self) -> str:
        """Return the text without the blanks at both ends."""
        return Prose(lead="", paragraphs=self.paragraphs, separators=self.separators, tail="").join()

    def starts(self) -> list[int]:
        """Return where in the text each paragraph begins, in code points, and at last where the last one ends."""
        at = len(self.lead)
        starts: list[int] = []
        for index, paragraph in enumerate(self.paragraphs):
            starts.append(at)
            at += len(paragraph) + len(self.separator(index) or "")
        return [*starts, at]

    def separator(self, index: int | None) -> str | None:
        """Return what follows a paragraph; None after the last one, or if there is no such paragraph."""
        return self.separators[index] if index is not None and index < len(self.separators) else None


def split(text: str) -> Prose:
    """Cut a text into paragraphs; ``split(text).join() == text`` for every text."""
    lead_match = _LEAD.match(text)
    lead = lead_match[0] if lead_match else ""
    body = text[len(lead) :].rstrip(_BLANK)
    if not body:
        return Prose(lead="", paragraphs=(), separators=(), tail=text)
    tail = text[len(lead) + len(body) :]
    spans = [match.span() for match in _SEPARATOR.finditer(body)]
    edges = [0, *(edge for span in spans for edge in span), len(body)]
    pieces = [body[low:high] for low, high in pairwise(edges)]
    return Prose(lead=lead, paragraphs=tuple(pieces[::2]), separators=tuple(pieces[1::2]), tail=tail)


def align(base: Sequence[str], other: Sequence[str]) -> list[int | None]:
    """Return for each paragraph of ``base`` the index of its counterpart in ``other``, ascending, or None."""
    equal = runs(base, other)
    pairs = [(low + step, other_low + step) for low, other_low, length in equal for step in range(length)]
    counterparts: list[int | None] = [None] * len(base)
    gaps = regions(equal, len(base), len(other))
    area = sum((high - low) * (other_high - other_low) for low, high, other_low, other_high in gaps)
    for gap in gaps:
        for piece in _pieces(gap, 1 + area // COMPARISONS_MAX):
            pairs.extend(_pair_gap(base, other, piece))
    for index, other_index in pairs:
        counterparts[index] = other_index
    return counterparts


def is_heading(paragraph: str) -> bool:
    """Tell whether a paragraph is a Markdown heading of one line."""
    return paragraph.startswith("#") and "\n" not in paragraph


@dataclass(frozen=True, slots=True)
class Features:
    """What of a paragraph is compared, its words and its pairs of characters: how many, and which as bits of a number.

    Two sets of a hundred words meet in a tenth of a microsecond that way, ten times faster than as sets.
    """

    heading: bool
    word_count: int
    words: int
    pair_count: int
    pairs: int

    def likeness(self, other: Features) -> float:
        """Return how alike two paragraphs are, 0 to 1: the share (Dice) of words that they have in common.

        Where words say little, in short paragraphs and unspaced scripts, pairs of characters count instead.
        """
        if min(self.word_count, other.word_count) >= _FEW_WORDS:
            return 2 * (self.words & other.words).bit_count() / (self.word_count + other.word_count)
        total = self.pair_count + other.pair_count
        return 2 * (self.pairs & other.pairs).bit_count() / total if total else 0.0


def features_of(few: Sequence[str], many: Sequence[str]) -> tuple[list[Features], list[Features]]:
    """Return the features of two lists of paragraphs, to be compared with each other.

    Bits are given to what occurs in ``few`` only, since nothing else can be in common: it bounds the memory.
    """
    count = len(few)
    texts = [paragraph[:COMPARED_CHARACTERS_MAX].lower() for paragraph in (*few, *many)]
    words = [frozenset(_WORD.findall(text)) for text in texts]
    # Pairs are costly to collect, and most texts have no paragraph that needs them.
    wanted = min(map(len, words), default=0) < _FEW_WORDS
    starts = [text[: COMPARED_PAIRS_MAX * wanted] for text in texts]
    pairs = [frozenset(map(str.__add__, text, text[1:])) for text in starts]
    features = [
        Features(is_heading(paragraph), len(own), word_bits, len(its), pair_bits)
        for paragraph, own, word_bits, its, pair_bits in zip(
            (*few, *many), words, _as_bits(words, count), pairs, _as_bits(pairs, count), strict=True
        )
    ]
    return features[:count], features[count:]


def _as_bits(sets: Sequence[frozenset[str]], count: int) -> Iterator[int]:
    places: dict[str, int] = {}
    for items in sets[:count]:
        for item in items:
            places.setdefault(item, len(places))
    for items in sets:
        bits = bytearray(len(places) // 8 + 1)
        for item in items & places.keys():
            place = places[item]
            bits[place >> 3] |= 1 << (place & 7)
        yield int.from_bytes(bits, "little")


def _pieces(gap: Region, count: int) -> list[Region]:
    """Cut a gap proportionally, so that all its pieces together cost ``1 / count`` of the whole."""
    low, high, other_low, other_high = gap
    count = max(1, min(count, high - low, other_high - other_low))
    cuts = [
        (low + (high - low) * part // count, other_low + (other_high - other_low) * part // count)
        for part in range(count + 1)
    ]
    return [(left, left_end, right, right_end) for (left, right), (left_end, right_end) in pairwise(cuts)]


def _pair_gap(base: Sequence[str], other: Sequence[str], gap: Region) -> list[Pair]:
    """Choose pairs, ascending on both sides, of the greatest total value (Needleman and Wunsch, gaps free)."""
    low, high, other_low, other_high = gap
    values = _values(base[low:high], other[other_low:other_high])
    width = other_high - other_low
    totals = [0.0] * (width + 1)
    choices: list[bytearray] = []
    for row in values:
        totals, chosen = _next_row(totals, row)
        choices.append(chosen)
    return [(low + row, other_low + column) for row, column in _path(choices, width)]


_ABOVE, _LEFT, _PAIR = range(3)


def _next_row(above: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], bytearray]:
    totals, chosen = [0.0], bytearray(len(values))
    for column, value in enumerate(values):
        best, choice = above[column + 1], _ABOVE
        if totals[column] > best:
            best, choice = totals[column], _LEFT
        if value is not None and above[column] + value > best:
            best, choice = above[column] + value, _PAIR
        totals.append(best)
        chosen[column] = choice
    return totals, chosen


def _path(choices: Sequence[bytearray], width: int) -> list[Pair]:
    pairs: list[Pair] = []
    row, column = len(choices) - 1, width - 1
    while row >= 0 and column >= 0:
        choice = choices[row][column]
        if choice == _PAIR:
            pairs.append((row, column))
        row -= choice != _LEFT
        column -= choice != _ABOVE
    return pairs[::-1]


def _values(base: Sequence[str], other: Sequence[str]) -> list[list[float | None]]:
    """Return what pairing each two paragraphs is worth; None where a heading would meet something else."""
    if len(base) <= len(other):
        own, its = features_of(base, other)
    else:
        its, own = features_of(other, base)
    right = list(zip(other, its, strict=True))
    return [[_value(text, features, *column) for column in right] for text, features in zip(base, own, strict=True)]


def _value(text: str, own: Features, other: str, its: Features) -> float | None:
    if own.heading != its.heading:
        return None
    return PAIRING_BONUS + own.likeness(its) + (EQUAL_BONUS if text == other else 0.0)
