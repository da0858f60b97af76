"""Rounds: who comes alone never waits, who comes in a stream is taken together."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.rounds import Rounds


@pytest.fixture
def paused(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each round was made to wait."""
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", note)
    return slept


class Clock:
    """The loop's clock, as the test sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: self.now, raising=False)


async def test_a_stream_waits_once_the_burst_is_used_up_and_what_comes_alone_does_not(
    monkeypatch: pytest.MonkeyPatch, paused: list[float]
) -> None:
    rounds: Any = Rounds(burst=2, seconds=0.5)
    clock = Clock(monkeypatch)
    await rounds.next()
    await rounds.next()
    assert paused == []
    await rounds.next()
    await rounds.next()
    assert paused == pytest.approx([0.5, 1.0])
    clock.now += 60
    await rounds.next()
    assert len(paused) == 2
