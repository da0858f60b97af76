"""Three-way merge of a text that two people edited: diff3 over paragraphs, and over words where both changed one.

Two people who edit one paragraph mean to keep its other words, so changes of different words both count and only
words that both changed differently conflict. What a person did to white space alone is never worth a conflict.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from domain.alignment import STEPS_MAX
from domain.diff3 import Chunk, ChunkKind, diff3
from domain.merge_paragraphs import Clash, picked
from domain.paragraphs import split
from domain.words import is_word, paragraphs, word_runs, words

Tokens = Sequence[str]


@dataclass(slots=True)
class Piece:
    """A part of the merged text: what it is made of, and whether it is a conflict."""

    base: Tokens
    ours: Tokens
    theirs: Tokens
    kind: ChunkKind
    text: str = ""


def merge_words(base: str, ours: str, theirs: str, *, take_theirs: bool) -> tuple[str, list[Clash]]:
    """Return the merged text and its conflicts, in which ours stays unless ``take_theirs``."""
    pieces = _joined(_pieces(base, ours, theirs))
    parts: list[str] = []
    places: list[tuple[Piece, int, int]] = []
    at = 0
    for piece in pieces:
        if piece.kind is ChunkKind.CONFLICT:
            text = "".join(piece.theirs if take_theirs else piece.ours)
            places.append((piece, at, at + len(text)))
        else:
            text = piece.text
        parts.append(text)
        at += len(text)
    merged = "".join(parts)
    return merged, _clashes(merged, places)


def _clashes(merged: str, places: Sequence[tuple[Piece, int, int]]) -> list[Clash]:
    starts = split(merged).starts()[:-1] if places else []
    return [
        Clash(
            base="".join(piece.base) or None,
            ours="".join(piece.ours) or None,
            theirs="".join(piece.theirs) or None,
            start=start,
            end=end,
            paragraph=max(0, bisect_right(starts, start) - 1),
        )
        for piece, start, end in places
    ]


def _pieces(base: str, ours: str, theirs: str) -> Iterator[Piece]:
    """Merge by paragraphs, and each conflict of those by words."""
    proses = [split(text) for text in (base, ours, theirs)]
    yield _settled(picked(*(prose.lead for prose in proses)))
    texts = [prose.body() for prose in proses]
    sides = [paragraphs(text) for text in texts]
    chunks = diff3(sides[0], sides[1], sides[2])
    steps = STEPS_MAX // max(1, sum(chunk.kind is ChunkKind.CONFLICT for chunk in chunks))
    for chunk in chunks:
        own, its = _sides(chunk, sides[1], sides[2])
        if chunk.kind is ChunkKind.CONFLICT:
            was = sides[0][chunk.base[0] : chunk.base[1]]
            yield from _by_word("".join(was), "".join(own), "".join(its), steps)
        else:
            yield _settled("".join(its if chunk.kind is ChunkKind.THEIRS else own))
    yield _settled(picked(*(prose.tail for prose in proses)))


def _by_word(base: str, ours: str, theirs: str, steps: int) -> Iterator[Piece]:
    before, left, right = words(base), words(ours), words(theirs)
    for chunk in diff3(before, left, right, align=partial(word_runs, steps=steps), trim=True):
        was, (own, its) = before[chunk.base[0] : chunk.base[1]], _sides(chunk, left, right)
        resolved: Tokens | None = its if chunk.kind is ChunkKind.THEIRS else own
        if chunk.kind is ChunkKind.CONFLICT:
            resolved = _resolved(was, own, its)
        if resolved is None:
            yield Piece(was, own, its, ChunkKind.CONFLICT)
        else:
            kind = ChunkKind.BOTH if chunk.kind is ChunkKind.CONFLICT else chunk.kind
            yield Piece(was, own, its, kind, "".join(resolved))


def _sides(chunk: Chunk, ours: Tokens, theirs: Tokens) -> tuple[Tokens, Tokens]:
    return ours[chunk.ours[0] : chunk.ours[1]], theirs[chunk.theirs[0] : chunk.theirs[1]]


def _settled(text: str) -> Piece:
    return Piece((), (), (), ChunkKind.BOTH, text)


def _resolved(base: Tokens, ours: Tokens, theirs: Tokens) -> Tokens | None:
    """Return what two changes at one place become if they do not really contradict each other, else None."""
    was, own, its = _visible(base), _visible(ours), _visible(theirs)
    if own == its:
        return list(picked("".join(base), "".join(ours), "".join(theirs)))
    if own == was:
        return theirs
    if its == was:
        return ours
    return _beside(base, ours, theirs) or _beside(base, theirs, ours)


def _beside(base: Tokens, one: Tokens, other: Tokens) -> Tokens | None:
    """Return both changes if ``one`` only added something before or after the words that ``other`` replaced."""
    added = len(one) - len(base)
    if added <= 0 or not any(map(is_word, base)) or not any(map(is_word, other)):
        return None
    if one[added:] == base:
        return [*one[:added], *other]
    return [*other, *one[len(base) :]] if one[: len(base)] == base else None


def _visible(tokens: Tokens) -> list[str]:
    return [token for token in tokens if not token.isspace()]


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join conflicts between which nothing but white space stands: one conflict is easier to read than three."""
    joined: list[Piece] = []
    for piece in pieces:
        joined.append(piece)
        if [part.kind for part in joined[-3:]] == _CONFLICTS_BESIDE and not _visible(joined[-2].ours):
            last = joined[-3:]
            joined[-3:] = [
                Piece(
                    [token for part in last for token in part.base],
                    [token for part in last for token in part.ours],
                    [token for part in last for token in part.theirs],
                    ChunkKind.CONFLICT,
                )
            ]
    return joined


_CONFLICTS_BESIDE: Final = [ChunkKind.CONFLICT, ChunkKind.STABLE, ChunkKind.CONFLICT]
