"""Which parts of two sequences belong together. Every function here is bounded by n log n, never quadratic."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Sequence

Pair = tuple[int, int]
Region = tuple[int, int, int, int]


def matches(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[Pair]:
    """Pair equal items of two sequences, in order on both sides: patience alignment with its gaps trimmed.

    Items that occur once on each side anchor the alignment (the longest ascending run of them), equal neighbours
    extend it. It may miss pairs of items that are repeated; it never takes more than n log n.
    """
    whole = (0, len(left), 0, len(right))
    pairs: list[Pair] = []
    low_left, high_left, low_right, high_right = _trim(left, right, whole, pairs)
    before = (low_left - 1, low_right - 1)
    for anchor in [*_anchors(left, right, (low_left, high_left, low_right, high_right)), (high_left, high_right)]:
        _trim(left, right, (before[0] + 1, anchor[0], before[1] + 1, anchor[1]), pairs)
        if anchor != (high_left, high_right):
            pairs.append(anchor)
        before = anchor
    return sorted(pairs)


def regions(pairs: Sequence[Pair], left_length: int, right_length: int) -> list[Region]:
    """Return what lies between the pairs, as ``(left from, left to, right from, right to)``, not both empty."""
    found: list[Region] = []
    left_at = right_at = 0
    for left_index, right_index in [*pairs, (left_length, right_length)]:
        if left_at < left_index or right_at < right_index:
            found.append((left_at, left_index, right_at, right_index))
        left_at, right_at = left_index + 1, right_index + 1
    return found


def common_prefix(left: str, right: str) -> int:
    """Return how many characters two texts have in common at the start."""
    low, high = 0, min(len(left), len(right))
    # Comparing slices is memory speed; a loop over characters is a hundred times slower.
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_suffix(left: str, right: str, at_most: int) -> int:
    """Return how many characters two texts have in common at the end, not more than ``at_most``."""
    low, high = 0, at_most
    while low < high:
        middle = (low + high + 1) // 2
        if left[len(left) - middle : len(left) - low] == right[len(right) - middle : len(right) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _trim(left: Sequence[Hashable], right: Sequence[Hashable], region: Region, pairs: list[Pair]) -> Region:
    """Pair what is equal at both ends of a region, and return what is left of it."""
    low_left, high_left, low_right, high_right = region
    while low_left < high_left and low_right < high_right and left[low_left] == right[low_right]:
        pairs.append((low_left, low_right))
        low_left, low_right = low_left + 1, low_right + 1
    while low_left < high_left and low_right < high_right and left[high_left - 1] == right[high_right - 1]:
        high_left, high_right = high_left - 1, high_right - 1
        pairs.append((high_left, high_right))
    return low_left, high_left, low_right, high_right


def _anchors(left: Sequence[Hashable], right: Sequence[Hashable], region: Region) -> list[Pair]:
    low_left, high_left, low_right, high_right = region
    left_count, right_count = Counter(left[low_left:high_left]), Counter(right[low_right:high_right])
    place = {right[index]: index for index in range(low_right, high_right) if right_count[right[index]] == 1}
    unique = [
        (index, place[left[index]])
        for index in range(low_left, high_left)
        if left_count[left[index]] == 1 and left[index] in place
    ]
    return _ascending(unique)


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
