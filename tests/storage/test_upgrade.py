"""A database of the first release, with all that it kept, reads the same after the second migration."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from alembic import command

from domain.blobs import NewDelta
from domain.deltas import DeltaDraft, DeltaOperation, State, create, delete, rewrite
from domain.documents import Document, content_size, cutoff_hash, meta_hash
from domain.ids import new_id
from migrations.__main__ import alembic_config, make_roles, migrate
from settings import load_settings
from storage.contents import Contents
from storage.database import Database
from storage.deltas import Deltas
from storage.states import States
from storage.verification import Verification
from tests.conftest import objects_of

INLINE_MAX = 4_000


def document(text: str, **more: Any) -> Document:
    return Document.parse({"content_type": "text/plain", "content": text, **more})


@dataclass
class FirstRelease:
    """Writes what the functions of the first release wrote: every version's whole document, as it is."""

    connection: Any
    objects: Any
    user_id: UUID = field(default_factory=new_id)
    documents: dict[tuple[UUID, int], Document] = field(default_factory=dict)

    async def user(self) -> None:
        await self.connection.execute("insert into users (user_id, name) values ($1, 'early')", self.user_id)
        await self.connection.execute("insert into user_state (user_id) values ($1)", self.user_id)

    async def content(self, draft: DeltaDraft) -> None:
        data = draft.document.to_bytes()
        location = f"{self.user_id}/{uuid4()}" if len(data) > INLINE_MAX else None
        if location:
            await self.objects.put(location, data)
        await self.connection.execute(
            "insert into contents (user_id, hash, size, tier, body, location) values ($1, $2, $3, $4, $5, $6)"
            " on conflict do nothing",
            self.user_id, draft.document_hash, len(data), "cold" if location else "warm",
            None if location else data, location,
        )  # fmt: skip

    async def blob(self, *drafts: DeltaDraft, run_id: UUID | None = None) -> UUID:
        blob_id, before = new_id(), None
        for draft in drafts:
            await self.content(draft)
            if before is None:
                await self.connection.execute(
                    "insert into blobs (user_id, id, content_type, schema_id, created_by, root_id) values"
                    " ($1, $2, 'text/plain', 'text-v1', 'user', $2)", self.user_id, blob_id,
                )  # fmt: skip
            delta_id = new_id()
            await self.connection.execute(
                "insert into deltas (user_id, id, blob_id, from_version, to_version, operation, patch, inverse,"
                " document_hash, content_hash, cutoff_hash, meta_hash, actor, previous_delta, applied_at, run_id,"
                " machine_hash)"
                " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'user', $13, now(), $14, $15)",
                self.user_id, delta_id, blob_id, draft.from_version, draft.to_version, str(draft.operation),
                None if draft.from_version == 0 else draft.patch_bytes.decode(),
                None if draft.from_version == 0 else draft.inverse_bytes.decode(),
                draft.document_hash, draft.content_hash, cutoff_hash(draft.document), meta_hash(draft.document), before,
                run_id, draft.document_hash if run_id else None,
            )  # fmt: skip
            before = delta_id
            self.documents[blob_id, draft.to_version] = draft.document
        last = drafts[-1]
        deleted = last.operation == DeltaOperation.DELETE
        await self.connection.execute(
            "update blobs set version = $3, planned_version = $3, document_hash = $4, content_hash = $5,"
            " cutoff_hash = $6, meta_hash = $7, size = $8, title = $9,"
            " deleted_at = case when $10 then now() end where user_id = $1 and id = $2",
            self.user_id, blob_id, last.to_version, last.document_hash, last.content_hash, cutoff_hash(last.document),
            meta_hash(last.document), content_size(last.document), last.document.title, deleted,
        )  # fmt: skip
        await self.connection.execute(
            "update user_state set blob_count = blob_count + $2, bytes_used = bytes_used + $3 where user_id = $1",
            self.user_id, 0 if deleted else 1, content_size(last.document),
        )  # fmt: skip
        return blob_id

    async def derived(self, source: UUID, *drafts: DeltaDraft) -> UUID:
        """A blob that a provider made, which has been switched off since."""
        derivation, run = new_id(), new_id()
        await self.connection.execute(
            "insert into derivations (user_id, id, instance_id, provider_id, anchor_kind, anchor_id, execution,"
            " supersede, want_digest, used_digest, unsettled, hold)"
            " values ($1, $2, $2, $2, 'blob', $3, 'inline', 'finish', 'd:', 'd:', false, 'inactive')",
            self.user_id, derivation, source,
        )  # fmt: skip
        await self.connection.execute(
            "insert into runs (user_id, id, derivation_id, cascade_id, provider_id, attempt, execution, status,"
            " definition_digest, used_digest, ended_at) values ($1, $2, $3, $2, 'p', 1, 'inline', 'settled', 'd', 'd:',"
            " now())", self.user_id, run, derivation,
        )  # fmt: skip
        blob_id = await self.blob(*drafts, run_id=run)
        await self.connection.execute(
            "insert into derivation_outputs (user_id, derivation_id, slot, blob_id, machine_hash, machine_run_id)"
            " values ($1, $2, 'main', $3, $4, $5)", self.user_id, derivation, blob_id, drafts[-1].document_hash, run,
        )  # fmt: skip
        return blob_id

    async def event(self, seq: int, *, published: bool) -> None:
        await self.connection.execute(
            "insert into events (user_id, seq, id, type, subject, key, data, published_at)"
            " values ($1, $2, $3, 'blob.created', 'blobs/x', 'k', '{}', case when $4 then now() end)",
            self.user_id, seq, new_id(), published,
        )  # fmt: skip
        await self.connection.execute("update user_state set event_seq = $2 where user_id = $1", self.user_id, seq)


