"""What can go wrong while servers start. Apart from the domain's tree: devstack imports no other part."""

from __future__ import annotations

from pathlib import Path


class DevstackError(RuntimeError):
    """The stack cannot do what was asked; the message names the cause and the fix."""


class AlreadyRunning(DevstackError):
    """Another stack holds the state folder."""


class Interrupted(DevstackError):
    """A stop was asked for while the stack was still starting."""


class ServiceFailed(DevstackError):
    """A service ended or stayed silent while it was starting; ``log`` says why in its own words."""

    def __init__(self, service: str, reason: str, log: Path) -> None:
        super().__init__(f"{service}: {reason}; see {log}")
        self.service = service
        self.reason = reason
        self.log = log
