"""Bodies in memory are bounded: who finds no place waits, then comes back later; who is slow gives up its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from api import streams
from api.app import create_app
from api.streams import Places
from domain.errors import Invalid
from settings import load_settings
from tests.api.requests import problem
from tests.conftest import BASE, Person, client_of

OCTETS = {"content-type": "application/octet-stream"}


async def test_without_a_place_a_body_is_not_read_and_the_client_comes_back(
    app: Any, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "WAIT_SECONDS", 0)
    places: Places = app.state.ports.places
    monkeypatch.setattr(places, "_places", asyncio.Semaphore(1))
    read: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(b"x")
        yield b"x"

    async with places.one():
        answer = await client.post(f"{BASE}/blobs", content=body(), headers=OCTETS)
        assert problem(answer, 429, "rate_limited")["retryable"] is True
        assert int(answer.headers["retry-after"]) > 0
        assert read == []
    assert (await client.post(f"{BASE}/blobs", content=body(), headers=OCTETS)).status_code == 201


async def test_who_waits_takes_the_place_that_becomes_free(
    app: Any, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.ports.places, "_places", asyncio.Semaphore(1))
    bodies = [bytes([number]) * 100 for number in range(5)]
    answers = await asyncio.gather(*(client.post(f"{BASE}/blobs", content=body, headers=OCTETS) for body in bodies))
    assert [answer.status_code for answer in answers] == [201] * 5


async def test_a_body_that_comes_too_slowly_gives_up_its_place(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PIECE_SECONDS", 0.05)
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()

    problem(await client.post(f"{BASE}/blobs", content=body(), headers=OCTETS), 408, "body_too_slow")


async def test_the_api_keeps_objects_in_a_folder_if_told(
    database_urls: Mapping[str, str], user: Person, tmp_path: Path
) -> None:
    folder = tmp_path / "objects"
    told = {"STUDIO__STORAGE__BLOBS__BACKEND": "filesystem", "STUDIO__STORAGE__BLOBS__PATH": str(folder)}
    application = create_app(load_settings({**database_urls, **told}))
    data = b"kept in a folder " * 1_000_000
    async with application.router.lifespan_context(application), client_of(application, user.headers) as client:
        blob = (await client.post(f"{BASE}/blobs", content=data, headers=OCTETS)).json()
        assert (await client.get(blob["content_url"])).content == data
        text = (await client.post(f"{BASE}/blobs", json={"content": "y" * 2_000_000})).json()
        assert (await client.get(text["content_url"])).text == "y" * 2_000_000
        assert (await client.get("/api/v1/studio/readyz")).status_code == 200
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2


async def test_a_folder_that_is_not_named_is_a_missing_setting(database_urls: Mapping[str, str]) -> None:
    told = {"STUDIO__STORAGE__BLOBS__BACKEND": "filesystem"}
    application = create_app(load_settings({**database_urls, **told}))
    with pytest.raises(Invalid) as caught:
        async with application.router.lifespan_context(application):
            pass
    assert caught.value.problem_code == "invalid_settings"
    assert "storage.blobs.path" in caught.value.detail
