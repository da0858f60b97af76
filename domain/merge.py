"""Three-way merge of documents: of a person's edits with new machine output, and of two people's edits.

``base`` is what both sides started from, ``ours`` the current document, ``theirs`` the other one: the new machine
output (base: the machine head; CASCADES, Edit-safe regeneration) or an edit of an older version. What only one side
changed is taken from that side; where both changed the same thing differently there is a conflict, in which ours
stays and theirs is recorded. Objects merge member by member; arrays item by item where the schema names the member
that tells items apart (``x-merge-key``), else as one value; texts by paragraph, and with ``words`` by word.

Laws (tested): ``merge(b, b, t) = t``, ``merge(b, o, b) = o``, ``merge(b, x, x) = x``; no word that a side wrote is
lost, it is in the document or in a conflict; a merge without conflicts does not depend on which side is which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

from domain.canonical import escaped, load, same
from domain.documents import TAGS_MAX, TITLE_CHARACTERS_MAX, Document
from domain.errors import Invalid
from domain.merge_items import Key, arranged, by_itself, by_member, common_order, keyed
from domain.merge_paragraphs import Clash, merge_paragraphs
from domain.merge_words import merge_words
from domain.paragraphs import PARAGRAPHS_MAX, split
from domain.schema_places import graph_of, in_place, indexed, mentions, named
from domain.words import is_prose

MERGE_KEY: Final = "x-merge-key"
"""The keyword of an array's schema that names the member by which its items are told apart."""
BINARY: Final = "/binary"
"""The reference to bytes, hash and size: never half of each side."""

Three = tuple[Any, Any, Any]
"""A value in the base, in ours and in theirs."""
Sides = tuple[dict[Key, Any], dict[Key, Any], dict[Key, Any]]


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

    In a text ``start`` and ``end`` are the code points of the merged text between which the side stands that was
    kept, and ``paragraph`` is the index of the paragraph there; all three are None if the conflict is about a whole
    value. ``item`` is the key of the array's item that it is about; ``about`` is ``order`` where the sides arranged the
    items of the array differently (the sides are lists of keys then). A side may be ``ABSENT``.
    """

    pointer: str
    base: Any
    ours: Any
    theirs: Any
    paragraph: int | None = None
    start: int | None = None
    end: int | None = None
    item: Any = None
    about: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the conflict as it is stored in a delta; what does not apply and absent sides are left out."""
        names = ("about", "item", "paragraph", "start", "end")
        place = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        sides = {"base": self.base, "ours": self.ours, "theirs": self.theirs}
        present = {name: side for name, side in sides.items() if side is not ABSENT}
        return {"pointer": self.pointer, **place, **present}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merge:
    """The merged document, what could not be merged, and whether the document differs from ``ours``."""

    document: Document
    conflicts: tuple[Conflict, ...]
    changed: bool


def merge(
    base: Document,
    ours: Document,
    theirs: Document,
    *,
    on_conflict: OnConflict | str = OnConflict.KEEP_HUMAN,
    schema: Mapping[str, Any] | bool | None = None,
    words: bool = False,
) -> Merge:
    """Merge two documents that come from one base.

    ``schema`` is the definition that says by which keys arrays merge. ``words`` merges paragraphs that both sides
    changed word by word, as two people's edits want it; a machine rewords, and words of both would make sentences that
    nobody wrote. Under ``wait`` the spans of conflicts are those of the document that ``keep_human`` would make.

    Raises Invalid ``immutable_field`` if the content types differ, what ``Document.parse`` raises if the merged
    document is beyond its bounds, ValueError for an unknown policy.
    """
    policy = OnConflict(on_conflict)
    if not base.content_type == ours.content_type == theirs.content_type:
        raise Invalid("content_type does not change; create another blob.", code="immutable_field")
    merging = _Merging(take_theirs=policy is OnConflict.TAKE_MACHINE, words=words, keys=_Keys(ours, schema=schema))
    root = merging.value("", (base.to_json(), ours.to_json(), theirs.to_json()))
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
    pointer = next(f"/{name}" for name in ("content", "data", "binary") if name in ours.to_json())
    conflict = Conflict(pointer=pointer, base=base.body, ours=ours.body, theirs=theirs.body)
    document = theirs if take else ours
    return Merge(document=document, conflicts=(conflict,), changed=document != ours)


class _Keys:
    """Which arrays of a document have keys, by the schema of what the document shows (``documents.visible``)."""

    def __init__(self, document: Document, *, schema: Mapping[str, Any] | bool | None) -> None:
        self._graph = graph_of(schema) if mentions(schema, MERGE_KEY) else None
        self._inside = "" if document.is_text else "/data"

    def root(self, pointer: str) -> list[str]:
        """Return the places of the schema for the field at ``pointer``, none if the schema does not see it."""
        if self._graph is None:
            return []
        if self._inside:
            return [""] if pointer == self._inside else []
        return list(named(list(in_place(self._graph, [""])), pointer[1:]))

    def below(self, places: list[str], part: str | int) -> list[str]:
        """Return the places for a member or an item of the value at ``places``."""
        if self._graph is None or not places:
            return []
        schemas = list(in_place(self._graph, places))
        return list(named(schemas, part) if isinstance(part, str) else indexed(schemas, part))

    def of(self, places: list[str]) -> Callable[[Any], Key | None] | None:
        """Return what reads the key of an item of the array at ``places``, None if the array is one value."""
        if self._graph is None:
            return None
        keys = (schema.get(MERGE_KEY) for _, schema in in_place(self._graph, places))
        return next((by_member(key) for key in keys if isinstance(key, str)), None)


