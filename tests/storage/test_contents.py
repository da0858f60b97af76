"""Content addressed by its hash: inline or in real S3, verified when it is read."""

from __future__ import annotations

import random
from dataclasses import asdict, replace
from typing import Any

import pytest

from domain.documents import document_hash
from domain.errors import NotFound, StudioError, Unavailable
from storage.contents import Contents, Placed
from storage.objects import S3Objects


async def stored(admin: Any, user: Any, placed: Placed) -> None:
    await admin.execute(
        "insert into contents (user_id, hash, size, stored_size, codec, body, location)"
        " values ($1, $2, $3, $4, $5, $6, $7)",
        user.user_id, placed.hash, placed.size, placed.stored_size, placed.codec, placed.body, placed.location,
    )  # fmt: skip


async def test_the_threshold_decides_where_bytes_go(contents: Contents, admin: Any, user: Any) -> None:
    for size, inline in ((0, True), (65_536, True), (65_537, False)):
        data = b"x" * size
        placed = await contents.put(user.user_id, data)
        assert (placed.hash, placed.size) == (document_hash(data), size)
        assert (placed.body is not None, placed.location is None) == (inline, inline)
        await stored(admin, user, placed)
        assert await contents.get(user.user_id, placed.hash) == data


async def test_a_location_tells_nothing_about_what_is_there(contents: Contents, user: Any) -> None:
    first, second = [await contents.put(user.user_id, b"y" * 70_000) for _ in range(2)]
    assert first.location is not None
    assert second.location is not None
    assert first.location != second.location
    assert first.hash.removeprefix("sha256:") not in first.location


async def test_what_is_there_is_not_put_again(contents: Contents, admin: Any, user: Any) -> None:
    first = await contents.put(user.user_id, b"y" * 70_000)
    await stored(admin, user, first)
    assert await contents.put(user.user_id, b"y" * 70_000) == first


async def test_content_is_packed_where_that_helps(contents: Contents, user: Any) -> None:
    prose, noise = b"The same words again and again. " * 100, random.Random(1).randbytes(3_200)
    packed, plain, short = [await contents.put(user.user_id, data) for data in (prose, noise, prose[:1_000])]
    assert (packed.codec, plain.codec, short.codec) == ("zstd", "identity", "identity")
    assert packed.stored_size < packed.size // 10
    for placed, data in ((packed, prose), (plain, noise), (short, prose[:1_000])):
        assert placed.size == len(data)
        assert await contents.read(user.user_id, asdict(placed)) == data


async def test_the_object_is_there_before_any_row_names_it(contents: Contents, user: Any) -> None:
    data = b"z" * 70_000
    placed = await contents.put(user.user_id, data)
    assert await contents.read(user.user_id, asdict(placed)) == data
    with pytest.raises(NotFound):
        await contents.get(user.user_id, placed.hash)


async def test_other_bytes_than_the_hash_says_are_refused(contents: Contents, admin: Any, user: Any) -> None:
    for size in (10, 70_000):
        placed = await contents.put(user.user_id, b"a" * size)
        lying = replace(placed, hash=document_hash(b"b" * size))
        await stored(admin, user, lying)
        with pytest.raises(StudioError) as caught:
            await contents.get(user.user_id, lying.hash)
        assert caught.value.problem_code == "integrity"


async def test_a_lost_object_is_a_matter_of_integrity(contents: Contents, user: Any) -> None:
    with pytest.raises(StudioError) as caught:
        await contents.read(
            user.user_id,
            {"hash": document_hash(b"lost"), "size": 4, "codec": "identity", "body": None, "location": "lost"},
        )
    assert caught.value.problem_code == "integrity"


async def test_another_users_content_does_not_exist(contents: Contents, admin: Any, user: Any, other: Any) -> None:
    placed = await contents.put(user.user_id, b"mine")
    await stored(admin, user, placed)
    with pytest.raises(NotFound):
        await contents.get(other.user_id, placed.hash)


@pytest.mark.usefixtures("asked_once")
async def test_a_store_that_does_not_answer_is_unavailable(database: Any, user: Any) -> None:
    nowhere = S3Objects("bucket", endpoint="http://127.0.0.1:1", access_key="x", secret_key="y")
    store = Contents(database, nowhere, inline_max=1)
    try:
        with pytest.raises(Unavailable):
            await store.put(user.user_id, b"too large")
    finally:
        await store.close()


async def test_the_bucket_is_made_if_it_is_absent(database: Any, database_urls: Any, user: Any) -> None:
    objects = S3Objects(
        "made-at-first-use",
        endpoint=database_urls["S3_ENDPOINT"],
        access_key=database_urls["S3_ACCESS_KEY"],
        secret_key=database_urls["S3_SECRET_KEY"],
    )
    store = Contents(database, objects, inline_max=1)
    try:
        placed = await store.put(user.user_id, b"first")
        assert await store.read(user.user_id, asdict(placed)) == b"first"
    finally:
        await store.close()
