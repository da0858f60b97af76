"""The demo's own stack: started beside whatever else runs, hurt on purpose, stopped when the story is over."""

from __future__ import annotations

import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from devstack import control
from devstack.control import Event, Supervision
from devstack.processes import tail
from devstack.state import StateFolder

LOG_LINES = 15


class StageFailed(RuntimeError):
    """The stack does not run; the message names the part and its log."""


class Stage:
    """A whole Studio in one state folder, for the length of a ``with`` block. It dies with us.

    ``report`` is told what happens while it starts; afterwards ``news`` has it. Enter it on the main thread.
    """

    def __init__(self, folder: Path, report: Callable[[Event], None]) -> None:
        self.folder = folder
        self._report = report
        self._supervision: Supervision | None = None
        self._news: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start everything; raises StageFailed, DevstackError."""
        self._supervision = control.supervise(self.folder, detached=False)
        events = self._supervision.events()
        try:
            self._until_up(events)
        except BaseException:
            self._end()
            raise
        self._reader = threading.Thread(target=self._read, args=(events,), daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop everything in order."""
        self._end()

    @property
    def endpoints(self) -> Mapping[str, Any]:
        """Return endpoints.json as it is now. Raises StageFailed when the stack is gone."""
        found = control.read_endpoints(self.folder)
        if found is None:
            raise StageFailed(f"The stack in {self.folder} is gone; its logs are in {StateFolder(self.folder).logs}.")
        return found

    def news(self) -> list[Event]:
        """Return what was reported since the last call."""
        found = []
        while not self._news.empty():
            found.append(self._news.get())
        return found

    def kill(self, name: str) -> int:
        """SIGKILL one process, as a crash would; return its pid. The supervisor starts another."""
        pid = int(self.endpoints["processes"][name])
        os.kill(pid, signal.SIGKILL)
        return pid

    def _until_up(self, events: Iterator[Event]) -> None:
        said = []
        for event in events:
            self._report(event)
            said.append(event)
            if event.event == "up":
                return
        raise StageFailed(self._why(said))

    def _read(self, events: Iterator[Event]) -> None:
        for event in events:
            self._news.put(event)

    def _end(self) -> None:
        if self._supervision is None:
            return
        self._supervision.stop()
        if self._reader is not None:
            self._reader.join()
        self._supervision.wait()
        self._supervision = None

    def _why(self, said: list[Event]) -> str:
        reasons = [f"{event.service} {event.detail}".strip() for event in said if event.event == "failed"]
        log = StateFolder(self.folder).log("supervisor")
        return "; ".join(reasons) or tail(log, LOG_LINES) or f"The stack ended while it was starting; see {log}."
