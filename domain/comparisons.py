"""What differs between two documents, as data: spans of their texts, and values by JSON Pointer.

Texts are compared paragraph by paragraph (paired by likeness, as merges pair them), and where two paragraphs differ by
sentence or word if asked. The spans of a text cover both versions from beginning to end, in order; places are code
points. A paragraph that moved is deleted in one place and inserted in another.

The answer is bounded whatever the documents are: long stretches show their beginning and end, and beyond a number of
spans, values and characters the rest is one coarse span without text. Its places still hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from domain.alignment import STEPS_MAX, Region, regions, runs
from domain.canonical import canonical, escaped, same
from domain.documents import Document
from domain.paragraphs import Prose, align, split
from domain.words import Unit, is_prose, is_word, tokens, word_runs

EQUAL_CHARACTERS_MAX: Final = 200
"""Of what is equal and longer than this, half of it is shown from either end."""
CHANGED_CHARACTERS_MAX: Final = 20_000
"""The same for what was inserted or deleted."""
CHARACTERS_MAX: Final = 2_000_000
"""Characters shown in a whole comparison; beyond, spans have places only."""
CHANGES_MAX: Final = 2_000
"""Changes listed per text, and values listed per comparison; beyond, the rest is one."""
VALUE_BYTES_MAX: Final = 4_096
"""A value whose canonical form is longer is described by its size."""
TEXT_CHARACTERS_MIN: Final = 60
"""Longer strings inside of data are compared as texts, shorter ones if they are made of words."""

Op = Literal["equal", "insert", "delete", "replace"]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of one text. ``text`` is all of it; if it is long its beginning, and ``tail`` its end."""

    start: int
    end: int
    text: str
    tail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the stretch; ``tail`` only if something between is left out."""
        shown = {"start": self.start, "end": self.end, "text": self.text}
        return {**shown, "tail": self.tail} if self.tail else shown


@dataclass(frozen=True, slots=True)
class TextSpan:
    """What became of one stretch of a text; an insertion has an empty ``before``, a deletion an empty ``after``."""

    op: Op
    before: Stretch
    after: Stretch

    def to_json(self) -> dict[str, Any]:
        """Return the span as the API shows it."""
        return {"op": self.op, "before": self.before.to_json(), "after": self.after.to_json()}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """A field that differs: a text with its spans, or a value that was inserted, deleted or replaced.

    ``pointer`` says where it is in the later document, or was in the earlier one if it was deleted; ``was`` where it
    was before if that is elsewhere, as in an array that grew at its beginning.
    """

    pointer: str
    op: Literal["text", "insert", "delete", "replace"]
    was: str = ""
    spans: tuple[TextSpan, ...] = ()
    before: Any = None
    after: Any = None

    def to_json(self) -> dict[str, Any]:
        """Return the change as the API shows it; sides that there are not are left out."""
        shown: dict[str, Any] = {"pointer": self.pointer, "op": self.op}
        if self.was and self.was != self.pointer:
            shown["was"] = self.was
        if self.op == "text":
            return {**shown, "spans": [span.to_json() for span in self.spans]}
        if self.op != "insert":
            shown["before"] = self.before
        if self.op != "delete":
            shown["after"] = self.after
        return shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All fields that differ. ``inserted`` and ``deleted`` count units of texts; a replaced unit counts as both.

    ``truncated`` says that a bound was met: something is described coarser than it could be.
    """

    unit: Unit
    fields: tuple[FieldChange, ...]
    inserted: int
    deleted: int
    truncated: bool

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as the API shows it."""
        summary = {"fields": len(self.fields), "inserted": self.inserted, "deleted": self.deleted}
        return {
            "unit": self.unit.value,
            "equal": not self.fields,
            "summary": summary,
            "truncated": self.truncated,
            "fields": [change.to_json() for change in self.fields],
        }


def compare(before: Document, after: Document, unit: Unit | str = Unit.WORD) -> Comparison:
    """Compare two documents, of one blob or of two; raises ValueError for an unknown unit."""
    comparing = _Comparing(Unit(unit))
    comparing.members("", "", before.to_json(), after.to_json())
    return Comparison(
        unit=comparing.unit,
        fields=tuple(comparing.fields),
        inserted=comparing.inserted,
        deleted=comparing.deleted,
        truncated=comparing.truncated,
    )


class _Comparing:
    """One comparison under way: collects fields and keeps its bounds."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.fields: list[FieldChange] = []
        self.inserted = self.deleted = 0
        self.truncated = False
        self._room = CHARACTERS_MAX

    def members(self, was: str, pointer: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        """Compare two objects member by member."""
        for name in sorted(before.keys() | after.keys()):
            old, new = f"{was}/{escaped(name)}", f"{pointer}/{escaped(name)}"
            if name not in after:
                self._add("delete", old, before=before[name])
            elif name not in before:
                self._add("insert", new, after=after[name])
            else:
                self._value(old, new, before[name], after[name])

    def _value(self, was: str, pointer: str, before: Any, after: Any) -> None:
        if same(before, after):
            return
        if isinstance(before, dict) and isinstance(after, dict) and pointer != "/binary":
            self.members(was, pointer, before, after)
        elif isinstance(before, list) and isinstance(after, list):
            self._items(was, pointer, before, after)
        elif isinstance(before, str) and isinstance(after, str) and _is_text(pointer, before, after):
            self._text(was, pointer, before, after)
        else:
            self._add("replace", pointer, was=was, before=before, after=after)

    def _items(self, was: str, pointer: str, before: list[Any], after: list[Any]) -> None:
        old, new = [canonical(item) for item in before], [canonical(item) for item in after]
        for low, high, new_low, new_high in regions(runs(old, new), len(old), len(new)):
            paired = min(high - low, new_high - new_low)
            for step in range(paired):
                places = f"{was}/{low + step}", f"{pointer}/{new_low + step}"
                self._value(*places, before[low + step], after[new_low + step])
            for index in range(low + paired, high):
                self._add("delete", f"{was}/{index}", before=before[index])
            for index in range(new_low + paired, new_high):
                self._add("insert", f"{pointer}/{index}", after=after[index])

    def _add(self, op: Literal["insert", "delete", "replace"], pointer: str, *, was: str = "", **sides: Any) -> None:
        if len(self.fields) >= CHANGES_MAX:
            self.truncated = True
            return
        shown = {name: self._shown(value) for name, value in sides.items()}
        self.fields.append(FieldChange(pointer=pointer, op=op, was=was, **shown))

    def _shown(self, value: Any) -> Any:
        size = len(canonical(value))
        if size <= min(VALUE_BYTES_MAX, self._room):
            self._room -= size
            return value
        self.truncated = True
        return {"abbreviated": True, "bytes": size}

    def _text(self, was: str, pointer: str, before: str, after: str) -> None:
        if len(self.fields) >= CHANGES_MAX:
            self.truncated = True
            return
        changes = list(_changes(before, after, self.unit))
        if len(changes) > CHANGES_MAX:
            self.truncated = True
            first, last = changes[CHANGES_MAX - 1], changes[-1]
            changes[CHANGES_MAX - 1 :] = [(first[0], last[1], first[2], last[3])]
        for low, high, new_low, new_high in changes:
            self.deleted += _count(before[low:high], self.unit)
            self.inserted += _count(after[new_low:new_high], self.unit)
        spans = tuple(self._spans(before, after, changes))
        self.fields.append(FieldChange(pointer=pointer, op="text", was=was, spans=spans))

    def _spans(self, before: str, after: str, changes: Sequence[Region]) -> Iterator[TextSpan]:
        at = new_at = 0
        for low, high, new_low, new_high in [*changes, (len(before), len(before), len(after), len(after))]:
            if at < low:
                sides = self._stretch(before, at, low, EQUAL_CHARACTERS_MAX)
                yield TextSpan("equal", sides, self._stretch(after, new_at, new_low, EQUAL_CHARACTERS_MAX))
            if low < high or new_low < new_high:
                op: Op = "insert" if low == high else "delete" if new_low == new_high else "replace"
                old = self._stretch(before, low, high, CHANGED_CHARACTERS_MAX)
                yield TextSpan(op, old, self._stretch(after, new_low, new_high, CHANGED_CHARACTERS_MAX))
            at, new_at = high, new_high

    def _stretch(self, text: str, start: int, end: int, most: int) -> Stretch:
        if most != EQUAL_CHARACTERS_MAX and end - start > most:
            self.truncated = True
        if min(end - start, most) > self._room:
            self.truncated = True
            return Stretch(start, end, "")
        self._room -= min(end - start, most)
        if end - start <= most:
            return Stretch(start, end, text[start:end])
        return Stretch(start, end, text[start : start + most // 2], text[end - most // 2 : end])


def _is_text(pointer: str, before: str, after: str) -> bool:
    if pointer in ("/content", "/title") or max(len(before), len(after)) > TEXT_CHARACTERS_MIN:
        return True
    return is_prose(before) and is_prose(after)


def _count(text: str, unit: Unit) -> int:
    if unit is Unit.WORD:
        return sum(map(is_word, tokens(text, unit)))
    return sum(not token.isspace() for token in tokens(text, unit))


def _changes(before: str, after: str, unit: Unit) -> list[Region]:
    """Return where two texts differ, in order."""
    old, new = split(before), split(after)
    between = list(_paired(old, new))
    steps = STEPS_MAX // max(1, len(between))
    changes: list[Region] = []
    for (low, high, new_low, new_high), finer in between:
        removed, inserted = before[low:high], after[new_low:new_high]
        if removed == inserted:
            continue
        cut = unit if finer else Unit.PARAGRAPH
        found = _token_changes(removed, inserted, cut, steps)
        changes.extend((low + start, low + end, new_low + first, new_low + last) for start, end, first, last in found)
    return _joined(changes, before)


def _paired(old: Prose, new: Prose) -> Iterator[tuple[Region, bool]]:
    """Yield the parts of two texts that belong together, and whether they are paragraphs that resemble each other."""
    starts, new_starts = old.starts(), new.starts()
    at = new_at = 0
    for index, counterpart in enumerate(align(old.paragraphs, new.paragraphs)):
        if counterpart is None:
            continue
        start, new_start = starts[index], new_starts[counterpart]
        yield (at, start, new_at, new_start), False
        at, new_at = start + len(old.paragraphs[index]), new_start + len(new.paragraphs[counterpart])
        yield (start, at, new_start, new_at), True
    yield (at, len(old.join()), new_at, len(new.join())), False


def _token_changes(removed: str, inserted: str, unit: Unit, steps: int) -> list[Region]:
    old, new = tokens(removed, unit), tokens(inserted, unit)
    found = word_runs(old, new, steps=steps) if unit is Unit.WORD else runs(old, new, steps=steps)
    old_at, new_at = _offsets(old), _offsets(new)
    return [
        (old_at[low], old_at[high], new_at[new_low], new_at[new_high])
        for low, high, new_low, new_high in regions(found, len(old), len(new))
    ]


def _offsets(pieces: Sequence[str]) -> list[int]:
    offsets = [0]
    for piece in pieces:
        offsets.append(offsets[-1] + len(piece))
    return offsets


def _joined(changes: Sequence[Region], before: str) -> list[Region]:
    """Join changes that touch, and replacements between which only blanks of one line stand: they read as one."""
    joined: list[Region] = []
    for change in changes:
        between = before[joined[-1][1] : change[0]] if joined else "-"
        both = joined and _replaces(joined[-1]) and _replaces(change)
        if not between or (both and between.isspace() and "\n" not in between):
            low, _, new_low, _ = joined[-1]
            joined[-1] = (low, change[1], new_low, change[3])
        else:
            joined.append(change)
    return joined


def _replaces(change: Region) -> bool:
    return change[0] < change[1] and change[2] < change[3]
