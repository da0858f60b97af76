"""Edit-safe regeneration: a new machine document merged with what people changed (CASCADES, that section).

``base`` is the last pure machine document, ``ours`` the current one, ``theirs`` the new machine output. What
only one side changed is taken from that side; where both changed the same thing differently there is a
conflict, in which the human words stay and the machine's are recorded. Objects merge member by member, texts
paragraph by paragraph, arrays as one value.

Laws (tested): ``merge(b, b, t) = t``, ``merge(b, o, b) = o``, ``merge(b, x, x) = x``; no paragraph that a
person wrote is lost; a merge without conflicts does not depend on which side is which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, TypeAlias

from domain.canonical import escaped, same
from domain.documents import Document
from domain.errors import Invalid
from domain.paragraphs import DEFAULT_SEPARATOR, PARAGRAPHS_MAX, Prose, align, split


class Absent(Enum):
    """Marks a member or paragraph that one side does not have, since null is a value."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


class OnConflict(StrEnum):
    """What a derivation does where a person and the machine changed the same thing."""

    KEEP_HUMAN = "keep_human"
    TAKE_MACHINE = "take_machine"
    WAIT = "wait"
    """Change nothing at all until a person decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """A place that both sides changed differently. ``pointer`` names the field (in a text: the whole text).

    ``paragraph`` is the index, in the merged text, of the human paragraph or, if there is none, of the place where
    the machine's would stand; None if the conflict is about a whole value. A side may be ``ABSENT``.
    """

    pointer: str
    base: Any
    ours: Any
    theirs: Any
    paragraph: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the conflict as it is stored in a delta; sides that are absent are left out."""
        sides = {"base": self.base, "ours": self.ours, "theirs": self.theirs}
        place = {} if self.paragraph is None else {"paragraph": self.paragraph}
        present = {name: side for name, side in sides.items() if side is not ABSENT}
        return {"pointer": self.pointer, **place, **present}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """The merged document, what could not be merged, and whether the document differs from ``ours``."""

    document: Document
    conflicts: tuple[Conflict, ...]
    changed: bool


def merge(
    base: Document, ours: Document, theirs: Document, *, on_conflict: OnConflict | str = OnConflict.KEEP_HUMAN
) -> Merge:
    """Merge new machine output into a document that a person may have edited.

    Raises Invalid ``immutable_field`` if the content types differ, what ``Document.parse`` raises if the merged
    document is beyond its bounds, ValueError for an unknown policy.
    """
    policy = OnConflict(on_conflict)
    if not base.content_type == ours.content_type == theirs.content_type:
        raise Invalid("A provider may not change the content_type of its output.", code="immutable_field")
    merging = _Merging(take_theirs=policy is OnConflict.TAKE_MACHINE)
    root = merging.value("", base.to_json(), ours.to_json(), theirs.to_json())
    conflicts = tuple(merging.conflicts)
    if conflicts and policy is OnConflict.WAIT:
        return Merge(document=ours, conflicts=conflicts, changed=False)
    document = Document.parse(root)
    return Merge(document=document, conflicts=conflicts, changed=document != ours)


def unmerged(
    base: Document, ours: Document, theirs: Document, *, on_conflict: OnConflict | str = OnConflict.KEEP_HUMAN
) -> Merge:
    """Return the two documents as one conflict about the whole body, for a merge that breaks the output schema."""
    take = OnConflict(on_conflict) is OnConflict.TAKE_MACHINE
    pointer = "/content" if ours.is_text else "/data"
    conflict = Conflict(pointer=pointer, base=base.body, ours=ours.body, theirs=theirs.body)
    document = theirs if take else ours
    return Merge(document=document, conflicts=(conflict,), changed=document != ours)


