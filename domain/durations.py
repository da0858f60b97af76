"""Durations as people write them: a number and a unit, such as 500ms, 30s, 5m, 2h or 30d."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(value: object) -> timedelta:
    """Read a duration; raises ValueError, which says how to write one."""
    if isinstance(value, timedelta):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("write a duration as a number and a unit: 500ms, 30s, 5m, 2h or 30d")
    return timedelta(seconds=float(match[1]) * _UNIT_SECONDS[match[2]])
