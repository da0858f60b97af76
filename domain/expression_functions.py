"""What the functions of expressions do, each paid for from a budget before it allocates anything."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from domain.errors import Invalid
from domain.expression_syntax import INTEGER_MAX
from domain.patterns import compile_pattern

#: units of work for one evaluation: one per node visited, per 16 list members, per 64 characters
WORK_MAX: Final = 400_000
MEMBERS_PER_UNIT: Final = 16
CHARS_PER_UNIT: Final = 64
ROUND_DIGITS_MAX: Final = 12
NUMBER_CHARS_MAX: Final = 32


class Failure(Exception):
    """An operand of the wrong type or value; ``expressions.py`` adds where it happened."""


class Meter:
    """Counts the work of one evaluation; raises ``Invalid`` (expression_budget_exceeded) when it is used up."""

    __slots__ = ("left",)

    def __init__(self, units: int = WORK_MAX) -> None:
        self.left = units

    def units(self, count: int) -> None:
        """Pay for ``count`` units."""
        self.left -= count
        if self.left < 0:
            raise Invalid(f"the expression needs more than {WORK_MAX} units of work", code="expression_budget_exceeded")

    def chars(self, count: int) -> None:
        """Pay for reading or making ``count`` characters."""
        self.units(1 + count // CHARS_PER_UNIT)

    def members(self, count: int) -> None:
        """Pay for reading or making ``count`` entries of a list or map."""
        self.units(1 + count // MEMBERS_PER_UNIT)


def type_name(value: Any) -> str:
    """The name that people know a JSON value's type by."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list | tuple) else "a map"


def text(value: Any, what: str) -> str:
    """``value`` if it is text, else ``Failure``."""
    if not isinstance(value, str):
        raise Failure(f"{what} needs text, not {type_name(value)}")
    return value


def number(value: Any, what: str) -> int | float:
    """``value`` if it is a number (a boolean is none), else ``Failure``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Failure(f"{what} needs a number, not {type_name(value)}")
    return value


def members(value: Any, what: str) -> list[Any]:
    """``value`` if it is a list, else ``Failure``."""
    if not isinstance(value, list | tuple):
        raise Failure(f"{what} needs a list, not {type_name(value)}")
    return value if isinstance(value, list) else list(value)


def finite(value: float) -> int | float:
    """``value`` if JSON and 64 bits can hold it, else ``Failure``."""
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise Failure("the integer needs more than 64 bits")
    elif not math.isfinite(value):
        raise Failure("the number is out of range")
    return value


def equal(left: Any, right: Any, meter: Meter) -> bool:
    """JSON equality: 1 equals 1.0, true does not equal 1, maps ignore order."""
    meter.units(1)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, str) and isinstance(right, str):
        meter.chars(min(len(left), len(right)))
        return left == right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(equal(a, b, meter) for a, b in zip(left, right, strict=True))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(equal(left[key], right[key], meter) for key in left)
    return type_name(left) == type_name(right) and bool(left == right)


def order(left: Any, right: Any, sign: str, meter: Meter) -> int:
    """-1, 0 or 1 for two numbers or two texts (by code point)."""
    if isinstance(left, str) and isinstance(right, str):
        meter.chars(min(len(left), len(right)))
        return (left > right) - (left < right)
    a, b = number(left, sign), number(right, sign)
    return (a > b) - (a < b)


def string(value: Any, meter: Meter) -> str:
    """A scalar as text: ``true``, ``null``, ``2``, ``2.5``."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    meter.units(1)
    number(value, "string()")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _len(meter: Meter, value: Any) -> int:
    meter.units(1)
    if not isinstance(value, str | list | tuple | Mapping):
        raise Failure(f"len() needs text, a list or a map, not {type_name(value)}")
    return len(value)


def _split(meter: Meter, value: Any, separator: Any = None) -> list[str]:
    whole = text(value, "split()")
    meter.chars(len(whole))
    if separator is not None and not text(separator, "split()"):
        raise Failure("split() needs a separator that is not empty")
    parts = whole.split(separator)
    meter.members(len(parts))
    return parts


def _join(meter: Meter, value: Any, separator: Any = "") -> str:
    parts = members(value, "join()")
    meter.members(len(parts))
    between = text(separator, "join()")
    words = [part for part in parts if part is not None]
    meter.chars(sum(len(text(word, "join()")) + len(between) for word in words))
    return between.join(words)


