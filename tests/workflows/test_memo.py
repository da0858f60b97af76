"""Nothing is paid for twice: counted at a real service, through real workflows."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.workflows.conftest import CALL, Studio, TextService
from tests.workflows.test_provider_runs import create, edit, runs, until

CACHED = {**CALL, "cache": "inputs"}


def calls(service: TextService, text: str) -> int:
    return sum(bool(body["text"] == text) for body in service.bodies)


async def settled(studio: Studio, count: int) -> list[Any]:
    """Wait for so many settled runs; all runs of the user, oldest first."""

    async def enough() -> bool:
        return bool(sum(run["status"] == "settled" for run in await runs(studio)) >= count)

    await until(enough)
    return await runs(studio)


async def test_equal_requests_share_one_call_and_there_and_back_again_is_paid_once_each(
    studio: Studio, text_service: TextService
) -> None:
    await studio.provider("shared", "in-v1", "out-v1", CACHED)
    text_service.gate.clear()
    try:
        one, other = await asyncio.gather(create(studio, "memo-a"), create(studio, "memo-a"))
        async with asyncio.timeout(20):
            while calls(text_service, "memo-a") < 1 or len(await runs(studio)) < 2:  # noqa: ASYNC110 - it is elsewhere
                await asyncio.sleep(0.02)
    finally:
        text_service.gate.set()
    both = await settled(studio, 2)
    assert calls(text_service, "memo-a") == 1
    assert sorted(run["reused"] for run in both) == [False, True]
    await edit(studio, one, "memo-b")
    await settled(studio, 3)
    await edit(studio, one, "memo-a")
    [*_, back] = await settled(studio, 4)
    assert (calls(text_service, "memo-a"), calls(text_service, "memo-b")) == (1, 1)
    assert (back["usage"]["reused_steps"], back["usage"]["saved_tokens"], back["usage"]["total_tokens"]) == (1, 3, 0)
    payer = next(run["id"] for run in both if not run["reused"])
    step = next(step for step in (await studio.get(f"/runs/{back['id']}"))["steps"] if step["step_id"] == CALL["id"])
    assert step["reused_from"] == payer
    await studio.post(f"/blobs/{other['id']}/reprocess", {})
    await settled(studio, 5)
    assert calls(text_service, "memo-a") == 1
    await studio.post(f"/blobs/{other['id']}/reprocess", {"force": True})
    [*_, fresh] = await settled(studio, 6)
    assert (calls(text_service, "memo-a"), fresh["reused"]) == (2, False)
