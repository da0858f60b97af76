"""Starts, finds and stops a supervisor from another process: what ``studio dev`` stands on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from devstack import endpoints
from devstack.apps import ROOT
from devstack.errors import DevstackError
from devstack.processes import Command, open_log, spawn
from devstack.state import StateFolder, started_at

STOP_SECONDS = 60.0  # the supervisor's own bounds add up to less; then it is killed and its children with it
START_SECONDS = 300.0  # waiting for a stack that somebody else is starting
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Event:
    """What a supervisor reports: ready, up, died, restarted, stopping, failed."""

    event: str
    service: str
    detail: str


@dataclass(slots=True)
class Supervision:
    """A supervisor that we started, and its reports."""

    process: subprocess.Popen[bytes]
    _reports: IO[bytes]

    def events(self) -> Iterator[Event]:
        """Yield its reports as they come, until it ends."""
        for line in self._reports:
            yield Event(**json.loads(line))

    def stop(self) -> None:
        """Tell it to stop; its reports go on until it has."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Return its exit status when it has ended."""
        status = self.process.wait()
        self._reports.close()
        return status

    def leave(self) -> None:
        """Let it run on without us."""
        self._reports.close()
        self.process.returncode = 0  # it is not ours to wait for any more


def supervise(state_dir: Path, *, detached: bool, arguments: Sequence[str] = ()) -> Supervision:
    """Start ``python -m devstack``; unless detached it stops when we die."""
    state = StateFolder(state_dir)
    state.create()
    reading, writing = os.pipe()
    options = ["--state-dir", str(state.path), "--events-fd", str(writing), *arguments]
    argv = [sys.executable, "-m", "devstack", *options]
    log = state.log("supervisor")
    try:
        if detached:
            with open_log(log) as output:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=ROOT,
                    start_new_session=True,
                    pass_fds=(writing,),
                )
        else:
            process = spawn(Command(argv=argv, env=os.environ, cwd=ROOT), log, inherited=(writing,)).process
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return Supervision(process, os.fdopen(reading, "rb"))


def running(state_dir: Path) -> int | None:
    """Return the pid of the process that runs the stack in a folder, None when nobody does."""
    return StateFolder(state_dir).owner()


def read_endpoints(state_dir: Path) -> dict[str, Any] | None:
    """Return endpoints.json of a stack that is up, None otherwise (a file left by a killed one does not count)."""
    state = StateFolder(state_dir)
    return state.read(endpoints.NAME) or None if state.owner() else None


def await_up(state_dir: Path) -> dict[str, Any] | None:
    """Wait until a stack that somebody else is starting is up; return its endpoints, None if it ended instead."""
    deadline = time.monotonic() + START_SECONDS
    while running(state_dir) and time.monotonic() < deadline:
        found = read_endpoints(state_dir)
        if found:
            return found
        time.sleep(POLL_SECONDS)
    return None


def stop(state_dir: Path) -> bool:
    """Stop whatever runs in a folder; afterwards no process and no endpoints file is left.

    Return whether something ran. Raises DevstackError when processes can be neither stopped nor killed.
    """
    state = StateFolder(state_dir)
    if not state.path.is_dir():
        return False
    owner = state.owner()
    if owner is not None:
        _end(state, owner)
    with state.locked():  # waits for, and in the end kills, children that outlived a killed supervisor
        state.remove(endpoints.NAME)
        state.remove("pids.json")
    return owner is not None


def _end(state: StateFolder, owner: int) -> None:
    if owner == os.getpid():
        raise DevstackError("this process runs the stack itself: stop it by Stack.stop")
    started = started_at(owner)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(owner, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise DevstackError(f"process {owner} belongs to another user: stop it as that user") from error
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if state.owner() != owner and (not started or started_at(owner) != started):
                return
            time.sleep(POLL_SECONDS)
    raise DevstackError(f"process {owner} does not end")


def reset(state_dir: Path) -> None:
    """Stop whatever runs in a folder and remove its data, logs and credentials."""
    stop(state_dir)
    StateFolder(state_dir).reset()


def persistence(state_dir: Path) -> str:
    """Say in one sentence whether the state outlives a stop and a reboot."""
    if _in_memory(state_dir):
        return f"State is lost at reboot: {state_dir} is in memory (tmpfs)."
    return f"State persists in {state_dir} until --reset."


def _in_memory(path: Path) -> bool:
    """Tell whether a folder lies on tmpfs: the longest mount point above it decides."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    above = [(len(point), kind) for point, kind in mounts if path.absolute().is_relative_to(point)]
    return bool(above) and max(above)[1] in {"tmpfs", "ramfs"}
