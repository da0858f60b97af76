"""One whole Studio of real processes, and the ways in which tests hurt it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from devstack.apps import ROOT
from devstack.ports import choose
from devstack.processes import Child, Command, spawn, tail
from devstack.state import StateFolder, started_at
from tests.e2e.waiting import eventually

START_SECONDS = 90.0
STOP_SECONDS = 45.0

# What recovers by waiting for a time recovers sooner here, so that the suite stays short; nothing else differs
# from the defaults. Content beyond 2 KB is "large", so that large content is cheap to make.
SETTINGS = {
    "STUDIO__CASCADES__LEASE_SECONDS": "6",
    "STUDIO__CASCADES__RECONCILE_INTERVAL": "3s",
    "STUDIO__PROVIDERS__RETRY_POLICY__FIRST_PAUSE": "200ms",
    "STUDIO__STORAGE__INLINE_MAX": "2000",
}


class Studio:
    """A supervisor with everything below it but the language model; ``endpoints`` is what it wrote."""

    def __init__(self, folder: Path, service_url: str) -> None:
        self.state = StateFolder(folder)
        self.failpoint_file = folder / "failpoint"
        self._service_url = service_url
        self._supervisor: Child | None = None

    def start(self) -> None:
        """Start and wait until everything answers."""
        self.state.reset()
        self.state.create()
        for left in self.state.path.glob("failpoint*"):
            left.unlink()
        kept = ("STUDIO_", "DATABASE_", "AI_", "MODEL_", "NATS_", "S3_", "TEMPORAL_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        environment |= SETTINGS | {
            "STUDIO_PORT": str(choose(set())),
            "STUDIO__SERVICES__TEST__URL": self._service_url,
            "E2E_FAILPOINT_FILE": str(self.failpoint_file),
        }
        argv = [sys.executable, "-m", "devstack", "--state-dir", str(self.state.path), "--without", "model"]
        argv += ["--without", "ai", "--command", f"worker={sys.executable} -m tests.e2e.armed_worker"]
        self._supervisor = spawn(Command(argv=argv, env=environment, cwd=ROOT), self.state.log("supervisor"))
        deadline = time.monotonic() + START_SECONDS
        while not self.state.endpoints.exists():
            if self._supervisor.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"no Studio: {tail(self.state.log('supervisor'), 15)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop everything."""
        if self._supervisor is None:
            return
        for name in ("postgres", "temporal", "nats", "s3", "api", "worker"):
            with suppress(KeyError, OSError):  # not running, or nothing ever was
                os.kill(self.pid(name), signal.SIGCONT)
        self._supervisor.send(signal.SIGTERM)
        if not self._supervisor.wait(STOP_SECONDS):
            self._supervisor.kill()

    @property
    def endpoints(self) -> Mapping[str, Any]:
        """endpoints.json as it stands."""
        found: dict[str, Any] = json.loads(self.state.endpoints.read_text())
        return found

    def pid(self, name: str) -> int:
        """The process id of a child as the supervisor last wrote it."""
        return int(self.endpoints["processes"][name])

    def kill(self, name: str) -> int:
        """SIGKILL a child as a crash would; returns the pid it had."""
        pid = self.pid(name)
        assert started_at(pid), f"{name} is not running"
        os.kill(pid, signal.SIGKILL)
        return pid

    def freeze(self, name: str) -> None:
        """Stop a child without ending it: it neither answers nor refuses."""
        os.kill(self.pid(name), signal.SIGSTOP)

    async def restarted(self, name: str, old: int) -> int:
        """Wait until the supervisor has a new, ready child; returns its pid."""

        def changed() -> int | None:
            known = self.endpoints["processes"].get(name)
            return None if known in (None, old) else int(known)

        return int(await eventually(changed, f"{name} is running again"))

    def arm(self, failpoint: str) -> None:
        """Let the next worker kill itself at a point of the relay."""
        self.failpoint_file.write_text(failpoint)

    def is_armed(self) -> bool:
        """Whether the worker's life is one that ends at a failpoint: then its keeper waits for that."""
        with suppress(KeyError, OSError):  # between two lives
            return b"armed_worker" in Path(f"/proc/{self.pid('worker')}/cmdline").read_bytes()
        return False

    async def disarmed(self) -> None:
        """Wait until a worker has taken the failpoint."""
        await eventually(lambda: not self.failpoint_file.exists(), "a worker has taken the failpoint")

    def ends(self) -> list[str]:
        """How the lives of armed workers ended: failpoint and exit status, oldest first."""
        noted = self.failpoint_file.with_suffix(".ends")
        return noted.read_text().splitlines() if noted.exists() else []

    def second_worker(self) -> subprocess.Popen[bytes]:
        """Start one more worker with the environment of the supervised one; the caller ends it."""
        raw = Path(f"/proc/{self.pid('worker')}/environ").read_bytes()
        environment = dict(entry.split("=", 1) for entry in raw.decode().split("\0") if "=" in entry)
        environment["WORKER_HEALTH_PORT"] = str(choose(set()))
        with self.state.log("worker-2").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "worker"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
