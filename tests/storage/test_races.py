"""What is named while housekeeping collects: it is there afterwards, or whoever names it hears that it is not."""

from __future__ import annotations

import asyncio
from typing import Any

from domain.batches import Batch, BatchRow
from domain.documents import Document, content_hash, content_size, cutoff_hash
from domain.housekeeping import Chore
from domain.ids import new_id
from storage.batches import Batches
from storage.contents import Placed
from tests.storage import invariants
from tests.storage.shelf import AT_ONCE, HOUR, SMALL, Shelf, noise

LOCKED = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"


def naming(index: int, placed: Placed) -> BatchRow:
    """An item that makes a blob of bytes that are there."""
    named = {"hash": placed.hash, "size": placed.size}
    document = Document.parse({"content_type": "application/octet-stream", "binary": named})
    return BatchRow(
        index=index,
        op="create",
        blob_id=new_id(),
        delta_id=new_id(),
        schema_id="blob-v1",
        document=document,
        cutoff_hash=cutoff_hash(document),
        content_hash=content_hash(document),
        growth=content_size(document),
    )


async def test_a_batch_names_no_bytes_that_are_collected_while_it_waits(shelf: Shelf) -> None:
    first, last = sorted([await shelf.keep(noise(5_000, seed)) for seed in (1, 2)], key=lambda placed: placed.hash)
    for placed in (first, last):
        await shelf.aged(placed.hash)
    batches = Batches(shelf.database, shelf.contents)
    rows = [naming(index, placed) for index, placed in enumerate((first, last))]
    batch = Batch(user_id=shelf.user_id, cascade_id=new_id(), actor="user:test", rows=rows)
    async with shelf.database.transaction(shelf.user_id) as connection:
        await connection.execute("select studio_touch($1, $2, $3)", shelf.user_id, first.hash, first.size)
        writing = asyncio.create_task(batches.write(batch, strict=False))
        while not await shelf.admin.fetchval(LOCKED):  # noqa: ASYNC110 - another process's lock
            await asyncio.sleep(0.01)
        assert (await shelf.tidy(Chore.CONTENTS, grace=HOUR)).contents_collected == 1
    verdicts: Any = await writing
    assert [verdict.status for verdict in verdicts] == ["ok", "unknown_content"]
    await invariants.check(shelf.admin, shelf.user_id)


async def test_what_is_named_again_within_a_minute_outlives_a_collector_that_looked_before(shelf: Shelf) -> None:
    """Who stores what was touched a moment ago locks its row and does not write it: nothing tells the collector."""
    kept = await shelf.keep(SMALL)
    await shelf.admin.execute(
        # Holds up the statement that looks for what is named until the test lets go of the advisory lock.
        "create function waits() returns uuid language sql volatile as 'select pg_advisory_xact_lock_shared(78);"
        " select app_user()'"
    )
    definition = await shelf.admin.fetchval("select pg_get_functiondef('collect_contents'::regproc)")
    slowed = definition.replace("collect_contents(", "collect_late(").replace(
        "where c.user_id = p_user and c.touched_at", "where c.user_id = waits() and c.touched_at"
    )
    assert slowed.count("waits()") == 1
    await shelf.admin.execute(slowed)
    try:
        await shelf.admin.execute("select pg_advisory_lock(78)")
        collecting = asyncio.create_task(
            shelf.database.call("select count(*) from collect_late($1, $2, 10)", shelf.user_id, AT_ONCE)
        )
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and objid = 78 and not granted"
        while not await shelf.admin.fetchval(waiting):  # noqa: ASYNC110 - another process's lock
            await asyncio.sleep(0.01)
        await shelf.keep(SMALL)
        await shelf.refer(kept.hash)
        await shelf.admin.execute("select pg_advisory_unlock(78)")
        found = await collecting
        assert found is not None
        assert found[0] == 0
        assert await shelf.hashes() == {kept.hash}
    finally:
        await shelf.admin.execute("select pg_advisory_unlock_all()")
        await shelf.admin.execute("drop function collect_late; drop function waits")
