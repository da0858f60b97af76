from __future__ import annotations

import stat
from pathlib import Path

import pytest

from devstack.errors import AlreadyRunning
from devstack.processes import bound_log, tail
from devstack.state import OWNED, SOCKET_PATH_MAX, StateFolder, default_folder


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path / "state")
    state.create()
    return state


def test_the_folder_is_that_of_the_environment_else_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert default_folder({}) == tmp_path / ".studio"
    assert default_folder({"STUDIO_STATE_DIR": "elsewhere"}) == tmp_path / "elsewhere"


def test_credentials_are_made_once_and_are_ours_alone(state: StateFolder) -> None:
    made = state.secrets()
    assert made == state.secrets()
    assert len(set(made.values())) == len(made)
    assert stat.S_IMODE((state.path / "secrets.json").stat().st_mode) == 0o600


def test_a_missing_credential_is_added_to_the_known_ones(state: StateFolder) -> None:
    state.write("secrets.json", {"nats": "kept"})
    assert state.secrets()["nats"] == "kept"
    assert state.secrets()["ai_token"]


def test_a_damaged_file_reads_as_empty(state: StateFolder) -> None:
    (state.path / "ports.json").write_text('{"nats": 4')
    assert state.read("ports.json") == {}
    (state.path / "ports.json").write_text("[]")
    assert state.read("ports.json") == {}


def test_the_endpoints_are_found_below_the_folder_that_the_environment_names(state: StateFolder) -> None:
    (state.path / "endpoints.json").write_text("{}")
    assert (state.path / ".studio" / "endpoints.json").read_text() == "{}"


def test_one_owner_at_a_time_who_is_named(state: StateFolder) -> None:
    assert state.owner() is None
    with state.locked():
        assert state.owner() is not None
        with pytest.raises(AlreadyRunning, match="already runs in"):
            StateFolder(state.path).lock()
    assert state.owner() is None


def test_reset_removes_all_of_ours_and_nothing_else(state: StateFolder) -> None:
    for name in OWNED:
        state.remove(name) if (state.path / name).is_file() or (state.path / name).is_symlink() else (
            state.path / name
        ).mkdir(exist_ok=True)
    (state.path / "diary.txt").write_text("mine")
    state.reset()
    assert {path.name for path in state.path.iterdir()} == {"diary.txt", "lock", "children.lock"}


def test_reset_refuses_while_a_stack_runs(state: StateFolder) -> None:
    state.secrets()
    with state.locked(), pytest.raises(AlreadyRunning):
        StateFolder(state.path).reset()
    assert (state.path / "secrets.json").exists()


def test_a_long_path_gets_a_short_private_folder_for_sockets(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / ("long" * 30))
    state.create()
    sockets = state.sockets()
    assert len(str(sockets / "filer.sock")) <= SOCKET_PATH_MAX
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert state.sockets() == sockets
    state.remove_sockets()
    assert not sockets.exists()


def test_a_log_beyond_its_bound_moves_aside_once(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("one\ntwo\n")
    with log.open("a") as writer:
        bound_log(log, max_bytes=4)
        writer.write("three\n")
    assert log.read_text() == "three\n"
    assert (tmp_path / "api.log.1").read_text() == "one\ntwo\n"
    assert tail(tmp_path / "api.log.1", 1) == "two"
    assert tail(tmp_path / "absent.log", 1) == ""
