from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devstack import control
from devstack.apps import ROOT
from devstack.ports import accepts
from devstack.probes import ask
from devstack.state import StateFolder, started_at
from devstack.supervisor import DELAY_MAX_SECONDS, HEALTHY_SECONDS, Backoff
from tests.devstack.waiting import alive, until, until_gone

CONTRACT_KEYS = {
    "api_url", "api_key", "admin_key", "user_id", "database_url", "database_admin_url", "temporal_address",
    "temporal_namespace", "temporal_ui_url", "nats_url", "s3_endpoint", "s3_bucket", "s3_access_key",
    "s3_secret_key", "ai_url", "state_dir", "processes",
}  # fmt: skip
CONFLICT = 5


def _up(folder: Path, arguments: list[str]) -> dict[str, Any]:
    supervision = control.supervise(folder, detached=True, arguments=arguments)
    events = [event.event for event in _until_event(supervision, "up")]
    assert events[-1] == "up", events
    supervision.leave()
    found = control.read_endpoints(folder)
    assert found is not None
    return found


def _until_event(supervision: control.Supervision, wanted: str) -> Iterator[control.Event]:
    for event in supervision.events():
        yield event
        if event.event == wanted:
            return


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, stand_ins: list[str]) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("studio")
    _up(folder, stand_ins)
    yield folder
    control.stop(folder)


def _found(folder: Path) -> dict[str, Any]:
    found = control.read_endpoints(folder)
    assert found is not None
    return found


def test_the_endpoints_file_is_the_contracts_and_ours_alone(folder: Path) -> None:
    found = _found(folder)
    assert set(found) == CONTRACT_KEYS
    assert not [key for key, value in found.items() if value is None]
    assert found["user_id"] == "user-of-" + found["api_key"]
    assert found["api_key"].startswith("mst_live_")
    assert found["admin_key"] != found["api_key"]
    file = folder / "endpoints.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == {".studio"}


def test_every_process_lives_under_its_own_pid(folder: Path) -> None:
    processes = _found(folder)["processes"]
    named = {"api", "worker", "ai", "model", "postgres", "temporal", "nats", "s3", "supervisor"}
    assert set(processes) == named
    assert all(alive(pid) for pid in processes.values())
    program = Path(f"/proc/{processes['temporal']}/exe").readlink().name
    assert program == "temporal"


def test_the_api_and_the_temporal_ui_answer_where_the_file_says(folder: Path) -> None:
    found = _found(folder)
    assert ask(found["api_url"] + "/readyz").ok
    assert b"<html" in ask(found["temporal_ui_url"]).body
    assert ask(found["s3_endpoint"] + "/healthz").ok


def test_a_second_supervisor_is_refused(folder: Path) -> None:
    before = (folder / "endpoints.json").read_bytes()
    second = subprocess.run(
        [sys.executable, "-m", "devstack", "--state-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == CONFLICT
    assert "already runs" in second.stderr
    assert (folder / "endpoints.json").read_bytes() == before


@pytest.mark.parametrize("name", ["api", "worker", "nats"])
def test_a_killed_child_is_back_on_its_port_under_a_new_pid(folder: Path, name: str) -> None:
    before = _found(folder)
    os.kill(before["processes"][name], signal.SIGKILL)
    after = until(lambda: _changed(folder, name, before["processes"][name]))
    assert {key: value for key, value in after.items() if key != "processes"} == {
        key: value for key, value in before.items() if key != "processes"
    }
    assert alive(after["processes"][name])
    ports = json.loads((folder / "ports.json").read_text())
    assert accepts(ports[name])
    others = before["processes"].keys() - {name}
    assert all(after["processes"][other] == before["processes"][other] for other in others)


def _changed(folder: Path, name: str, old: int) -> dict[str, Any] | None:
    found = _found(folder)
    return found if found["processes"].get(name, old) != old else None


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_is_normal(folder: Path, stand_ins: list[str]) -> None:
    before = _found(folder)
    os.kill(before["processes"]["supervisor"], signal.SIGKILL)
    until(lambda: control.running(folder) is None)
    assert control.read_endpoints(folder) is None

    after = _up(folder, stand_ins)  # waits for the last of the old ones by itself

    assert not any(alive(pid) for pid in before["processes"].values())
    same = ("api_url", "database_url", "temporal_address", "nats_url", "s3_endpoint", "api_key")
    assert all(after[key] == before[key] for key in same)


def test_down_leaves_no_process_and_no_endpoints_file_and_can_be_repeated(folder: Path) -> None:
    processes = _found(folder)["processes"]
    assert control.stop(folder) is True
    assert not any(alive(pid) for pid in processes.values())
    assert not (folder / "endpoints.json").exists()
    assert control.stop(folder) is False


def test_a_failing_app_ends_the_start_with_its_name_and_log(tmp_path: Path, no_servers: list[str]) -> None:
    done = subprocess.run(
        [
            sys.executable, "-m", "devstack", "--state-dir", str(tmp_path), *no_servers, "--without", "model",
            "--without", "ai", "--without", "worker", "--command", "api=/bin/sh -c 'echo no teapot; exit 3'",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "api ended with status 3 before it answered" in done.stderr
    assert "no teapot" in done.stderr
    assert str(tmp_path / "logs" / "api.log") in done.stderr
    assert StateFolder(tmp_path).owner() is None
    assert not (tmp_path / "endpoints.json").exists()


def test_a_signal_while_starting_stops_the_start(tmp_path: Path, no_servers: list[str]) -> None:
    arguments = [*no_servers, "--without", "model", "--command", "ai=/bin/sh -c 'exec sleep 600'"]
    supervision = control.supervise(tmp_path, detached=False, arguments=arguments)
    pid = until(lambda: _sleeper(tmp_path))
    supervision.stop()
    assert [event.event for event in supervision.events()] == []
    assert supervision.wait() == 0
    assert not alive(pid)


def _sleeper(folder: Path) -> int | None:
    """The pid of the app that never answers, once it runs."""
    owner = StateFolder(folder).owner()
    children = Path(f"/proc/{owner}/task/{owner}/children")
    pids = children.read_text().split() if owner and children.exists() else []
    return int(pids[0]) if pids else None


def test_children_die_with_whoever_watches_in_the_foreground(
    tmp_path: Path, no_servers: list[str], stand_ins: list[str]
) -> None:
    script = "import sys; from cli.dev import dev; from pathlib import Path\n"
    script += "sys.exit(dev(state_dir=Path(sys.argv[1]), arguments=sys.argv[2:]))"
    watcher = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), *no_servers, *stand_ins],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    processes = until(lambda: control.read_endpoints(tmp_path) or {})["processes"]
    watcher.kill()
    watcher.wait()
    until_gone(processes.values())
    until(lambda: not (tmp_path / "endpoints.json").exists())


def test_a_service_that_keeps_dying_waits_ever_longer_and_never_beyond_the_bound() -> None:
    backoff = Backoff()
    assert [backoff.died(now) for now in range(9)] == [0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10]
    assert backoff.not_before == 8 + DELAY_MAX_SECONDS
    assert backoff.died(9 + HEALTHY_SECONDS) == 0


def test_a_process_that_is_gone_has_no_start_time() -> None:
    assert started_at(os.getpid()) > 0
    with subprocess.Popen(["/bin/true"]) as process:
        process.wait()
        assert started_at(process.pid) == 0
