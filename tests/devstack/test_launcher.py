from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.binaries import postgres_folder
from devstack.errors import DevstackError
from devstack.launcher import ORPHANED
from devstack.postgres import passable
from devstack.processes import LAUNCHER, Command, Identity, spawn
from devstack.stack import Stack
from tests.devstack.waiting import until, until_gone

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
ROOT = LAUNCHER.parent.parent
NOBODY = 65534


def _status(pid: int, field: str) -> str:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field + ":"))


def test_a_child_gets_its_death_signal_when_its_parent_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, os, signal; from pathlib import Path; from devstack.processes import Command, spawn\n"
        "command = Command(['/bin/sh', '-c', 'trap \"echo bye; exit\" INT; echo up; while :; do sleep 0.1; done'],"
        " os.environ, Path('/'), signal.SIGINT)\n"
        "print(spawn(command, Path(sys.argv[1])).pid, flush=True); signal.pause()"
    )
    log = tmp_path / "child.log"
    with subprocess.Popen([sys.executable, "-c", script, str(log)], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        until(lambda: log.read_text() == "up\n")
        parent.kill()
    until_gone([pid])
    assert log.read_text() == "up\nbye\n"


def test_a_child_whose_parent_is_already_gone_does_not_start() -> None:
    arguments = [str(os.getpid() + 1), "15", "-1", "-1", "0", "/bin/echo", "started"]
    done = subprocess.run([sys.executable, LAUNCHER, *arguments], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (ORPHANED, b"")


def test_a_command_that_cannot_be_started_is_named() -> None:
    arguments = [str(os.getpid()), "15", "-1", "-1", "0", "/no/such/server"]
    done = subprocess.run([sys.executable, LAUNCHER, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "/no/such/server" in done.stderr


def test_only_the_main_thread_may_start_servers(tmp_path: Path) -> None:
    refused: list[str] = []

    def start() -> None:
        try:
            spawn(Command(["/bin/true"], {}, Path("/")), tmp_path / "log")
        except DevstackError as error:
            refused.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert refused
    assert "main thread" in refused[0]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="studio-open-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "state"


@as_root
def test_root_starts_postgres_as_nobody_without_any_capability_where_folders_are_open(open_folder: Path) -> None:
    if not passable(postgres_folder() / "postgres"):
        pytest.skip("this environment lies in a closed folder")
    with Stack(open_folder, ("postgres",), environ={"PATH": os.environ["PATH"]}) as stack:
        pid = stack.processes["postgres"]
        assert _status(pid, "Uid").split() == [str(NOBODY)] * 4
        assert int(_status(pid, "CapEff"), 16) == 0
        assert (open_folder / "secrets.json").stat().st_mode & 0o077 == 0


@as_root
def test_root_starts_postgres_as_nobody_below_a_closed_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with Stack(closed / "state", ("postgres",), environ={"PATH": os.environ["PATH"]}) as stack:
        pid = stack.processes["postgres"]
        assert _status(pid, "Uid").split() == [str(NOBODY)] * 4
        assert _status(pid, "Groups") == ""
        assert int(_status(pid, "CapEff"), 16) & ~0b110 == 0  # nothing but passing through folders
        assert int(_status(pid, "CapAmb"), 16) != 0
        assert closed.stat().st_mode & 0o777 == 0o700


UNPRIVILEGED = """\
import os, sys
from pathlib import Path
from devstack.stack import Stack
with Stack(Path(sys.argv[1]), ("postgres", "nats"), environ={"PATH": os.environ["PATH"]}) as stack:
    owners = {os.stat(f"/proc/{pid}").st_uid for pid in stack.processes.values()}
    print(os.geteuid(), sorted(owners), len(stack.processes))
"""


@as_root
def test_an_unprivileged_user_starts_the_servers_as_himself(open_folder: Path, tmp_path: Path) -> None:
    open_folder.mkdir()
    os.chown(open_folder, NOBODY, NOBODY)
    identity = Identity(NOBODY, NOBODY, access=True)  # the interpreter may lie in a closed folder
    argv = [sys.executable, "-c", UNPRIVILEGED, str(open_folder)]
    log = tmp_path / "log"
    child = spawn(
        Command(argv, {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, Path("/"), identity=identity), log
    )
    assert child.wait(60)
    assert log.read_text() == f"{NOBODY} [{NOBODY}] 2\n"


def test_a_start_signal_is_not_lost_between_two_children(tmp_path: Path) -> None:
    child = spawn(Command(["/bin/sleep", "60"], {}, Path("/")), tmp_path / "log")
    until(lambda: Path(f"/proc/{child.pid}/comm").read_text() == "sleep\n")
    child.send(signal.SIGTERM)
    assert child.wait(10)
    assert child.poll() == -signal.SIGTERM
