"""Byte ranges of a content (RFC 9110, section 14): one range is answered, several are not worth their trouble."""

from __future__ import annotations

import re

from domain.errors import Invalid

_ONE = re.compile(r"bytes[ \t]*=[ \t]*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))[ \t]*", re.IGNORECASE)


class NotSatisfiable(Invalid):
    """The range lies outside of the content."""

    code = "range_not_satisfiable"


def wanted_range(value: str | None, size: int) -> tuple[int, int] | None:
    """Return the bytes that a ``Range`` asks for, as start and end (exclusive); None: the whole content.

    What cannot be read as one range of bytes is ignored, as the RFC says. Raises NotSatisfiable.
    """
    match = None if value is None else _ONE.fullmatch(value)
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(size - int(suffix), 0), size
        satisfiable = int(suffix) > 0 and size > 0
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:  # no range at all
            return None
        satisfiable = start < size
    if not satisfiable:
        raise NotSatisfiable(f"The content has {size} bytes.", members={"size": size})
    return start, end
