"""Memo: nothing is paid for twice. What names an answer, and what a step that reuses one has used.

A step with ``cache: inputs`` asks the memo before it calls. The key covers everything that its answer depends on: what
the step does, whom it asks, and the request with all inputs, settings and model parameters resolved. It covers neither
the definition around the step nor the run, so that both may be others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from domain.canonical import canonical

KEY_VERSION: Final = 1
"""Part of every key: a new meaning of keys forgets the old answers."""


class Cache(StrEnum):
    """What a step that calls a service may do with answers from before."""

    NONE = "none"
    INPUTS = "inputs"


class Recall(StrEnum):
    """What the memo says to a step that is about to call."""

    HIT = "hit"
    """Here is the answer."""
    MINE = "mine"
    """Nobody has it: call, and tell."""
    LEASED = "leased"
    """Another run is calling: ask again later."""
    OFF = "off"
    """Nobody asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A resolved request; equal requests are those that are the same canonical JSON."""

    step_digest: str
    service: str
    revision: str
    """What the operator calls the service as it is now: its model, say."""
    method: str
    endpoint: str
    body: Any

    def encoded(self) -> bytes:
        """The one text of this request, as canonical JSON; two different requests never share it."""
        parts = [KEY_VERSION, self.step_digest, self.service, self.revision, self.method, self.endpoint, self.body]
        return canonical(parts)

    @property
    def key(self) -> str:
        """SHA-256 (hexadecimal) of the encoding."""
        return hashlib.sha256(self.encoded()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTerms:
    """What the settings say of a service. Only a pure one may be cached, and the AI, whose answers cost money."""

    pure: bool = False
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """What a step asks the memo; ``patience`` is how long others wait for it, should it call."""

    key: str
    patience: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A step that may begin (``status`` is ``running``), and what the memo says to it.

    ``attempt`` numbers the beginnings of the step: no two calls have the same.
    For a hit ``answer`` is what the service said to the run ``maker``, which used ``usage`` for it.
    """

    status: str
    recall: Recall = Recall.OFF
    attempt: int = 1
    answer: Any = None
    usage: Mapping[str, Any] | None = None
    maker: UUID | None = None


def reused_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """What a step has used that took over an answer for which ``usage`` was paid: nothing; and what it saved."""
    saved = int(usage.get("total_tokens") or 0)
    model = {"model": usage["model"]} if usage.get("model") else {}
    return {"duration_ms": 0, "reused": True, "saved_tokens": saved, **model}
