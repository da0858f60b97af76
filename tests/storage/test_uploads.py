"""Uploads in the store: what expires, what is removed, what is kept; over S3 and over a folder."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from domain.errors import Conflict, LimitExceeded, NotFound
from domain.ids import new_id
from domain.uploads import Arrived, NewUpload, Upload
from storage import uploads as module
from storage.database import Database
from storage.object_files import FileObjects
from storage.objects import Objects
from storage.uploads import Uploads
from tests.conftest import Person, objects_of

PART = 5 * 2**20
INLINE_MAX = 1_000


@pytest_asyncio.fixture(params=["s3", "filesystem"])
async def objects(
    request: pytest.FixtureRequest, database_urls: Mapping[str, str], tmp_path: Path
) -> AsyncIterator[Objects]:
    store: Objects = objects_of(database_urls) if request.param == "s3" else FileObjects(tmp_path / "objects")
    yield store
    await store.close()


@pytest.fixture
def uploads(database: Database, objects: Objects) -> Uploads:
    return Uploads(database, objects, part_size=PART, inline_max=INLINE_MAX, lifetime=timedelta(hours=1))


def new(user: Person, size: int | None = None) -> NewUpload:
    return NewUpload(user_id=user.user_id, id=new_id(), content_type="application/octet-stream", size=size)


async def begun(uploads: Uploads, user: Person, *parts: bytes) -> Upload:
    upload = await uploads.begin(new(user))
    await asyncio.gather(*(uploads.part(upload, number, data) for number, data in enumerate(parts, 1)))
    return await uploads.get(user.user_id, upload.id)


async def landed(database: Database, uploads: Uploads, arrived: Arrived, *, binary: bool = True) -> None:
    """What the write of a blob does with what has arrived, without the blob."""
    landing = uploads.landing(arrived, new_id(), binary=binary, replaces=False)
    async with database.transaction(arrived.user_id) as connection:
        await landing.before(connection)
        await connection.execute(
            "update user_state set bytes_reserved = bytes_reserved - $2 where user_id = $1",
            arrived.user_id,
            landing.reserved,
        )


async def keys(objects: Objects, user: Person) -> list[str]:
    return [found.key for found in await objects.list(f"{user.user_id}/")]


async def reserved(admin: Any, user: Person) -> int:
    return int(await admin.fetchval("select bytes_reserved from user_state where user_id = $1", user.user_id))


async def make_overdue(admin: Any, upload_id: UUID) -> None:
    await admin.execute("update uploads set expires_at = now() where id = $1", upload_id)


async def test_first_parts_at_once_belong_to_one_object(uploads: Uploads, user: Person, objects: Objects) -> None:
    parts = [os.urandom(PART), os.urandom(PART), os.urandom(10)]
    upload = await begun(uploads, user, *parts)
    arrived = await uploads.assembled(upload)
    assert (arrived.size, arrived.body) == (2 * PART + 10, None)
    assert await objects.get(upload.location) == b"".join(parts)
    again = await uploads.assembled(await uploads.get(user.user_id, upload.id))
    assert (again.hash, again.chunks) == (arrived.hash, arrived.chunks)


async def test_only_what_is_overdue_expires_and_nothing_of_it_stays(
    uploads: Uploads, user: Person, admin: Any, objects: Objects
) -> None:
    living = await begun(uploads, user, b"x" * 100)
    for size in (200, 300, 400):
        await make_overdue(admin, (await begun(uploads, user, b"x" * size)).id)
    finished = await begun(uploads, user, b"y" * 5_000)
    await uploads.assembled(finished)
    await make_overdue(admin, finished.id)
    assert await reserved(admin, user) == 6_000
    assert [await uploads.expire(user.user_id, limit=2) for _ in range(4)] == [2, 2, 0, 0]
    assert await reserved(admin, user) == 100
    assert await keys(objects, user) == []
    await uploads.part(living, 1, b"z" * 100)
    arrived = await uploads.assembled(await uploads.get(user.user_id, living.id))
    assert arrived.body == b"z" * 100
    assert await admin.fetchval("select count(*) from upload_parts where user_id = $1", user.user_id) == 1


async def test_an_overdue_upload_takes_no_part_before_it_is_collected(
    uploads: Uploads, user: Person, admin: Any
) -> None:
    upload = await begun(uploads, user, b"x")
    await make_overdue(admin, upload.id)
    with pytest.raises(Conflict) as caught:
        await uploads.part(upload, 1, b"y")
    assert caught.value.problem_code == "upload_ended"


async def test_the_object_of_a_content_stays_when_its_upload_is_cleaned_and_forgotten(
    uploads: Uploads, user: Person, admin: Any, database: Database, objects: Objects
) -> None:
    data = os.urandom(20_000)
    upload = await begun(uploads, user, data)
    await landed(database, uploads, await uploads.assembled(upload))
    assert await uploads.expire(user.user_id) == 1  # what a server that died after the commit left to do
    assert await uploads.expire(user.user_id) == 0
    assert await objects.get(upload.location) == data
    await admin.execute("update uploads set ended_at = now() - interval '25 hours' where id = $1", upload.id)
    await uploads.expire(user.user_id)
    with pytest.raises(NotFound):
        await uploads.get(user.user_id, upload.id)
    assert await keys(objects, user) == [upload.location]


async def test_an_object_that_no_content_names_goes_when_its_upload_is_cleaned(
    uploads: Uploads, user: Person, database: Database, objects: Objects
) -> None:
    data = os.urandom(20_000)
    first, second, text = [await begun(uploads, user, data) for _ in range(3)]
    await landed(database, uploads, await uploads.assembled(first))
    await landed(database, uploads, await uploads.assembled(second))  # the same bytes: stored once
    await landed(database, uploads, await uploads.assembled(text), binary=False)
    assert len(await keys(objects, user)) == 3
    assert await uploads.expire(user.user_id) == 3
    assert await keys(objects, user) == [first.location]


async def test_an_upload_lands_once(uploads: Uploads, user: Person, database: Database) -> None:
    arrived = await uploads.assembled(await begun(uploads, user, b"x" * 20_000))
    await landed(database, uploads, arrived)
    with pytest.raises(Conflict):
        await landed(database, uploads, arrived)


async def test_after_the_whole_was_assembled_no_part_comes_in(uploads: Uploads, user: Person) -> None:
    upload = await begun(uploads, user, b"x" * 20_000)
    await uploads.assembled(upload)
    with pytest.raises(Conflict) as caught:
        await uploads.part(upload, 1, b"y" * 20_000)
    assert caught.value.problem_code == "upload_ended"


async def test_what_comes_after_an_abort_leaves_nothing(uploads: Uploads, user: Person, objects: Objects) -> None:
    upload = await begun(uploads, user, b"x" * 20_000)
    await uploads.abort(user.user_id, upload.id)
    with pytest.raises(Conflict):
        await uploads.part(upload, 1, b"y")
    with pytest.raises(Conflict):
        await uploads.assembled(upload)
    assert await keys(objects, user) == []


async def test_a_user_has_a_bounded_number_of_open_uploads(
    uploads: Uploads, user: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_MAX", 2)
    first = await begun(uploads, user)
    await begun(uploads, user)
    with pytest.raises(LimitExceeded) as caught:
        await begun(uploads, user)
    assert caught.value.members["retry_after"] > 0
    await uploads.abort(user.user_id, first.id)
    await begun(uploads, user)


async def test_somebody_elses_uploads_do_not_expire_with_mine(
    uploads: Uploads, user: Person, other: Person, admin: Any
) -> None:
    theirs = await begun(uploads, other, b"x" * 100)
    await make_overdue(admin, theirs.id)
    assert await uploads.expire(user.user_id) == 0
    with pytest.raises(NotFound):
        await uploads.get(user.user_id, theirs.id)
    assert (await uploads.get(other.user_id, theirs.id)).status == "open"
