"""A batch and the schedule: one cascade for all, planned like any other, whoever edits meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from domain.batches import Batch, BatchRow
from domain.documents import Document, content_hash, content_size, cutoff_hash
from domain.ids import new_id
from storage.batches import Batches
from storage.contents import Contents
from storage.database import Database
from tests.conftest import Person
from tests.storage import invariants
from tests.storage.engine import Engine
from tests.storage.test_schedule_plan import holds, joined


async def batch(engine: Engine, *items: dict[str, Any]) -> tuple[UUID, list[UUID]]:
    found = await engine.ask("POST", "/blobs/batch", {"items": list(items)})
    return UUID(found["cascade_id"]), [UUID(result["id"]) for result in found["results"]]


def create(text: str, **more: Any) -> dict[str, Any]:
    return {"op": "create", "schema_id": "in-v1", "data": {"text": text}, "title": "T", **more}


def update(blob_id: UUID, text: str) -> dict[str, Any]:
    return {"op": "update", "id": str(blob_id), "patch": {"data": {"text": text}}}


def delete(blob_id: UUID) -> dict[str, Any]:
    return {"op": "delete", "id": str(blob_id)}


async def texts(engine: Engine, provider: str) -> list[str]:
    return sorted([await engine.text(output) for output in await engine.outputs(provider)])


async def test_one_cascade_plans_and_runs_everything_that_a_batch_touches(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.join("book", "mid-v1", "book-v1")
    bucket = await engine.bucket()
    cascade, blobs = await batch(engine, *(create(letter, bucket_ids=[bucket]) for letter in "abcde"))
    await engine.rest()
    assert await texts(engine, "one") == ["a!", "b!", "c!", "d!", "e!"]
    assert await joined(engine) == "a! b! c! d! e!"
    assert (await engine.cascade(cascade))["status"] == "completed"
    cascade, _ = await batch(engine, update(blobs[0], "A"), update(blobs[1], "B"), delete(blobs[2]), create("f"))
    await engine.rest()
    assert await joined(engine) == "A! B! c! d! e!"
    # One wave: the join that two edits move ran once for both.
    assert await engine.runs("book") == ["settled", "settled"]
    assert (await engine.cascade(cascade))["status"] == "completed"
    deltas = await engine.rows(
        "select distinct cascade_id from deltas where user_id = $1 and run_id is null and blob_id = any($2)", blobs
    )
    assert len(deltas) == 2


async def test_the_graph_of_a_blob_is_not_settled_before_its_batch_and_no_other_graph_waits(engine: Engine) -> None:
    other = await engine.create("blob-v1")
    await engine.rest()
    cascade, (blob,) = await batch(engine, create("a", schema_id="blob-v1"))
    mine, theirs = [await engine.ask("GET", f"/blobs/{one}/dag") for one in (blob, other)]
    assert ([found["id"] for found in mine["cascades"]], mine["settled"]) == ([str(cascade)], False)
    assert (theirs["cascades"], theirs["settled"]) == ([], True)
    await engine.rest()
    assert (await engine.ask("GET", f"/blobs/{blob}/dag"))["settled"]


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "edit-first"])
async def test_an_edit_before_the_plan_of_a_batch_is_a_cause_of_its_own(engine: Engine, *, batch_first: bool) -> None:
    await engine.provider("one", "in-v1", "out-v1")
    together, (first, second) = await batch(engine, create("a"), create("b"))
    alone = await engine.edit(first, "later")
    assert alone != together
    for cascade in (together, alone) if batch_first else (alone, together):
        await engine.plan(cascade)
    await engine.rest()
    assert await texts(engine, "one") == ["b!", "later!"]
    assert await engine.version(second) == 1


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch-first", "other-first"])
async def test_deletion_and_restoration_around_an_unplanned_batch_end_well(
    engine: Engine, *, batch_first: bool
) -> None:
    await engine.provider("one", "in-v1", "out-v1", on_delete="delete")
    blobs = [await engine.create("in-v1", letter) for letter in "abc"]
    await engine.rest()
    together, _ = await batch(engine, delete(blobs[0]), update(blobs[1], "B"), delete(blobs[2]))
    assert await engine.restore(blobs[0])
    await engine.delete(blobs[1])
    rows = await engine.rows(
        "select id from cascades where user_id = $1 and planned_at is null and cause <> 'batch' order by created_at"
    )
    others = [row["id"] for row in rows]
    for cascade in [together, *others] if batch_first else [*others, together]:
        await engine.plan(cascade)
    await engine.rest()
    living = await engine.rows("select id from blobs where user_id = $1 and provider_id = 'one' and deleted_at is null")
    assert [await engine.text(row["id"]) for row in living] == ["a!"]


async def test_a_batch_takes_an_edit_of_an_output_by_hand_into_account(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "mid-v1")
    await engine.provider("two", "mid-v1", "out-v1", origin="any")
    blob = await engine.create("in-v1")
    await engine.rest()
    output = await engine.output("one")
    await batch(engine, update(output, "mine"))
    await engine.rest()
    assert await joined(engine, "two") == "mine!"
    assert await holds(engine) == {"one": None, "two": None}
    await batch(engine, delete(blob))
    await engine.rest()
    assert await holds(engine) == {"one": "retired", "two": None}


async def test_a_plan_and_batches_of_the_same_blobs_do_not_wait_for_each_other(engine: Engine) -> None:
    await engine.provider("one", "in-v1", "out-v1", on_delete="delete")
    _, blobs = await batch(engine, *(create(str(number)) for number in range(12)))
    await engine.rest()

    async def edits(turn: int) -> None:
        ordered = blobs if turn % 2 else list(reversed(blobs))
        while True:
            body = {"items": [update(blob, f"{turn}") for blob in ordered]}
            answer = await engine.http.post("/api/v1/studio/blobs/batch", json=body)
            assert answer.status_code in {200, 409}, answer.text
            if answer.status_code == 200:
                return

    async def plans() -> None:
        for _ in range(20):
            for row in await engine.rows("select id from cascades where user_id = $1 and planned_at is null"):
                await engine.schedule.plan(engine.user.user_id, row["id"])
            await asyncio.sleep(0)

    await asyncio.gather(*(edits(turn) for turn in range(6)), plans())
    await engine.rest()
    assert len(set(await texts(engine, "one"))) == 1


async def test_a_batch_of_creates_costs_a_handful_of_statements_whatever_its_size(
    database_urls: Any, contents: Contents, user: Person, admin: Any
) -> None:
    database = await Database.connect(database_urls["DATABASE_URL"], size_max=1)
    said: list[str] = []
    try:
        async with database.connection() as connection:
            connection.add_query_logger(lambda record: said.append(record.query))
        batches = Batches(database, contents)
        for count in (1, 500):
            said.clear()
            rows = [_row(index) for index in range(count)]
            written = Batch(user_id=user.user_id, cascade_id=new_id(), actor="user:test", rows=rows)
            verdicts = await batches.write(written, strict=True)
            assert {verdict.status for verdict in verdicts or ()} == {"ok"}
            assert 0 < len(said) <= 6, said
    finally:
        await database.close()
    await invariants.check(admin, user.user_id)


def _row(index: int) -> BatchRow:
    document = Document.parse({"content": f"text {index}"})
    return BatchRow(
        index=index,
        op="create",
        blob_id=new_id(),
        delta_id=new_id(),
        schema_id="text-v1",
        document=document,
        cutoff_hash=cutoff_hash(document),
        content_hash=content_hash(document),
        growth=content_size(document),
    )
