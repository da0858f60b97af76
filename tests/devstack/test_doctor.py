from __future__ import annotations

import socket
from pathlib import Path

import pytest

from devstack import doctor
from devstack.doctor import Finding, examine


def _find(findings: list[Finding], name: str) -> Finding:
    return next(finding for finding in findings if finding.name == name)


def test_a_taken_api_port_is_missing_when_it_was_asked_for(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        finding = _find(examine(tmp_path, {"STUDIO_PORT": port}), "ports")
    assert (finding.level, finding.detail) == ("missing", f"STUDIO_PORT={port} is taken")


def test_an_external_service_needs_no_binary(tmp_path: Path) -> None:
    findings = examine(tmp_path, {"TEMPORAL_HOST": "cluster:7233"})
    assert "temporal" not in {finding.name for finding in findings}
    assert _find(findings, "TEMPORAL_HOST").fix == "unset TEMPORAL_HOST to use the embedded one"


def test_a_binary_that_does_not_run_is_missing(tmp_path: Path) -> None:
    broken = tmp_path / "nats-server"
    broken.write_bytes(b"\x7fELF of another machine")
    broken.chmod(0o755)
    finding = doctor._runs("nats", "NATS_URL", lambda: broken, ["--version"])
    assert finding.level == "missing"
    assert "set NATS_URL" in finding.fix


def test_what_a_killed_supervisor_left_is_noted(tmp_path: Path) -> None:
    (tmp_path / "endpoints.json").write_text("{}")
    finding = _find(examine(tmp_path, {}), "stack")
    assert (finding.level, finding.detail) == ("note", "killed")


def test_too_little_disk_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_MIN_BYTES", 1 << 60)
    assert _find(examine(tmp_path, {}), "disk").level == "missing"
