"""Content moves between PostgreSQL and the object store by who reads it, and no reader notices."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from domain.documents import document_hash
from domain.errors import StudioError
from domain.housekeeping import Chore, Tidied
from storage.codecs import encoded
from storage.contents import Contents
from storage.database import Database
from storage.housekeeping import COLD_BYTES_MIN, Housekeeping
from storage.objects import S3Objects
from tests.conftest import objects_of
from tests.storage.shelf import LARGE, RULES, SMALL, Shelf, nobody, noise


async def test_content_that_nobody_reads_moves_to_the_object_store_and_back_when_it_is_read(shelf: Shelf) -> None:
    data = b"The same words again and again. " * 1_000
    for text in (data, SMALL):
        placed = await shelf.keep(text)
        assert (await shelf.tidy(Chore.COLD)).moved_to_cold == 0
        await shelf.aged(placed.hash)
        if placed.stored_size >= COLD_BYTES_MIN:
            assert (await shelf.tidy(Chore.COLD)).moved_to_cold == 1
            row = await shelf.row(placed.hash)
            assert (row["tier"], row["body"]) == ("cold", None)
            assert await shelf.contents.get(shelf.user_id, placed.hash) == text
            assert (await shelf.tidy(Chore.WARM)).moved_to_warm == 0, "nobody has noted that it was read"
            await shelf.contents._accesses.write()
            assert (await shelf.tidy(Chore.WARM)).moved_to_warm == 1
        row = await shelf.row(placed.hash)
        assert (row["tier"], row["location"]) == ("warm", None)
        assert await shelf.contents.get(shelf.user_id, placed.hash) == text
    assert await shelf.stored() == set()


async def test_what_is_tiny_or_in_parts_or_was_written_lately_does_not_move(shelf: Shelf) -> None:
    tiny, parts, written = [await shelf.keep(noise(size, size)) for size in (COLD_BYTES_MIN - 1, 4_000, 4_001)]
    for placed in (tiny, parts, written):
        await shelf.aged(placed.hash, touched="1 day" if placed is written else "60 days")
    await shelf.admin.execute("update contents set chunks = 'x' where hash = $1", parts.hash)
    assert (await shelf.tidy(Chore.COLD)).moved_to_cold == 0


async def test_what_was_never_in_a_row_stays_an_object_however_often_it_is_read(shelf: Shelf) -> None:
    placed = await shelf.keep(LARGE)
    await shelf.aged(placed.hash)
    await shelf.contents.get(shelf.user_id, placed.hash)
    await shelf.contents._accesses.write()
    assert (await shelf.tidy(Chore.WARM)).moved_to_warm == 0


async def test_a_read_in_the_middle_of_a_move_keeps_the_body(shelf: Shelf) -> None:
    kept = await shelf.keep(SMALL)
    await shelf.aged(kept.hash)

    class ReadMeanwhile(S3Objects):
        async def put(self, key: str, data: bytes) -> None:
            await super().put(key, data)
            await shelf.admin.execute("update contents set accessed_at = now() where hash = $1", kept.hash)

    assert isinstance(shelf.objects, S3Objects)
    objects = ReadMeanwhile(shelf.objects._bucket, endpoint=shelf.objects._endpoint, access_key=None, secret_key=None)
    objects._session = shelf.objects._session
    moving = Housekeeping(shelf.database, shelf.contents, objects, rules=RULES, expire=nobody, forget=nobody)
    assert (await moving.tidy(Chore.COLD, shelf.user_id)).moved_to_cold == 0
    await objects.close()
    assert (await shelf.row(kept.hash))["tier"] == "warm"
    assert await shelf.stored() == set(), "what was put for nothing is removed"


async def test_a_reader_with_a_row_of_before_follows_content_that_moves(shelf: Shelf) -> None:
    kept = await shelf.keep(SMALL)
    await shelf.aged(kept.hash)
    await shelf.tidy(Chore.COLD)
    cold = await shelf.contents.find(shelf.user_id, kept.hash)
    await shelf.admin.execute("update contents set accessed_at = now() where hash = $1", kept.hash)
    assert (await shelf.tidy(Chore.WARM)).moved_to_warm == 1
    assert await shelf.stored() == set()
    assert await shelf.contents.read(shelf.user_id, cold) == SMALL
    await shelf.tidy(Chore.CONTENTS)
    with pytest.raises(StudioError) as caught:
        await shelf.contents.read(shelf.user_id, cold)
    assert caught.value.problem_code == "integrity"


async def test_readers_while_content_moves_to_and_fro_never_fail(shelf: Shelf) -> None:
    kept = await shelf.keep(SMALL)
    await shelf.refer(kept.hash)
    stop = asyncio.Event()

    async def read() -> int:
        times = 0
        while not stop.is_set():
            row = await shelf.contents.find(shelf.user_id, kept.hash)
            await asyncio.sleep(0)
            assert await shelf.contents.read(shelf.user_id, row) == SMALL
            times += 1
        return times

    readers = [asyncio.create_task(read()) for _ in range(4)]
    moved = Tidied()
    for _ in range(15):
        await shelf.aged(kept.hash)
        moved += await shelf.tidy(Chore.COLD)
        await shelf.admin.execute("update contents set accessed_at = now() where hash = $1", kept.hash)
        moved += await shelf.tidy(Chore.WARM)
    stop.set()
    assert min(await asyncio.gather(*readers)) > 0
    # Readers' notes may come in between, and keep it where it is.
    assert min(moved.moved_to_cold, moved.moved_to_warm) >= 10


async def test_what_is_stored_is_what_is_read(shelf: Shelf) -> None:
    codec, packed = await encoded(b"again and again " * 500)
    placed = await shelf.keep(b"again and again " * 500)
    assert (placed.codec, placed.body) == (codec, packed)
    assert await shelf.contents.fetch(shelf.user_id, asdict(placed)) == b"again and again " * 500
    assert placed.hash == document_hash(b"again and again " * 500)


async def test_what_is_in_a_row_already_stays_there_whoever_wants_it_as_an_object(shelf: Shelf) -> None:
    kept = await shelf.keep(SMALL)
    again = await shelf.contents.put(shelf.user_id, SMALL, strategy="url")
    async with shelf.database.transaction(shelf.user_id) as connection:
        await connection.execute(
            "select studio_store($1, $2, $3, $4, $5, $6, $7)", shelf.user_id, again.hash, again.size,
            again.stored_size, again.codec, again.body, again.location,
        )  # fmt: skip
    assert (await shelf.row(kept.hash))["tier"] == "warm"
    assert await shelf.stored() == set()


async def test_the_history_shows_what_was_created_from_whichever_tier_has_it(
    engine: Any, database: Database, contents: Contents, database_urls: Mapping[str, str], admin: Any
) -> None:
    blob = await engine.ask("POST", "/blobs", {"content_type": "text/plain", "content": noise(1_000).hex()})
    before = await engine.ask("GET", f"/blobs/{blob['id']}/deltas")
    objects = objects_of(database_urls)
    shelf = Shelf(engine.user.user_id, contents, objects, database, admin)
    [digest] = await shelf.hashes()
    await shelf.aged(digest)
    assert (await shelf.tidy(Chore.COLD)).moved_to_cold == 1
    assert await engine.ask("GET", f"/blobs/{blob['id']}/deltas") == before
    await objects.close()
