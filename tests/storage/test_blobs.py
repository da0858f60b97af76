"""Writing and reading blobs: one statement each, counted."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from domain.blobs import NewBlob
from domain.documents import Document, content_hash, cutoff_hash
from domain.errors import Gone, NotFound
from domain.ids import new_id
from storage.blobs import PAGE_BYTES_MAX, Blobs, within_bytes
from storage.database import Database


@pytest.fixture(scope="session")
def blobs(database: Any, contents: Any) -> Blobs:
    return Blobs(database, contents)


def new_blob(user_id: UUID, **more: Any) -> NewBlob:
    document = Document.parse({"content": "The quick brown fox", "tags": ["a"]})
    values: dict[str, Any] = {
        "user_id": user_id,
        "blob_id": new_id(),
        "delta_id": new_id(),
        "cascade_id": new_id(),
        "schema_id": "text-v1",
        "document": document,
        "content_hash": content_hash(document),
        "cutoff_hash": cutoff_hash(document),
        "actor": f"user:{user_id}",
    }
    return NewBlob(**(values | more))


async def test_a_create_is_one_round_trip(database: Any, contents: Any, user: Any) -> None:
    statements: list[str] = []

    class Counting(Database):
        async def call(self, query: str, *arguments: object) -> Any:
            statements.append(query)
            return await database.call(query, *arguments)

    counting = Blobs(Counting(database._pool), contents)
    assert await counting.create(new_blob(user.user_id)) is not None
    assert len(statements) == 1


async def test_a_create_writes_blob_delta_events_snapshot_cascade_and_counters(
    blobs: Blobs, admin: Any, user: Any, count_rows: Any
) -> None:
    before = await count_rows(user.user_id)
    new = new_blob(user.user_id)
    await blobs.create(new)
    after = await count_rows(user.user_id)
    grown = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert grown == {"blobs": 1, "deltas": 1, "snapshots": 1, "contents": 1, "cascades": 1, "events": 2, "outbox": 1}
    state = await admin.fetchrow("select * from user_state where user_id = $1", user.user_id)
    assert (state["blob_count"], state["bytes_used"]) == (1, len("The quick brown fox"))
    events = await admin.fetch("select type, key, seq from events where user_id = $1 order by seq", user.user_id)
    assert [(row["type"], row["key"]) for row in events][-2:] == [
        ("blob.created", "text-v1"),
        ("delta.applied", str(new.blob_id)),
    ]


async def test_the_same_ids_again_write_nothing(blobs: Blobs, user: Any, count_rows: Any) -> None:
    new = new_blob(user.user_id)
    assert await blobs.create(new) is not None
    before = await count_rows(user.user_id)
    assert await blobs.create(new) is None
    assert await count_rows(user.user_id) == before


@pytest.mark.parametrize(
    ("more", "problem"),
    [({"parent_id": new_id()}, "unknown_parent"), ({"bucket_ids": [new_id()]}, "unknown_bucket")],
)
async def test_an_unknown_parent_or_bucket_writes_nothing(
    blobs: Blobs, user: Any, count_rows: Any, more: dict[str, Any], problem: str
) -> None:
    before = await count_rows(user.user_id)
    made = await blobs.create(new_blob(user.user_id, **more))
    assert made is not None
    assert made.problem == problem
    assert await count_rows(user.user_id) == before


async def test_another_users_parent_is_unknown(blobs: Blobs, user: Any, other: Any) -> None:
    theirs = new_blob(other.user_id)
    await blobs.create(theirs)
    made = await blobs.create(new_blob(user.user_id, parent_id=theirs.blob_id))
    assert made is not None
    assert made.problem == "unknown_parent"


async def test_what_was_written_is_what_is_read(blobs: Blobs, user: Any) -> None:
    new = new_blob(user.user_id)
    await blobs.create(new)
    view = await blobs.get(user.user_id, new.blob_id)
    assert view.document == new.document
    assert (view.version, view.size, view.content_hash) == (1, 19, new.content_hash)
    assert (view.cascade_id, view.schema_id, view.external) == (new.cascade_id, "text-v1", False)


async def test_unknown_deleted_and_foreign_blobs_are_told_as_they_should(
    blobs: Blobs, admin: Any, user: Any, other: Any
) -> None:
    new = new_blob(user.user_id)
    await blobs.create(new)
    with pytest.raises(NotFound):
        await blobs.get(other.user_id, new.blob_id)
    with pytest.raises(NotFound):
        await blobs.exists(other.user_id, new.blob_id)
    with pytest.raises(NotFound):
        await blobs.get(user.user_id, new.blob_id, 2)
    await admin.execute("update blobs set deleted_at = now() where id = $1", new.blob_id)
    with pytest.raises(Gone):
        await blobs.living(user.user_id, new.blob_id)
    assert (await blobs.get(user.user_id, new.blob_id, 1)).document == new.document


async def test_an_output_that_is_not_made_yet_is_invisible(blobs: Blobs, admin: Any, user: Any) -> None:
    blob_id = new_id()
    await admin.execute(
        "insert into blobs (user_id, id, content_type, schema_id, created_by, root_id)"
        " values ($1, $2, 'text/plain', 'text-v1', 'x', $2)",
        user.user_id, blob_id,
    )  # fmt: skip
    with pytest.raises(NotFound):
        await blobs.get(user.user_id, blob_id)
    with pytest.raises(NotFound):
        await blobs.exists(user.user_id, blob_id)
    assert await blobs.page(user.user_id, limit=10) == ([], False)
    assert await blobs.many(user.user_id, [blob_id]) == ([], False)


def test_a_page_is_bounded_by_bytes_but_never_empty() -> None:
    text, video = {"content_type": "text/plain"}, {"content_type": "video/mp4"}
    rows: list[Any] = [text | {"size": PAGE_BYTES_MAX + 1}, text | {"size": 1}]
    assert within_bytes(rows) == rows[:1]
    small: list[Any] = [text | {"size": 10}] * 5
    assert within_bytes(small) == small
    files: list[Any] = [video | {"size": PAGE_BYTES_MAX + 1}, text | {"size": 2**40}] * 3
    assert within_bytes(files) == files
    assert within_bytes([]) == []
