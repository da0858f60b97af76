"""Reads the fields of a document that somebody wrote and collects every fault, instead of stopping at the first.

Each method answers a usable value even where it notes a fault, so that reading goes on.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from domain.canonical import escaped
from domain.errors import Fault, Invalid

FAULTS_MAX: Final = 100

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class Fields:
    """The members of one JSON object at ``pointer``; what is not asked for is an unknown field."""

    def __init__(self, raw: Any, pointer: str, faults: list[Fault], what: str = "This") -> None:
        self.pointer = pointer
        self.faults = faults
        self._what = what
        self._asked: set[str] = set()
        self._raw: Mapping[str, Any] = {}
        if isinstance(raw, Mapping) and all(isinstance(key, str) for key in raw):
            self._raw = raw
        else:
            self.fault("", "wrong_type", f"{what} is a map with text keys.")

    def at(self, name: str) -> str:
        """The pointer of a member."""
        return f"{self.pointer}/{escaped(name)}" if name else self.pointer

    def fault(self, name: str, code: str, detail: str) -> None:
        """Note a fault of a member, or of the whole object where ``name`` is empty."""
        self.faults.append(Fault(self.at(name), code, detail))

    def has(self, name: str) -> bool:
        """Whether the member is there and not null."""
        return self._raw.get(name) is not None

    def raw(self, name: str) -> Any:
        """The member as it is, or None."""
        self._asked.add(name)
        return self._raw.get(name)

    def one_of(self, *names: str) -> str:
        """The spelling that is used, of a name and its aliases; two at once are a fault."""
        self._asked.update(names)
        used = [name for name in names if self.has(name)]
        if len(used) > 1:
            self.fault(used[1], "invalid_value", f"{used[1]} says the same as {used[0]}: give one of them.")
        return used[0] if used else names[0]

    def required(self, name: str) -> Any:
        """The member, noting a fault where it is missing."""
        if not self.has(name):
            self.fault(name, "missing_field", f"{self._what} needs {name}.")
        return self.raw(name)

    def text(self, name: str, *, required: bool = False, most: int = 500, pattern: str = "") -> str:
        """A text of at most ``most`` characters that matches ``pattern`` whole; "" if there is none."""
        value = self.required(name) if required else self.raw(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            self.fault(name, "wrong_type", f"{name} is text.")
        elif len(value) > most:
            self.fault(name, "too_many", f"{name} has at most {most} characters.")
        elif pattern and not re.fullmatch(pattern, value):
            self.fault(name, "invalid_id", f"{name} matches {pattern}, which {value[:80]!r} does not.")
        else:
            return value
        return ""

    def number(self, name: str, *, least: float, most: float) -> float | None:
        """A number within bounds, or None."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fault(name, "wrong_type", f"{name} is a number.")
        elif not least <= value <= most:
            self.fault(name, "invalid_value", f"{name} is between {least:g} and {most:g}.")
        else:
            return value
        return None

    def integer(self, name: str, *, least: int, most: int) -> int | None:
        """An integer within bounds, or None."""
        value = self.raw(name)
        if isinstance(value, float | bool):
            self.fault(name, "wrong_type", f"{name} is an integer.")
            return None
        number = self.number(name, least=least, most=most)
        return None if number is None else int(number)

    def boolean(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.raw(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.fault(name, "wrong_type", f"{name} is true or false.")
            return default
        return value

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """One of ``choices``."""
        value = self.raw(name)
        if value is None:
            return default
        if value not in choices:
            self.fault(name, "invalid_value", f"{name} is one of {', '.join(choices)}{near(value, choices)}.")
            return default
        return str(value)

    def duration(self, name: str, *, least: float, most: float) -> float | None:
        """Seconds, from a number of seconds or a text such as 500ms, 30s, 5m, 1h."""
        value = self.raw(name)
        if value is None:
            return None
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match:
            seconds = float(match.group(1)) * _SECONDS[match.group(2)]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = float(value)
        else:
            self.fault(name, "wrong_type", f"{name} is a duration such as 500ms, 30s, 5m or a number of seconds.")
            return None
        if not least <= seconds <= most:
            self.fault(name, "invalid_value", f"{name} is between {least:g} and {most:g} seconds.")
            return None
        return seconds

    def texts(self, name: str, *, most: int = 50) -> list[tuple[str, str]]:
        """A list of texts (or one text), each with its pointer."""
        value = self.raw(name)
        if value is None:
            return []
        if isinstance(value, str):
            return [(self.at(name), value)]
        return [
            (pointer, item)
            for pointer, item in self.items(name, most=most)
            if isinstance(item, str) or self.noted(pointer, "wrong_type", "Each entry is text.")
        ]

    def items(self, name: str, *, most: int) -> Iterator[tuple[str, Any]]:
        """The entries of a list, each with its pointer."""
        value = self.raw(name)
        if value is None:
            return
        if not isinstance(value, list):
            self.fault(name, "wrong_type", f"{name} is a list.")
            return
        if len(value) > most:
            self.fault(name, "too_many", f"{name} has at most {most} entries, not {len(value)}.")
        for index, item in enumerate(value[:most]):
            yield f"{self.at(name)}/{index}", item

    def mapping(self, name: str, *, required: bool = False) -> dict[str, Any]:
        """A map with text keys, or {}."""
        value = self.required(name) if required else self.raw(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            self.fault(name, "wrong_type", f"{name} is a map with text keys.")
            return {}
        return dict(value)

    def noted(self, pointer: str, code: str, detail: str) -> bool:
        """Note a fault anywhere; False, for use in conditions."""
        self.faults.append(Fault(pointer, code, detail))
        return False

    def finish(self) -> None:
        """Note every member that nobody asked for."""
        for name in self._raw:
            if name not in self._asked:
                detail = f"{self._what} has no field {name}{near(name, self._asked)}."
                self.fault(name, "unknown_field", detail)


def near(value: Any, known: Collection[str]) -> str:
    """``; did you mean x?`` if something known is close, else nothing."""
    found = difflib.get_close_matches(value, sorted(known), n=1) if isinstance(value, str) else []
    return f"; did you mean {found[0]}?" if found else ""


def refuse(faults: Sequence[Fault], code: str, what: str) -> None:
    """Raise ``Invalid`` with all faults, if there are any."""
    if not faults:
        return
    more = f" and {len(faults) - FAULTS_MAX} more" if len(faults) > FAULTS_MAX else ""
    count = f"{len(faults)} faults" if len(faults) > 1 else f"at {faults[0].pointer or '/'}: {faults[0].detail}"
    raise Invalid(f"{what} is not valid: {count}{more}", code=code, faults=faults[:FAULTS_MAX])
