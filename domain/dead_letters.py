"""Trying again what failed for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from domain.ids import CascadeId


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive:
    """What a redrive does, or would do: the letters whose derivations run again, and what is left alone and why."""

    letters: list[Mapping[str, Any]]
    redriven_before: int = 0
    overtaken: int = 0
    unknown: list[UUID] = field(default_factory=list)
    more: bool = False
    """There are more than one redrive takes: ask again."""
    cascade_id: CascadeId | None = None
    outdated: Sequence[Mapping[str, Any]] = ()
    """The user's providers among them that would run an older version than their workflow has."""
