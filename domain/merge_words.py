"""Three-way merge of a text that two people edited: diff3 over paragraphs, and over words where both changed one.

Two people who edit one paragraph mean to keep its other words, so changes of different words both count and only
words that both changed differently conflict. What a person did to white space alone is never worth a conflict.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, takewhile
from typing import Final

from domain.alignment import STEPS_MAX
from domain.diff3 import Chunk, ChunkKind, diff3
from domain.merge_paragraphs import Clash, picked
from domain.paragraphs import split
from domain.words import is_word, paragraphs, word_runs, words

Tokens = Sequence[str]

REGIONS_MAX: Final = 100
"""Places of one text that are shown as overwritten."""


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
    return _assembled(_cut_all(_joined(_pieces(base, ours, theirs))), take_theirs=take_theirs)


def overwritten_words(base: str, ours: str, theirs: str) -> list[Clash]:
    """Return where ``theirs``, put in place of ``ours``, takes back what ours had changed; none if it has all of it.

    The places are those of ``theirs``; there are at most ``REGIONS_MAX``: neighbours share one where there are more.
    """
    return _assembled(_grouped(_cut_all(_joined(_overwritten(base, ours, theirs)))), take_theirs=True)[1]


def _assembled(pieces: Iterable[Piece], *, take_theirs: bool) -> tuple[str, list[Clash]]:
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
    chunks = diff3(before, left, right, align=partial(word_runs, steps=steps), trim=True)
    pieces: list[Piece] = []
    for index, chunk in enumerate(chunks):
        was, (own, its) = before[chunk.base[0] : chunk.base[1]], _sides(chunk, left, right)
        resolved: Tokens | None = its if chunk.kind is ChunkKind.THEIRS else own
        if chunk.kind is ChunkKind.CONFLICT:
            beside = [
                left[slice(*other.ours)] if other.kind is ChunkKind.BOTH and other.base[0] == other.base[1] else ()
                for near in (slice(max(0, index - 1), index), slice(index + 1, index + 2))
                for other in chunks[near] or (chunk,)
            ]
            resolved = _resolved(_without(was, *beside), own, its)
        if resolved is None:
            pieces.append(Piece(was, own, its, ChunkKind.CONFLICT))
        else:
            kind = ChunkKind.BOTH if chunk.kind is ChunkKind.CONFLICT else chunk.kind
            pieces.append(Piece(was, own, its, kind, "".join(resolved)))
    return _untrimmed(pieces)


def _without(base: Tokens, head: Tokens, tail: Tokens) -> Tokens:
    """Return the base of a conflict without what was trimmed off both sides, where it begins and ends with it, too."""
    if list(base[: len(head)]) == list(head):
        base = base[len(head) :]
    low = len(base) - len(tail)
    return base[:low] if low >= 0 and list(base[low:]) == list(tail) else base


def _untrimmed(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """Yield the pieces with what was trimmed off two sides of a conflict back in it, and cut off all three instead.

    The base is what stands at the place of the conflict, too: it has to fit between the same neighbours.
    """
    at = 0
    while at < len(pieces):
        end = at + 1
        if pieces[at].kind is ChunkKind.CONFLICT or (_is_trimming(pieces[at]) and _conflicts(pieces, end)):
            end += pieces[at].kind is not ChunkKind.CONFLICT
            end += end < len(pieces) and _is_trimming(pieces[end])
            yield from _cut(_one(pieces[at:end]))
        else:
            yield pieces[at]
        at = end


def _is_trimming(piece: Piece) -> bool:
    return piece.kind is ChunkKind.BOTH and not piece.base and piece.ours == piece.theirs


def _conflicts(pieces: Sequence[Piece], at: int) -> bool:
    return at < len(pieces) and pieces[at].kind is ChunkKind.CONFLICT


def _one(pieces: Iterable[Piece]) -> Piece:
    """Return several pieces as one conflict."""
    sides = zip(*((piece.base, piece.ours, piece.theirs) for piece in pieces), strict=True)
    base, ours, theirs = (list(chain.from_iterable(side)) for side in sides)
    return Piece(base, ours, theirs, ChunkKind.CONFLICT)


def _cut_all(pieces: Iterable[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        yield from _cut(piece) if piece.kind is ChunkKind.CONFLICT else (piece,)


def _cut(piece: Piece) -> Iterator[Piece]:
    """Yield a conflict without the tokens that all three sides begin or end with, and those beside it."""
    sides = (piece.base, piece.ours, piece.theirs)
    most = min(map(len, sides))
    head = _equal(zip(*sides, strict=False), most)
    tail = _equal(zip(*map(reversed, sides), strict=False), most - head)
    lead, rest = piece.ours[:head], piece.ours[len(piece.ours) - tail :]
    if head:
        yield Piece(lead, lead, lead, ChunkKind.STABLE, "".join(lead))
    base, ours, theirs = (side[head : len(side) - tail] for side in sides)
    yield Piece(base, ours, theirs, ChunkKind.CONFLICT)
    if tail:
        yield Piece(rest, rest, rest, ChunkKind.STABLE, "".join(rest))


def _equal(places: Iterable[tuple[str, ...]], most: int) -> int:
    """Return how many places, of the first ``most``, have one token on all sides."""
    return sum(1 for _ in takewhile(lambda place: len(set(place)) == 1, islice(places, most)))


def _overwritten(base: str, ours: str, theirs: str) -> Iterator[Piece]:
    """Yield the pieces of ``theirs``; a conflict is what ours has otherwise, because it had changed it."""
    sides = [paragraphs(text) for text in (base, ours, theirs)]
    chunks = diff3(sides[0], sides[1], sides[2])
    steps = STEPS_MAX // max(1, sum(chunk.kind in _LOST for chunk in chunks))
    for chunk in chunks:
        spans = (chunk.base, chunk.ours, chunk.theirs)
        texts = ["".join(side[low:high]) for side, (low, high) in zip(sides, spans, strict=True)]
        if chunk.kind not in _LOST:
            yield Piece(texts[:1], texts[1:2], texts[2:], ChunkKind.BOTH, texts[2])
            continue
        before, left, right = (words(text) for text in texts)
        for part in diff3(before, left, right, align=partial(word_runs, steps=steps)):
            own, its = _sides(part, left, right)
            was = before[part.base[0] : part.base[1]]
            kind = ChunkKind.CONFLICT if part.kind in _LOST else ChunkKind.STABLE
            yield Piece(was, own, its, kind, "".join(its))


def _grouped(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield the pieces with so many neighbours in one conflict that there are at most ``REGIONS_MAX``."""
    found = list(pieces)
    places = [index for index, piece in enumerate(found) if piece.kind is ChunkKind.CONFLICT]
    share = -(-len(places) // REGIONS_MAX)
    at = 0
    for group in (places[low : low + share] for low in range(0, len(places), max(1, share))):
        yield from found[at : group[0]]
        yield _one(found[group[0] : group[-1] + 1])
        at = group[-1] + 1
    yield from found[at:]


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
    # What takes the place of the base has to begin, or end, as it did: with a blank or without.
    if one[added:] == base and base[0].isspace() == other[0].isspace():
        return [*one[:added], *other]
    fits = one[: len(base)] == base and base[-1].isspace() == other[-1].isspace()
    return [*other, *one[len(base) :]] if fits else None


def _visible(tokens: Tokens) -> list[str]:
    return [token for token in tokens if not token.isspace()]


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Join conflicts between which nothing but white space stands: one conflict is easier to read than three."""
    joined: list[Piece] = []
    for piece in pieces:
        joined.append(piece)
        if [part.kind for part in joined[-3:]] == _CONFLICTS_BESIDE and not _visible(joined[-2].ours):
            joined[-3:] = [_one(joined[-3:])]
    return joined


_LOST: Final = {ChunkKind.OURS, ChunkKind.CONFLICT}
_CONFLICTS_BESIDE: Final = [ChunkKind.CONFLICT, ChunkKind.STABLE, ChunkKind.CONFLICT]