class _Merging:
    """One merge under way: collects conflicts while values are merged from the root down."""

    def __init__(self, *, take_theirs: bool, words: bool, keys: _Keys) -> None:
        self.conflicts: list[Conflict] = []
        self._take_theirs, self._words, self._keys = take_theirs, words, keys

    def value(self, pointer: str, sides: Three, places: list[str] | None = None) -> Any:
        """Merge one value; ABSENT stands for a member that is not there, given and returned.

        ``places`` are those of the schema that speak of it, None at the root.
        """
        base, ours, theirs = sides
        if same(ours, theirs) or same(theirs, base):
            return ours
        return theirs if same(ours, base) else self._both(pointer, sides, places)

    def _both(self, pointer: str, sides: Three, places: list[str] | None) -> Any:
        """Merge a value that both sides changed."""
        base, ours, theirs = sides
        if isinstance(ours, dict) and isinstance(theirs, dict) and pointer != BINARY:
            return self._members(pointer, (base if isinstance(base, dict) else {}, ours, theirs), places)
        if all(isinstance(side, str) for side in sides):
            return self._text(pointer, base, ours, theirs)
        key = by_itself if pointer == "/tags" else self._keys.of(places or [])
        items = key and _keyed_sides(key, [] if base is ABSENT else base, ours, theirs)
        return self._items(pointer, items, sides, places or []) if items else self._conflict(pointer, *sides)

    def _members(self, pointer: str, sides: Three, places: list[str] | None) -> Any:
        merged: dict[str, Any] = {}
        for name in sorted(set().union(*sides)):
            place = f"{pointer}/{escaped(name)}"
            inner = self._keys.root(place) if places is None else self._keys.below(places, name)
            base, ours, theirs = (side.get(name, ABSENT) for side in sides)
            value = self.value(place, (base, ours, theirs), inner)
            if value is not ABSENT:
                merged[name] = value
        return merged

    def _items(self, pointer: str, sides: Sides, whole: Three, places: list[str]) -> Any:
        """Merge an array item by item; conflicts inside an item name its place in the merged array."""
        base, ours, theirs = sides
        known = len(self.conflicts)
        everywhere = ours.keys() & theirs.keys()
        alone = {
            name: self._item(pointer, name, base.get(name, ABSENT), ours.get(name, ABSENT), theirs.get(name, ABSENT))
            for name in {**base, **ours, **theirs}
            if name not in everywhere
        }
        remaining = {*everywhere, *(name for name, item in alone.items() if item is not ABSENT)}
        own, its = common_order(base, ours, theirs, remaining)
        order = arranged(its if self._take_theirs else own, ours, theirs, remaining)
        if pointer == "/tags" and len(order) > TAGS_MAX:
            del self.conflicts[known:]
            return self._conflict(pointer, *whole)
        if own != its:
            orders = ([name for name in base if name in set(own)], own, its)
            self._conflict(pointer, *([load(name) for name in keys] for keys in orders), about="order")
        return [
            alone[name]
            if name in alone
            else self.value(
                f"{pointer}/{index}",
                (base.get(name, ABSENT), ours[name], theirs[name]),
                self._keys.below(places, index),
            )
            for index, name in enumerate(order)
        ]

    def _item(self, pointer: str, name: Key, base: Any, ours: Any, theirs: Any) -> Any:
        """Merge an item that one side does not have: removed there, or added here."""
        if same(ours, theirs) or same(theirs, base):
            return ours
        return theirs if same(ours, base) else self._conflict(pointer, base, ours, theirs, item=load(name))

    def _conflict(self, pointer: str, base: Any, ours: Any, theirs: Any, **more: Any) -> Any:
        self.conflicts.append(Conflict(pointer=pointer, base=base, ours=ours, theirs=theirs, **more))
        return theirs if self._take_theirs else ours

    def _text(self, pointer: str, base: str, ours: str, theirs: str) -> str:
        """Merge a text; a name, a date or (without ``words``) a text of one line is one value."""
        texts = (base, ours, theirs)
        if self._words and (pointer == "/content" or all(map(is_prose, texts))):
            merged, clashes = merge_words(*texts, take_theirs=self._take_theirs)
        elif any("\n" in text for text in texts):
            proses = [split(text) for text in texts]
            if max(len(prose.paragraphs) for prose in proses) > PARAGRAPHS_MAX:
                return str(self._conflict(pointer, *texts))
            merged, clashes = merge_paragraphs(proses[0], proses[1], proses[2], take_theirs=self._take_theirs)
        else:
            return str(self._conflict(pointer, *texts))
        if pointer == "/title" and len(merged) > TITLE_CHARACTERS_MAX:
            return str(self._conflict(pointer, *texts))
        self.conflicts += [conflict_of(pointer, clash) for clash in clashes]
        return merged


def conflict_of(pointer: str, clash: Clash) -> Conflict:
    """Return the conflict of the field at ``pointer`` that is about one place of its text."""
    base, ours, theirs = (ABSENT if side is None else side for side in (clash.base, clash.ours, clash.theirs))
    return Conflict(
        pointer=pointer,
        base=base,
        ours=ours,
        theirs=theirs,
        start=clash.start,
        end=clash.end,
        paragraph=clash.paragraph,
    )


def _keyed_sides(key: Callable[[Any], Key | None], base: Any, ours: Any, theirs: Any) -> Sides | None:
    """Return the items of three arrays by key; None, and the array is one value, if an item has no key of its own."""
    first, second, third = keyed(base, key), keyed(ours, key), keyed(theirs, key)
    return None if first is None or second is None or third is None else (first, second, third)
