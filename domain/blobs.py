"""Blobs as they are written and read: what passes between the front end and the store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.deltas import DeltaDraft, DeltaStatus
from domain.documents import Document
from domain.errors import Fault, Invalid
from domain.normal_forms import normal_body
from domain.schemas import Validator


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBlob:
    """Everything one create writes; the ids are the caller's, so that a retry meets its first attempt."""

    user_id: UUID
    blob_id: UUID
    delta_id: UUID
    cascade_id: UUID
    schema_id: str
    document: Document
    content_hash: str
    cutoff_hash: str
    actor: str
    parent_id: UUID | None = None
    bucket_ids: Sequence[UUID] = ()
    idempotency_key: str | None = None
    reserved: int = 0
    """Bytes that an upload has reserved for it: they are used from now on."""


@dataclass(frozen=True, slots=True)
class BlobView:
    """A blob as it is, or was, at one version."""

    id: UUID
    version: int
    current_version: int
    document: Document
    schema_id: str
    created_by: str
    provider_id: str | None
    root_id: UUID
    depth: int
    parent_ids: Sequence[UUID]
    external: bool
    """Whether the document is kept outside of PostgreSQL."""
    kept_version: int
    """The newest version whose document is kept whole; the patches since have ``patch_bytes``."""
    patch_bytes: int
    processing_meta: Mapping[str, Any]
    content_hash: str
    size: int
    preview: str
    cascade_id: UUID | None
    created_at: datetime
    updated_at: datetime
    deleted: bool
    volatile: Sequence[str] = ()
    """Fields that its provider computes per run, as JSON Pointers into the data; only where one blob is read."""

    @property
    def read_bytes(self) -> int:
        """Bytes of content that reading it has brought into memory: none of a file."""
        return 0 if self.document.binary else self.size


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a create: ``problem`` says why nothing was written, and about which id."""

    created_at: datetime
    root_id: UUID
    depth: int
    problem: str | None
    external: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDelta:
    """One person's change, decided and verified, to be written if the blob is still at ``draft.from_version``."""

    user_id: UUID
    blob_id: UUID
    delta_id: UUID
    cascade_id: UUID
    draft: DeltaDraft
    cutoff_hash: str
    actor: str
    kept_version: int
    """Of the blob as ``draft`` found it, as is ``patch_bytes``: they decide whether the new version is kept whole."""
    patch_bytes: int
    external: bool
    idempotency_key: str | None = None
    reserved: int = 0
    """Bytes that an upload has reserved for it: they are used from now on."""
    base_version: int | None = None
    """The version that its author knew, if that was not the newest."""
    conflicts: Sequence[Mapping[str, Any]] = ()
    aside: NewProposal | None = None
    """The side that lost, written with it or not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProposal:
    """A change that is offered (``proposed``), or that a later write took the place of (``rejected``)."""

    user_id: UUID
    blob_id: UUID
    delta_id: UUID
    draft: DeltaDraft
    cutoff_hash: str
    actor: str
    status: DeltaStatus = DeltaStatus.PROPOSED
    base_version: int | None = None
    conflicts: Sequence[Mapping[str, Any]] = ()
    answers: UUID | None = None
    """The delta that it belongs to: the one beside which it lost, or the proposal that it is left of."""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What somebody proposed: ``theirs`` is what they made of ``base``, the blob at ``from_version``."""

    delta_id: UUID
    blob_id: UUID
    from_version: int
    base: Document
    theirs: Document


@dataclass(frozen=True, slots=True)
class LostSide:
    """A stored delta that was set aside when another one was written."""

    delta_id: UUID
    status: str


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of it.

    ``applied``, or ``conflict``, ``deleted``, ``not_found``, ``unknown_content`` with the current version.
    """

    status: str
    version: int
    cascade_id: UUID | None
    updated_at: datetime
    kept_version: int
    patch_bytes: int
    external: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """A delta that an earlier attempt of the same request applied."""

    blob_id: UUID
    version: int
    cascade_id: UUID | None


@dataclass(frozen=True, slots=True)
class BlobSchema:
    """A schema as a write needs it: compiled, and known to leave out or fold something for cut-off, or not."""

    slug: str
    definition: dict[str, Any] | bool
    validator: Validator
    has_normal_form: bool

    def faults(self, value: Any) -> list[Fault]:
        """Return every way in which a value violates the schema."""
        return self.validator.faults(value)

    def normal_body(self, document: Document, *, also: Sequence[str] = ()) -> Any:
        """Return the body as early cut-off compares it, without ``also``; None stands for "as it is"."""
        return normal_body(self.definition, document, also=also) if self.has_normal_form or also else None


def unknown_content(document: Document) -> Invalid:
    """Return the error about a binary document that names bytes which the user has not."""
    detail = f"There is no content {document.body['hash']} of yours; send it first: POST /uploads."
    return Invalid(detail, code="unknown_content", faults=[Fault("/binary/hash", "unknown_content", detail)])
