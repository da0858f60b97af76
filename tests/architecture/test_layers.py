"""DESIGN section 3, where import-linter cannot see: single files, third-party parts, the standard library."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.architecture.source import ROOT, code_files, imports, imports_of, name

# deps.py opens the ports for app.py, seed.py the first users for python -m migrations: parts of those roots.
SETTINGS_READERS = {"stores.py", "worker.py", "api/app.py", "api/deps.py", "migrations/env.py", "migrations/seed.py"}
STORAGE_USERS_IN_API = {"api/app.py", "api/deps.py"}
NONDETERMINISTIC = ("os", "random", "secrets", "socket", "subprocess", "threading", "time", "requests")
IO_OF_WORKFLOWS = (
    "settings",
    "httpx2",
    "openai",
    "asyncpg",
    "sqlalchemy",
    "nats",
    "aioboto3",
    "temporalio.client",
)


def test_the_import_contracts_of_pyproject_hold() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent))
    assert command is not None, "lint-imports is not installed: make setup"
    result = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


CLIENT_SIDE = {"workflows/starter.py"}
"""Starts workflows from outside; no workflow imports it (the sandbox never sees a client)."""


def reads_settings(file: str) -> bool:
    return file in SETTINGS_READERS or file.endswith("/__main__.py") or file.startswith("cli/")


def test_only_composition_roots_read_the_settings() -> None:
    found = [
        fault
        for path in code_files()
        if not reads_settings(name(path)) and name(path) != "settings.py"
        for fault in imports_of(path, "settings", "sections")
    ]
    assert found == []


def test_storage_enters_the_api_in_app_and_deps_only() -> None:
    found = [
        fault
        for path in code_files()
        if name(path).startswith("api/") and name(path) not in STORAGE_USERS_IN_API
        for fault in imports_of(path, "storage")
    ]
    assert found == []


def test_the_api_never_talks_to_temporal() -> None:
    found = [
        fault
        for path in code_files()
        if name(path).startswith("api/")
        for fault in imports_of(path, "temporalio", "nats")
    ]
    assert found == []


def test_only_adapters_of_activities_know_http() -> None:
    found = [
        fault
        for path in code_files()
        if name(path).startswith("activities/") and not name(path).startswith("activities/adapters/")
        for fault in imports_of(path, "httpx2", "openai", "activities.adapters")
    ]
    assert found == []


def test_workflows_import_nothing_that_does_io_or_differs_on_replay() -> None:
    found = [
        fault
        for path in code_files()
        if name(path).startswith("workflows/") and name(path) not in CLIENT_SIDE
        for fault in imports_of(path, *NONDETERMINISTIC, *IO_OF_WORKFLOWS)
    ]
    assert found == []


def test_the_devstack_needs_the_standard_library_only() -> None:
    found = [
        f"{name(path)}:{line} imports {module}"
        for path in code_files()
        if name(path).startswith("devstack/")
        for module, line in imports(path)
        if module.split(".")[0] not in {*sys.stdlib_module_names, "devstack"}
    ]
    assert found == []


def test_revisions_know_the_tables_and_nothing_else_of_storage() -> None:
    found = [
        f"{name(path)}:{line} imports {module}"
        for path in code_files()
        if name(path).startswith("migrations/versions/")
        for module, line in imports(path)
        if module.startswith("storage.") and not module.startswith("storage.tables")
    ]
    assert found == []
