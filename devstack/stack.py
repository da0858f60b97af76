"""A set of services in one state folder: started in parallel, stopped in reverse, each restartable on its ports.

>>> with Stack(folder, services=("postgres", "nats")) as stack:  # doctest: +SKIP
...     connect(stack.endpoints["DATABASE_ADMIN_URL"])
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from devstack import ports
from devstack.apps import Model, common_endpoints
from devstack.errors import DevstackError, Interrupted, ServiceFailed
from devstack.nats import Nats
from devstack.postgres import Postgres
from devstack.s3 import S3
from devstack.services import Service, Site
from devstack.state import StateFolder, default_folder, started_at
from devstack.temporal import Temporal
from devstack.units import PORT_ATTEMPTS, State, Unit

SERVERS: dict[str, type[Service]] = {service.name: service for service in (Postgres, Temporal, Nats, S3, Model)}
DEFAULT_SERVERS = ("postgres", "temporal", "nats", "s3")
POLL_SECONDS = 0.02
RESTART_SECONDS = 15.0

Report = Callable[[str, Unit], None]  # what happened ("ready", "restarted") to which unit


class Stack:
    """The servers of one state folder. Use from the main thread: the children die with the thread that made them.

    ``services`` names what to start; one whose URL is set in ``environ`` is not started but passed through.
    ``apps`` are services added by the supervisor. ``endpoints`` is what children get as environment.
    """

    def __init__(
        self,
        state_dir: str | Path | None = None,
        services: Iterable[str] = DEFAULT_SERVERS,
        *,
        apps: Sequence[Service] = (),
        environ: Mapping[str, str] | None = None,
        report: Report = lambda event, unit: None,  # noqa: ARG005
    ) -> None:
        self._environ = dict(os.environ if environ is None else environ)
        self.state = StateFolder(Path(state_dir) if state_dir else default_folder(self._environ))
        self._services: list[Service] = [*(_server(name) for name in services), *apps]
        self._report = report
        self._units: dict[str, Unit] = {}
        self._site = Site(self.state, {}, self._environ)

    # -- what others read

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Return the environment of children: DATABASE_URL, NATS_URL and so on."""
        return dict(self._site.endpoints)

    @property
    def ports(self) -> Mapping[str, int]:
        """Return every port by name."""
        return dict(self._site.ports)

    @property
    def processes(self) -> dict[str, int]:
        """Return the pid of every child that lives, by service."""
        alive = ((name, unit.child) for name, unit in self._units.items())
        return {name: child.pid for name, child in alive if child is not None and child.poll() is None}

    @property
    def units(self) -> Sequence[Unit]:
        """Return the units in the order of their services."""
        return tuple(self._units.values())

    def external(self, name: str) -> bool:
        """Tell whether a service is replaced by one that we did not start."""
        return name in self._units and self._units[name].state is State.EXTERNAL

    # -- life

    def start(self, *, interrupted: Callable[[], bool] = lambda: False) -> None:
        """Start everything in parallel, each as soon as what it needs answers; return when all answer.

        Raises ServiceFailed (everything is stopped again), AlreadyRunning when the folder is in use, Interrupted
        when ``interrupted`` says so.
        """
        self.state.create()
        self.state.lock()
        try:
            self._site.secrets = self.state.secrets()
            self._prepare_units()
            self._start_all(interrupted)
            self.record()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything in reverse order and let go of the folder; a service that lingers is killed."""
        for wave in sorted({unit.service.stop_wave for unit in self._units.values()}):
            self._stop_together([unit for unit in self._units.values() if unit.service.stop_wave == wave])
        self._units.clear()
        self.state.remove_sockets()
        self.state.remove("pids.json")
        self.state.unlock()

    def kill(self, name: str) -> None:
        """SIGKILL one service, as a crash would; it stays down until ``restart``."""
        self._running(name).kill()

    def restart(self, name: str) -> None:
        """Stop one service if it still runs, start it again on the same ports with the same data."""
        unit = self._running(name)
        self._stop_together([unit])
        deadline = time.monotonic() + RESTART_SECONDS
        while not unit.done:
            try:
                self._restart_once(unit)
            except ServiceFailed:  # what a killed server left (a port, shared memory) takes a moment to go
                if time.monotonic() > deadline:
                    raise
        self.record()

    def _restart_once(self, unit: Unit) -> None:
        self.begin(unit)
        while not unit.done:
            unit.advance()
            time.sleep(POLL_SECONDS)

    def begin(self, unit: Unit) -> None:
        """Begin to start one unit again; the caller advances it."""
        unit.stopped(force=True)
        unit.begin()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    # -- how

    def _running(self, name: str) -> Unit:
        unit = self._units.get(name)
        if unit is None or unit.state is State.EXTERNAL:
            raise DevstackError(f"this stack has no service {name}, but {', '.join(self._units) or 'none'}")
        return unit

    def _prepare_units(self) -> None:
        remembered = self.state.read("ports.json")
        self._site.ports.clear()
        self._units = {service.name: Unit(service, self._site) for service in self._services}
        for unit in self._units.values():
            if unit.service.external(self._environ, self._site.secrets) is not None:
                unit.state = State.EXTERNAL
            else:
                self._choose_ports(unit.service, remembered)
        self._ports_chosen()

    def _choose_ports(self, service: Service, remembered: Mapping[str, object]) -> None:
        """Prefer the contract's port, then the port of the last time, so that bookmarks stay true."""
        for name in service.port_names:
            wanted = (service.preferred_port(name, self._environ), remembered.get(name))
            taken = set(self._site.ports.values())
            free = (port for port in wanted if isinstance(port, int) and port not in taken and ports.is_free(port))
            self._site.ports[name] = next(free, None) or ports.choose(taken)

    def _ports_chosen(self) -> None:
        self.state.write("ports.json", self._site.ports)
        self._site.endpoints = common_endpoints(self._site)
        for unit in self._units.values():
            given = unit.service.external(self._environ, self._site.secrets)
            self._site.endpoints.update(unit.service.endpoints(self._site) if given is None else given)

    def _start_all(self, interrupted: Callable[[], bool]) -> None:
        attempts = dict.fromkeys(self._units, PORT_ATTEMPTS)
        while not all(unit.done for unit in self._units.values()):
            if interrupted():
                raise Interrupted("stopped while starting")
            for unit in self._units.values():
                self._push(unit, attempts)
            self._stop_if_one_died()
            time.sleep(POLL_SECONDS)

    def _push(self, unit: Unit, attempts: dict[str, int]) -> None:
        if unit.state is State.WAITING and self._satisfied(unit):
            unit.begin()
        if unit.state is State.STARTING:
            self._advance(unit, attempts)

    def _advance(self, unit: Unit, attempts: dict[str, int]) -> None:
        try:
            unit.advance()
        except ServiceFailed:
            attempts[unit.name] -= 1
            if not (attempts[unit.name] and unit.lost_ports()):
                raise
            self._choose_ports(unit.service, {})  # a port was taken between our choice and the server's bind
            self._ports_chosen()
            unit.begin()
        if unit.done:
            self.record()
            self._report("ready", unit)

    def _satisfied(self, unit: Unit) -> bool:
        return all(self._units[name].done for name in unit.service.needs if name in self._units)

    def _stop_if_one_died(self) -> None:
        for unit in self._units.values():
            if unit.ended():
                log = self.state.log(unit.name)
                raise ServiceFailed(unit.name, "ended while the others were still starting", log)

    @staticmethod
    def _stop_together(units: Sequence[Unit]) -> None:
        for unit in units:
            unit.ask_to_stop()
        began = time.monotonic()
        waiting = list(units)
        while waiting:
            elapsed = time.monotonic() - began
            waiting = [unit for unit in waiting if not unit.stopped(force=elapsed > unit.service.stop_seconds)]
            if waiting:
                time.sleep(POLL_SECONDS)

    def record(self) -> None:
        """Remember who our children are, so that a successor can end those that outlive us."""
        self.state.write("pids.json", {name: [pid, started_at(pid)] for name, pid in self.processes.items()})


def _server(name: str) -> Service:
    if name not in SERVERS:
        raise DevstackError(f"unknown service {name}: known are {', '.join(SERVERS)}")
    return SERVERS[name]()