def _round(meter: Meter, value: Any, digits: Any = None) -> int | float:
    meter.units(1)
    rounded = number(value, "round()")
    if digits is None:
        return finite(round(rounded))
    if isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= ROUND_DIGITS_MAX:
        raise Failure(f"round() takes 0 to {ROUND_DIGITS_MAX} digits")
    return finite(round(rounded, digits))


def _int(meter: Meter, value: Any) -> int:
    meter.units(1)
    return int(finite(int(_parsed(value, int, "int()"))))


def _double(meter: Meter, value: Any) -> float:
    meter.units(1)
    return float(finite(_parsed(value, float, "double()")))


def _parsed(value: Any, read: Callable[[Any], Any], what: str) -> Any:
    if isinstance(value, str):
        if len(value) > NUMBER_CHARS_MAX:
            raise Failure(f"{what} reads at most {NUMBER_CHARS_MAX} characters")
    else:
        number(value, what)
    try:
        return read(value)
    except (ValueError, OverflowError):
        raise Failure(f"{what} cannot read {str(value)[:NUMBER_CHARS_MAX]!r}") from None


def _sum(meter: Meter, value: Any) -> int | float:
    parts = members(value, "sum()")
    meter.members(len(parts))
    return finite(sum(number(part, "sum()") for part in parts))


def _extreme(pick: int, what: str) -> Callable[..., Any]:
    def extreme(meter: Meter, *values: Any) -> Any:
        candidates = members(values[0], what) if len(values) == 1 else list(values)
        meter.members(len(candidates))
        if not candidates:
            raise Failure(f"{what} of nothing")
        best = candidates[0]
        for candidate in candidates[1:]:
            meter.units(1)
            if order(candidate, best, what, meter) == pick:
                best = candidate
        return best

    return extreme


def _contains(meter: Meter, whole: Any, part: Any) -> bool:
    if isinstance(whole, list | tuple):
        return any(equal(item, part, meter) for item in whole)
    meter.chars(len(text(whole, "contains()")))
    return text(part, "contains()") in whole


def _replace(meter: Meter, whole: Any, old: Any, new: Any) -> str:
    source, found, replacement = (text(part, "replace()") for part in (whole, old, new))
    if not found:
        raise Failure("replace() needs text to look for")
    meter.chars(len(source))
    meter.chars(source.count(found) * len(replacement))
    return source.replace(found, replacement)


def _matches(meter: Meter, value: Any, pattern: str) -> bool:
    meter.members(len(text(value, "matches()")))
    return compile_pattern(pattern).search(value) is not None


def _truncate(meter: Meter, value: Any, size: Any) -> str:
    meter.chars(len(text(value, "truncate()")))
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise Failure("truncate() takes a length of 0 or more")
    return text(value, "truncate()")[:size]


def _plain(method: Callable[[str], Any], what: str) -> Callable[[Meter, Any], Any]:
    def apply(meter: Meter, value: Any) -> Any:
        meter.chars(2 * len(text(value, what)))
        return method(value)

    return apply


def _affix(method: Callable[[str, str], bool], what: str) -> Callable[[Meter, Any, Any], bool]:
    def apply(meter: Meter, whole: Any, part: Any) -> bool:
        meter.chars(len(text(part, what)))
        return method(text(whole, what), part)

    return apply


def _keys(meter: Meter, value: Any) -> list[str]:
    if not isinstance(value, Mapping):
        raise Failure(f"keys() needs a map, not {type_name(value)}")
    meter.members(len(value))
    return sorted(value)


#: ``has`` and ``coalesce`` look at arguments one at a time; ``expressions.py`` evaluates them
IMPLEMENTATIONS: Final[dict[str, Callable[..., Any]]] = {
    "abs": lambda meter, value: (meter.units(1), abs(number(value, "abs()")))[1],
    "contains": _contains,
    "double": _double,
    "endsWith": _affix(str.endswith, "endsWith()"),
    "int": _int,
    "join": _join,
    "keys": _keys,
    "len": _len,
    "lower": _plain(str.lower, "lower()"),
    "matches": _matches,
    "max": _extreme(1, "max()"),
    "min": _extreme(-1, "min()"),
    "replace": _replace,
    "round": _round,
    "size": _len,
    "split": _split,
    "startsWith": _affix(str.startswith, "startsWith()"),
    "string": lambda meter, value: string(value, meter),
    "sum": _sum,
    "trim": _plain(str.strip, "trim()"),
    "truncate": _truncate,
    "upper": _plain(str.upper, "upper()"),
}
