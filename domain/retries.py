"""After which pauses a step that calls out is tried again, and after which answers it is not.

A step of a definition may say so, else its provider, else the settings (``providers.retry_policy``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from domain.fields import Fields

ATTEMPTS_MAX: Final = 20
PAUSE_SECONDS_MIN: Final = 0.1
PAUSE_SECONDS_MAX: Final = 3600
FACTOR_MAX: Final = 10
NOT_RETRIED_MAX: Final = 20
_RETRIED_STATUSES: Final = frozenset({429, *range(500, 600)})
_CODE: Final = re.compile(r"[A-Za-z_][\w.:/-]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Pauses in seconds: the first, by how much each is longer than the one before, the longest. None: not said here.

    ``not_retried``: statuses (``"503"``) and problem codes of a service that are final.
    """

    first_pause: float | None = None
    factor: float | None = None
    longest_pause: float | None = None
    not_retried: tuple[str, ...] | None = None

    def or_else(self, other: Retry) -> Retry:
        """What is said here, and what ``other`` says of the rest."""
        own = self.to_json()
        return Retry.from_json({**other.to_json(), **own})

    def final(self, members: Mapping[str, Any]) -> bool:
        """Whether an answer with this ``status`` and ``said`` (its problem's code) is not to be asked for again."""
        told = {str(members[name]) for name in ("status", "said") if members.get(name) is not None}
        return not told.isdisjoint(self.not_retried or ())

    def to_json(self) -> dict[str, Any]:
        """What is said, and no more: definitions of before are stored as ever."""
        said = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(v) if isinstance(v, tuple) else v for name, v in said.items() if v is not None}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> Retry:
        """The inverse of ``to_json``."""
        said: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in (stored or {}).items()}
        return cls(**said)


UNSAID: Final = Retry()
DEFAULT: Final = Retry(first_pause=1.0, factor=2.0, longest_pause=60.0, not_retried=())


def read_retry(fields: Fields, name: str, *, backoff: bool = False) -> tuple[int | None, Retry | None]:
    """Return ``max_attempts`` and the rest of what ``name`` says; ``backoff`` is a member that the seeds have."""
    if not fields.has(name):
        return None, None
    raw = Fields(fields.raw(name), fields.at(name), fields.faults, name)
    attempts = raw.integer("max_attempts", least=1, most=ATTEMPTS_MAX)
    if backoff:
        raw.choice("backoff", ("exponential",), "exponential")
    retry = Retry(
        first_pause=raw.duration("first_pause", least=PAUSE_SECONDS_MIN, most=PAUSE_SECONDS_MAX),
        factor=raw.number("factor", least=1, most=FACTOR_MAX),
        longest_pause=raw.duration("longest_pause", least=PAUSE_SECONDS_MIN, most=PAUSE_SECONDS_MAX),
        not_retried=_not_retried(raw) if raw.has("not_retried") else None,
    )
    if retry.first_pause and retry.longest_pause and retry.longest_pause < retry.first_pause:
        raw.fault("longest_pause", "invalid_value", "longest_pause is not shorter than first_pause.")
    raw.finish()
    return attempts, None if retry == UNSAID else retry


def _not_retried(raw: Fields) -> tuple[str, ...]:
    """Statuses that are tried again otherwise, and problem codes."""
    found = []
    for pointer, item in raw.items("not_retried", most=NOT_RETRIED_MAX):
        if item in _RETRIED_STATUSES if isinstance(item, int) else isinstance(item, str) and _CODE.fullmatch(item):
            found.append(str(item))
        else:
            raw.noted(pointer, "invalid_value", "Each entry is 429, a status from 500 to 599, or a problem's code.")
    return tuple(found)
