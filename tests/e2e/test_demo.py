"""``studio demo`` on real servers; only the language model is a quick one, so that the story is short."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from cli.story import KILL_AFTER_SECONDS, NEW_TITLE_2
from devstack.apps import ROOT
from devstack.ports import choose
from devstack.state import StateFolder
from tests.e2e.model import NAME, language_model

FOREIGN = ("STUDIO_", "DATABASE_", "AI_", "MODEL_", "NATS_", "S3_", "TEMPORAL_")


def environment(folder: Path, **more: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**own, "STUDIO_STATE_DIR": str(folder), "STUDIO_PORT": str(choose(set())), **more}


def demo(variables: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "demo", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )


@pytest.mark.timeout(300)
def test_the_book_story_holds_every_claim_and_leaves_nothing_running(tmp_path: Path) -> None:
    # Calls about the chapter whose worker is killed last long enough to be caught under way.
    with language_model(NEW_TITLE_2.rpartition(": ")[2], 2 * KILL_AFTER_SECONDS) as url:
        variables = environment(tmp_path / "state", MODEL_URL=url, MODEL_NAME=NAME, MODEL_API_KEY="none")
        ended = demo(variables, "--json", "--svg", str(tmp_path / "demo.svg"))
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert [claim for claim in told["claims"] if not claim["holds"]] == []
    assert len(told["claims"]) == 11
    assert Counter(node["state"] for node in told["nodes"]) == {"source": 3, "fresh": 16}
    assert "kill -9 " in ended.stderr
    assert "supervisor: worker restarted" in ended.stderr
    assert "\x1b" not in ended.stderr
    assert NAME in ended.stderr
    state = StateFolder(tmp_path / "state")
    assert state.owner() is None
    assert not state.endpoints.exists()
    picture = (tmp_path / "demo.svg").read_text()
    assert "All&#160;11&#160;claims&#160;hold" in picture
    assert "@font-face" not in picture
    assert str(tmp_path) not in picture


def test_a_story_is_not_told_twice_in_one_folder(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.create()
    state.lock()
    try:
        ended = demo(environment(tmp_path))
    finally:
        state.unlock()
    assert ended.returncode == 5
    assert "STUDIO_STATE_DIR" in ended.stdout


def test_a_stack_that_cannot_start_is_exit_1_with_the_reason_and_the_logs(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = demo(environment(tmp_path, STUDIO_PORT=str(taken.getsockname()[1])))
    assert ended.returncode == 1
    assert "is taken" in ended.stdout
    assert "Logs are in" in ended.stdout
    assert StateFolder(tmp_path).owner() is None
