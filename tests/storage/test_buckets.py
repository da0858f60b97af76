"""Buckets in PostgreSQL: what concurrent changes must not break."""

import asyncio

import pytest

from domain.buckets import NESTING_MAX
from domain.errors import Invalid, NotFound, VersionConflict
from domain.ids import BucketId, UserId, new_id
from storage.buckets import Buckets
from storage.database import Database
from tests.conftest import Person


@pytest.fixture
def buckets(database: Database) -> Buckets:
    return Buckets(database)


async def make(buckets: Buckets, user_id: UserId, parent: BucketId | None = None) -> BucketId:
    bucket = BucketId(new_id())
    await buckets.create(user_id, bucket, name="x", type_="collection", parent_id=parent, metadata={})
    return bucket


async def test_two_moves_at_once_never_close_a_cycle(buckets: Buckets, user: Person) -> None:
    for _ in range(5):
        one, two = await make(buckets, user.user_id), await make(buckets, user.user_id)
        results = await asyncio.gather(
            buckets.change(user.user_id, one, expected=None, changes={"parent_id": two}),
            buckets.change(user.user_id, two, expected=None, changes={"parent_id": one}),
            return_exceptions=True,
        )
        assert sum(isinstance(result, Invalid) for result in results) == 1


async def test_of_two_changes_of_one_version_one_wins(buckets: Buckets, user: Person) -> None:
    bucket = await make(buckets, user.user_id)
    results = await asyncio.gather(
        *(buckets.change(user.user_id, bucket, expected={1}, changes={"name": f"name {n}"}) for n in range(4)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, VersionConflict) for result in results) == 3
    assert (await buckets.get(user.user_id, bucket)).version == 2


async def test_a_bucket_is_its_users_alone(buckets: Buckets, user: Person, other: Person) -> None:
    bucket = await make(buckets, user.user_id)
    with pytest.raises(NotFound):
        await buckets.get(other.user_id, bucket)


async def test_a_tree_is_never_deeper_than_the_limit_however_it_is_built(buckets: Buckets, user: Person) -> None:
    chain = [await make(buckets, user.user_id)]
    while len(chain) < NESTING_MAX:
        chain.append(await make(buckets, user.user_id, chain[-1]))
    with pytest.raises(Invalid):
        await make(buckets, user.user_id, chain[-1])
    lone = await make(buckets, user.user_id)
    await make(buckets, user.user_id, lone)
    with pytest.raises(Invalid):
        await buckets.change(user.user_id, lone, expected=None, changes={"parent_id": chain[-2]})
    await buckets.change(user.user_id, lone, expected=None, changes={"parent_id": chain[-3]})
