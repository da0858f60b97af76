"""A text under correction: edits made one after the other, reported against the text it began as. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True, slots=True)
class Correction:
    """``before`` at ``offset`` (in characters of the original) became ``after``, because of ``rule``."""

    offset: int
    before: str
    after: str
    rule: str


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace ``[start, end)``, which is not empty, of the text as it is now."""

    start: int
    end: int
    after: str


@dataclass(frozen=True, slots=True)
class _Piece:
    offset: int
    before: str
    after: str
    rules: tuple[str, ...] = ()


class Revision:
    """A text as pieces of its original: single characters until a correction makes several of them one."""

    def __init__(self, original: str) -> None:
        self._pieces = [_Piece(offset, character, character) for offset, character in enumerate(original)]
        self.text = original

    @property
    def corrections(self) -> list[Correction]:
        """What changed, by offset and never overlapping; several rules on one place are joined by ``+``."""
        return [
            Correction(piece.offset, piece.before, piece.after, "+".join(piece.rules))
            for piece in self._pieces
            if piece.before != piece.after
        ]

    def apply(self, edits: Sequence[Edit], *, rule: str) -> None:
        """Make edits that are sorted and do not overlap, on the text as it is now."""
        if not edits:
            return
        starts = list(accumulate((len(piece.after) for piece in self._pieces), initial=0))
        for edit in reversed(edits):  # from the end, so that what lies before keeps its place in ``starts``
            first = bisect_right(starts, edit.start) - 1
            last = bisect_left(starts, edit.end, lo=first)
            self._merge(first, last, edit, at=edit.start - starts[first], rule=rule)
        self.text = "".join(piece.after for piece in self._pieces)

    def _merge(self, first: int, last: int, edit: Edit, *, at: int, rule: str) -> None:
        touched = self._pieces[first:last]
        now = "".join(piece.after for piece in touched)
        self._pieces[first:last] = [
            _Piece(
                touched[0].offset,
                "".join(piece.before for piece in touched),
                now[:at] + edit.after + now[at + edit.end - edit.start :],
                tuple(dict.fromkeys((*(name for piece in touched for name in piece.rules), rule))),
            )
        ]


def applied(original: str, corrections: Sequence[Correction]) -> str:
    """``original`` with ``corrections`` made; raises ValueError where one does not fit."""
    parts: list[str] = []
    at = 0
    for correction in corrections:
        end = correction.offset + len(correction.before)
        if correction.offset < at or original[correction.offset : end] != correction.before:
            raise ValueError(f"correction at {correction.offset} does not fit")
        parts += [original[at : correction.offset], correction.after]
        at = end
    return "".join((*parts, original[at:]))
