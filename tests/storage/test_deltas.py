"""Deltas: replay gives the stored state at every version, and of many writers one wins."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from domain.blobs import NewDelta
from domain.deltas import DeltaDraft, DeltaOperation, State, delete, restore, rewrite
from domain.documents import Document, content_hash, cutoff_hash
from domain.errors import NotFound, StudioError
from domain.ids import new_id
from storage.blobs import Blobs
from storage.deltas import Deltas
from tests.storage.test_blobs import new_blob

SNAPSHOT_EVERY = 20
VALUES = [None, 0, 1, 1.0, -0.0, True, "", "a\u0000b", "Ünïcode", [], {}, [1, [2, {"a": None}]], {"~a/b": {"": 1}}]


@pytest.fixture(scope="session")
def blobs(database: Any, contents: Any) -> Blobs:
    return Blobs(database, contents)


@pytest.fixture(scope="session")
def deltas(database: Any, contents: Any) -> Deltas:
    return Deltas(database, contents, snapshot_every=SNAPSHOT_EVERY)


async def made(blobs: Blobs, user: Any, document: Document) -> Any:
    new = new_blob(
        user.user_id, document=document, content_hash=content_hash(document), cutoff_hash=cutoff_hash(document)
    )
    await blobs.create(new)
    return new


def delta_of(user: Any, blob_id: Any, draft: DeltaDraft, **more: Any) -> NewDelta:
    values: dict[str, Any] = {
        "user_id": user.user_id,
        "blob_id": blob_id,
        "delta_id": new_id(),
        "cascade_id": new_id(),
        "draft": draft,
        "cutoff_hash": cutoff_hash(draft.document),
        "actor": f"user:{user.user_id}",
        "kept_version": draft.from_version - draft.from_version % SNAPSHOT_EVERY,
        "patch_bytes": 0,
        "external": False,
    }
    return NewDelta(**(values | more))


def scrambled(chance: random.Random, document: Document) -> Document:
    """Some other document of the same type: fields, list items and long texts come, go and change."""
    root = document.to_json()
    data = dict(root["data"])
    for _ in range(chance.randint(1, 4)):
        name = chance.choice(["a", "b", "~c/d", "", "list", "text"])
        roll = chance.random()
        if roll < 0.25:
            data.pop(name, None)
        elif name == "list":
            data[name] = [chance.choice(VALUES) for _ in range(chance.randint(0, 5))]
        elif name == "text":
            words = str(data.get(name, "")).split(" ")[:200] or [""]
            words.insert(chance.randrange(len(words) + 1), chance.choice(["storm", "sea", "Schiff", "\u0000"]) * 9)
            data[name] = " ".join(words)
        else:
            data[name] = chance.choice(VALUES)
    root["data"] = data
    if chance.random() < 0.2:
        root["title"] = chance.choice(["", "Title", "Anderer Titel"])
    if chance.random() < 0.2:
        root["tags"] = chance.sample(["x", "y", "z"], chance.randint(0, 3))
    return Document.parse(root)


@pytest.mark.parametrize("seed", range(4))
async def test_replay_equals_the_stored_state_at_every_version(
    blobs: Blobs, deltas: Deltas, user: Any, seed: int
) -> None:
    chance = random.Random(seed)
    document = Document.parse({"data": {"text": "The ship sailed into the storm. " * 4}})
    new = await made(blobs, user, document)
    state = State(document=document, version=1)
    for _ in range(SNAPSHOT_EVERY * 2 + 3):
        draft = next_draft(chance, state)
        if draft is None:
            continue
        done = await deltas.append(delta_of(user, new.blob_id, draft))
        assert (done.status, done.version) == ("applied", draft.to_version)
        state = draft.after
    assert state.version > SNAPSHOT_EVERY * 2 - 10
    for version in range(1, state.version + 1):
        stored = await blobs.get(user.user_id, new.blob_id, version)
        near = await deltas.replayed(user.user_id, new.blob_id, version)
        far = await deltas.replayed(user.user_id, new.blob_id, version, from_start=True)
        for replayed in (near, far):
            assert replayed.document is not None
            assert replayed.document.to_bytes() == stored.document.to_bytes()
            assert replayed.version == version
    assert (await blobs.get(user.user_id, new.blob_id)).document == state.document


def next_draft(chance: random.Random, state: State) -> DeltaDraft | None:
    if state.deleted:
        return restore(state)
    if chance.random() < 0.05:
        return delete(state)
    assert state.document is not None
    return rewrite(state, scrambled(chance, state.document), operation=DeltaOperation.UPDATE)


async def test_reading_a_version_applies_a_bounded_number_of_patches(
    blobs: Blobs, deltas: Deltas, admin: Any, user: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "0"}))
    state = State(document=new.document, version=1)
    for n in range(SNAPSHOT_EVERY * 2):
        draft = rewrite(state, Document.parse({"content": f"{n + 1}"}), operation=DeltaOperation.UPDATE)
        assert draft is not None
        await deltas.append(delta_of(user, new.blob_id, draft))
        state = draft.after
    rows = await admin.fetch("select version from snapshots where blob_id = $1 order by 1", new.blob_id)
    assert [row["version"] for row in rows] == [1, SNAPSHOT_EVERY, SNAPSHOT_EVERY * 2]


async def test_a_tampered_patch_is_noticed(blobs: Blobs, deltas: Deltas, admin: Any, user: Any) -> None:
    new = await made(blobs, user, Document.parse({"data": {"a": 1}}))
    draft = rewrite(
        State(document=new.document, version=1), Document.parse({"data": {"a": 2}}), operation=DeltaOperation.UPDATE
    )
    assert draft is not None
    await deltas.append(delta_of(user, new.blob_id, draft))
    await admin.execute(
        "update deltas set patch = replace(patch, '2', '3') where blob_id = $1 and to_version = 2", new.blob_id
    )
    with pytest.raises(StudioError) as caught:
        await deltas.replayed(user.user_id, new.blob_id, 2)
    assert caught.value.problem_code == "integrity"


async def test_of_twenty_writers_on_one_version_one_wins(
    blobs: Blobs, deltas: Deltas, user: Any, count_rows: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "start"}))
    before = await count_rows(user.user_id)
    state = State(document=new.document, version=1)
    drafts = [
        rewrite(state, Document.parse({"content": f"writer {n}"}), operation=DeltaOperation.UPDATE) for n in range(20)
    ]
    done = await asyncio.gather(*(deltas.append(delta_of(user, new.blob_id, draft)) for draft in drafts if draft))
    assert sorted(one.status for one in done) == ["applied"] + ["conflict"] * 19
    assert {one.version for one in done} == {2}
    after = await count_rows(user.user_id)
    assert {name: after[name] - before[name] for name in after if after[name] != before[name]} == {
        "deltas": 1, "events": 2, "outbox": 1,
    }  # fmt: skip


async def test_a_delta_on_nothing_or_on_something_deleted_writes_nothing(
    blobs: Blobs, deltas: Deltas, user: Any, other: Any, count_rows: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "start"}))
    state = State(document=new.document, version=1)
    draft = rewrite(state, Document.parse({"content": "x"}), operation=DeltaOperation.UPDATE)
    assert draft is not None
    assert (await deltas.append(delta_of(other, new.blob_id, draft))).status == "not_found"
    gone = delete(state)
    assert (await deltas.append(delta_of(user, new.blob_id, gone))).status == "applied"
    before = await count_rows(user.user_id)
    assert (await deltas.append(delta_of(user, new.blob_id, draft))).status == "deleted"
    assert await count_rows(user.user_id) == before


async def test_edits_fold_into_the_unplanned_cascade_until_it_is_planned(
    blobs: Blobs, deltas: Deltas, admin: Any, user: Any
) -> None:
    new = await made(blobs, user, Document.parse({"content": "0"}))
    state = State(document=new.document, version=1)
    cascades = []
    for n in range(3):
        if n == 2:
            await admin.execute("update cascades set planned_at = now() where id = $1", new.cascade_id)
        draft = rewrite(state, Document.parse({"content": f"{n + 1}"}), operation=DeltaOperation.UPDATE)
        assert draft is not None
        cascades.append((await deltas.append(delta_of(user, new.blob_id, draft))).cascade_id)
        state = draft.after
    assert cascades[:2] == [new.cascade_id] * 2
    assert cascades[2] != new.cascade_id


async def test_an_outcome_is_found_by_the_id_of_its_delta(blobs: Blobs, deltas: Deltas, user: Any) -> None:
    new = await made(blobs, user, Document.parse({"content": "0"}))
    found = await deltas.outcome(user.user_id, new.delta_id)
    assert found is not None
    assert (found.blob_id, found.version, found.cascade_id) == (new.blob_id, 1, new.cascade_id)
    assert await deltas.outcome(user.user_id, new_id()) is None
    with pytest.raises(NotFound):
        await deltas.get(user.user_id, new_id())
    with pytest.raises(NotFound):
        await deltas.replayed(user.user_id, new_id(), 1)
