"""Replaying: what deltas say a blob was, held against what is stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson

from domain.deltas import Change, DeltaOperation, State, replay
from domain.documents import Document, document_hash
from domain.errors import NotFound, StudioError
from domain.operations import Editing
from storage.contents import Contents
from storage.database import Database

BATCH = 100
"""Deltas read at a time: a history of any length is replayed in the memory of so many patches."""
BATCH_BYTES_MAX = 8 * 2**20
"""A batch ends early rather than carry more than this in patches; one delta is always read."""
FAULTS_MAX = 20
"""Faults of one blob that are told; beyond these it is broken anyway."""

_SNAPSHOT = """
select s.version, c.hash, c.size, c.codec, c.body, c.location from snapshots s
join contents c on c.user_id = s.user_id and c.hash = s.document_hash
where s.user_id = $1 and s.blob_id = $2 and s.version <= $3 order by s.version desc limit 1
"""
_STEPS = f"""
select operation, from_version, to_version, patch, inverse, document_hash, kept_hash from (
  select d.*, s.document_hash as kept_hash,
    sum(coalesce(octet_length(d.patch || d.inverse), 0)) over (order by d.to_version) as weight,
    row_number() over (order by d.to_version) as n
  from (select * from deltas where user_id = $1 and blob_id = $2 and status = 'applied' and to_version > $3
    and to_version <= $4 order by to_version limit {BATCH}) d
  left join snapshots s on s.user_id = d.user_id and s.blob_id = d.blob_id and s.version = d.to_version) x
where n = 1 or weight <= {BATCH_BYTES_MAX} order by to_version
"""  # noqa: S608 - constants of this module
_BLOB = "select version, document_hash from blobs where user_id = $1 and id = $2 and version > 0"


@dataclass(slots=True, kw_only=True)
class Report:
    """What materializing a blob found: ``faults`` is empty if its stored state is what its deltas say."""

    blob_id: UUID
    versions: int = 0
    """Deltas that were applied, and undone again."""
    kept: int = 0
    """Whole documents that were compared."""
    faults: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


class Replays:
    """Replays the deltas of a user's blobs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents

    async def state(self, user_id: UUID, blob_id: UUID, version: int, *, from_start: bool) -> State:
        """Fold the deltas up to a version, from the nearest kept one below it or from the first."""
        found = await self._database.row(user_id, _SNAPSHOT, user_id, blob_id, 1 if from_start else version)
        if found is None:
            raise NotFound("There is no such blob, or it has no such version.")
        data = await self._contents.read(user_id, found)
        state = State(document=Document.stored(orjson.loads(data)), version=found["version"])
        async for rows in self._batches(user_id, blob_id, found["version"], version):
            state = replay(state, [_change(row) for row in rows])
        return state

    async def materialize(self, user_id: UUID, blob_id: UUID) -> Report:
        """Fold a blob's deltas from the first, and compare every version with what was recorded and kept.

        Every inverse is applied as well and must lead back. Raises NotFound.
        """
        blob = await self._database.row(user_id, _BLOB, user_id, blob_id)
        if blob is None:
            raise NotFound("There is no such blob.")
        proof = _Proof(Report(blob_id=blob_id))
        async for rows in self._batches(user_id, blob_id, 0, blob["version"]):
            for row in rows:
                kept = await self._kept(user_id, row, proof.report)
                await asyncio.to_thread(proof.step, row, kept)
                if len(proof.report.faults) >= FAULTS_MAX:
                    return proof.report
        proof.end(blob["version"], blob["document_hash"])
        return proof.report

    async def _kept(self, user_id: UUID, row: Any, report: Report) -> bytes | None:
        if row["kept_hash"] is None:
            return None
        try:
            found = await self._contents.find(user_id, row["kept_hash"])
            # What is stored, not what a cache remembers.
            return await self._contents.fetch(user_id, found or {"hash": None})
        except StudioError as error:
            report.faults.append(f"v{row['to_version']}: its kept document cannot be read: {error.detail}")
            return None

    async def _batches(self, user_id: UUID, blob_id: UUID, after: int, upto: int) -> AsyncIterator[Sequence[Any]]:
        while after < upto:
            rows = await self._database.rows(user_id, _STEPS, user_id, blob_id, after, upto)
            if not rows:
                return
            yield rows
            after = rows[-1]["to_version"]


class _Proof:
    """One blob's history under examination: the document so far, and what is wrong."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._root: Any = None
        self._hash: str | None = None
        self._version = 0

    def step(self, row: Any, kept: bytes | None) -> None:
        """Apply one delta, compare, and undo it on a copy."""
        version, recorded = row["to_version"], row["document_hash"]
        if row["from_version"] != self._version:
            self._fault(f"the history jumps from {self._version} to {row['from_version']}", version)
        before, before_hash, self._version = self._root, self._hash, version
        self._advance(row, kept)
        if kept is not None:
            self.report.kept += 1
            if document_hash(kept) != recorded:
                self._fault("the kept document is not the recorded one", version)
        if self._hash != recorded:
            self._fault("the patches lead to another document than the recorded one", version)
        elif before is not None and not self._leads_back(row, before_hash):
            self._fault("the inverse does not lead back", version)
        self.report.versions += 1

    def end(self, version: int, recorded: str) -> None:
        """Compare with what the blob itself says."""
        if (self._version, self._hash) != (version, recorded):
            self._fault("the history does not lead to the blob as it is", version)

    def _advance(self, row: Any, kept: bytes | None) -> None:
        if row["patch"] is None:  # a create: the document is the kept one
            self._root = None if kept is None else orjson.loads(kept)
        else:
            self._root = self._edited(row["patch"], row["to_version"])
        self._hash = None if self._root is None else _hash(self._root)

    def _edited(self, patch: str, version: int) -> Any:
        try:
            return _applied(self._root, patch)
        except StudioError as error:
            self._fault(f"the patch cannot be applied: {error.detail}", version)
            return None

    def _leads_back(self, row: Any, before_hash: str | None) -> bool:
        try:
            return _hash(_applied(self._root, row["inverse"])) == before_hash
        except (StudioError, TypeError, KeyError):
            return False

    def _fault(self, words: str, version: int) -> None:
        self.report.faults.append(f"v{version}: {words}")


def _applied(root: Any, patch: str) -> Any:
    editing = Editing(root)
    for index, operation in enumerate(orjson.loads(patch)):
        editing.apply(operation, f"/{index}")
    return editing.value


def _hash(root: Any) -> str:
    return document_hash(Document.stored(root).to_bytes())


def _change(row: Any) -> Change:
    return Change(
        operation=DeltaOperation(row["operation"]),
        from_version=row["from_version"],
        to_version=row["to_version"],
        patch=orjson.loads(row["patch"]),
        document_hash=row["document_hash"],
    )
