"""Quotas and the schedule: a derived output that does not fit fails its run, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from domain.errors import Forbidden, NotFound
from domain.ids import UserId, new_id
from domain.quotas import Usage
from storage.database import Database
from storage.users import Users
from tests.conftest import Person, new_person
from tests.storage.engine import Engine


async def limited(engine: Engine, free: int | None) -> None:
    """Leave so many bytes free."""
    users, user_id = Users(engine.database), engine.user.user_id
    used = (await users.state(user_id)).usage.used
    await users.limit(user_id, {"bytes_quota": None if free is None else used + free}, by=user_id)


async def failures(engine: Engine) -> list[Any]:
    rows = await engine.rows("select error->>'code' as code from runs where user_id = $1 and status = 'failed'")
    return [row["code"] for row in rows]


async def test_of_a_settled_batch_only_what_does_not_fit_fails(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.provider("two", "out-v1", "end-v1", origin="any")
    texts = ["a", "b" * 400, "c", "d" * 400, "e"]
    for text in texts:
        await engine.create("in-v1", text)
    await limited(engine, 150)
    await engine.rest()
    assert await failures(engine) == ["storage_quota_exceeded"] * 2
    assert sorted(await engine.runs("one")) == ["failed", "failed", "settled", "settled", "settled"]
    letters = await engine.rows("select code, run_id from dead_letters where user_id = $1")
    assert [letter["code"] for letter in letters] == ["storage_quota_exceeded"] * 2
    held = await engine.rows(
        "select hold_detail->>'code' as code from derivations where user_id = $1 and hold = 'failed'"
    )
    assert [row["code"] for row in held] == ["storage_quota_exceeded"] * 2
    # What depends on the failed ones waits for them; the others have gone on to the end.
    assert await engine.runs("two") == ["settled"] * 3
    state = (await Users(engine.database).state(engine.user.user_id)).usage
    assert state.used <= (state.quota or 0)


async def test_a_settlement_that_does_not_fit_writes_nothing(engine: Engine, count_rows: Any) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    await engine.create("in-v1", "a" * 100)
    await limited(engine, 10)
    settlement = await engine.decide(await engine.take(await engine.latest()))
    before = await count_rows(engine.user.user_id)
    with pytest.raises(Forbidden) as refused:
        await engine.settle(settlement)
    assert refused.value.problem_code == "storage_quota_exceeded"
    assert refused.value.members["needed"] > 100
    assert not refused.value.retryable
    assert await count_rows(engine.user.user_id) == before
    await engine.check()


async def test_what_failed_for_want_of_room_is_made_once_there_is_some(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1", "a" * 100)
    await limited(engine, 10)
    await engine.rest()
    assert await engine.runs() == ["failed"]
    await limited(engine, None)
    await engine.ask("POST", "/providers/one/process", {"blob_id": str(blob)})
    await engine.rest()
    assert await engine.runs() == ["failed", "settled"]
    assert await engine.text(await engine.output("one")) == "a" * 100 + "!"


async def test_an_output_that_becomes_shorter_settles_beyond_the_quota(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    blob = await engine.create("in-v1", "a" * 100)
    await engine.rest()
    users, user_id = Users(engine.database), engine.user.user_id
    await users.limit(user_id, {"bytes_quota": 1}, by=user_id)
    await engine.edit(blob, "short")
    await engine.rest()
    assert await engine.text(await engine.output("one")) == "short!"


async def test_a_new_user_gets_the_default_quota_and_an_old_one_keeps_theirs(database: Database, user: Person) -> None:
    users = Users(database, quota_default=12_345)
    made = await new_person(database, users=users)
    assert (await users.state(made.user_id)).usage == Usage(used=0, reserved=0, quota=12_345)
    assert (await users.state(user.user_id)).usage.quota is None
    await users.limit(made.user_id, {"bytes_quota": 5}, by=made.user_id)
    with pytest.raises(Forbidden) as refused:
        await users.require_room(made.user_id, 6)
    assert refused.value.problem_code == "storage_quota_exceeded"
    assert refused.value.members == {"used": 0, "reserved": 0, "quota": 5, "needed": 6}
    await users.require_room(made.user_id, 5)
    with pytest.raises(NotFound):
        await users.limit(UserId(new_id()), {"bytes_quota": 5}, by=user.user_id)
