"""The object store keeps one contract, whether it is a real S3 server or a folder."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio

from domain.errors import StudioError, Unavailable
from storage.object_files import FileObjects
from storage.objects import PIECE_BYTES, Objects, PartsLost, S3Objects

MIB = 2**20
PART = 5 * MIB
"""What S3 wants of every part but the last."""


@pytest_asyncio.fixture(params=["s3", "filesystem"])
async def objects(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Objects]:
    store: Objects
    if request.param == "s3":
        stack: Mapping[str, str] = request.getfixturevalue("stack").endpoints
        store = S3Objects(
            stack["S3_BUCKET"],
            endpoint=stack["S3_ENDPOINT"],
            access_key=stack["S3_ACCESS_KEY"],
            secret_key=stack["S3_SECRET_KEY"],
        )
    else:
        store = FileObjects(tmp_path / "objects")
    yield store
    await store.close()


def key(name: str = "object") -> str:
    return f"{uuid4()}/{name}"


async def drained(store: Objects, name: str, start: int = 0, end: int | None = None) -> bytes:
    pieces = [piece async for piece in store.open(name, start, end)]
    assert all(0 < len(piece) <= PIECE_BYTES for piece in pieces)
    return b"".join(pieces)


async def test_what_is_put_comes_back_and_goes_when_deleted(objects: Objects) -> None:
    name = key()
    for data in (b"", b"one", b"x" * (PIECE_BYTES * 2 + 1)):
        await objects.put(name, data)
        assert await objects.get(name) == data
        stored = await objects.stat(name)
        assert stored is not None
        assert (stored.key, stored.size) == (name, len(data))
        assert abs(datetime.now(UTC) - stored.modified) < timedelta(minutes=5)
    await objects.delete(name)
    await objects.delete(name)
    assert await objects.stat(name) is None
    with pytest.raises(StudioError) as caught:
        await objects.get(name)
    assert caught.value.problem_code == "integrity"


async def test_a_range_is_exactly_its_bytes(objects: Objects) -> None:
    name, data = key(), os.urandom(3 * PIECE_BYTES + 17)
    await objects.put(name, data)
    whole = len(data)
    for start, end in ((0, 1), (1, 2), (PIECE_BYTES - 1, 2 * PIECE_BYTES + 1), (whole - 1, whole), (whole - 5, None)):
        assert await drained(objects, name, start, end) == data[start:end]
    assert await drained(objects, name, 7, 7) == b""
    assert await drained(objects, name) == data


async def test_parts_in_any_order_become_one_object(objects: Objects) -> None:
    name = key()
    upload = await objects.begin(name)
    first, second, last = os.urandom(PART), os.urandom(PART), b"the end"
    tags = {3: await objects.part(name, upload, 3, last)}
    tags[1] = await objects.part(name, upload, 1, b"z" * PART)
    tags[2] = await objects.part(name, upload, 2, second)
    tags[1] = await objects.part(name, upload, 1, first)  # again: it replaces
    assert await objects.stat(name) is None
    await objects.finish(name, upload, sorted(tags.items()))
    assert await objects.get(name) == first + second + last
    with suppress(PartsLost):  # done already: servers differ in whether they say so
        await objects.finish(name, upload, sorted(tags.items()))
    assert await objects.get(name) == first + second + last


async def test_a_missing_part_is_noticed(objects: Objects) -> None:
    name = key()
    upload = await objects.begin(name)
    tag = await objects.part(name, upload, 1, b"a" * PART)
    with pytest.raises(PartsLost):
        await objects.finish(name, upload, [(1, tag), (2, tag)])
    assert await objects.stat(name) is None
    await objects.abort(name)


async def test_a_part_that_was_replaced_is_never_taken_for_another(objects: Objects) -> None:
    name = key()
    upload = await objects.begin(name)
    old = await objects.part(name, upload, 1, b"a" * PART)
    await objects.part(name, upload, 1, b"b" * PART)
    try:
        await objects.finish(name, upload, [(1, old)])
    except PartsLost:
        await objects.abort(name)
    else:  # servers may keep the older one for who names it
        assert await objects.get(name) == b"a" * PART


async def test_an_aborted_attempt_leaves_nothing_and_takes_nothing(objects: Objects, tmp_path: Path) -> None:
    name = key()
    uploads = [await objects.begin(name), await objects.begin(name)]
    other = f"{name}2"
    kept = await objects.begin(other)
    tag = await objects.part(other, kept, 1, b"other")
    await objects.part(name, uploads[0], 1, b"gone")
    await objects.abort(name)
    await objects.abort(name)
    for upload in uploads:
        with pytest.raises(PartsLost):
            await objects.part(name, upload, 1, b"late")
    assert await objects.stat(name) is None
    await objects.finish(other, kept, [(1, tag)])
    assert await objects.get(other) == b"other"


async def test_a_listing_is_in_the_order_of_keys_and_goes_on_where_it_ended(objects: Objects) -> None:
    folder = str(uuid4())
    names = sorted(f"{folder}/{name}" for name in ("a", "a.b", "a-b", "b/c", "b/d", "c", "c2/x/y"))
    for size, name in enumerate(names):
        await objects.put(name, b"x" * size)
    listed = await objects.list(f"{folder}/")
    assert [(found.key, found.size) for found in listed] == [(name, size) for size, name in enumerate(names)]
    for position, name in enumerate(names):
        assert [found.key for found in await objects.list(f"{folder}/", name)] == names[position + 1 :]
    assert [found.key for found in await objects.list(f"{folder}/b")] == [n for n in names if "/b" in n]
    assert await objects.list(f"{uuid4()}/") == []


async def test_unfinished_objects_are_not_listed(objects: Objects) -> None:
    folder = str(uuid4())
    upload = await objects.begin(f"{folder}/a")
    await objects.part(f"{folder}/a", upload, 1, b"a part")
    assert await objects.list(f"{folder}/") == []
    await objects.abort(f"{folder}/a")


async def test_many_writers_and_deleters_in_one_folder_do_not_hinder_each_other(objects: Objects) -> None:
    folder = str(uuid4())

    async def write(number: int) -> None:
        for _ in range(5):
            await objects.put(f"{folder}/{number}", b"x")
            await objects.delete(f"{folder}/{number}")
        await objects.put(f"{folder}/{number}", b"kept")

    await asyncio.gather(*(write(number) for number in range(8)))
    assert len(await objects.list(f"{folder}/")) == 8


@pytest.mark.parametrize(
    "bad", ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/", ".hidden", "a\0b", "a b", "x" * 300]
)
async def test_a_key_cannot_leave_its_place(objects: Objects, bad: str) -> None:
    with pytest.raises(ValueError, match="key of an object"):
        await objects.put(bad, b"x")
    with pytest.raises(ValueError, match="key of an object"):
        await drained(objects, bad)
    with pytest.raises(ValueError, match="key of an object"):
        await objects.begin(bad)


async def test_the_store_says_that_it_answers(objects: Objects) -> None:
    await objects.check()


@pytest.mark.usefixtures("asked_once")
async def test_a_server_that_is_not_there_is_unavailable() -> None:
    nowhere = S3Objects("bucket", endpoint="http://127.0.0.1:1", access_key="x", secret_key="y")
    try:
        with pytest.raises(Unavailable):
            await nowhere.check()
    finally:
        await nowhere.close()


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FileObjects(tmp_path / "file")
    for attempt in (store.check(), store.put("a/b", b"x"), store.begin("a/b")):
        with pytest.raises(Unavailable):
            await attempt


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from storage.object_files import FileObjects
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(FileObjects(Path(sys.argv[1])).put("user/object", b"x" * 1000))
"""


async def test_a_write_that_is_killed_leaves_the_old_object_and_a_listed_remainder(tmp_path: Path) -> None:
    store = FileObjects(tmp_path)
    await store.put("user/object", b"old")
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(tmp_path))
    assert await process.wait() == -signal.SIGKILL
    assert await store.get("user/object") == b"old"
    listed = [found.key for found in await store.list("user/")]
    assert len(listed) == 2
    for name in listed:
        await store.delete(name)
    assert list((tmp_path / "objects").iterdir()) == []
