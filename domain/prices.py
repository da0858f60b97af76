"""Prices: what a call may cost at most, and what it did cost, in whole micro-dollars; never a fraction, never a float.

A price is micro-dollars per million tokens: 0.15 dollars per million are 150,000. What a call cost is rounded up, once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.definitions import Step

MILLION = 1_000_000
MICROS = 1_000_000
"""Micro-dollars in a dollar."""
DEFAULT = "default"
"""The name under which the price of every model stands that has none of its own."""


def money(amount: int) -> str:
    """Return micro-dollars as people write them."""
    return f"{amount / MICROS:.6f}".rstrip("0").rstrip(".") + " USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Micro-dollars per million tokens, of what is sent and of what is answered."""

    prompt: int = 0
    completion: int = 0

    def of(self, prompt: int, completion: int, either: int = 0) -> int:
        """Return what so many tokens cost; ``either`` are some that nobody told apart, at the higher price."""
        total = prompt * self.prompt + completion * self.completion + either * max(self.prompt, self.completion)
        return -(-total // MILLION)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """What one service takes: a price by model, and the most tokens that one call may use."""

    prices: Mapping[str, Price] = field(default_factory=dict)
    prompt_tokens_max: int = 0
    completion_tokens_max: int = 0

    def worst(self, completion_tokens: int | None = None) -> int:
        """Return what a call may cost at most, whichever model answers it."""
        most = self.completion_tokens_max if completion_tokens is None else completion_tokens
        return max((price.of(self.prompt_tokens_max, most) for price in self.prices.values()), default=0)

    def cost(self, usage: Mapping[str, Any]) -> int | None:
        """Return what a call cost by what the service says that it used; None if it says nothing."""
        prompt, completion, total = (usage.get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens"))
        if prompt is None and completion is None and total is None:
            return None
        known = int(prompt or 0) + int(completion or 0)
        price = self.prices.get(str(usage.get("model"))) or self.prices.get(DEFAULT) or Price()
        return price.of(int(prompt or 0), int(completion or 0), max(0, int(total or 0) - known))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCharge:
    """What is charged for one attempt of a step, and for what."""

    attempt: int
    amount: int
    service: str
    model: str | None
    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What a step may cost at most, and what its run has used before it, should it end here."""

    worst: int
    used: Mapping[str, Any]


class Prices:
    """The tariffs of the services, by name; a service without one is free."""

    def __init__(self, tariffs: Mapping[str, Tariff] | None = None) -> None:
        self._tariffs = dict(tariffs or {})

    def worst(self, step: Step) -> int:
        """Return what a step may cost at most: its own ``max_tokens`` count, else those of its service."""
        tariff = self._tariffs.get(step.config.get("service", "")) if step.effect == "call" else None
        if tariff is None:
            return 0
        return tariff.worst(step.config.get("parameters", {}).get("max_tokens"))

    def charge(self, step: Step, usage: Mapping[str, Any], attempt: int) -> StepCharge | None:
        """Return what a finished call is charged, None if it is free. A service that says nothing costs the most."""
        worst = self.worst(step)
        if worst <= 0:
            return None
        service = str(step.config["service"])
        cost = self._tariffs[service].cost(usage)
        return StepCharge(
            attempt=attempt,
            amount=worst if cost is None else cost,
            service=service,
            model=usage.get("model"),
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            completion_tokens=int(usage.get("completion_tokens") or 0),
        )
