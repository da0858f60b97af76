"""The real API as a process, and the command as a person would type it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.main import status_of
from devstack.apps import ROOT
from devstack.ports import choose
from devstack.probes import ask
from tests.conftest import Person
from tests.devstack.waiting import until


@pytest.fixture(scope="session")
def api_url(database_urls: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``python -m api`` on the tests' database."""
    port = choose(set())
    environment = {**os.environ, **database_urls, "STUDIO_HOST": "127.0.0.1", "STUDIO_PORT": str(port)}
    log = tmp_path_factory.mktemp("api") / "api.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "api"], cwd=ROOT, env=environment, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: ask(f"{url}/readyz").ok or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield url
    finally:
        process.terminate()
        process.wait()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Studio = Callable[..., Awaitable[Ended]]


@pytest.fixture
def studio(
    api_url: str,
    user: Person,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    tmp_path: Path,
) -> Studio:
    """Run ``studio`` with these arguments as ``user``, in a folder of its own."""
    monkeypatch.setenv("STUDIO_API_URL", api_url)
    monkeypatch.setenv("STUDIO_API_KEY", user.key)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    async def run(*arguments: str, stdin: str = "") -> Ended:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capfdbinary.readouterr()
        status = await asyncio.to_thread(status_of, list(arguments))
        said = capfdbinary.readouterr()
        return Ended(status, said.out.decode(), said.err.decode())

    return run
