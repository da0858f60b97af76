"""Ten thousand versions: any of them is read by few patches, and all of them are proven in little memory."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from domain.deltas import DeltaOperation, State, delete, restore, revert, rewrite
from domain.documents import Document, document_hash
from domain.errors import NotFound
from domain.ids import new_id
from domain.snapshots import keep
from storage import replays
from storage.blobs import Blobs
from storage.deltas import SNAPSHOT_EVERY, Deltas
from tests.storage.test_deltas import delta_of, made

MANY = 10_000


@pytest.fixture(scope="session")
def blobs(database: Any, contents: Any) -> Blobs:
    return Blobs(database, contents)


@pytest.fixture(scope="session")
def deltas(database: Any, contents: Any) -> Deltas:
    return Deltas(database, contents)


async def edited(deltas: Deltas, user: Any, blob_id: UUID, state: State, texts: list[str], **since: int) -> State:
    """Append a version for each text, as a person's edits would."""
    kept, weight = since.get("kept", 1), since.get("weight", 0)
    for text in texts:
        draft = rewrite(state, Document.parse({"content": text}), operation=DeltaOperation.UPDATE)
        assert draft is not None
        done = await deltas.append(delta_of(user, blob_id, draft, kept_version=kept, patch_bytes=weight))
        assert done.status == "applied"
        state, kept, weight = draft.after, done.kept_version, done.patch_bytes
    return state


async def copied(admin: Any, user: Any, blob_id: UUID, state: State, texts: list[str]) -> None:
    """What ``edited`` leaves behind, of so many versions that a transaction for each would take too long."""
    rows, kept, since, weight = [], [], 1, 0
    for text in texts:
        draft = rewrite(state, Document.parse({"content": text}), operation=DeltaOperation.UPDATE)
        assert draft is not None
        data, patch, hashes = draft.document.to_bytes(), draft.patch_bytes.decode(), [draft.document_hash] * 4
        rows.append((user.user_id, new_id(), blob_id, draft.from_version, draft.to_version, "update", patch,
                     draft.inverse_bytes.decode(), *hashes, "user:me", datetime.now(UTC)))  # fmt: skip
        weight += len(patch)
        if keep(len(data), patch_bytes=weight, versions=draft.to_version - since, every=SNAPSHOT_EVERY):
            kept.append((user.user_id, blob_id, draft.to_version, draft.document_hash, len(data), data))
            since, weight = draft.to_version, 0
        state = draft.after
    await admin.executemany(
        "insert into deltas (user_id, id, blob_id, from_version, to_version, operation, patch, inverse, document_hash,"
        " content_hash, cutoff_hash, meta_hash, actor, applied_at)"
        " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)", rows,
    )  # fmt: skip
    await admin.executemany(
        "with content as (insert into contents (user_id, hash, size, stored_size, body) values ($1, $4, $5, $5, $6))"
        " insert into snapshots (user_id, blob_id, version, document_hash) values ($1, $2, $3, $4)", kept,
    )  # fmt: skip
    assert state.document is not None
    await admin.execute(
        "update blobs set version = $2, document_hash = $3, kept_version = $4, patch_bytes = $5 where id = $1",
        blob_id, state.version, document_hash(state.document.to_bytes()), since, weight,
    )  # fmt: skip


async def test_any_of_ten_thousand_versions_is_read_by_a_bounded_number_of_patches_and_all_are_proven(
    blobs: Blobs, deltas: Deltas, user: Any, admin: Any
) -> None:
    page = "The ship sailed into the storm and nobody slept. " * 20
    new = await made(blobs, user, Document.parse({"content": f"{page}0"}))
    state = State(document=new.document, version=1)
    await copied(admin, user, new.blob_id, state, [f"{page}{n}" for n in range(1, MANY)])
    worst = await admin.fetchrow(
        "select max(cardinality(s.patches)) as most, count(*) as versions from read_states($1,"
        " (select array_agg($2::uuid) from generate_series(1, $3)), (select array_agg(v::int) from"
        " generate_series(1, $3) v)) s",
        user.user_id, new.blob_id, MANY,
    )  # fmt: skip
    assert worst["versions"] == MANY
    assert 0 < worst["most"] <= SNAPSHOT_EVERY
    for version in (1, 2, 4_999, MANY):
        found = await blobs.get(user.user_id, new.blob_id, version)
        assert found.document.body == f"{page}{version - 1}"
    report = await deltas.materialize(user.user_id, new.blob_id)
    assert (report.faults, report.versions) == ([], MANY)
    assert report.kept >= MANY // SNAPSHOT_EVERY


