"""Three-way merge of sequences: diff3 (Khanna, Kunal and Pierce, "A Formal Investigation of Diff3", 2007).

``base`` is aligned with each side. Where an item of the base is matched on both sides, all three are *stable*. What
lies between two stable stretches is one chunk, which one side changed, or both in the same way, or both differently:
a conflict. Two changes with nothing stable between them are one chunk, as in GNU diff3 and in git.

Laws (tested, and held against ``git merge-file``): ``diff3(b, b, t)`` yields t, ``diff3(b, o, b)`` yields o,
``diff3(b, x, x)`` yields x, all without a conflict; exchanging the sides exchanges the chunks' sides and nothing else;
every item that a side inserted is in the result or in a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from domain.alignment import Run, equal_length, equal_tail, runs

Align = Callable[[Sequence[Any], Sequence[Any]], list[Run]]
Span = tuple[int, int]
"""A part of a sequence: from and to."""
Items = Sequence[Hashable]


class ChunkKind(StrEnum):
    """Who changed a chunk."""

    STABLE = "stable"
    OURS = "ours"
    THEIRS = "theirs"
    BOTH = "both"
    """Both sides, in the same way."""
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of the three sequences, by place; the chunks of a merge cover all three without a gap."""

    kind: ChunkKind
    base: Span
    ours: Span
    theirs: Span


def diff3(base: Items, ours: Items, theirs: Items, *, align: Align = runs, trim: bool = False) -> list[Chunk]:
    """Return the chunks of a three-way merge, in order.

    ``align`` matches the base with a side, ascending (default: longest common subsequence). ``trim`` takes
    items that both sides of a conflict begin or end with out of it, as ``git merge-file --zdiff3`` does; the base
    stays with the conflict.
    """
    chunks: list[Chunk] = []
    at = (0, 0, 0)
    for *start, length in _stable(base, ours, theirs, align):
        if at != tuple(start):
            chunk = _changed(base, ours, theirs, *zip(at, start, strict=True))
            chunks.extend(_trimmed(chunk, ours, theirs) if trim else (chunk,))
        at = (start[0] + length, start[1] + length, start[2] + length)
        if length:
            chunks.append(Chunk(ChunkKind.STABLE, *zip(start, at, strict=True)))
    return chunks


def merged(chunks: Sequence[Chunk], ours: Sequence[Any], theirs: Sequence[Any]) -> list[Any]:
    """Return the merged items; where there is a conflict, those of ours."""
    result: list[Any] = []
    for chunk in chunks:
        side, (low, high) = (theirs, chunk.theirs) if chunk.kind is ChunkKind.THEIRS else (ours, chunk.ours)
        result.extend(side[low:high])
    return result


def _stable(base: Items, ours: Items, theirs: Items, align: Align) -> Iterator[tuple[int, int, int, int]]:
    """Yield the stretches of the base that are matched on both sides: base, ours, theirs, length; the end last."""
    left, right = align(base, ours), align(base, theirs)
    left_at = right_at = 0
    while left_at < len(left) and right_at < len(right):
        low, ours_low, length = left[left_at]
        other_low, theirs_low, other_length = right[right_at]
        start, end = max(low, other_low), min(low + length, other_low + other_length)
        if start < end:
            yield start, ours_low + start - low, theirs_low + start - other_low, end - start
        if low + length == end:
            left_at += 1
        if other_low + other_length == end:
            right_at += 1
    yield len(base), len(ours), len(theirs), 0


def _changed(base: Items, ours: Items, theirs: Items, *spans: Span) -> Chunk:
    before, own, its = (side[low:high] for side, (low, high) in zip((base, ours, theirs), spans, strict=True))
    if own == its:
        kind = ChunkKind.BOTH
    elif own == before:
        kind = ChunkKind.THEIRS
    elif its == before:
        kind = ChunkKind.OURS
    else:
        kind = ChunkKind.CONFLICT
    return Chunk(kind, *spans)


def _trimmed(chunk: Chunk, ours: Items, theirs: Items) -> Iterator[Chunk]:
    if chunk.kind is not ChunkKind.CONFLICT:
        yield chunk
        return
    (low, high), (other_low, other_high) = chunk.ours, chunk.theirs
    head = equal_length(ours, low, theirs, other_low, min(high - low, other_high - other_low))
    tail = equal_tail(
        ours[low + head : high], theirs[other_low + head : other_high], min(high - low, other_high - other_low) - head
    )
    start, end = chunk.base
    if head:
        yield Chunk(ChunkKind.BOTH, (start, start), (low, low + head), (other_low, other_low + head))
    yield Chunk(ChunkKind.CONFLICT, chunk.base, (low + head, high - tail), (other_low + head, other_high - tail))
    if tail:
        yield Chunk(ChunkKind.BOTH, (end, end), (high - tail, high), (other_high - tail, other_high))
