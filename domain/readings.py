"""A comparison for people who read: segments of text with a style, for a terminal or a page to colour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import orjson


class Style(StrEnum):
    """What a segment is."""

    HEADING = "heading"
    """The pointer of a field, a line."""
    EQUAL = "equal"
    DELETE = "delete"
    INSERT = "insert"
    OMITTED = "omitted"
    """A line that says how much is not shown."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of readable text; the segments of a comparison joined are its reading."""

    style: Style
    text: str


def readable(comparison: Mapping[str, Any]) -> Iterator[Segment]:
    """Yield the segments of a comparison in its JSON form (``Comparison.to_json``, or an answer of the API)."""
    for field in comparison["fields"]:
        moved = f" (was {field['was']})" if "was" in field else ""
        yield Segment(Style.HEADING, f"{field['pointer']}{moved}\n")
        if field["op"] == "text":
            for span in field["spans"]:
                yield from _span(span)
            yield Segment(Style.EQUAL, "\n")
            continue
        for side, style in (("before", Style.DELETE), ("after", Style.INSERT)):
            if side in field:
                yield Segment(style, f"{orjson.dumps(field[side]).decode()}\n")


def _span(span: Mapping[str, Any]) -> Iterator[Segment]:
    if span["op"] == "equal":
        yield from _stretch(span["after"], Style.EQUAL)
    else:
        yield from _stretch(span["before"], Style.DELETE)
        yield from _stretch(span["after"], Style.INSERT)


def _stretch(stretch: Mapping[str, Any], style: Style) -> Iterator[Segment]:
    text, tail = stretch["text"], stretch.get("tail", "")
    omitted = stretch["end"] - stretch["start"] - len(text) - len(tail)
    if text:
        yield Segment(style, text)
    if omitted:
        yield Segment(Style.OMITTED, f"\n[{omitted} characters more]\n")
    if tail:
        yield Segment(style, tail)