async def test_patches_that_outweigh_the_document_keep_a_version(
    blobs: Blobs, deltas: Deltas, user: Any, admin: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "a" * 100}))
    state = State(document=new.document, version=1)
    await edited(deltas, user, new.blob_id, state, [letter * 100 for letter in "bcdefgh"])
    rows = await admin.fetch("select version from snapshots where blob_id = $1 order by 1", new.blob_id)
    versions = [row["version"] for row in rows]
    assert len(versions) > 3
    patches = await admin.fetch("select to_version, octet_length(patch) n from deltas where blob_id = $1", new.blob_id)
    size = len(state.document.to_bytes()) if state.document else 0
    for low, high in pairwise(versions):
        assert sum(row["n"] for row in patches if low < row["to_version"] < high) < size


async def test_every_operation_is_replayed_and_undone(blobs: Blobs, deltas: Deltas, user: Any) -> None:
    new = await made(blobs, user, Document.parse({"content": "one"}))
    state = await edited(deltas, user, new.blob_id, State(document=new.document, version=1), ["two", "three"])
    assert new.document is not None
    for decide in (lambda s: revert(s, new.document), delete, restore):
        draft = decide(state)
        assert draft is not None
        blob = await blobs.get(user.user_id, new.blob_id)
        since = {"kept_version": blob.kept_version, "patch_bytes": blob.patch_bytes}
        assert (await deltas.append(delta_of(user, new.blob_id, draft, **since))).status == "applied"
        state = draft.after
    report = await deltas.materialize(user.user_id, new.blob_id)
    assert (report.faults, report.versions, report.sound) == ([], 6, True)
    with pytest.raises(NotFound):
        await deltas.materialize(user.user_id, new_id())


TAMPERED = {
    "patch": ("update deltas set patch = replace(patch, 'two', 'ten') where blob_id = $1 and to_version = 2", "v2: "),
    "inverse": ("update deltas set inverse = replace(inverse, 'one', 'ten') where blob_id = $1 and to_version = 2",
                "v2: the inverse"),
    "recorded": ("update deltas set document_hash = 'sha256:0' where blob_id = $1 and to_version = 3", "v3: "),
    "gone": ("delete from deltas where blob_id = $1 and to_version = 2", "v3: the history jumps"),
    "end": ("delete from deltas where blob_id = $1 and to_version = 4", "v4: the history does not lead"),
    "kept": ("update contents c set body = '' from snapshots s where s.blob_id = $1 and c.hash = s.document_hash",
             "v1: its kept document"),
}  # fmt: skip


@pytest.mark.parametrize("what", TAMPERED)
async def test_what_somebody_tampered_with_is_named_by_its_version(
    blobs: Blobs, deltas: Deltas, user: Any, admin: Any, what: str
) -> None:
    page = f"{new_id()} "  # content of this test alone
    new = await made(blobs, user, Document.parse({"content": f"{page}one"}))
    state = State(document=new.document, version=1)
    await edited(deltas, user, new.blob_id, state, [f"{page}two", f"{page}three", f"{page}four"])
    statement, words = TAMPERED[what]
    await admin.execute(statement, new.blob_id)
    report = await deltas.materialize(user.user_id, new.blob_id)
    assert not report.sound
    assert report.faults[0].startswith(words)


async def test_a_long_history_is_read_in_batches_bounded_by_count_and_by_bytes(
    blobs: Blobs, deltas: Deltas, user: Any, monkeypatch: pytest.MonkeyPatch, database: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "0"}))
    state = State(document=new.document, version=1)
    await edited(deltas, user, new.blob_id, state, [f"{n}" for n in range(1, replays.BATCH * 2 + 5)])
    sizes: list[int] = []
    reading = database.rows

    async def counted(*arguments: Any) -> Any:
        rows = await reading(*arguments)
        sizes.append(len(rows))
        return rows

    monkeypatch.setattr(database, "rows", counted)
    report = await deltas.materialize(user.user_id, new.blob_id)
    assert report.versions == replays.BATCH * 2 + 5
    assert max(sizes) <= replays.BATCH


async def test_many_histories_are_proven_at_once(blobs: Blobs, deltas: Deltas, user: Any) -> None:
    news = [await made(blobs, user, Document.parse({"content": f"{n}"})) for n in range(5)]
    reports = await asyncio.gather(*(deltas.materialize(user.user_id, new.blob_id) for new in news))
    assert all(report.sound for report in reports)
