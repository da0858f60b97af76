"""The Makefile with a stand-in for Python: what it asks for, in which order, and when it does nothing."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = ("setup", "demo", "test", "dev", "check", "bench", "soak", "clean")
RECIPE_LINES_MAX = 6

PYTHON_STAND_IN = """#!/bin/sh
echo "python3 $1 $2" >> calls
case "$1" in
  -c) exit {version_check} ;;
  --version) echo "Python 3.9.1" ;;
  -m) mkdir -p .venv/bin
      printf '#!/bin/sh\\necho "pip $*" >> calls\\n' > .venv/bin/pip
      chmod +x .venv/bin/pip ;;
esac
"""


def checkout(folder: Path, version_check: int = 0) -> Path:
    (folder / "Makefile").write_text((ROOT / "Makefile").read_text())
    (folder / "requirements.lock").touch()
    (folder / "pyproject.toml").touch()
    python = folder / "python3"
    python.write_text(PYTHON_STAND_IN.format(version_check=version_check))
    python.chmod(0o755)
    return folder


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        ["make", target, "PYTHON=./python3"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    found = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return found


def test_setup_installs_the_lock_with_hashes_and_then_the_checkout(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    assert make(folder, "setup").returncode == 0
    asked = calls(folder)
    assert "python3 -m venv" in asked
    pip = [call for call in asked if call.startswith("pip")]
    assert [call.split(" --quiet ")[1] for call in pip] == [
        "--no-deps --require-hashes -r requirements.lock",
        "--no-deps --no-build-isolation --editable .",
    ]


def test_setup_does_nothing_until_the_lock_or_pyproject_changes(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    make(folder, "setup")
    calls(folder)
    assert make(folder, "setup").returncode == 0
    assert calls(folder) == []
    for name in ("requirements.lock", "pyproject.toml"):
        made = (folder / ".venv" / ".ready").stat().st_mtime
        os.utime(folder / name, (made + 5, made + 5))
        assert make(folder, "setup").returncode == 0
        asked = calls(folder)
        assert "python3 -m venv" not in asked
        assert sum(call.startswith("pip") for call in asked) == 2
        os.utime(folder / ".venv" / ".ready", (made + 10, made + 10))


def test_an_old_python_is_named_with_the_way_out(tmp_path: Path) -> None:
    folder = checkout(tmp_path, version_check=1)
    result = make(folder, "demo")
    assert result.returncode != 0
    assert "needs Python 3.11 or newer; './python3' is: Python 3.9.1" in result.stderr
    assert "make demo PYTHON=" in result.stderr
    assert not (folder / ".venv").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_a_few_lines(target: str) -> None:
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    assert len(recipe[1].splitlines()) <= RECIPE_LINES_MAX


def test_demo_and_test_have_state_folders_of_their_own() -> None:
    text = (ROOT / "Makefile").read_text()
    folders = re.findall(r"STUDIO_STATE_DIR=\$\(CURDIR\)/(\S+) \$\(BIN\)/(studio demo|pytest)", text)
    assert sorted(folders) == [(".studio-demo", "studio demo"), (".studio-test", "pytest")]


def test_ci_runs_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
    assert "make check test" in script.read_text()
