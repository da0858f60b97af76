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
    if not laid.exists():
        os.execv(sys.executable, WORKER)  # noqa: S606 - becoming the worker is the whole purpose
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
    child = subprocess.Popen([*launch, *WORKER], env={**os.environ, "STUDIO__RELAY__FAILPOINT": failpoint})
    signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
    status = child.wait()
    with laid.with_suffix(".ends").open("a") as ends:
        ends.write(f"{failpoint} {status}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
