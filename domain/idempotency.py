"""What an ``Idempotency-Key`` stands for: one use of it, and what became of an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyUse:
    """One attempt at a request with a key. The key counts within user, principal (an API key) and route."""

    user_id: UUID
    principal: UUID
    route: str
    key: str
    fingerprint: str
    holder: UUID
    """This attempt and no other: whoever takes the key over puts its own holder in place of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer as it is repeated: status, headers in their order, bytes."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a key stands after an attempt asked for it: ``ours`` to work on, or somebody's before."""

    ours: bool
    fingerprint: str
    first_used_at: datetime
    kept: Kept | None
    """The answer of the earlier request; None while it is being worked on."""
    outcome: Mapping[str, Any] | None = field(hash=False)
    """What an attempt that died recorded together with its effect: the effect is not to be repeated."""
