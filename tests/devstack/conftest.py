from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import pytest

from devstack.doctor import OVERRIDES

STAND_IN = Path(__file__).with_name("stand_in.py")
APPS = ("model", "migrate", "ai", "worker", "api")


@pytest.fixture(autouse=True, scope="session")
def embedded() -> None:
    """Start our own servers, whatever URLs the environment of the test run names."""
    for variable in (*OVERRIDES, "DATABASE_RELAY_URL", "STUDIO_PORT", "STUDIO_HOST", "STUDIO_STATE_DIR"):
        os.environ.pop(variable, None)


@pytest.fixture(scope="session")
def stand_ins() -> list[str]:
    """Arguments of ``python -m devstack`` that put small programs in place of our apps."""
    commands = {name: shlex.join([sys.executable, str(STAND_IN), name]) for name in APPS}
    return [part for name, command in commands.items() for part in ("--command", f"{name}={command}")]


@pytest.fixture(scope="session")
def no_servers() -> list[str]:
    """Arguments that leave the servers out: quick, for what concerns the supervisor alone."""
    return [part for name in ("postgres", "temporal", "nats", "s3", "migrate") for part in ("--without", name)]
