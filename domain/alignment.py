"""Which stretches of two sequences are equal: the longest common subsequence, at a bounded price.

Three ways, each taken where the one before is too dear. *Exact*: Myers' greedy search ("An O(ND) Difference Algorithm
and Its Variations", 1986), whose cost grows with the square of the differences and hardly with the length. *Anchored*:
items that occur once on each side, the longest ascending run of them (patience), cut the sequences into gaps that are
aligned one by one. *Greedy*: the exact search keeps its best path so far and starts again from its end; when the steps
allowed are used up, what is left counts as different. Nothing takes more than n log n and ``STEPS_MAX``.

Items are compared as code points: what both sides have gets one each, so that equal stretches are compared at the
speed of memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from math import isqrt
from typing import Any, Final

Run = tuple[int, int, int]
"""An equal stretch: where it begins left and right, and how long it is."""
Pair = tuple[int, int]
Region = tuple[int, int, int, int]
"""A part of both sequences: left from and to, right from and to."""

DIFFERENCES_MAX: Final = 500
"""Deletions and insertions, of items that both sides have, up to which an alignment is exact (0.1 s)."""
STEPS_MAX: Final = 600_000
"""Steps of the search per alignment (0.4 s); beyond, what is left counts as different."""
SYMBOLS_MAX: Final = 0x110000
"""Different items that both sides have; there are no more code points. Beyond, only both ends are aligned."""
RESTART_MIN: Final = 32
"""Edits per piece of the greedy search, at least."""


def runs(left: Sequence[Hashable], right: Sequence[Hashable], *, steps: int = STEPS_MAX) -> list[Run]:
    """Return the equal stretches of two sequences, ascending on both sides, with something else between any two.

    What was inserted or deleted stands as late as it can: where ``a`` became ``aa`` the second one is new. ``steps``
    bounds the search; alignments of many pieces of one text share a bound.
    """
    if type(left) is not type(right):
        left, right = list(left), list(right)
    head = equal_length(left, 0, right, 0)
    tail = equal_tail(left, right, min(len(left), len(right)) - head)
    inner = _inner(left[head : len(left) - tail], right[head : len(right) - tail], steps)
    found = [
        (0, 0, head),
        *((low + head, other + head, length) for low, other, length in inner),
        (len(left) - tail, len(right) - tail, tail),
    ]
    return list(_late(left, right, found))


def regions(found: Iterable[Run], left_length: int, right_length: int) -> list[Region]:
    """Return what lies between equal stretches, as ``(left from, left to, right from, right to)``, not both empty."""
    between: list[Region] = []
    left_at = right_at = 0
    for left_start, right_start, length in [*found, (left_length, right_length, 0)]:
        if left_at < left_start or right_at < right_start:
            between.append((left_at, left_start, right_at, right_start))
        left_at, right_at = left_start + length, right_start + length
    return between


def equal_length(
    left: Sequence[Any], left_at: int, right: Sequence[Any], right_at: int, at_most: int | None = None
) -> int:
    """Return how many items two sequences of one type have in common from these places on."""
    most = min(len(left) - left_at, len(right) - right_at)
    most = most if at_most is None else min(most, at_most)
    low, step = 0, 8
    # Comparing slices is memory speed; a loop over items is a hundred times slower.
    while low < most:
        high = min(low + step, most)
        if left[left_at + low : left_at + high] != right[right_at + low : right_at + high]:
            break
        low, step = high, 2 * step
    else:
        return most
    while low + 1 < high:
        middle = (low + high) // 2
        if left[left_at + low : left_at + middle] == right[right_at + low : right_at + middle]:
            low = middle
        else:
            high = middle
    return low


def equal_tail(left: Sequence[Any], right: Sequence[Any], at_most: int) -> int:
    """Return how many items two sequences of one type have in common at their ends, not more than ``at_most``."""
    low, high = 0, at_most
    while low < high:
        middle = (low + high + 1) // 2
        if left[len(left) - middle : len(left) - low] == right[len(right) - middle : len(right) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _inner(left: Sequence[Hashable], right: Sequence[Hashable], steps: int) -> list[Run]:
    """Align what is left when both ends are trimmed; items that one side does not have cannot be in it."""
    common = set(left) & set(right)
    if not common or len(common) > SYMBOLS_MAX:
        return []
    symbols = dict(zip(common, map(chr, range(len(common))), strict=True))
    left_kept = [index for index, item in enumerate(left) if item in symbols]
    right_kept = [index for index, item in enumerate(right) if item in symbols]
    search = _Search(
        "".join([symbols[left[at]] for at in left_kept]), "".join([symbols[right[at]] for at in right_kept]), steps
    )
    search.align()
    return [piece for run in search.found for piece in _restored(run, left_kept, right_kept)]


def _restored(run: Run, left_kept: Sequence[int], right_kept: Sequence[int]) -> Iterator[Run]:
    """Give a run of kept items its places among all items, in pieces where an item between was left out."""
    pending = [run]
    while pending:
        left_at, right_at, length = pending.pop()
        left_first, right_first = left_kept[left_at], right_kept[right_at]
        last = length - 1
        if left_kept[left_at + last] - left_first == last and right_kept[right_at + last] - right_first == last:
            yield left_first, right_first, length
        else:
            half = length // 2
            pending += [(left_at + half, right_at + half, length - half), (left_at, right_at, half)]


def _late(left: Sequence[Any], right: Sequence[Any], found: Iterable[Run]) -> Iterator[Run]:
    """Join runs that touch, and move each pure insertion or deletion as far to the end as equal items let it."""
    left_start = right_start = length = 0
    for run in found:
        next_left, next_right, more = run
        gap = next_left - left_start - length, next_right - right_start - length
        if gap[0] == 0 or gap[1] == 0:
            side, here, there = (left, left_start, next_left) if gap[0] else (right, right_start, next_right)
            moved = equal_length(side, here + length, side, there, more) if any(gap) else more
            length += moved
            next_left, next_right, more = next_left + moved, next_right + moved, more - moved
        if more:
            if length:
                yield left_start, right_start, length
            left_start, right_start, length = next_left, next_right, more
    if length:
        yield left_start, right_start, length


class _Search:
    """One alignment of two strings under way; ``found`` ascends, runs that touch are not joined."""

    def __init__(self, left: str, right: str, steps: int) -> None:
        self.found: list[Run] = []
        self._left, self._right = left, right
        self._steps = steps

    def align(self) -> None:
        """Fill ``found``: exactly if that is cheap, else between anchors, else as far as the steps allow."""
        left_length, right_length = len(self._left), len(self._right)
        limit = min(DIFFERENCES_MAX, isqrt(self._steps))
        if abs(left_length - right_length) <= limit:
            found, end = self._path((0, left_length, 0, right_length), limit)
            if end == (left_length, right_length):
                self.found = found
                return
        low, other_low = 0, 0
        for at, other_at, length in [*_anchors(self._left, self._right), (left_length, right_length, 0)]:
            self._gap((low, at, other_low, other_at))
            if length:
                self.found.append((at, other_at, length))
            low, other_low = at + length, other_at + length

    def _gap(self, region: Region) -> None:
        low, high, other_low, other_high = region
        most = min(high - low, other_high - other_low)
        tail = equal_tail(self._left[low:high], self._right[other_low:other_high], most) if most else 0
        high, other_high = high - tail, other_high - tail
        while low < high and other_low < other_high and self._steps > 0:
            room = 2 * self._steps // (high - low + other_high - other_low)
            limit = max(RESTART_MIN, min(DIFFERENCES_MAX, room))
            found, (low, other_low) = self._path((low, high, other_low, other_high), limit)
            self.found += found
        if tail:
            self.found.append((high, other_high, tail))

    def _path(self, region: Region, limit: int) -> tuple[list[Run], Pair]:
        """Return the runs of the shortest path of edits through a region, and where the path ends.

        That is the end of the region if ``limit`` edits suffice, else the place furthest from its beginning.
        """
        low, high, other_low, other_high = region
        path = _Path(self._left[low:high], self._right[other_low:other_high])
        while not path.complete and path.edits < limit:
            path.extend()
            self._steps -= path.edits + 1
        found, (end, other_end) = path.best()
        shifted = [(at + low, other_at + other_low, length) for at, other_at, length in found]
        return shifted, (end + low, other_end + other_low)


class _Path:
    """Myers' search: after each ``extend`` the furthest places that so many edits reach, one on each diagonal.

    A diagonal is the places with one difference, left minus right; ``_furthest`` has the left place by diagonal.
    """

    def __init__(self, left: str, right: str) -> None:
        self._left, self._right = left, right
        start = equal_length(left, 0, right, 0)
        self._furthest = {0: start}
        self._trace: list[dict[int, int]] = []
        self.edits = 0
        self.complete = start == len(left) == len(right)

    def extend(self) -> None:
        """Allow one edit more."""
        left, right, before = self._left, self._right, self._furthest
        width, height = len(left), len(right)
        self._trace.append(before)
        self.edits += 1
        after = self._furthest = {}
        lowest = -self.edits + 2 * max(0, (self.edits - height + 1) // 2)
        highest = self.edits - 2 * max(0, (self.edits - width + 1) // 2)
        for diagonal in range(lowest, highest + 1, 2):
            inserted, deleted = before.get(diagonal + 1, -1), before.get(diagonal - 1, -2) + 1
            at = deleted if deleted > inserted or inserted - diagonal > height else inserted
            other_at = at - diagonal
            if not 0 <= at <= width:
                continue
            if at < width and other_at < height and left[at] == right[other_at]:
                at += equal_length(left, at, right, other_at)
            after[diagonal] = at
            if at == width and at - diagonal == height:
                self.complete = True
                return

    def best(self) -> tuple[list[Run], Pair]:
        """Return the equal stretches on the way to the end, or to the furthest place so far, and that place."""
        end = len(self._left) - len(self._right)
        if not self.complete:
            end = max(self._furthest, key=lambda diagonal: 2 * self._furthest[diagonal] - diagonal)
        at, diagonal = self._furthest[end], end
        found: list[Run] = []
        for before in reversed(self._trace):
            inserted, deleted = before.get(diagonal + 1, -1), before.get(diagonal - 1, -2) + 1
            by_deletion = deleted > inserted or inserted - diagonal > len(self._right)
            start = deleted if by_deletion else inserted
            if at > start:
                found.append((start, start - diagonal, at - start))
            diagonal += -1 if by_deletion else 1
            at = before[diagonal]
        if at:
            found.append((0, 0, at))
        return found[::-1], (self._furthest[end], self._furthest[end] - end)


def _anchors(left: str, right: str) -> list[Run]:
    """Return the longest ascending chain of items that occur once on each side, neighbours joined."""
    left_count, right_count = Counter(left), Counter(right)
    place = {item: index for index, item in enumerate(right)}
    unique = [
        (index, place[item]) for index, item in enumerate(left) if left_count[item] == 1 and right_count[item] == 1
    ]
    chain: list[Run] = []
    for at, other_at in _ascending(unique):
        if chain and chain[-1][0] + chain[-1][2] == at and chain[-1][1] + chain[-1][2] == other_at:
            chain[-1] = (*chain[-1][:2], chain[-1][2] + 1)
        else:
            chain.append((at, other_at, 1))
    return chain


def _ascending(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the longest subsequence of pairs whose right side ascends too (patience sorting)."""
    tails: list[int] = []
    ends: list[int] = []
    previous: list[int] = []
    for index, (_, right_index) in enumerate(pairs):
        pile = bisect_left(tails, right_index)
        previous.append(ends[pile - 1] if pile else -1)
        tails[pile : pile + 1] = [right_index]
        ends[pile : pile + 1] = [index]
    chain: list[Pair] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        chain.append(pairs[at])
        at = previous[at]
    return chain[::-1]
