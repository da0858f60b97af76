"""Three-way merge of a text by paragraphs, for machine text that was reworded: paragraphs are paired by likeness."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from domain.paragraphs import DEFAULT_SEPARATOR, Prose, align


@dataclass(frozen=True, slots=True, kw_only=True)
class Clash:
    """A place of a text that both sides changed differently; None for a side that has nothing there.

    ``start`` and ``end`` are code points of the merged text, which has one of the sides there; ``paragraph`` is the
    index of the paragraph at ``start``.
    """

    base: str | None
    ours: str | None
    theirs: str | None
    start: int
    end: int
    paragraph: int


Unit: TypeAlias = tuple[str, str | None]
"""A paragraph and what follows it; None after the last one of a text, which says nothing about separators."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a text on all three sides: a paragraph of the base, or what was inserted between two."""

    base: Sequence[Unit]
    ours: Sequence[Unit]
    theirs: Sequence[Unit]


def merge_paragraphs(base: Prose, ours: Prose, theirs: Prose, *, take_theirs: bool) -> tuple[str, list[Clash]]:
    """Return the merged text and its conflicts, in which ours stays unless ``take_theirs``."""
    units: list[Unit] = []
    clashing: list[tuple[Slot, int, int]] = []
    for slot in _slots(base, ours, theirs):
        chosen, clear = _chosen(slot, take_theirs=take_theirs)
        if not clear:
            clashing.append((slot, len(units), len(units) + len(chosen)))
        units.extend(chosen)
    prose = Prose(
        lead=picked(base.lead, ours.lead, theirs.lead),
        paragraphs=tuple(text for text, _ in units),
        separators=tuple(separator or DEFAULT_SEPARATOR for _, separator in units[:-1]),
        tail=picked(base.tail, ours.tail, theirs.tail),
    )
    starts = prose.starts()
    return prose.join(), [_clash(prose, starts, *place) for place in clashing]


def picked(base: str | None, ours: str, theirs: str) -> str:
    """Merge white space, which is never worth a conflict: if both changed it, the longer one, whoever's it is."""
    if theirs == base:
        return ours
    return theirs if ours == base else max(ours, theirs, key=lambda text: (len(text), text))


def _clash(prose: Prose, starts: Sequence[int], slot: Slot, first: int, last: int) -> Clash:
    start = starts[first]
    end = start if first == last else starts[last - 1] + len(prose.paragraphs[last - 1])
    sides = (_joined(_texts(side)) for side in (slot.base, slot.ours, slot.theirs))
    return Clash(**dict(zip(("base", "ours", "theirs"), sides, strict=True)), start=start, end=end, paragraph=first)


def _chosen(slot: Slot, *, take_theirs: bool) -> tuple[Sequence[Unit], bool]:
    """Return what a slot becomes, and whether that is clear."""
    base, ours, theirs = _texts(slot.base), _texts(slot.ours), _texts(slot.theirs)
    if theirs in (ours, base):
        return _spaced(slot.ours, slot), True
    if ours == base:
        return _spaced(slot.theirs, slot), True
    if not base and _contains(ours, theirs):
        return slot.ours, True
    if not base and _contains(theirs, ours):
        return slot.theirs, True
    return _spaced(slot.theirs if take_theirs else slot.ours, slot), False


def _slots(base: Prose, ours: Prose, theirs: Prose) -> Iterator[Slot]:
    units = _units(base)
    ours_inserted, ours_kept = _placed(base, ours)
    theirs_inserted, theirs_kept = _placed(base, theirs)
    yield Slot((), ours_inserted[0], theirs_inserted[0])
    for index, unit in enumerate(units):
        yield Slot((unit,), ours_kept[index], theirs_kept[index])
        yield Slot((), ours_inserted[index + 1], theirs_inserted[index + 1])


def _placed(base: Prose, side: Prose) -> tuple[list[Sequence[Unit]], list[Sequence[Unit]]]:
    """Return what a side inserted before each paragraph of the base (and at the end), and what it made of each.

    Beside paragraphs that the side deleted an insertion stands right after the last one that it kept.
    """
    units = _units(side)
    inserted: list[Sequence[Unit]] = [()] * (len(base.paragraphs) + 1)
    kept: list[Sequence[Unit]] = [()] * len(base.paragraphs)
    gap = at = 0
    for index, counterpart in enumerate(align(base.paragraphs, side.paragraphs)):
        if counterpart is not None:
            inserted[gap] = units[at:counterpart]
            kept[index] = units[counterpart : counterpart + 1]
            gap, at = index + 1, counterpart + 1
    inserted[gap] = units[at:]
    return inserted, kept


def _units(prose: Prose) -> list[Unit]:
    return [(text, prose.separator(index)) for index, text in enumerate(prose.paragraphs)]


def _texts(units: Sequence[Unit]) -> list[str]:
    return [text for text, _ in units]


def _joined(texts: Sequence[str]) -> str | None:
    return DEFAULT_SEPARATOR.join(texts) if texts else None


def _spaced(chosen: Sequence[Unit], slot: Slot) -> list[Unit]:
    """Return the chosen paragraphs with separators merged from all sides that have the same paragraph."""
    sides = (slot.base, slot.ours, slot.theirs)
    return [
        (text, _separator(*(side[index][1] if len(side) == len(chosen) else None for side in sides)))
        for index, (text, _) in enumerate(chosen)
    ]


def _separator(base: str | None, ours: str | None, theirs: str | None) -> str | None:
    if ours is None or theirs is None:
        return theirs if ours is None else ours
    return picked(base, ours, theirs)


def _contains(longer: Sequence[str], shorter: Sequence[str]) -> bool:
    rest = iter(longer)
    return all(text in rest for text in shorter)
