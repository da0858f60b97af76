"""Housekeeping over real PostgreSQL and S3: what is needed stays, what is not goes, whoever works at the same time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from domain.errors import StudioError, Unavailable
from domain.housekeeping import FINDINGS_MAX, Chore, Tidied
from domain.ids import new_id
from storage.contents import Contents
from storage.database import Database
from storage.housekeeping import BATCH, Housekeeping
from storage.idempotency import IdempotencyKeys
from storage.object_files import FileObjects
from storage.objects import S3Objects
from storage.registry import Registry
from tests.conftest import Person, objects_of
from tests.storage.shelf import AT_ONCE, HOUR, INLINE_MAX, LARGE, RULES, SMALL, Shelf, nobody, noise


async def test_what_nothing_refers_to_is_collected_with_its_object(shelf: Shelf) -> None:
    for data in (SMALL, LARGE):
        await shelf.keep(data)
    needed = await shelf.keep(noise(INLINE_MAX + 2, 3))
    await shelf.refer(needed.hash)
    done = await shelf.tidy(Chore.CONTENTS)
    assert (done.contents_collected, done.bytes_collected) == (2, len(SMALL) + len(LARGE))
    assert await shelf.hashes() == {needed.hash}
    assert await shelf.stored() == {needed.location}
    assert await shelf.tidy(Chore.CONTENTS) == Tidied()


async def test_more_than_a_batch_is_collected_in_one_go(shelf: Shelf) -> None:
    await shelf.admin.execute(
        "insert into contents (user_id, hash, size, stored_size, body)"
        " select $1, 'sha256:' || n, 1, 1, 'x' from generate_series(1, $2::int) n", shelf.user_id, BATCH + 1,
    )  # fmt: skip
    assert (await shelf.tidy(Chore.CONTENTS)).contents_collected == BATCH + 1


async def test_what_was_touched_within_the_grace_stays(shelf: Shelf) -> None:
    kept = await shelf.keep(SMALL)
    assert (await shelf.tidy(Chore.CONTENTS, grace=HOUR)).contents_collected == 0
    await shelf.aged(kept.hash)
    await shelf.contents.put(shelf.user_id, SMALL)  # inline: nothing is asked yet, the row is touched with the write
    await shelf.keep(SMALL)
    assert (await shelf.tidy(Chore.CONTENTS, grace=HOUR)).contents_collected == 0
    await shelf.aged(kept.hash)
    assert (await shelf.tidy(Chore.CONTENTS, grace=HOUR)).contents_collected == 1


async def test_putting_a_large_content_again_keeps_its_object(shelf: Shelf) -> None:
    kept = await shelf.keep(LARGE)
    await shelf.aged(kept.hash)
    again = await shelf.contents.put(shelf.user_id, LARGE)
    assert again.location == kept.location
    assert (await shelf.tidy(Chore.CONTENTS, grace=HOUR)).contents_collected == 0
    assert await shelf.stored() == {kept.location}


async def test_nobody_elses_content_is_touched(shelf: Shelf, other: Person) -> None:
    kept = await shelf.keep(LARGE)
    theirs = Shelf(other.user_id, shelf.contents, shelf.objects, shelf.database, shelf.admin)
    await theirs.keep(LARGE)
    for chore in Chore:
        await theirs.tidy(chore)
    assert await theirs.hashes() == set()
    assert await shelf.hashes() == {kept.hash}
    assert await shelf.stored() == {kept.location}


async def test_a_writer_that_has_not_committed_keeps_what_it_uses(shelf: Shelf) -> None:
    kept = await shelf.keep(SMALL)
    await shelf.aged(kept.hash)
    async with shelf.database.transaction(shelf.user_id) as connection:
        await connection.execute("select studio_touch($1, $2, $3)", shelf.user_id, kept.hash, kept.size)
        assert (await shelf.tidy(Chore.CONTENTS, grace=HOUR)).contents_collected == 0
    assert await shelf.hashes() == {kept.hash}


@pytest.mark.parametrize("careful", [True, False], ids=["careful", "careless"])
async def test_a_writer_that_commits_while_the_collector_looks_keeps_what_it_uses(shelf: Shelf, careful: bool) -> None:  # noqa: FBT001
    """The collector has its snapshot and waits before the row; meanwhile the row is touched and referred to.

    A careless collector, which neither asks when the row was touched nor looks again, deletes it: the reference came
    too late for it.
    """
    kept = await shelf.keep(SMALL)
    await shelf.aged(kept.hash)
    await shelf.admin.execute(
        # Holds up any statement that looks for what is named, until the test lets go of the advisory lock.
        "create function held_up() returns uuid language sql volatile as 'select pg_advisory_xact_lock_shared(77);"
        " select app_user()'"
    )
    definition = await shelf.admin.fetchval("select pg_get_functiondef('collect_contents'::regproc)")
    slowed = definition.replace("collect_contents(", "collect_slowly(").replace(
        "where c.user_id = p_user and c.touched_at", "where c.user_id = held_up() and c.touched_at"
    )
    assert slowed.count("held_up") == 1
    second_look = "and not exists (select from named n where n.hash = c.hash)\n    returning"
    careless = slowed.replace("and c.touched_at < now() - p_grace", "").replace(second_look, "returning")
    assert len(careless) == len(slowed) - len("and c.touched_at < now() - p_grace") - len(second_look) + len(
        "returning"
    )
    await shelf.admin.execute(slowed if careful else careless)
    try:
        await shelf.admin.execute("select pg_advisory_lock(77)")

        async def collect() -> list[Any]:
            async with shelf.database.connection() as connection:
                return list(await connection.fetch("select hash from collect_slowly($1, $2, 10)", shelf.user_id, HOUR))

        collecting = asyncio.create_task(collect())
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and objid = 77 and not granted"
        while not await shelf.admin.fetchval(waiting):  # noqa: ASYNC110 - another process's lock
            await asyncio.sleep(0.01)
        await shelf.keep(SMALL)
        await shelf.refer(kept.hash)
        await shelf.admin.execute("select pg_advisory_unlock(77)")
        assert len(await collecting) == (0 if careful else 1)
        assert await shelf.hashes() == ({kept.hash} if careful else set())
    finally:
        await shelf.admin.execute("select pg_advisory_unlock_all()")
        await shelf.admin.execute("drop function collect_slowly; drop function held_up")


async def test_collectors_and_writers_at_the_same_time_lose_nothing(shelf: Shelf) -> None:
    """Every content is dropped and used again at random; whoever refers to it finds it, byte for byte."""
    chance, contents = random.Random(7), [noise(3_000, seed) for seed in range(6)]
    referred: set[str] = set()
    stop = asyncio.Event()

    async def collect() -> None:
        while not stop.is_set():
            await shelf.tidy(Chore.CONTENTS, grace=AT_ONCE)

    async def write() -> None:
        for _ in range(40):
            data = chance.choice(contents)
            placed = await shelf.contents.put(shelf.user_id, data)
            blob = new_id()
            async with shelf.database.transaction(shelf.user_id) as connection:
                await connection.execute(
                    "select studio_store($1, $2, $3, $4, $5, $6, $7)", shelf.user_id, placed.hash, placed.size,
                    placed.stored_size, placed.codec, placed.body, placed.location,
                )  # fmt: skip
                await connection.execute(
                    "insert into blobs (user_id, id, content_type, schema_id, created_by, root_id)"
                    " values ($1, $2, 'text/plain', 'text-v1', 'user', $2)", shelf.user_id, blob,
                )  # fmt: skip
                await connection.execute(
                    "insert into snapshots (user_id, blob_id, version, document_hash) values ($1, $2, 1, $3)",
                    shelf.user_id, blob, placed.hash,
                )  # fmt: skip
            assert await shelf.contents.get(shelf.user_id, placed.hash) == data
            if chance.random() < 0.5:
                await shelf.admin.execute(
                    "delete from snapshots where user_id = $1 and blob_id = $2", shelf.user_id, blob
                )
            else:
                referred.add(placed.hash)

    collector = asyncio.create_task(collect())
    try:
        await asyncio.gather(write(), return_exceptions=False)
    finally:
        stop.set()
        await collector
    await shelf.tidy(Chore.CONTENTS)
    assert await shelf.hashes() == referred
    for digest in referred:
        await shelf.contents.get(shelf.user_id, digest)


async def test_objects_that_nothing_names_are_collected_and_others_are_not(shelf: Shelf) -> None:
    kept = await shelf.keep(LARGE)
    orphan, upload = f"{shelf.user_id}/{uuid4()}", f"{shelf.user_id}/{uuid4()}"
    for key in (orphan, upload):
        await shelf.objects.put(key, b"left behind")
    await shelf.admin.execute(
        "insert into uploads (user_id, id, content_type, part_size, location, expires_at)"
        " values ($1, $2, 'text/plain', 1, $3, now() + interval '1 hour')", shelf.user_id, new_id(), upload,
    )  # fmt: skip
    assert (await shelf.tidy(Chore.OBJECTS, grace=HOUR)).objects_collected == 0, "the writer may be about to commit"
    assert await shelf.stored() == {kept.location, orphan, upload}
    collected = 0
    while not collected:  # the store tells times to the second
        collected = (await shelf.tidy(Chore.OBJECTS)).objects_collected
    assert collected == 1
    assert await shelf.stored() == {kept.location, upload}
    await shelf.admin.execute("update uploads set status = 'aborted' where user_id = $1", shelf.user_id)
    assert (await shelf.tidy(Chore.OBJECTS)).objects_collected == 1
    assert await shelf.stored() == {kept.location}


async def test_damage_is_found_told_and_left_alone(shelf: Shelf) -> None:
    good, body, gone = [await shelf.keep(data) for data in (SMALL, noise(4_000, 4), LARGE)]
    await shelf.admin.execute("update contents set body = 'other' where hash = $1", body.hash)
    await shelf.objects.delete(str(gone.location))
    done = await shelf.tidy(Chore.SAMPLE)
    assert (done.verified, done.damaged) == (1, 2)
    assert {digest for digest in (body.hash, gone.hash) for said in done.findings if digest in said} == {
        body.hash, gone.hash,
    }  # fmt: skip
    assert await shelf.hashes() == {good.hash, body.hash, gone.hash}
    await shelf.aged(body.hash)
    assert (await shelf.tidy(Chore.COLD)).damaged == 1
    assert bytes((await shelf.row(body.hash))["body"]) == b"other"


async def test_the_longest_unverified_is_verified_first(shelf: Shelf) -> None:
    for seed in range(4):
        await shelf.keep(noise(100, seed))
    seen = "select count(verified_at) from contents where user_id = $1"
    assert (await shelf.tidy(Chore.SAMPLE, sample=3)).verified == 3
    assert await shelf.admin.fetchval(seen, shelf.user_id) == 3
    await shelf.tidy(Chore.SAMPLE, sample=1)
    assert await shelf.admin.fetchval(seen, shelf.user_id) == 4


async def test_large_content_is_verified_in_pieces(shelf: Shelf) -> None:
    data = noise(3 * 2**20, 9)
    placed = await shelf.keep(data)
    row = await shelf.contents.find(shelf.user_id, placed.hash)
    await shelf.contents.prove(shelf.user_id, row)
    await shelf.objects.put(str(placed.location), data[:-1] + b"?")
    with pytest.raises(StudioError) as caught:
        await shelf.contents.prove(shelf.user_id, row)
    assert caught.value.problem_code == "integrity"


@pytest.mark.usefixtures("asked_once")
async def test_an_object_store_that_is_away_is_no_damage(shelf: Shelf) -> None:
    await shelf.keep(LARGE)
    nowhere = S3Objects("bucket", endpoint="http://127.0.0.1:1", access_key="x", secret_key="y")
    away = Housekeeping(
        shelf.database, Contents(shelf.database, nowhere, inline_max=INLINE_MAX), nowhere,
        rules=RULES, expire=nobody, forget=nobody,
    )  # fmt: skip
    with pytest.raises(Unavailable):
        await away.tidy(Chore.SAMPLE, shelf.user_id)
    await nowhere.close()


async def test_outputs_of_steps_are_dropped_long_after_their_run_and_then_collected(
    engine: Any, database: Database, contents: Contents, database_urls: Mapping[str, str], admin: Any
) -> None:
    await engine.provider("one", "in-v1", "out-v1", execution="workflow")
    await engine.rest()
    await engine.create("in-v1")
    cascade = await engine.latest()
    run = await engine.take(cascade)
    await engine.schedule.begin_step(engine.user.user_id, run.run_id, "ask", 0, "api-call")
    objects = objects_of(database_urls)
    shelf = Shelf(engine.user.user_id, contents, objects, database, admin)
    placed = await shelf.keep(b'{"text":"what a step said"}')
    await admin.execute("update run_steps set output_hash = $2 where run_id = $1", run.run_id, placed.hash)
    await engine.finish(run.run_id)
    for chore in (Chore.STEPS, Chore.CONTENTS):
        await shelf.tidy(chore)
    assert placed.hash in await shelf.hashes()
    await admin.execute("update runs set ended_at = now() - interval '31 days' where id = $1", run.run_id)
    assert (await shelf.tidy(Chore.STEPS)).steps_dropped >= 1
    await shelf.tidy(Chore.CONTENTS)
    assert placed.hash not in await shelf.hashes()
    await engine.check()
    await objects.close()


async def test_old_idempotency_keys_are_forgotten(shelf: Shelf) -> None:
    for days in (0, 2):
        await shelf.admin.execute(
            "insert into idempotency_keys (user_id, principal, route, key, fingerprint, holder, created_at,"
            " completed_at) values ($1, $1, '/', $2, '', $1, now() - make_interval(days => $3), now())",
            shelf.user_id, f"k{days}", days,
        )  # fmt: skip
    forget = IdempotencyKeys(shelf.database).forget_old
    assert (await shelf.tidy(Chore.KEYS, forget=forget)).keys_forgotten == 1
    assert (await shelf.tidy(Chore.KEYS, forget=forget)).keys_forgotten == 0


async def test_plans_and_counts_of_runs_are_forgotten_when_nobody_needs_them_any_more(shelf: Shelf) -> None:
    for number, (expired, used) in enumerate([(0, None), (2, None), (40, 1), (40, 31)]):
        await shelf.admin.execute(
            "insert into plans (user_id, id, path, etag, body, blob_id, expires_at, used_at) values ($1,"
            " gen_random_uuid(), $2, '', '{}', $1, now() - make_interval(days => $3),"
            " now() - make_interval(days => $4))",
            shelf.user_id, str(number), expired, used,
        )  # fmt: skip
        await shelf.admin.execute(
            "insert into root_runs (user_id, root_id, since, runs) values ($1, gen_random_uuid(),"
            " now() - make_interval(mins => $2), $2)", shelf.user_id, number * 25,
        )  # fmt: skip
    assert [(await shelf.tidy(Chore.KEYS)).plans_forgotten for _ in range(2)] == [2, 0]
    plans = await shelf.admin.fetch("select path from plans where user_id = $1 order by path", shelf.user_id)
    assert [row["path"] for row in plans] == ["0", "2"]
    counts = await shelf.admin.fetch("select runs from root_runs where user_id = $1 order by runs", shelf.user_id)
    assert [row["runs"] for row in counts] == [0, 25, 50]


async def test_expired_uploads_are_handled_until_none_is_left(shelf: Shelf) -> None:
    answers = [100, 100, 3]

    async def expire(_user_id: UUID) -> int:
        return answers.pop(0)

    assert (await shelf.tidy(Chore.UPLOADS, expire=expire)).uploads_ended == 203


async def test_the_relays_role_sees_who_there_is_and_nothing_else(
    database_urls: Mapping[str, str], user: Person, other: Person
) -> None:
    opened = await Database.connect(database_urls["DATABASE_RELAY_URL"], size_max=1)
    registry = Registry(opened)
    found: list[UUID] = []
    after: UUID | None = None
    try:
        while page := await registry.users(after=after, limit=2):
            found, after = [*found, *page], page[-1]
        assert found == sorted(found)
        assert {user.user_id, other.user_id} <= set(found)
        with pytest.raises(Exception, match="permission denied"):
            await opened.call("select bytes_used from user_state")
    finally:
        await opened.close()


def test_counts_add_up_and_findings_are_bounded() -> None:
    done = sum([Tidied(verified=2, findings=(f"{n}",)) for n in range(FINDINGS_MAX + 5)], Tidied())
    assert (done.verified, len(done.findings)) == (2 * (FINDINGS_MAX + 5), FINDINGS_MAX)


async def test_a_folder_is_kept_like_a_store(shelf: Shelf, tmp_path: Path) -> None:
    """What a kill left half written lies beside the objects, and goes like one."""
    folder = FileObjects(tmp_path)
    contents = Contents(shelf.database, folder, inline_max=INLINE_MAX)
    in_folder = Shelf(shelf.user_id, contents, folder, shelf.database, shelf.admin)
    kept, dropped = await in_folder.keep(LARGE), await in_folder.keep(noise(INLINE_MAX + 5, 5))
    await in_folder.refer(kept.hash)
    left = tmp_path / "objects" / str(shelf.user_id) / "unfinished-write"
    left.write_bytes(b"half")
    assert await in_folder.stored() == {kept.location, dropped.location, f"{shelf.user_id}/unfinished-write"}
    assert (await in_folder.tidy(Chore.CONTENTS)).contents_collected == 1
    collected = 0
    while not collected:  # the grace is a millisecond
        collected = (await in_folder.tidy(Chore.OBJECTS)).objects_collected
    assert (collected, await in_folder.stored()) == (1, {kept.location})
    assert await contents.get(shelf.user_id, kept.hash) == LARGE
