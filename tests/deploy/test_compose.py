"""docker-compose.temporal.yml, as far as it can be checked without a container engine."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings import VARIABLES

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.temporal.yml"
DEVSTACK_SERVICES = {"postgres", "temporal", "nats", "s3", "migrate", "ai", "api", "worker"}
ONE_SHOT = {"temporal-schema", "temporal-namespace", "migrate"}
WITHOUT_PORT = {"worker"}
OURS = {"migrate", "ai", "api", "worker"}
VARIABLE = re.compile(r"\$\{(\w+)(?P<rule>[^}]*)\}")
MAY_BE_EMPTY = {"MODEL_API_KEY"}

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]


def test_the_file_satisfies_the_compose_schema() -> None:
    command = shutil.which("check-jsonschema", path=str(Path(sys.executable).parent))
    assert command is not None, "check-jsonschema is not installed: make setup"
    result = subprocess.run(
        [command, "--builtin-schema", "vendor.compose-spec", str(COMPOSE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_service_of_the_devstack_is_there() -> None:
    named = re.findall(r'^    name = "(\w+)"', "".join(p.read_text() for p in ROOT.glob("devstack/*.py")), re.MULTILINE)
    assert DEVSTACK_SERVICES | (set(named) - {"model"}) <= set(SERVICES)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_an_image_is_pinned_by_version(name: str) -> None:
    image = SERVICES[name]["image"]
    tag = image.rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+", tag), f"{image} names no version"


@pytest.mark.parametrize("name", sorted(set(SERVICES) - ONE_SHOT - WITHOUT_PORT))
def test_a_service_that_stays_says_whether_it_is_healthy_and_is_started_again(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_whoever_depends_on_a_service_waits_until_it_answers_or_is_done() -> None:
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            done = needed in ONE_SHOT
            expected = "service_completed_successfully" if done else "service_healthy"
            assert how["condition"] == expected, f"{name} needs {needed}"


def test_no_secret_has_a_default() -> None:
    found = [
        match.group()
        for match in VARIABLE.finditer(COMPOSE.read_text())
        if not match["rule"].startswith(":?") and match[1] not in MAY_BE_EMPTY
    ]
    assert found == []


def test_the_example_lists_exactly_the_variables_that_are_asked_for_without_values() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(example) == {match[1] for match in VARIABLE.finditer(COMPOSE.read_text())}
    assert {name for name, value in example.items() if value} == set()


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_of_our_processes_is_a_setting(name: str) -> None:
    assert set(SERVICES[name]["environment"]) <= set(VARIABLES)


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_processes_run_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_ports_are_published_on_this_machine_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_every_mounted_folder_exists() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    folders = [mount.partition(":")[0] for mount in mounts if mount.startswith("./")]
    assert folders
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []
