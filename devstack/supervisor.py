"""Keeps a whole Studio running: starts it, restarts what dies on the same ports, stops it in order when told."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from devstack import endpoints
from devstack.errors import Interrupted, ServiceFailed
from devstack.processes import bound_log
from devstack.stack import Stack
from devstack.units import State, Unit

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
IDLE_SECONDS = 2.0  # a dead child wakes us at once; this is only how often logs are looked at
BUSY_SECONDS = 0.02
DELAY_FIRST_SECONDS = 0.2  # doubled with each further death
DELAY_MAX_SECONDS = 10.0
HEALTHY_SECONDS = 60.0  # after this long without dying the first restart is immediate again

# (what happened, to which service, detail) for whoever watches
Watcher = Callable[[str, str, str], None]


@dataclass(slots=True)
class Backoff:
    """When a dying service may start again: at once the first time, then ever later, within ten seconds."""

    deaths: int = 0
    not_before: float = 0.0
    last_death: float = float("-inf")

    def died(self, now: float) -> float:
        """Count a death; return the delay in seconds until the next start."""
        if now - self.last_death > HEALTHY_SECONDS:
            self.deaths = 0
        delay = 0.0 if self.deaths == 0 else min(DELAY_FIRST_SECONDS * 2 ** (self.deaths - 1), DELAY_MAX_SECONDS)
        self.deaths, self.last_death, self.not_before = self.deaths + 1, now, now + delay
        return delay


class Supervisor:
    """Runs one stack until a signal."""

    def __init__(self, stack: Stack, watch: Watcher) -> None:
        self._stack = stack
        self._watch = watch
        self._told_to_stop = False
        self._backoffs: dict[str, Backoff] = {}

    def run(self) -> None:
        """Start, write endpoints.json, keep running; return after a clean stop.

        Raises what ``Stack.start`` raises; then nothing runs and there is no endpoints file.
        """
        with self._signals() as woken:
            try:
                self._stack.start(interrupted=lambda: self._told_to_stop)
            except Interrupted:
                return
            try:
                endpoints.write(self._stack)
                self._watch("up", "", str(self._stack.state.endpoints))
                while not self._told_to_stop:
                    self._wait(woken)
                    self._revive()
            finally:
                self._watch("stopping", "", "")
                self._stack.state.remove(endpoints.NAME)
                self._stack.stop()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[int]:
        """Note stop signals, and be woken by them and by the death of a child."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        before = {number: signal.signal(number, self._stop) for number in STOP_SIGNALS}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)  # noqa: ARG005
        wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        try:
            yield reading
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(reading)
            os.close(writing)

    def _stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._told_to_stop = True

    def _wait(self, woken: int) -> None:
        """Sleep until something happens or is due."""
        now = time.monotonic()
        if any(unit.state is State.STARTING for unit in self._stack.units):
            time.sleep(BUSY_SECONDS)  # not select: the ends of our own probes would wake us at once
            return
        down = [self._backoff(unit).not_before - now for unit in self._stack.units if unit.state is State.DOWN]
        timeout = max(BUSY_SECONDS, min([IDLE_SECONDS, *down]))
        readable, _, _ = select.select([woken], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            while readable and os.read(woken, 512):
                pass

    def _revive(self) -> None:
        now = time.monotonic()
        for unit in self._stack.units:
            bound_log(self._stack.state.log(unit.name))
            if unit.ended():
                self._down(unit, "died")
            if unit.state is State.DOWN and self._backoff(unit).not_before <= now:
                self._stack.begin(unit)
            if unit.state is State.STARTING:
                self._go_on(unit)

    def _go_on(self, unit: Unit) -> None:
        try:
            unit.advance()
        except ServiceFailed as failure:
            self._down(unit, failure.reason)
            return
        if unit.done:
            self._stack.record()
            endpoints.write(self._stack)
            self._watch("restarted", unit.name, f"{unit.seconds:.2f} s")

    def _down(self, unit: Unit, reason: str) -> None:
        delay = self._backoff(unit).died(time.monotonic())
        unit.state = State.DOWN
        self._watch("died", unit.name, f"{reason}; starts again in {delay:.1f} s")

    def _backoff(self, unit: Unit) -> Backoff:
        return self._backoffs.setdefault(unit.name, Backoff())
