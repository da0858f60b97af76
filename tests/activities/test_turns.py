"""Turns: alone a user has the whole batch; beside others turns are short, and who was served less goes first."""

from __future__ import annotations

import asyncio
from uuid import UUID

from activities.turns import SHARE, Turns

BUSY, OTHER = UUID(int=1), UUID(int=2)


async def test_alone_turns_are_long_and_beside_others_short_also_for_a_while_after() -> None:
    turns = Turns()
    with turns.here(BUSY):
        assert turns.size(BUSY, 50) == 50
        with turns.here(OTHER):
            assert (turns.size(BUSY, 50), turns.size(OTHER, 50)) == (50 // SHARE, 50 // SHARE)
        assert turns.size(BUSY, 50) == 50 // SHARE


async def test_who_was_served_less_goes_first() -> None:
    turns, order = Turns(), []

    async def take(user: UUID, runs: int) -> None:
        async with turns.turn(user, runs):
            order.append(user)

    with turns.here(BUSY):
        await take(BUSY, 100)
        with turns.here(OTHER):
            await take(BUSY, 10)  # both begin alike
            waiting = asyncio.create_task(take(BUSY, 10))
            await asyncio.sleep(0)
            await take(OTHER, 1)
        await waiting
    assert order == [BUSY, BUSY, OTHER, BUSY]


async def test_nobody_waits_for_a_user_who_has_left() -> None:
    turns = Turns()
    with turns.here(OTHER):
        pass
    async with asyncio.timeout(0.5):
        with turns.here(BUSY):
            async with turns.turn(BUSY, 10):
                pass
