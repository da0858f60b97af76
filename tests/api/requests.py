"""What the tests of the API say often."""

from __future__ import annotations

from typing import Any

import httpx2

from tests.conftest import BASE

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"


async def make(client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
    """Create a blob and return it."""
    answer = await client.post(f"{BASE}/blobs", json=body or {"content": "The quick brown fox"})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def envelope(**patch: Any) -> dict[str, Any]:
    """The seed's body of a PATCH."""
    return {"delta": {"operation": "update", "patch": patch}}


async def edit(client: httpx2.AsyncClient, blob_id: str, **patch: Any) -> dict[str, Any]:
    """Change a blob by the seed's envelope and return it."""
    answer = await client.patch(f"{BASE}/blobs/{blob_id}", json=envelope(**patch))
    assert answer.status_code == 200, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


def problem(answer: httpx2.Response, status: int, code: str, pointer: str | None = None) -> dict[str, Any]:
    """Check that an answer is a problem document with this status and code, whose errors name ``pointer``."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    found: dict[str, Any] = answer.json()
    assert (answer.status_code, found["code"]) == (status, code), found
    assert found["status"] == status
    assert found["type"].endswith(f"/problems/{code}")
    assert found["title"]
    assert found["detail"]
    assert found["hint"]
    assert found["request_id"] == answer.headers["x-request-id"]
    assert isinstance(found["retryable"], bool)
    if pointer is not None:
        assert pointer in [fault["pointer"] for fault in found["errors"]], found
    return found
