"""The real local model, once for all tests here, and applications that ask it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from ai.app import Options, create_app
from ai.model import MODEL_NAME

ROOT = Path(__file__).parents[2]
MODEL_KEY = "model-key-of-the-tests"
TOKEN = "service-token-of-the-tests"


def start_model(log: Path, *arguments: str) -> tuple[subprocess.Popen[bytes], str]:
    """The model server on a free port, and its URL, once it answers."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "ai.model", "--port", "0", *arguments],
            cwd=ROOT,
            env={**os.environ, "MODEL_API_KEY": MODEL_KEY},
            stdout=subprocess.PIPE,
            stderr=sink,
        )
    assert process.stdout is not None
    url = process.stdout.readline().decode().strip()
    if not url:
        process.wait(10)
        raise AssertionError(log.read_text())
    return process, url


def stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait(10)
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(scope="session")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    process, url = start_model(tmp_path_factory.mktemp("model") / "log")
    yield f"{url}/v1"
    stop(process)


@pytest.fixture(scope="session")
async def client(model_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the ai-service over the real model."""
    options = Options(model_url=model_url, model_name=MODEL_NAME, model_key=MODEL_KEY, token=TOKEN)
    async with client_of(options) as client:
        yield client


@asynccontextmanager
async def client_of(options: Options) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the service in this process; the transport does not run the lifespan, so it is run here."""
    app = create_app(options)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app=app),
            base_url="http://ai",
            headers={"Authorization": f"Bearer {options.token}"},
            timeout=120,
        ) as client,
    ):
        yield client
