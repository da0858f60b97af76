"""Named places where a process kills itself, as a crash would: crash tests only.

Wanted is one of: nothing; a point's name (it dies there the first time), ``name#3`` (the third time); or
``random:SEED:ONE_IN``, which dies at any point with that chance, the same choices for the same seed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

Reached = Callable[[str], None]
MOVES = (
    "plan_and_claim", "claim", "read_sketches", "prepare", "settle_and_claim", "fail_sketch", "load", "settle", "fail",
    "lose", "begin_step", "begin_call", "end_step", "end_call", "fail_step",
)  # fmt: skip
"""Moves of the schedule around which a worker may die: ``schedule.before_settle``, ``schedule.after_settle``."""
CALLS = ("call",)
"""``service.before_call``, ``service.after_call``: a paid answer that nobody has recorded yet."""


def _nothing(_point: str) -> None:
    """No failpoint."""


def failpoints(wanted: str) -> Reached:
    """What to call with the name of each place where a crash matters. Raises ValueError for a wish that is none."""
    if not wanted:
        return _nothing
    if wanted.startswith("random:"):
        _, seed, one_in = wanted.split(":")
        return _at_random(random.Random(int(seed)), int(one_in))  # noqa: S311 - to be played again
    name, _, times = wanted.partition("#")
    return _at(name, int(times or 1))


def exposed(port: Any, name: str, methods: tuple[str, ...], reached: Reached) -> Any:
    """The port, dying before or after a call of these methods if that is wanted; itself if nothing is."""
    return port if reached is _nothing else _Exposed(port, name, methods, reached)


class _Exposed:
    """A port whose calls are failpoints."""

    def __init__(self, port: Any, name: str, methods: tuple[str, ...], reached: Reached) -> None:
        self._port = port
        for method in methods:
            setattr(self, method, _between(getattr(port, method), name, reached))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._port, name)


def _between(method: Callable[..., Awaitable[Any]], name: str, reached: Reached) -> Callable[..., Awaitable[Any]]:
    @wraps(method)
    async def call(*args: Any, **kwargs: Any) -> Any:
        reached(f"{name}.before_{method.__name__}")
        answer = await method(*args, **kwargs)
        reached(f"{name}.after_{method.__name__}")
        return answer

    return call


def _at(name: str, times: int) -> Reached:
    left = times

    def reached(point: str) -> None:
        nonlocal left
        left -= point == name
        if not left and point == name:
            _die(point)

    return reached


def _at_random(rng: random.Random, one_in: int) -> Reached:
    def reached(point: str) -> None:
        if not rng.randrange(one_in):
            _die(point)

    return reached


def _die(point: str) -> None:
    """Nothing is closed, flushed or told, but where it was."""
    sys.stderr.write(f"failpoint {point}\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGKILL)
