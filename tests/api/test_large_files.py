"""Files of any size count for what of them is in a document: a name of a hundred bytes."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest_asyncio

from domain.batches import CHANGED_BYTES_MAX
from tests.api.requests import make
from tests.conftest import BASE, Person

FILES = 3


@pytest_asyncio.fixture
async def files(client: httpx2.AsyncClient, user: Person, admin: Any) -> list[str]:
    """Files whose bytes nobody reads here."""
    found = []
    for number in range(FILES):
        digest = f"sha256:{number:064}"
        await admin.execute(
            "insert into contents (user_id, hash, size, stored_size, tier, location)"
            " values ($1, $2, $3, $3, 'cold', $2)",
            user.user_id, digest, CHANGED_BYTES_MAX + 1,
        )  # fmt: skip
        named = {"hash": digest, "size": CHANGED_BYTES_MAX + 1}
        found.append((await make(client, content_type="video/mp4", binary=named))["id"])
    return found


async def test_a_batch_changes_and_deletes_large_files(client: httpx2.AsyncClient, files: list[str]) -> None:
    items = [{"op": "update", "id": one, "patch": {"title": "The storm"}} for one in files[:-1]]
    body = {"items": [*items, {"op": "delete", "id": files[-1]}]}
    answer = await client.post(f"{BASE}/blobs/batch", json=body)
    assert answer.status_code == 200, answer.text
    assert [result["status"] for result in answer.json()["results"]] == [200, 200, 204]


async def test_large_files_share_a_page(client: httpx2.AsyncClient, files: list[str]) -> None:
    answer = (await client.get(f"{BASE}/blobs")).json()
    assert {one["id"] for one in answer["data"]} == set(files)
    many = (await client.post(f"{BASE}/blobs/batch-get", json={"ids": files, "versions": [1] * FILES})).json()
    assert ([one["id"] for one in many["data"]], many["left_off"]) == (files, [])
