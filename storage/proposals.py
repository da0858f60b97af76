"""Deltas that are offered and not applied (``storage/functions/12_proposals.sql``): kept, read, turned down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from domain.blobs import NewProposal, Proposal, unknown_content
from domain.deltas import rebuilt
from domain.documents import binary_hash, content_size, meta_hash
from domain.errors import NotFound, StudioError
from storage.contents import Contents
from storage.database import Database
from storage.states import States

_OFFER = """
select propose_delta($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
"""
_ONE = """
select d.id, d.blob_id, d.from_version, d.to_version, d.patch, d.document_hash, d.status from deltas d
join blobs b on b.user_id = d.user_id and b.id = d.blob_id and b.version > 0
where d.user_id = $1 and d.id = $2
"""
_OPEN = """
select id, blob_id, from_version, operation, actor, provider_id, run_id, created_at from deltas
where user_id = $1 and status in ('pending', 'proposed') order by created_at, id limit $2
"""
_BLOB = "select from blobs where user_id = $1 and id = $2 for no key update"
_TOUCH = "select studio_touch($1, $2, $3)"
_FAIL = "update deltas set status = 'failed', error = $3 where user_id = $1 and id = $2 and status = 'proposed'"


class Proposals:
    """The proposed deltas of a user's blobs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._states = States(database, contents)

    async def propose(self, new: NewProposal) -> str:
        """Keep a change that changes nothing yet.

        Returns its status; ``done`` if an earlier attempt did, or ``not_found``, ``deleted``, ``unknown_content``.
        """
        async with self._database.transaction(new.user_id) as connection:
            return await offer(new, connection)

    async def get(self, user_id: UUID, delta_id: UUID) -> Proposal | None:
        """Return an open proposal, None if it has been decided. Raises NotFound.

        One that cannot be read any more is marked as failed: raises StudioError ``integrity``.
        """
        row = await self._database.row(user_id, _ONE, user_id, delta_id)
        if row is None:
            raise NotFound("There is no such delta.")
        if row["status"] != "proposed":
            return None
        place = (row["blob_id"], row["from_version"])
        try:
            base = (await self._states.documents(user_id, [place]))[place]
            theirs = rebuilt(base.to_json(), [orjson.loads(row["patch"])], row["document_hash"])
        except StudioError as error:
            if error.problem_code == "integrity":
                await self.fail(user_id, delta_id, error.detail)
            raise
        return Proposal(
            delta_id=delta_id, blob_id=row["blob_id"], from_version=row["from_version"], base=base, theirs=theirs
        )

    async def pending(self, user_id: UUID, *, limit: int) -> list[asyncpg.Record]:
        """Return what waits for the user's decision, oldest first, without patches."""
        return await self._database.rows(user_id, _OPEN, user_id, limit)

    async def reject(self, user_id: UUID, delta_id: UUID, actor: str) -> str:
        """Turn a proposal down; who waited for it goes on. Returns the status it had; only ``proposed`` ones change.

        Raises NotFound.
        """
        row = await self._database.call("select reject_delta($1, $2, $3) as status", user_id, delta_id, actor)
        if row is None or row["status"] is None:
            raise NotFound("There is no such delta.")
        return str(row["status"])

    async def fail(self, user_id: UUID, delta_id: UUID, error: str) -> None:
        """Mark a proposal that can never be applied, and why."""
        async with self._database.transaction(user_id) as connection:
            await connection.execute(_FAIL, user_id, delta_id, error)


async def hold(new: NewProposal, connection: Any) -> None:
    """Keep the bytes that a proposal names from being collected, in the transaction that writes its blob, before that.

    Contents are locked before the sequence of events, which writing the blob takes. Raises Invalid ``unknown_content``.
    """
    document = new.draft.document
    await connection.execute(_BLOB, new.user_id, new.blob_id)
    if not await connection.fetchval(_TOUCH, new.user_id, binary_hash(document), content_size(document)):
        raise unknown_content(document)


async def offer(new: NewProposal, connection: Any) -> str:
    """Keep a proposal in the caller's transaction, and tell the world; the last thing that it does."""
    draft, document = new.draft, new.draft.document
    status = await connection.fetchval(
        _OFFER, new.user_id, new.blob_id, new.delta_id, draft.from_version, draft.patch_bytes.decode(),
        draft.inverse_bytes.decode(), draft.document_hash, draft.content_hash, new.cutoff_hash, meta_hash(document),
        binary_hash(document), content_size(document), new.actor, encoded_conflicts(new.conflicts), new.base_version,
        str(new.status), new.answers, new.idempotency_key,
    )  # fmt: skip
    if status == new.status:
        event = f"delta.{new.status}"
        await connection.execute("select studio_tell_delta($1, $2, $3)", new.user_id, new.delta_id, event)
    return str(status)


def encoded_conflicts(conflicts: Sequence[Mapping[str, Any]]) -> str | None:
    """Return conflicts as they are stored, null without any."""
    return orjson.dumps(list(conflicts)).decode() if conflicts else None
