"""An API in a process of its own, on the tests' database."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from devstack.apps import ROOT
from devstack.ports import choose
from devstack.probes import ask
from tests.devstack.waiting import until


@contextmanager
def api_process(
    environment: Mapping[str, str], log: Path, *command: str
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run ``python -m <command> <port>`` (``api`` without one) and return its address; it may die meanwhile."""
    port = choose(set())
    inside = {**os.environ, **environment, "STUDIO_HOST": "127.0.0.1", "STUDIO_PORT": str(port)}
    arguments = [*command, str(port)] if command else ["api"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=inside, stdout=output, stderr=output
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: ask(f"{url}/readyz").ok or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield url, process
    finally:
        process.terminate()
        process.wait()
