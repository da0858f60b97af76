"""Waiting for what another process does: always for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from devstack.state import started_at

DEADLINE_SECONDS = 20.0
POLL_SECONDS = 0.02
T = TypeVar("T")


def until(condition: Callable[[], T | None]) -> T:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {DEADLINE_SECONDS} s: {condition}")
        time.sleep(POLL_SECONDS)
    return found


def alive(pid: int) -> bool:
    return started_at(pid) != 0


def until_gone(pids: Iterable[int]) -> None:
    waited = list(pids)
    until(lambda: not any(alive(pid) for pid in waited))
