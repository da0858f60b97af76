"""The state folder: one stack's data, logs, credentials and locks. Everything a stack leaves behind is in here."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from devstack import credentials
from devstack.errors import AlreadyRunning, DevstackError

DEFAULT_NAME = ".studio"
PROC = Path("/proc")
SHORT_FOLDER = "/tmp"  # noqa: S108 - mkdtemp makes a private folder in it; TMPDIR may be long
SOCKET_PATH_MAX = 100  # the kernel allows 107 bytes with the file's name
LOCK_PATIENCE_SECONDS = 0.5  # somebody who only asks who holds the lock holds it himself for a moment
ORPHAN_GRACE_SECONDS = 10.0  # how long children of a killed supervisor may take to end by themselves
ORPHAN_KILL_SECONDS = 10.0
POLL_SECONDS = 0.02

# Everything that may be removed by reset; a folder chosen by mistake loses nothing else.
OWNED = (
    ".studio",
    "endpoints.json", "logs", "nats", "pids.json", "ports.json", "postgres", "postgres.new", "run", "s3",
    "secrets.json", "sockets.json", "temporal", "worker",
)  # fmt: skip


def default_folder(environ: Mapping[str, str]) -> Path:
    """Return STUDIO_STATE_DIR, else ``.studio`` in the current folder."""
    return Path(environ.get("STUDIO_STATE_DIR") or DEFAULT_NAME).absolute()


def started_at(pid: int) -> int:
    """Return when a process started (clock ticks since boot), which with its pid names it; 0 if gone, or no /proc."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    zombie = fields[0] == "Z"
    return 0 if zombie else int(fields[19])


class StateFolder:
    """Paths, locks and small JSON files of one state folder."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.logs = self.path / "logs"
        self.endpoints = self.path / "endpoints.json"
        self._lock: int | None = None
        self._children_lock: int | None = None

    # -- folders and files

    def create(self) -> None:
        """Make the folder. Root's is passable (0711) so that a server without root finds its own data in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self.folder("logs")
        alias = self.path / DEFAULT_NAME
        if self.path.name != DEFAULT_NAME and not alias.is_symlink():
            # STUDIO_STATE_DIR names this folder; whoever looks for .studio/endpoints.json below it finds the same file.
            alias.symlink_to(".")

    def folder(self, name: str) -> Path:
        """Return a private folder (0700) for one service's data."""
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def log(self, name: str) -> Path:
        """Return the log of one service."""
        return self.logs / f"{name}.log"

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON object of ours; absent or damaged is empty."""
        try:
            value = json.loads((self.path / name).read_bytes())
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON object readable by us alone (0600); a reader sees the old or the new one, whole."""
        handle, temporary = tempfile.mkstemp(dir=self.path, prefix=f".{name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(value, file, indent=2)
                file.write("\n")
            os.replace(temporary, self.path / name)  # noqa: PTH105 - atomic, and temporary is text
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Remove one file of ours if it is there."""
        (self.path / name).unlink(missing_ok=True)

    def secrets(self) -> dict[str, str]:
        """Return the credentials, made on first use."""
        known = self.read("secrets.json")
        complete = credentials.complete(known)
        if complete != known:
            self.write("secrets.json", complete)
        return complete

    def sockets(self) -> Path:
        """Return a private folder whose path is short enough for unix sockets."""
        inside = self.folder("run")
        if len(os.fsencode(inside)) <= SOCKET_PATH_MAX - len("/filer.sock"):
            return inside
        known = Path(self.read("sockets.json").get("path", ""))
        if not (known.name.startswith("studio-") and known.is_dir() and known.stat().st_uid == os.geteuid()):
            known = Path(tempfile.mkdtemp(prefix="studio-", dir=SHORT_FOLDER))
            self.write("sockets.json", {"path": str(known)})
        return known

    def remove_sockets(self) -> None:
        """Remove the short folder that lies outside the state folder, if one was needed."""
        known = Path(self.read("sockets.json").get("path", ""))
        if known.name.startswith("studio-"):
            shutil.rmtree(known, ignore_errors=True)
            self.remove("sockets.json")

    def reset(self) -> None:
        """Remove all data, logs and credentials. Raises AlreadyRunning while a stack uses them."""
        if not self.path.is_dir():
            return
        with self.locked():
            self.remove_sockets()
            for name in OWNED:
                target = self.path / name
                if target.is_dir() and not target.is_symlink():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)

    # -- locks

    @contextlib.contextmanager
    def locked(self) -> Iterator[StateFolder]:
        """Hold the folder for the block."""
        self.lock()
        try:
            yield self
        finally:
            self.unlock()

    def lock(self) -> None:
        """Take the folder for this process and wait until no child of an earlier, killed owner is left.

        Two files: ``lock`` says that a supervisor lives; ``children.lock`` is inherited by every child, so it is
        free only when all of them are gone (two Temporal servers on one database would corrupt it silently).
        Raises AlreadyRunning, or DevstackError when something that we did not start holds on.
        """
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while (handle := self._take("lock")) is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        if handle is None:
            raise AlreadyRunning(f"a stack already runs in {self.path} (pid {self.owner() or 'unknown'})")
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._lock = handle
        try:
            self._children_lock = self._outlive_orphans()
        except BaseException:
            self.unlock()
            raise

    def unlock(self) -> None:
        """Let go of the folder."""
        for handle in (self._children_lock, self._lock):
            if handle is not None:
                os.close(handle)
        self._children_lock = self._lock = None

    def owner(self) -> int | None:
        """Return the pid of the process that holds the folder, None when nobody does."""
        if not (self.path / "lock").exists():
            return None
        handle = self._take("lock")
        if handle is not None:
            os.close(handle)
            return None
        text = (self.path / "lock").read_text().strip()
        return int(text) if text.isdigit() else None

    def inherited(self) -> tuple[int, ...]:
        """Return the file descriptors that every child keeps open: the children's lock."""
        return () if self._children_lock is None else (self._children_lock,)

    def _take(self, name: str) -> int | None:
        handle = os.open(self.path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def _outlive_orphans(self) -> int:
        """Wait for orphans to end by their death signal, kill those that do not, return the children's lock."""
        for patience in (ORPHAN_GRACE_SECONDS, ORPHAN_KILL_SECONDS):
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                handle = self._take("children.lock")
                if handle is not None:
                    return handle
                time.sleep(POLL_SECONDS)
            self._kill_orphans()
        raise DevstackError(f"processes of an earlier stack still hold {self.path / 'children.lock'}: end them")

    def _kill_orphans(self) -> None:
        for pid, started in self.read("pids.json").values():
            if started and started_at(pid) == started:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
