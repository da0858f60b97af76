"""One service's life inside one stack: waiting, starting, ready, down, stopped."""

from __future__ import annotations

import enum
import time
from collections.abc import Iterator

from devstack import ports
from devstack.errors import ServiceFailed
from devstack.processes import Child, Command, bound_log, spawn, tail
from devstack.services import Service, Site

PORT_ATTEMPTS = 3  # another program may take a port between our choice and the server's bind
REASON_LINES = 8
PROBE_MIN_SECONDS, PROBE_MAX_SECONDS = 0.02, 0.25


class State(enum.Enum):
    """Where a unit is."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"
    STOPPED = "stopped"
    EXTERNAL = "external"


class Unit:
    """Starts one service without blocking: ``advance`` does what can be done now and returns."""

    def __init__(self, service: Service, site: Site) -> None:
        self.service = service
        self.site = site
        self.state = State.WAITING
        self.child: Child | None = None
        self.seconds = 0.0  # how long the last start took
        self._start: Iterator[None] = iter(())
        self._began = 0.0

    @property
    def name(self) -> str:
        """The service's name."""
        return self.service.name

    @property
    def done(self) -> bool:
        """Others may rely on it."""
        return self.state in {State.READY, State.EXTERNAL}

    def begin(self) -> None:
        """Begin to start; ``advance`` goes on."""
        self.state = State.STARTING
        self._began = time.monotonic()
        self._start = self._bring_up()

    def advance(self) -> None:
        """Do what can be done now. Raises ServiceFailed when the service ended or stayed silent too long."""
        try:
            next(self._start)
        except StopIteration:
            self.state = State.READY
            self.seconds = time.monotonic() - self._began

    def ended(self) -> bool:
        """Tell whether a service that should run does not."""
        if self.service.once or self.state is not State.READY:
            return False
        return self.child is None or self.child.poll() is not None

    def kill(self) -> None:
        """SIGKILL the process, as a crash would."""
        if self.child is not None:
            self.child.kill()

    def ask_to_stop(self) -> None:
        """Send the stop signal."""
        self._start = iter(())
        if self.child is not None:
            self.child.send(self.service.stop_signal)

    def stopped(self, *, force: bool) -> bool:
        """Tell whether the process is gone; with ``force`` it is, afterwards."""
        if self.child is not None and self.child.poll() is None:
            if not force:
                return False
            self.child.kill()
        if self.child is not None:
            self.child.sweep()
        if self.state is not State.EXTERNAL:
            self.state = State.STOPPED
        return True

    def _bring_up(self) -> Iterator[None]:
        for command in self.service.prepare(self.site):
            yield from self._run(command)
        self.child = self._spawn(self.service.command(self.site))
        if self.service.once:
            yield from self._until_end(self.child)
            return
        while not self.service.ready(self.site):
            yield from self._pause(self.child)
        for command in self.service.complete(self.site):
            yield from self._run(command)

    def _pause(self, child: Child) -> Iterator[None]:
        """Wait before asking again: a tenth of the time it has taken so far, within bounds."""
        elapsed = time.monotonic() - self._began
        until = time.monotonic() + min(max(elapsed / 10, PROBE_MIN_SECONDS), PROBE_MAX_SECONDS)
        while time.monotonic() < until:
            self._still_possible(child)
            yield

    def _run(self, command: Command) -> Iterator[None]:
        """Run a preparing or completing command to its end; it does not outlive an interrupted start."""
        child = self._spawn(command)
        try:
            yield from self._until_end(child)
        finally:
            child.kill()

    def _until_end(self, child: Child) -> Iterator[None]:
        while (status := child.poll()) is None:
            self._within_time()
            yield
        if status != 0:
            raise self._failed(f"ended with status {status}")

    def _spawn(self, command: Command) -> Child:
        log = self.site.state.log(self.name)
        bound_log(log)
        return spawn(command, log, inherited=self.site.state.inherited())

    def _still_possible(self, child: Child) -> None:
        status = child.poll()
        if status is not None:
            raise self._failed(f"ended with status {status} before it answered")
        self._within_time()

    def _within_time(self) -> None:
        if time.monotonic() - self._began > self.service.start_seconds:
            raise self._failed(f"no answer within {self.service.start_seconds:.0f} s")

    def _failed(self, reason: str) -> ServiceFailed:
        log = self.site.state.log(self.name)
        taken = [str(port) for port in self.lost_ports()]
        if taken:
            reason += f" (taken by another program: port {', '.join(taken)})"
        said = tail(log, REASON_LINES)
        return ServiceFailed(self.name, f"{reason}\n{said}\n" if said else reason, log)

    def lost_ports(self) -> list[int]:
        """Return the ports of this service that another program holds, when the service itself is down."""
        if self.child is not None and self.child.poll() is None:
            return []
        mine = (self.site.ports[name] for name in self.service.port_names)
        return [port for port in mine if not ports.is_free(port)]
