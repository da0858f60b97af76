"""The shapes of our answers, for the OpenAPI document: tests hold real answers against them, requests never pay.

Answers are built as plain JSON (``api/wire.py``); validating each one again would cost more than making it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")

ID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Shape(BaseModel):
    """Base of what is answered: nothing beside these members."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Page(Shape, Generic[Item]):
    """A part of a list; the rest is at ``Link: <…>; rel="next"`` or behind ``next_cursor``."""

    data: list[Item]
    next_cursor: str | None
    has_more: bool


class Blob(Shape):
    """A blob at one version. Exactly one of ``content``, ``data`` (neither beyond 100 KB) and ``binary``."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": ID, "version": 1, "content_type": "text/plain", "schema_id": "text-v1",
                "content": "The quick brown fox", "content_url": f"/api/v1/studio/blobs/{ID}/content",
                "content_hash": "sha256:5cac4f980fedc3d3f1f99b4be3472c9b30d56523e632d151237ec9309048bda9",
                "size": 19, "title": "", "preview": "The quick brown fox", "tags": [], "metadata": {},
                "created_by": "user", "provider_id": None, "parent_ids": [], "root_id": ID, "depth": 0,
                "storage_type": "inline", "processing_meta": {}, "cascade_id": ID,
                "created_at": "2026-11-20T17:36:07Z", "updated_at": "2026-11-20T17:36:07Z",
            }
        }
    )  # fmt: skip

    id: UUID
    blob_id: UUID | None = None
    """The id again, on the seeds' routes (``/api/v1/blobs``) only."""
    version: int
    content_type: str
    schema_id: str
    content: str | None = None
    data: Any = None
    binary: dict[str, Any] | None = None
    """Hash and size of bytes that are only at ``content_url``."""
    content_url: str
    """Where the content is by itself, of any size; beyond 100 KB signed: no key is needed until it expires."""
    content_hash: str
    size: int
    """Bytes of the content."""
    title: str
    preview: str
    tags: list[str]
    metadata: dict[str, Any]
    created_by: str
    """``user``, or the provider."""
    provider_id: str | None
    parent_ids: list[UUID]
    root_id: UUID
    depth: int
    storage_type: Literal["inline", "url"]
    processing_meta: dict[str, Any]
    cascade_id: UUID | None
    """The cascade that its latest change belongs to."""
    created_at: datetime
    updated_at: datetime
    conflicts: list[Any] | None = None
    """After a write that knew an older version: where it clashed, each with base, ours (what was there), theirs."""
    proposed_delta: UUID | None = None
    """Beside conflicts: the writer's side, which waits for a decision."""
    rejected_delta: UUID | None = None
    """Beside conflicts: what the write took the place of."""
    distance: int | None = None
    """Steps from the blob asked about, in lists of children, ancestors and descendants only."""


class Story(Shape):
    """Who changed a blob, when, because of what."""

    operation: Literal["create", "update", "transform", "delete", "revert", "restore"]
    status: Literal["pending", "proposed", "applied", "rejected", "failed"]
    actor: str
    provider_id: str | None
    run_id: UUID | None
    cascade_id: UUID | None
    caused_by: UUID | None
    previous_delta: UUID | None
    created_at: datetime
    applied_at: datetime | None
    content_hash: str


class HistoryEntry(Story):
    """One version of a blob and how it came to be."""

    version: int
    delta_id: UUID


class Delta(Story):
    """A change: RFC 6902 operations on ``{content_type, content | data, title, tags, metadata}``, and their inverse."""

    id: UUID
    blob_id: UUID
    from_version: int
    to_version: int
    patch: list[dict[str, Any]] | None
    """Null only where a create's document is beyond 100 KB."""
    inverse: list[dict[str, Any]] | None
    document_hash: str
    machine_hash: str | None
    base_hash: str | None
    conflicts: list[Any]
    base_version: int | None
    """The version that its author knew, if that was not the newest."""
    resolved_at: datetime | None
    """When a proposed delta was accepted or rejected."""
    resolved_by: str | None
    inputs: list[Any]
    """Of a run's delta: the versions that it read."""
    error: str | None


class ComparedSide(Shape):
    """One of two documents that are compared."""

    blob_id: UUID
    version: int
    title: str


class Compared(Shape):
    """What differs between two documents, bounded: ``truncated`` says that something is told coarsely."""

    left: ComparedSide
    right: ComparedSide
    unit: Literal["paragraph", "sentence", "word"]
    equal: bool
    summary: dict[str, int]
    """Fields that differ, units inserted and deleted."""
    truncated: bool
    fields: list[dict[str, Any]]
    """By ``pointer``: a text with ``spans`` that cover both sides in order, or a value ``before`` and ``after``."""


class DagNode(Shape):
    """A blob in the graph, made or still to be made (version 0)."""

    blob_id: UUID
    title: str
    schema_id: str
    version: int
    level: int
    provider_id: str | None
    derivation_id: UUID | None
    run_id: UUID | None
    state: Literal[
        "source", "fresh", "stale", "running", "blocked", "failed", "awaiting_approval", "conflict",
        "blocked_budget", "cancelled", "inactive", "retired",
    ]  # fmt: skip
    reason: str
    """The state in a sentence."""
    blocked_by: list[UUID]


class DagEdge(Shape):
    """What was made of what: by a provider, or as a client stated (``manual``)."""

    parent_id: UUID
    child_id: UUID
    provider_id: str | None
    kind: Literal["derived", "manual"]


class DagCascade(Shape):
    """A cascade that is not over and touches a node."""

    id: UUID
    cause: str
    status: Literal["pending", "running"]
    label: str
    created_at: datetime


class Dag(Shape):
    """Everything below a blob."""

    root_id: UUID
    settled: bool
    """Nothing is going to happen by itself any more; failed and blocked count as settled."""
    truncated: bool
    cascades: list[DagCascade]
    nodes: list[DagNode]
    edges: list[DagEdge]
    levels: list[list[UUID]] = Field(description="Blob ids by the longest path from the root.")


class UploadShape(Shape):
    """An upload as it stands."""

    id: UUID
    status: Literal["open", "completed", "aborted"]
    content_type: str
    size: int | None
    """Bytes of the whole, if they were declared."""
    digest: str | None
    part_size: int
    """Bytes of every part but the last."""
    parts_url: str
    """Where parts go: ``PUT {parts_url}/{number}``, from 1."""
    parts: list[int]
    """Numbers of the parts that are here."""
    received: int
    """Bytes that are here."""
    blob_id: UUID | None
    """The blob whose content is to be replaced, or the one that came of it."""
    created_at: datetime
    expires_at: datetime
    """When it is aborted by itself; every part moves it."""
