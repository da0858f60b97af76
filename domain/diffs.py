"""The stored form of a change: a small patch from one JSON value to another, together with its inverse.

Operations are ``add``, ``remove``, ``replace`` of RFC 6902 and, for a long text of which a part changed,
``splice`` (see ``domain/operations.py``). The differ is ours because the library's (python-json-patch)
detects moves with stale indices (its issues 124, 138, 160, 179) and takes ``1``, ``1.0`` and true for equal;
both break replay. There are no moves here: they save little, and without them each operation can be inverted
by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from domain.alignment import STEPS_MAX, Region, equal_length, equal_tail, regions, runs
from domain.canonical import JSON_BYTES_MAX, canonical, canonical_of_valid, escaped, same
from domain.errors import StudioError
from domain.operations import Operation, apply_operations
from domain.words import words

SPLICE_CHARACTERS_MIN = 64
"""Shorter texts are replaced whole: a splice would be longer."""
SPLICE_OVERHEAD = 60
"""What a splice operation costs in bytes beside its two texts."""
SPLICED_CHARACTERS_MAX = 2_000_000_000
"""Each splice copies its text; together the splices of a text copy so much, which takes half a second."""
OPERATIONS_STORED_MAX = 2_000
"""A field whose change takes more operations than this is stored as one replacement."""
PATCH_BYTES_MAX = 2 * JSON_BYTES_MAX + 1024
"""A stored patch holds at most a whole document within ``[{"value": …}]``, or the two texts of a splice."""

Edit: TypeAlias = tuple[dict[str, Any], dict[str, Any]]
"""An operation and its inverse."""


def diff(before: Any, after: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a patch that makes ``after`` of ``before`` byte for byte, and its inverse, both verified.

    Equal values give two empty patches. Raises StudioError ``integrity`` if verification fails, which is a bug.
    """
    edits = _root_edits(before, after)
    patch = [operation for operation, _ in edits]
    inverse = [operation for _, operation in reversed(edits)]
    verified(before, after, patch, inverse)
    return patch, inverse


def verified(before: Any, after: Any, patch: Sequence[Operation], inverse: Sequence[Operation]) -> None:
    """Apply both patches and compare canonical bytes; raises StudioError ``integrity`` on any difference.

    Nothing is stored that did not pass here: a wrong patch would surface as a lost version much later.
    """
    if not same(apply_operations(before, patch), after):
        raise StudioError("The patch does not give the new state.", code="integrity")
    if not same(apply_operations(after, inverse), before):
        raise StudioError("The inverse patch does not give the old state.", code="integrity")


def patch_bytes(patch: Sequence[Operation]) -> bytes:
    """Return what ``diff`` has made of two documents as canonical JSON; raises TooLarge beyond the bound."""
    return canonical_of_valid(list(patch), bytes_max=PATCH_BYTES_MAX)


def _root_edits(before: Any, after: Any) -> list[Edit]:
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return [] if same(before, after) else [_replacement("", before, after)]
    edits: list[Edit] = []
    for name in sorted(before.keys() | after.keys()):
        field = list(_member_edits("", name, before, after))
        if len(field) > 1 and _is_longer(field, before[name], after[name]):
            field = [_replacement(f"/{escaped(name)}", before[name], after[name])]
        edits.extend(field)
    return edits


def _is_longer(edits: Sequence[Edit], before: Any, after: Any) -> bool:
    """Tell whether the edits take more room than replacing the whole value does."""
    if len(edits) > OPERATIONS_STORED_MAX:
        return True
    whole = len(canonical(before)) + len(canonical(after))
    return sum(len(patch_bytes(edit)) for edit in edits) > whole


def _edits(path: str, before: Any, after: Any) -> Iterator[Edit]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _member_edits(path, name, before, after)
    elif isinstance(before, list) and isinstance(after, list):
        if not same(before, after):
            yield from _array_edits(path, before, after)
    elif isinstance(before, str) and isinstance(after, str):
        yield from _text_edits(path, before, after)
    elif not same(before, after):
        yield _replacement(path, before, after)