class _Merging:
    """One merge under way: collects conflicts while values are merged from the root down."""

    def __init__(self, *, take_theirs: bool) -> None:
        self.conflicts: list[Conflict] = []
        self._take_theirs = take_theirs

    def value(self, pointer: str, base: Any, ours: Any, theirs: Any) -> Any:
        """Merge one value; ABSENT stands for a member that is not there, given and returned."""
        if same(ours, theirs) or same(theirs, base):
            return ours
        if same(ours, base):
            return theirs
        if isinstance(ours, dict) and isinstance(theirs, dict):
            return self._members(pointer, base if isinstance(base, dict) else {}, ours, theirs)
        if isinstance(base, str) and isinstance(ours, str) and isinstance(theirs, str):
            return self._text(pointer, base, ours, theirs)
        return self._conflict(pointer, base, ours, theirs)

    def _members(self, pointer: str, base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> Any:
        merged: dict[str, Any] = {}
        for name in sorted(base.keys() | ours.keys() | theirs.keys()):
            sides = [side.get(name, ABSENT) for side in (base, ours, theirs)]
            value = self.value(f"{pointer}/{escaped(name)}", *sides)
            if value is not ABSENT:
                merged[name] = value
        return merged

    def _conflict(self, pointer: str, base: Any, ours: Any, theirs: Any, paragraph: int | None = None) -> Any:
        self.conflicts.append(Conflict(pointer=pointer, base=base, ours=ours, theirs=theirs, paragraph=paragraph))
        return theirs if self._take_theirs else ours

    def _text(self, pointer: str, base: str, ours: str, theirs: str) -> str:
        """Merge a text paragraph by paragraph; a text of one line (a title, a name) is one value."""
        proses = [split(text) for text in (base, ours, theirs)]
        long = max(len(prose.paragraphs) for prose in proses) > PARAGRAPHS_MAX
        if long or not any("\n" in text for text in (base, ours, theirs)):
            return str(self._conflict(pointer, base, ours, theirs))
        return self._prose(pointer, *proses).join()

    def _prose(self, pointer: str, base: Prose, ours: Prose, theirs: Prose) -> Prose:
        units: list[Unit] = []
        for slot in _slots(base, ours, theirs):
            units.extend(self._slot(pointer, slot, len(units)))
        return Prose(
            lead=_picked(base.lead, ours.lead, theirs.lead),
            paragraphs=tuple(text for text, _ in units),
            separators=tuple(separator or DEFAULT_SEPARATOR for _, separator in units[:-1]),
            tail=_picked(base.tail, ours.tail, theirs.tail),
        )

    def _slot(self, pointer: str, slot: Slot, place: int) -> Sequence[Unit]:
        base, ours, theirs = _texts(slot.base), _texts(slot.ours), _texts(slot.theirs)
        if ours == theirs:
            return _spaced(slot.ours, slot)
        if ours == base:
            return _spaced(slot.theirs, slot)
        if theirs == base:
            return _spaced(slot.ours, slot)
        if not base and _contains(ours, theirs):
            return slot.ours
        if not base and _contains(theirs, ours):
            return slot.theirs
        self._conflict(pointer, _joined(base), _joined(ours), _joined(theirs), paragraph=place)
        return _spaced(slot.theirs if self._take_theirs else slot.ours, slot)


Unit: TypeAlias = tuple[str, str | None]
"""A paragraph and what follows it; None after the last one of a text, which says nothing about separators."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One place of a text on all three sides: a paragraph of the base, or what was inserted between two."""

    base: Sequence[Unit]
    ours: Sequence[Unit]
    theirs: Sequence[Unit]


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


def _joined(texts: Sequence[str]) -> str | Absent:
    return DEFAULT_SEPARATOR.join(texts) if texts else ABSENT


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
    return _picked(base, ours, theirs)


def _picked(base: str | None, ours: str, theirs: str) -> str:
    """Merge white space, which is never worth a conflict: if both changed it, the longer one, whoever's it is."""
    if theirs == base:
        return ours
    return theirs if ours == base else max(ours, theirs, key=lambda text: (len(text), text))


def _contains(longer: Sequence[str], shorter: Sequence[str]) -> bool:
    rest = iter(longer)
    return all(text in rest for text in shorter)
