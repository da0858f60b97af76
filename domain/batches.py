"""Many writes at once: what the items of a batch want, and what became of each.

A batch belongs to one cascade. Atomic: all of its items are written or none; otherwise what can be written is, and the
others say why not. Items do not see each other: a blob is named once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID, uuid5

from domain.blobs import BlobSchema
from domain.deltas import DeltaDraft, State, delete, update
from domain.documents import Document
from domain.errors import Fault, Invalid, StudioError
from domain.ids import NAMESPACE
from domain.patches import Patch

ITEMS_MAX = 1_000
"""Items of one batch."""
READ_MAX = 200
"""Blobs that are read at once."""
READ_BYTES_MAX = 8 * 2**20
"""Content that is read for one answer; what goes beyond is left to the next."""
KEY_CHARACTERS_MAX = 255
CHANGED_BYTES_MAX = 64 * 2**20
"""Content of all the blobs that one batch changes, as they are before: a batch is decided in memory."""

Op = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """An item that makes a blob. ``keyed``: the id follows from a key, and what it made before is not made again."""

    index: int
    blob_id: UUID
    delta_id: UUID
    document: Document
    schema: BlobSchema
    parent_id: UUID | None = None
    bucket_ids: Sequence[UUID] = ()
    keyed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """An item that changes a blob, or deletes it (``patch`` None), if it still is at ``from_version``."""

    index: int
    blob_id: UUID
    delta_id: UUID
    patch: Patch | None
    from_version: int | None = None

    @property
    def op(self) -> Op:
        """What it does."""
        return "delete" if self.patch is None else "update"

    def decide(self, current: State) -> DeltaDraft | None:
        """Return the delta against the blob as it is, None if nothing changes; raises as ``update`` does."""
        return delete(current) if self.patch is None else update(current, self.patch)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """One decided item as it is written: a creation (``draft`` None), or the delta of an edit."""

    index: int
    op: Op
    blob_id: UUID
    delta_id: UUID
    schema_id: str
    document: Document
    cutoff_hash: str
    content_hash: str
    growth: int
    """Bytes that it needs more than before."""
    draft: DeltaDraft | None = None
    kept_version: int = 0
    patch_bytes: int = 0
    external: bool = False
    parent_id: UUID | None = None
    bucket_ids: Sequence[UUID] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Decided items, to be written in one transaction."""

    user_id: UUID
    cascade_id: UUID
    actor: str
    rows: Sequence[BatchRow]
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one item.

    ``ok`` or ``exists`` (the key made it before), or why it was not written: ``conflict``, ``deleted``, ``not_found``,
    ``key_reused``, ``unknown_parent``, ``unknown_bucket``, ``unknown_content``, ``over_quota``; with the blob's version
    and the id it is ``about``.
    """

    index: int
    status: str
    version: int
    about: UUID | None = None

    @property
    def stands(self) -> bool:
        """Whether what the item wants is so now."""
        return self.status in {"ok", "exists"}


def id_of_key(user_id: UUID, key: str) -> UUID:
    """Return the id of the blob that an item with this key makes: the same for ever."""
    return uuid5(NAMESPACE, f"item:{user_id}:{key}")


def at_item(error: StudioError, index: int, member: str = "") -> StudioError:
    """Return an error about one item as one about the request: its pointers begin with ``/items/{index}``."""
    return inside(f"/items/{index}{member}", error)


def inside(pointer: str, error: StudioError) -> StudioError:
    """Return an error about a part of something as one about the whole; without a fault it gets one, the part."""
    faults = [
        Fault(f"{pointer}{fault.pointer}", fault.code, fault.detail)
        for fault in error.faults or [Fault("", error.problem_code, error.detail)]
    ]
    return type(error)(error.detail, code=error.problem_code, faults=faults, members=error.members)


def twice(items: Iterable[Creation | Edit]) -> Mapping[int, StudioError]:
    """Return an error for every item whose blob an earlier one names."""
    seen: dict[UUID, int] = {}
    found: dict[int, StudioError] = {}
    for item in items:
        first = seen.setdefault(item.blob_id, item.index)
        if first != item.index:
            member = "/key" if isinstance(item, Creation) else "/id"
            detail = f"Item {first} names the same blob; send it in another batch."
            error = Invalid(detail, code="duplicate_id", faults=[Fault("", "duplicate_id", detail)])
            found[item.index] = at_item(error, item.index, member)
    return found
