"""What a service is: how it is prepared, started, asked whether it answers, and stopped."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from devstack.ports import HOST
from devstack.processes import Command
from devstack.state import StateFolder


@dataclass(slots=True)
class Site:
    """What a service may know: its folder, credentials, ports, and the endpoints of the whole stack."""

    state: StateFolder
    secrets: Mapping[str, str]
    environ: Mapping[str, str]
    ports: dict[str, int] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)

    def url(self, port: str, path: str = "") -> str:
        """Return an HTTP address on one of our ports."""
        return f"http://{HOST}:{self.ports[port]}{path}"

    def server_env(self, **extra: str) -> dict[str, str]:
        """Return the environment of a server: nothing of the user's, no credentials but those given."""
        kept = {name: self.environ[name] for name in ("PATH", "TZ", "LD_LIBRARY_PATH") if name in self.environ}
        return {**kept, "HOME": str(self.state.path), "LANG": "C.UTF-8", **extra}


class Service(ABC):
    """One service. Subclasses are descriptions; the process itself belongs to a ``Unit``."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    port_names: ClassVar[tuple[str, ...]] = ()
    stop_wave: ClassVar[int] = 0  # lower waves stop first
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_seconds: ClassVar[float] = 10.0  # then SIGKILL
    start_seconds: ClassVar[float] = 60.0  # then the start has failed
    once: ClassVar[bool] = False  # it runs to its end; the end with status 0 is readiness

    def external(self, environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:  # noqa: ARG002
        """Return the endpoints of an external replacement when its URL is set, else None."""
        return None

    def endpoints(self, site: Site) -> dict[str, str]:  # noqa: ARG002
        """Return what children must know of this service, by environment variable."""
        return {}

    def prepare(self, site: Site) -> Iterator[Command]:  # noqa: ARG002
        """Yield commands to run to their end before the server starts."""
        yield from ()

    @abstractmethod
    def command(self, site: Site) -> Command:
        """Return the command of the server itself."""

    @abstractmethod
    def ready(self, site: Site) -> bool:
        """Tell whether the first real operation succeeds."""

    def complete(self, site: Site) -> Iterator[Command]:  # noqa: ARG002
        """Yield commands to run to their end once the server answers."""
        yield from ()

    def preferred_port(self, port: str, environ: Mapping[str, str]) -> int | None:  # noqa: ARG002
        """Return the port to use if it is free; None for any."""
        return None

    def server(self, site: Site, argv: Sequence[str | Path], **env: str) -> Command:
        """Return a command with a server's environment, in its own folder."""
        return Command(
            argv=[str(argument) for argument in argv],
            env=site.server_env(**env),
            cwd=site.state.folder(self.name),
            death_signal=self.stop_signal,
        )
