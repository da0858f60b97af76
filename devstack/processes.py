"""One child process: spawned through the launcher, logged to a file, stopped with patience, never orphaned."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from devstack.errors import DevstackError

LAUNCHER = Path(__file__).with_name("launcher.py")
LOG_MAX_BYTES = 32 << 20
LOG_TAIL_BYTES = 4 << 10


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a server becomes when it refuses to be root; ``access`` lets it pass through closed folders."""

    uid: int
    gid: int
    access: bool


@dataclass(frozen=True, slots=True)
class Command:
    """What to start. ``death_signal`` is what the kernel sends the child when its parent dies."""

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path
    death_signal: signal.Signals = signal.SIGTERM
    identity: Identity | None = None


@dataclass(slots=True)
class Child:
    """A running (or ended) child."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The server's own pid: the launcher became it."""
        return self.process.pid

    def poll(self) -> int | None:
        """Return the exit status, None while it lives."""
        return self.process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal if it still lives."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def wait(self, timeout_seconds: float) -> bool:
        """Tell whether it ended in time."""
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL it, and what it may have started in its own session; returns when it is gone."""
        self.send(signal.SIGKILL)
        self.process.wait()
        self.sweep()

    def sweep(self) -> None:
        """End what a dead child may have left in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def spawn(command: Command, log: Path, *, inherited: tuple[int, ...] = ()) -> Child:
    """Start a child that dies with us.

    The kernel sends the death signal when the spawning *thread* ends, so only the main thread may spawn: raises
    DevstackError elsewhere. OSError when the interpreter cannot be started.
    """
    if threading.current_thread() is not threading.main_thread():
        raise DevstackError("start servers from the main thread: they die with the thread that starts them")
    identity = command.identity or Identity(-1, -1, access=False)
    launch = [
        sys.executable, "-S", "-E", "-P", str(LAUNCHER), str(os.getpid()), str(int(command.death_signal)),
        str(identity.uid), str(identity.gid), str(int(identity.access)), *command.argv,
    ]  # fmt: skip
    with open_log(log) as output:
        process = subprocess.Popen(
            launch,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(command.env),
            cwd=command.cwd,
            start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops its children in order
            pass_fds=inherited,
        )
    return Child(process, log)


@contextlib.contextmanager
def open_log(log: Path) -> Iterator[int]:
    """Open a log for appending (0600)."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def bound_log(log: Path, max_bytes: int = LOG_MAX_BYTES) -> None:
    """Keep a log below a size: its content moves to ``.1`` (one generation), its writers go on at the start."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > max_bytes:
            with log.open("rb") as old, log.with_suffix(".log.1").open("wb") as kept:
                shutil.copyfileobj(old, kept)
            os.truncate(log, 0)  # writers append, so they continue at the new end


def tail(log: Path, lines: int) -> str:
    """Return the last lines of a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
