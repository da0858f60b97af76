"""Gates: one at a time, in order; who goes first waits only for who is inside."""

from __future__ import annotations

import asyncio

import pytest

from storage.gates import Gate


async def test_one_at_a_time_in_order_but_who_goes_first() -> None:
    gate, order = Gate(), []

    async def go(name: str, *, first: bool = False) -> None:
        async with gate.passed(first=first):
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    async def settle_and_claim() -> None:
        await go("a")
        await go("claim", first=True)

    await asyncio.gather(settle_and_claim(), go("b"), go("c"))
    assert order == ["a", "a", "claim", "claim", "b", "b", "c", "c"]
    assert not gate.locked()


@pytest.mark.parametrize("first", [True, False])
async def test_who_gives_up_keeps_nobody_out(first: bool) -> None:  # noqa: FBT001
    gate = Gate()
    entered = asyncio.Event()

    async def go() -> None:
        async with gate.passed(first=first):
            entered.set()

    async with gate.passed():
        given_up, waits = asyncio.create_task(go()), asyncio.create_task(go())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        assert not entered.is_set()
    async with asyncio.timeout(1):
        await waits
    # One that is let in and cancelled before it has noticed leaves the way free as well.
    async with gate.passed():
        waits = asyncio.create_task(go())
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(waits.cancel)
    await asyncio.wait([waits])
    async with asyncio.timeout(1), gate.passed():
        pass
    await asyncio.sleep(0)
    assert not gate.locked()


async def test_what_fails_inside_leaves_the_way_free() -> None:
    gate = Gate()
    with pytest.raises(ValueError, match="inside"):
        async with gate.passed():
            raise ValueError("inside")
    async with asyncio.timeout(1), gate.passed():
        pass
