"""The worker as the supervisor starts it here: with the failpoint that a test has laid ready, for one life.

The file that E2E_FAILPOINT_FILE names is taken away as it is read, so that the restart after the crash is unarmed. How
an armed life ended is noted beside it: a test that means to kill at a failpoint must see that it did.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from devstack.processes import LAUNCHER

WORKER = [sys.executable, "-m", "worker"]


def main() -> int:
    laid = Path(os.environ["E2E_FAILPOINT_FILE"])
    while laid.exists():
        armed_life(laid)
    os.execv(sys.executable, WORKER)  # noqa: S606 - becoming the worker is the whole purpose


def armed_life(laid: Path) -> None:
    """One worker with the failpoint of the file, until it dies of it."""
    taken = laid.with_suffix(".taken")
    laid.rename(taken)
    failpoint = taken.read_text()
    launch = [
        sys.executable,
        "-S",
        "-E",
        "-P",
        str(LAUNCHER),
        str(os.getpid()),
        str(int(signal.SIGKILL)),
        "-1",
        "-1",
        "0",
    ]
    child = subprocess.Popen([*launch, *WORKER], env={**os.environ, "STUDIO__SERVICE__FAILPOINT": failpoint})
    signal.signal(signal.SIGTERM, lambda number, frame: _stop(child))
    status = child.wait()
    with laid.with_suffix(".ends").open("a") as ends:
        ends.write(f"{failpoint} {status}\n")


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    sys.exit(child.wait())


if __name__ == "__main__":
    sys.exit(main())