def history(*texts: str, end: bool = False) -> list[DeltaDraft]:
    """Drafts of a blob that had these texts one after the other, and was deleted in the end."""
    drafts = [create(document(texts[0], title="Early"))]
    for text in texts[1:]:
        made = rewrite(drafts[-1].after, document(text, title=f"Early {len(text)}"), operation=DeltaOperation.UPDATE)
        assert made is not None
        drafts.append(made)
    return [*drafts, delete(drafts[-1].after)] if end else drafts


async def at_first_release(environment: Mapping[str, str]) -> None:
    url = environment["DATABASE_ADMIN_URL"]
    await make_roles(url, {})
    config = alembic_config(url)
    config.attributes["downgrade"] = True  # today's functions know tables of today
    await asyncio.to_thread(command.upgrade, config, "0001")


async def test_what_the_first_release_kept_reads_the_same(make_database: Any) -> None:
    environment = await make_database(empty=True)
    await at_first_release(environment)
    objects = objects_of(environment)
    connection = await asyncpg.connect(environment["DATABASE_ADMIN_URL"])
    early = FirstRelease(connection, objects)
    await early.user()
    long = "A sentence of a long text. " * 300
    edited = await early.blob(*history("one", "one two", "one two three", "one"))
    large = await early.blob(*history(long, long + "More.", "short at last"))
    await early.blob(*history("to be deleted", "soon", end=True))
    await early.derived(edited, *history("made of one"))
    await connection.close()

    await asyncio.to_thread(migrate, load_settings(environment))

    database = await Database.connect(environment["DATABASE_URL"], size_max=2)
    contents = Contents(database, objects, inline_max=INLINE_MAX)
    try:
        states = States(database, contents)
        assert len(early.documents) == 11
        assert await states.documents(early.user_id, list(early.documents)) == early.documents
        looks = Verification(database, contents).looks(early.user_id, sample=None, at_rest=False)
        assert [finding async for look in looks for finding in look.findings] == []
        # And it goes on from there: the next edit is a patch on what was kept whole.
        deltas = Deltas(database, contents)
        for blob_id, version in ((edited, 4), (large, 3)):
            state = State(document=early.documents[blob_id, version], version=version)
            draft = rewrite(state, document("Edited now.", title="Now"), operation=DeltaOperation.UPDATE)
            assert draft is not None
            done = await deltas.append(
                NewDelta(
                    user_id=early.user_id, blob_id=blob_id, delta_id=new_id(), cascade_id=new_id(), draft=draft,
                    cutoff_hash=cutoff_hash(draft.document), actor="user", kept_version=version, patch_bytes=0,
                    external=False,
                )
            )  # fmt: skip
            assert (done.status, done.version) == ("applied", version + 1)
            early.documents[blob_id, version + 1] = draft.document
        assert await states.documents(early.user_id, list(early.documents)) == early.documents
    finally:
        await contents.close()
        await database.close()


async def test_what_the_first_release_had_not_told_yet_is_told_after_the_upgrade(make_database: Any) -> None:
    environment = await make_database(empty=True)
    await at_first_release(environment)
    connection = await asyncpg.connect(environment["DATABASE_ADMIN_URL"])
    early = FirstRelease(connection, objects_of(environment))
    await early.user()
    for seq in (1, 2, 3, 4):
        await early.event(seq, published=seq < 3)

    await asyncio.to_thread(migrate, load_settings(environment))

    rows = await connection.fetch("select user_id, first_seq, last_seq from outbox")
    assert [tuple(row) for row in rows] == [(early.user_id, 3, 4)]
    config = alembic_config(environment["DATABASE_ADMIN_URL"])
    config.attributes["downgrade"] = True
    await asyncio.to_thread(command.downgrade, config, "0002")
    rows = await connection.fetch("select seq from events where published_at is null order by seq")
    assert [row["seq"] for row in rows] == [3, 4]
    await connection.close()
