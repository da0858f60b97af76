"""Holding what is stored against what it must be, user by user, on a live system and without writing anything.

Three looks: every invariant; every content against its hash; every blob replayed from its first delta, version by
version, forth and back. Memory is bounded by one content or document at a time, whatever there is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from domain.errors import NotFound, StudioError
from storage.contents import Contents
from storage.database import Database
from storage.invariants import ALWAYS, AT_REST, HISTORY, SHOWN_MAX
from storage.replays import Replays

PAGE = 500
"""Ids read at a time."""
INVARIANT_SECONDS_MAX = 50.0
"""How long one invariant may be looked at; what takes longer is a finding, for it says nothing."""

_COUNTS = """
select (select count(*) from contents where user_id = $1),
  (select count(*) from blobs where user_id = $1 and version > 0)
"""
_CONTENTS = "select hash as id from contents where user_id = $1 and hash > $2 order by hash limit $3"
_BLOBS = "select id from blobs where user_id = $1 and version > 0 and id > $2 order by id limit $3"
_SOME_CONTENTS = "select hash as id from contents where user_id = $1 order by random() limit $2"
_SOME_BLOBS = "select id from blobs where user_id = $1 and version > 0 order by random() limit $2"
_RECORDED = """
select to_version, document_hash from deltas
where user_id = $1 and blob_id = $2 and status = 'applied' and to_version = any($3)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is not as it must be; ``expected`` and ``found`` are for people to read."""

    user_id: UUID
    what: str
    blob_id: UUID | None = None
    version: int | None = None
    expected: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One thing that was looked at, and what was found about it."""

    kind: str
    """invariant, content or blob."""
    findings: tuple[Finding, ...] = ()


class Verification:
    """Verifies the stored state of users."""

    def __init__(self, database: Database, contents: Contents, *, seconds_max: float = INVARIANT_SECONDS_MAX) -> None:
        self._seconds_max = seconds_max
        self._database = database
        self._contents = contents
        self._replays = Replays(database, contents)

    async def size(self, user_id: UUID, *, sample: int | None, at_rest: bool) -> int:
        """Return how many looks there will be, as far as that is known now."""
        [row] = await self._database.rows(user_id, _COUNTS, user_id)
        counts = [int(count) if sample is None else min(int(count), sample) for count in row]
        return sum(counts) + len(_invariants(at_rest=at_rest))

    async def looks(self, user_id: UUID, *, sample: int | None, at_rest: bool) -> AsyncIterator[Look]:
        """Look at everything of a user, or at ``sample`` contents and as many blobs by chance. Raises Unavailable."""
        for name, query in _invariants(at_rest=at_rest).items():
            yield Look(kind="invariant", findings=await self._invariant(user_id, name, query))
        async for digest in self._ids(user_id, _CONTENTS, _SOME_CONTENTS, "", sample):
            yield Look(kind="content", findings=await self._content(user_id, digest))
        async for blob_id in self._ids(user_id, _BLOBS, _SOME_BLOBS, UUID(int=0), sample):
            yield Look(kind="blob", findings=await self._blob(user_id, blob_id))

    async def _invariant(self, user_id: UUID, name: str, query: str) -> tuple[Finding, ...]:
        """Look at one snapshot, whatever is written meanwhile; nothing is locked, and nothing waits for us."""
        rows = await self._database.snapshot(user_id, f"{query} limit {SHOWN_MAX}", seconds_max=self._seconds_max)
        if rows is not None:
            return tuple(_broken(user_id, name, row) for row in rows)
        return (
            Finding(
                user_id=user_id,
                what=name,
                expected=f"an answer within {self._seconds_max:g} seconds",
                found="none: it was not looked at to its end",
            ),
        )

    async def _ids(self, user_id: UUID, every: str, some: str, after: Any, sample: int | None) -> AsyncIterator[Any]:
        if sample is not None:
            for row in await self._database.rows(user_id, some, user_id, sample):
                yield row["id"]
            return
        while rows := await self._database.rows(user_id, every, user_id, after, PAGE):
            for row in rows:
                yield row["id"]
            after = rows[-1]["id"]

    async def _content(self, user_id: UUID, digest: str) -> tuple[Finding, ...]:
        row = await self._contents.find(user_id, digest)
        if row is None:  # collected meanwhile
            return ()
        try:
            await self._contents.prove(user_id, row)
        except StudioError as error:
            if error.problem_code != "integrity":
                raise
            if await self._contents.find(user_id, digest) is None:
                return ()
            return (Finding(user_id=user_id, what="content", expected=digest, found=error.detail),)
        return ()

    async def _blob(self, user_id: UUID, blob_id: UUID) -> tuple[Finding, ...]:
        try:
            report = await self._replays.materialize(user_id, blob_id)
        except NotFound:
            return ()
        faults = [(int(version[1:]), words) for version, _, words in (fault.partition(": ") for fault in report.faults)]
        if not faults:
            return ()
        versions = [version for version, _ in faults]
        rows = await self._database.rows(user_id, _RECORDED, user_id, blob_id, versions)
        recorded = {row["to_version"]: row["document_hash"] for row in rows}
        return tuple(
            Finding(
                user_id=user_id,
                blob_id=blob_id,
                version=version,
                what="version",
                expected=recorded.get(version, "a delta that leads to it"),
                found=words,
            )
            for version, words in faults
        )


def _invariants(*, at_rest: bool) -> Mapping[str, str]:
    return ALWAYS | HISTORY | (AT_REST if at_rest else {})


def _broken(user_id: UUID, name: str, row: Any) -> Finding:
    return Finding(
        user_id=user_id, what=name, expected="no such row", found=orjson.dumps(dict(row), default=str).decode()
    )
