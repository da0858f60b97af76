"""What becomes of a change whose author knew an older version: refused, merged, or put in place of what came since.

``base`` is the document that the author knew, ``current`` the blob as it is, ``theirs`` what the author made of the
base.

- ``reject``: nothing is written; the author hears what has changed since.
- ``merge``: both count. JSON merges by field, text by paragraphs and words, and paragraphs that both inserted at one
  place stand one after the other. Where both changed the same thing, what is there stays, and the author's side is a
  *proposed* delta.
- ``last_write_wins``: what the author changed, field by field (a text is one), is as the author wrote it. What that
  overwrote stays in the history as a *rejected* delta.

Nothing that anybody wrote is lost in the last two: it is in the document or in one of those deltas.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

from domain.canonical import escaped, same
from domain.deltas import DeltaDraft, DeltaOperation, DeltaStatus, State, rewrite
from domain.diff3 import ChunkKind, diff3
from domain.documents import Document
from domain.errors import Invalid
from domain.merge import ABSENT, BINARY, Conflict, Merge, OnConflict, conflict_of, merge, unmerged
from domain.merge_words import overwritten_words
from domain.paragraphs import DEFAULT_SEPARATOR, PARAGRAPHS_MAX, Prose, split
from domain.words import is_prose

ON_CONFLICT = "x-on-conflict"
"""The keyword at the root of a schema that names the policy of its blobs."""


class ConflictPolicy(StrEnum):
    """What is done with a change of a version that is not the newest any more."""

    REJECT = "reject"
    MERGE = "merge"
    LAST_WRITE_WINS = "last_write_wins"


Check = Callable[[Document], object]
"""Raises Invalid for a document that does not satisfy the schema of its blob."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """The side that did not get into the document: ``draft`` leads from the document to what it would be with it."""

    status: DeltaStatus
    """``proposed`` (the author's side) or ``rejected`` (what was overwritten)."""
    draft: DeltaDraft


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """What is to be written: a delta unless nothing changes, beside it the side that lost, and where they clashed."""

    draft: DeltaDraft | None
    aside: Aside | None = None
    conflicts: tuple[Mapping[str, Any], ...] = ()


def policy_of(asked: str | None, definition: object) -> ConflictPolicy:
    """Return the policy that a request asks for, else that of the blob's schema, else ``reject``."""
    stated = definition.get(ON_CONFLICT) if isinstance(definition, Mapping) else None
    for policy in (asked, stated):
        if policy in set(ConflictPolicy):
            return ConflictPolicy(policy)
    return ConflictPolicy.REJECT


def merged(
    base: Document, current: State, theirs: Document, *, definition: Mapping[str, Any] | bool, check: Check
) -> Resolution:
    """Return both changes in one document; what clashes is proposed.

    A merge that the schema refuses is one conflict about the whole body. Raises what ``domain.merge.merge`` raises.
    """
    kept, offered = _combined(base, _document(current), theirs, definition, check)
    draft = rewrite(current, kept.document, operation=DeltaOperation.UPDATE)
    aside = _aside(current, draft, offered, DeltaStatus.PROPOSED)
    return Resolution(draft=draft, aside=aside, conflicts=_shown(kept.conflicts))


def _combined(
    base: Document, ours: Document, theirs: Document, definition: Any, check: Check
) -> tuple[Merge, Document]:
    """Return the merge, and the document that it would be with the author's side of every conflict."""
    if base.kind == ours.kind == theirs.kind:
        bodies = _inserted(base.body, ours.body, theirs.body, prose=ours.is_text)
        sides = [replace(side, body=body) for side, body in zip((base, ours, theirs), bodies, strict=True)]
        merging = partial(merge, *sides, schema=definition, words=True)
        kept = merging()
        if _satisfies(check, kept.document):
            taken = merging(on_conflict=OnConflict.TAKE_MACHINE).document if kept.conflicts else kept.document
            return kept, taken if _satisfies(check, taken) else theirs
    return unmerged(base, ours, theirs), theirs


def overwritten(base: Document, current: State, theirs: Document, *, check: Check) -> Resolution:
    """Return the document with what the author changed, field by field; what that overwrote is set aside.

    Raises what ``check`` raises for the result.
    """
    ours = _document(current)
    if base.kind == ours.kind == theirs.kind:
        roots = (base.to_json(), ours.to_json(), theirs.to_json())
        last, first = _Overlay(last=True), _Overlay(last=False)
        wins, lost = (Document.parse(overlay.value("", *roots)) for overlay in (last, first))
        conflicts = last.conflicts
    else:
        wins, lost, conflicts = theirs, ours, list(unmerged(base, ours, theirs).conflicts)
    check(wins)
    draft = rewrite(current, wins, operation=DeltaOperation.UPDATE)
    aside = _aside(current, draft, lost, DeltaStatus.REJECTED) if conflicts else None
    return Resolution(draft=draft, aside=aside, conflicts=_shown(conflicts))


def _shown(conflicts: Sequence[Conflict]) -> tuple[dict[str, Any], ...]:
    return tuple(conflict.to_json() for conflict in conflicts)


def _document(current: State) -> Document:
    if current.document is None:
        raise Invalid("There is nothing to merge with yet.", code="unknown_version")
    return current.document


def _satisfies(check: Check, document: Document) -> bool:
    try:
        check(document)
    except Invalid:
        return False
    return True


def _aside(current: State, draft: DeltaDraft | None, document: Document, status: DeltaStatus) -> Aside | None:
    """Return the delta from what is written to the other side's document; None if they are the same."""
    after = current if draft is None else draft.after
    other = rewrite(after, document, operation=DeltaOperation.UPDATE)
    return None if other is None else Aside(status=status, draft=other)


class _Overlay:
    """Puts what ``theirs`` changed over ``ours``; ``last`` says who wins where both did, and ``conflicts`` where."""

    def __init__(self, *, last: bool) -> None:
        self.conflicts: list[Conflict] = []
        self._last = last

    def value(self, pointer: str, base: Any, ours: Any, theirs: Any) -> Any:
        """Return one value; ABSENT stands for a member that is not there, given and returned."""
        if same(theirs, base) or same(ours, theirs):
            return ours
        if same(ours, base):
            return theirs
        if isinstance(ours, dict) and isinstance(theirs, dict) and pointer != BINARY:
            return self._members(pointer, base if isinstance(base, dict) else {}, ours, theirs)
        self.conflicts += _overwriting(pointer, base, ours, theirs)
        return theirs if self._last else ours

    def _members(self, pointer: str, base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> Any:
        names = sorted(base.keys() | ours.keys() | theirs.keys())
        members = {
            name: self.value(f"{pointer}/{escaped(name)}", *(side.get(name, ABSENT) for side in (base, ours, theirs)))
            for name in names
        }
        return {name: value for name, value in members.items() if value is not ABSENT}


def _overwriting(pointer: str, base: Any, ours: Any, theirs: Any) -> list[Conflict]:
    """Return where one value overwrites another: of a text the places that differ, not three times the whole."""
    sides = (base, ours, theirs)
    if all(isinstance(side, str) for side in sides) and (pointer == "/content" or all(map(is_prose, sides))):
        return [conflict_of(pointer, clash) for clash in overwritten_words(base, ours, theirs)]
    return [Conflict(pointer=pointer, base=base, ours=ours, theirs=theirs)]


def _inserted(base: Any, ours: Any, theirs: Any, *, prose: bool = False) -> tuple[Any, Any, Any]:
    """Return the three sides with what both inserted at one place of a text inserted everywhere: no conflict is left.

    ``prose`` says that a text is one whatever it looks like; others are names and states, which have no paragraphs.
    """
    sides = (base, ours, theirs)
    if all(isinstance(side, str) for side in sides):
        return _inserted_paragraphs(base, ours, theirs) if prose or all(map(is_prose, sides)) else sides
    if not all(isinstance(side, dict) for side in sides):
        return sides
    results: tuple[dict[str, Any], ...] = (dict(base), dict(ours), dict(theirs))
    for name in base.keys() & ours.keys() & theirs.keys():
        members = _inserted(*(side[name] for side in sides))
        for result, member in zip(results, members, strict=True):
            result[name] = member
    return results[0], results[1], results[2]


def _inserted_paragraphs(base: str, ours: str, theirs: str) -> tuple[str, str, str]:
    texts = (base, ours, theirs)
    if base in {ours, theirs} or ours == theirs:
        return texts
    proses = [split(text) for text in texts]
    if max(len(prose.paragraphs) for prose in proses) > PARAGRAPHS_MAX:
        return texts
    places = [
        (chunk.base, chunk.ours, chunk.theirs)
        for chunk in diff3(*(prose.paragraphs for prose in proses))
        if chunk.kind is ChunkKind.CONFLICT and chunk.base[0] == chunk.base[1]
    ]
    # From the end, so that earlier places stay where they are.
    for spans in reversed(places):
        own, its = (proses[side].paragraphs[slice(*spans[side])] for side in (1, 2))
        both = (*own, *(text for text in its if text not in own))
        proses = [_replaced(prose, *span, both) for prose, span in zip(proses, spans, strict=True)]
    return (proses[0].join(), proses[1].join(), proses[2].join()) if places else texts


def _replaced(prose: Prose, low: int, high: int, paragraphs: Sequence[str]) -> Prose:
    """Return a text with other paragraphs between two places; what separates the new ones is the default."""
    separators = [prose.separator(index) or DEFAULT_SEPARATOR for index in range(len(prose.paragraphs))]
    separators[low:high] = [DEFAULT_SEPARATOR] * len(paragraphs)
    kept = (*prose.paragraphs[:low], *paragraphs, *prose.paragraphs[high:])
    return replace(prose, paragraphs=kept, separators=tuple(separators[: len(kept) - 1]))