def _member_edits(path: str, name: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[Edit]:
    place = f"{path}/{escaped(name)}"
    if name not in after:
        yield _removal(place, before[name])
    elif name not in before:
        yield _addition(place, after[name])
    else:
        yield from _edits(place, before[name], after[name])


def _array_edits(path: str, before: list[Any], after: list[Any]) -> Iterator[Edit]:
    old, new = [_key(item) for item in before], [_key(item) for item in after]
    # From the right, so that the indices further left stay what they were.
    for low, high, new_low, new_high in reversed(regions(runs(old, new), len(old), len(new))):
        paired = min(high - low, new_high - new_low)
        for index in range(high - 1, low + paired - 1, -1):
            yield _removal(f"{path}/{index}", before[index])
        for offset in range(new_low + paired, new_high):
            yield _addition(f"{path}/{low + offset - new_low}", after[offset])
        for offset in range(paired):
            yield from _edits(f"{path}/{low + offset}", before[low + offset], after[new_low + offset])


def _key(item: Any) -> bytes:
    return canonical(item)


def _text_edits(path: str, before: str, after: str) -> Iterator[Edit]:
    if before == after:
        return
    whole = len(before) + len(after)
    if whole < 2 * SPLICE_CHARACTERS_MIN:
        yield _replacement(path, before, after)
        return
    splices = [_splice(path, change, before, after) for change in reversed(_few(_changes(before, after), len(before)))]
    room = sum(2 * (len(edit["remove"]) + len(edit["insert"]) + SPLICE_OVERHEAD) for edit, _ in splices)
    if room < whole:
        # From the right, so that every offset is one of the text before.
        yield from splices
    else:
        yield _replacement(path, before, after)


def _changes(before: str, after: str) -> list[Region]:
    """Return where two texts differ: by line, and inside of what differs by character, or by word if that is much."""
    everything = (0, len(before), 0, len(after))
    core = _trimmed(everything, before, after)
    if min(core[1] - core[0], core[3] - core[2]) < SPLICE_OVERHEAD:
        return [core]
    changes = _joined(_finer(everything, before, after, _lines, STEPS_MAX))
    for cut in (words, list):
        steps = STEPS_MAX // max(1, len(changes))
        changes = _joined(finer for change in changes for finer in _finer(change, before, after, cut, steps))
    return changes


def _finer(change: Region, before: str, after: str, cut: Callable[[str], list[str]], steps: int) -> list[Region]:
    """Return where the pieces of a change differ; characters are looked at where words are too long to help."""
    low, high, new_low, new_high = change
    removed, inserted = before[low:high], after[new_low:new_high]
    if cut is not _lines:
        # Most edits are small: what is left between two equal ends need not be cut into words at all.
        core = _trimmed(change, removed, inserted)
        if min(core[1] - core[0], core[3] - core[2]) < SPLICE_OVERHEAD:
            return [core]
    if cut is list and max(map(len, words(removed))) < SPLICE_OVERHEAD:
        return [change]
    old, new = cut(removed), cut(inserted)
    old_at, new_at = _offsets(old, low), _offsets(new, new_low)
    return [
        (old_at[first], old_at[last], new_at[new_first], new_at[new_last])
        for first, last, new_first, new_last in regions(runs(old, new, steps=steps), len(old), len(new))
    ]


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def _trimmed(change: Region, removed: str, inserted: str) -> Region:
    low, high, new_low, new_high = change
    head = equal_length(removed, 0, inserted, 0)
    tail = equal_tail(removed, inserted, min(len(removed), len(inserted)) - head)
    return low + head, high - tail, new_low + head, new_high - tail


def _few(changes: list[Region], length: int) -> list[Region]:
    """Join changes that are near each other until they are few enough to be stored and applied."""
    most = min(OPERATIONS_STORED_MAX, SPLICED_CHARACTERS_MAX // max(1, length))
    distance = SPLICE_OVERHEAD
    while len(changes) > most:
        distance *= 2
        changes = _joined(changes, distance)
    return changes


def _joined(changes: Iterable[Region], distance: int = SPLICE_OVERHEAD) -> list[Region]:
    """Join changes between which so little is equal that one splice is shorter than two."""
    joined: list[Region] = []
    for change in changes:
        if joined and change[0] - joined[-1][1] <= distance:
            low, _, new_low, _ = joined[-1]
            joined[-1] = (low, change[1], new_low, change[3])
        else:
            joined.append(change)
    return joined


def _offsets(pieces: Sequence[str], start: int) -> list[int]:
    return list(accumulate(map(len, pieces), initial=start))


def _splice(path: str, change: Region, before: str, after: str) -> Edit:
    low, high, new_low, new_high = change
    removed, inserted = before[low:high], after[new_low:new_high]
    operation = {"op": "splice", "path": path, "at": low, "remove": removed, "insert": inserted}
    return operation, {**operation, "remove": inserted, "insert": removed}


def _replacement(path: str, before: Any, after: Any) -> Edit:
    return {"op": "replace", "path": path, "value": after}, {"op": "replace", "path": path, "value": before}


def _addition(path: str, value: Any) -> Edit:
    return {"op": "add", "path": path, "value": value}, {"op": "remove", "path": path}


def _removal(path: str, value: Any) -> Edit:
    return {"op": "remove", "path": path}, {"op": "add", "path": path, "value": value}
