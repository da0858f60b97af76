"""Keys in PostgreSQL: one holder at a time, and an effect only together with its answer."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from domain.errors import Conflict
from domain.idempotency import Kept, KeyUse
from storage.database import Database
from storage.idempotency import KEPT_HOURS, LEASE_SECONDS, IdempotencyKeys
from tests.conftest import Person

ANSWER = Kept(status=201, headers=[("link", "<a>"), ("etag", '"v1"'), ("link", "<b>")], body=b"\x00made")


@pytest.fixture
def keys(database: Database) -> IdempotencyKeys:
    return IdempotencyKeys(database)


@pytest.fixture
def use(user: Person) -> KeyUse:
    return KeyUse(
        user_id=user.user_id, principal=uuid4(), route="POST /x", key="k", fingerprint="f", holder=uuid4()
    )  # fmt: skip


def again(use: KeyUse, **changes: Any) -> KeyUse:
    """Another attempt."""
    return replace(use, holder=uuid4(), **changes)


async def aged(admin: Any, use: KeyUse, *, leased: float = 0, created_hours: float = 0) -> None:
    """Let time pass for a key."""
    await admin.execute(
        "update idempotency_keys set leased_at = leased_at - make_interval(secs => $2),"
        " created_at = created_at - make_interval(secs => $3) where user_id = $1",
        use.user_id, leased, created_hours * 3600,
    )  # fmt: skip


async def test_a_key_has_one_holder_and_afterwards_its_answer(keys: IdempotencyKeys, use: KeyUse) -> None:
    assert (await keys.begin(use)).ours
    waiting = await keys.begin(again(use))
    assert (waiting.ours, waiting.kept) == (False, None)
    await keys.complete(use, ANSWER)
    found = await keys.begin(again(use, fingerprint="g"))
    assert (found.ours, found.fingerprint, found.kept) == (False, "f", ANSWER)


async def test_of_many_who_ask_at_once_one_holds_the_key(keys: IdempotencyKeys, use: KeyUse) -> None:
    standings = await asyncio.gather(*(keys.begin(again(use)) for _ in range(20)))
    assert sum(standing.ours for standing in standings) == 1


async def test_keys_of_another_principal_or_route_are_other_keys(keys: IdempotencyKeys, use: KeyUse) -> None:
    assert (await keys.begin(use)).ours
    assert (await keys.begin(again(use, principal=uuid4()))).ours
    assert (await keys.begin(again(use, route="PUT /x"))).ours


async def test_a_lease_is_taken_over_when_it_is_over_and_renewed_while_it_is_not(
    keys: IdempotencyKeys, use: KeyUse, admin: Any
) -> None:
    first = await keys.begin(use)
    await aged(admin, use, leased=LEASE_SECONDS - 1)
    assert await keys.renew(use)
    await aged(admin, use, leased=LEASE_SECONDS - 1)
    assert not (await keys.begin(again(use))).ours
    await aged(admin, use, leased=2)
    assert not await keys.renew(use)  # over is over: somebody may be taking it this moment
    assert not (await keys.begin(again(use, fingerprint="g"))).ours
    second = again(use)
    taken = await keys.begin(second)
    assert (taken.ours, taken.first_used_at) == (True, first.first_used_at)
    assert not await keys.renew(use)
    assert await keys.renew(second)


async def test_who_was_overtaken_has_no_effect(
    keys: IdempotencyKeys, use: KeyUse, database: Database, admin: Any
) -> None:
    await keys.begin(use)
    await keys.let_go(use)
    second = again(use)
    assert (await keys.begin(second)).ours
    change = "update user_state set blob_count = blob_count + 1 where user_id = $1"

    async def overtaken(recording: Any, what: Any) -> None:
        async with database.transaction(use.user_id) as connection:
            await connection.execute(change, use.user_id)
            await recording(connection, use, what)

    for recording, what in ((keys.keep, ANSWER), (keys.record, {"id": 1})):
        with pytest.raises(Conflict) as caught:
            await overtaken(recording, what)
        assert caught.value.problem_code == "idempotency_key_in_flight"
    await keys.complete(use, ANSWER)
    await keys.forget(use)
    assert not (await keys.begin(again(use))).ours  # none of this touched the second one's claim
    async with database.transaction(use.user_id) as connection:
        await connection.execute(change, use.user_id)
        await keys.keep(connection, second, ANSWER)
    assert (await keys.begin(again(use))).kept == ANSWER
    assert await admin.fetchval("select blob_count from user_state where user_id = $1", use.user_id) == 1


async def test_a_slow_attempt_and_its_successor_commit_one_of_the_two(
    keys: IdempotencyKeys, use: KeyUse, database: Database, admin: Any
) -> None:
    """Both have done their work and want to record it at the same moment."""
    await keys.begin(use)
    await keys.let_go(use)
    second = again(use)
    await keys.begin(second)
    both = asyncio.Barrier(2)

    async def attempt(mine: KeyUse) -> None:
        async with database.transaction(use.user_id) as connection:
            await connection.execute(
                "insert into buckets (user_id, id, name, type) values ($1, $2, 'x', 'book')", use.user_id, uuid4()
            )
            await both.wait()
            await keys.keep(connection, mine, ANSWER)

    results = await asyncio.gather(attempt(use), attempt(second), return_exceptions=True)
    assert [isinstance(result, Conflict) for result in results] == [True, False]
    assert await admin.fetchval("select count(*) from buckets where user_id = $1", use.user_id) == 1


async def test_what_an_effect_recorded_is_found_by_the_next_attempt_and_never_forgotten(
    keys: IdempotencyKeys, use: KeyUse, database: Database
) -> None:
    await keys.begin(use)
    async with database.transaction(use.user_id) as connection:
        await keys.record(connection, use, {"cascade_id": "c"})
    await keys.forget(use)
    second = again(use)
    found = await keys.begin(second)
    assert (found.ours, found.outcome) == (True, {"cascade_id": "c"})
    await keys.complete(second, ANSWER)
    assert (await keys.begin(again(use))).kept == ANSWER


async def test_a_forgotten_key_is_free_for_any_request(keys: IdempotencyKeys, use: KeyUse) -> None:
    await keys.begin(use)
    await keys.forget(use)
    found = await keys.begin(again(use, fingerprint="g"))
    assert (found.ours, found.fingerprint) == (True, "g")


@pytest.mark.parametrize("completed", [True, False])
async def test_after_a_day_a_key_is_new(keys: IdempotencyKeys, use: KeyUse, admin: Any, *, completed: bool) -> None:
    await keys.begin(use)
    if completed:
        await keys.complete(use, ANSWER)
    await aged(admin, use, leased=60, created_hours=KEPT_HOURS - 1)
    assert not (await keys.begin(again(use, fingerprint="g"))).ours
    await aged(admin, use, created_hours=2)
    found = await keys.begin(again(use, fingerprint="g"))
    assert (found.ours, found.fingerprint, found.outcome) == (True, "g", None)
    assert found.first_used_at > (await admin.fetchval("select now() - interval '1 hour'"))


async def test_old_keys_are_deleted_by_whoever_comes_along(keys: IdempotencyKeys, use: KeyUse, admin: Any) -> None:
    await asyncio.gather(*(keys.begin(again(use, key=f"old-{number}")) for number in range(5)))
    await aged(admin, use, leased=60, created_hours=KEPT_HOURS + 1)
    # One key in sixty-four cleans, by its checksum.
    await asyncio.gather(*(keys.begin(again(use, key=f"new-{number}")) for number in range(400)))
    left = await admin.fetch("select key from idempotency_keys where user_id = $1 and key like 'old-%'", use.user_id)
    assert left == []
