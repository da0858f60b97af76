"""The functions behind ``studio dev``, ``dev down`` and ``doctor``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli import dev
from devstack import control
from devstack.apps import ROOT
from tests.devstack.waiting import alive, until

INTERRUPTED = 130


@pytest.fixture
def arguments(no_servers: list[str], stand_ins: list[str]) -> list[str]:
    return [*no_servers, *stand_ins]


def test_detached_it_returns_when_all_answer_and_again_without_a_second_start(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert dev.dev(state_dir=tmp_path, detach=True, as_json=True, arguments=arguments) == 0
        first = json.loads(capsys.readouterr().out)
        file = (tmp_path / "endpoints.json").read_bytes()
        assert dev.dev(state_dir=tmp_path, detach=True, as_json=True, arguments=arguments) == 0
        second = json.loads(capsys.readouterr().out)
        assert (tmp_path / "endpoints.json").read_bytes() == file
        assert (first.pop("already_running"), second.pop("already_running")) == (False, True)
        assert first == second
        assert first["endpoints_file"] == str(tmp_path / "endpoints.json")
    finally:
        assert dev.down(state_dir=tmp_path) == 0
    assert not (tmp_path / "endpoints.json").exists()
    assert dev.down(state_dir=tmp_path) == 0


def test_reset_gives_new_credentials_and_keeps_what_is_not_ours(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "novel.txt").write_text("mine")
    try:
        assert dev.dev(state_dir=tmp_path, detach=True, arguments=arguments) == 0
        before = (control.read_endpoints(tmp_path) or {})["api_key"]
        assert dev.dev(state_dir=tmp_path, detach=True, reset=True, arguments=arguments) == 0
        assert (control.read_endpoints(tmp_path) or {})["api_key"] != before
        assert (tmp_path / "novel.txt").read_text() == "mine"
    finally:
        control.stop(tmp_path)


def test_a_failed_start_returns_one_and_names_service_and_log(
    tmp_path: Path, no_servers: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [*no_servers, "--without", "ai", "--without", "worker", "--command", "model=/bin/false"]
    assert dev.dev(state_dir=tmp_path, detach=True, arguments=arguments) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "failed model ended with status 1" in said
    assert "model.log" in said.replace(" ", "")


def test_ctrl_c_stops_everything_and_returns_130(tmp_path: Path, arguments: list[str]) -> None:
    script = "import sys; from cli.dev import dev; from pathlib import Path\n"
    script += "sys.exit(dev(state_dir=Path(sys.argv[1]), arguments=sys.argv[2:]))"
    watcher = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    processes = until(lambda: control.read_endpoints(tmp_path) or {})["processes"]
    watcher.send_signal(signal.SIGINT)
    said, _ = watcher.communicate()
    assert watcher.returncode == INTERRUPTED
    assert not any(alive(pid) for pid in processes.values())
    assert "http://127.0.0.1:" in said
    assert f"State persists in {tmp_path}" in said


def test_doctor_finds_this_machine_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dev.doctor(state_dir=tmp_path / "new", as_json=True) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["healthy"] is True
    assert {"python", "postgres", "temporal", "nats", "s3", "model", "disk"} <= {
        finding["name"] for finding in said["findings"]
    }


def test_doctor_prints_the_fix_of_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NATS_URL", "nats://elsewhere")
    assert dev.doctor(state_dir=tmp_path / "file") == 1
    said = capsys.readouterr().out
    assert "missing  state folder" in said
    assert "fix: choose another with STUDIO_STATE_DIR" in said
    assert "NATS is external" in said


def test_passwords_do_not_reach_the_screen() -> None:
    assert dev._without_password("postgresql://studio:secret@127.0.0.1:1/x") == "postgresql://127.0.0.1:1/x"
    assert dev._without_password("http://127.0.0.1:1") == "http://127.0.0.1:1"
    assert dev._without_password(None) is None
