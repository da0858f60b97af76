"""Deltas: the only way in which a blob changes. Start reading here.

A blob is at a ``State``: a document, a version, and whether it is deleted. A decision (``create``,
``update``, ``rewrite``, ``delete``, ``restore``) takes a state and returns a ``DeltaDraft``: what to store,
already verified, and the state it leads to. ``replay`` folds stored deltas into a state again; the two agree
byte for byte at every version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.diffs import diff, patch_bytes, verified
from domain.documents import Document, content_hash, document_hash
from domain.errors import Gone, Invalid, StudioError, VersionConflict
from domain.ids import BlobId, CascadeId, DeltaId, RunId, UserId
from domain.operations import Editing, Operation
from domain.patches import Patch

__all__ = [
    "Change",
    "Delta",
    "DeltaDraft",
    "DeltaOperation",
    "DeltaStatus",
    "State",
    "create",
    "delete",
    "expect_version",
    "rebuilt",
    "replay",
    "restore",
    "revert",
    "rewrite",
    "update",
    "verified",
]


class DeltaOperation(StrEnum):
    """Why a blob changed."""

    CREATE = "create"
    UPDATE = "update"
    """A person's edit."""
    TRANSFORM = "transform"
    """A provider's output, merged with what people changed."""
    DELETE = "delete"
    REVERT = "revert"
    """A person went back to the document of an earlier version."""
    RESTORE = "restore"
    """Undoes a deletion."""


class DeltaStatus(StrEnum):
    """What became of a delta; only applied ones have moved the blob."""

    PENDING = "pending"
    PROPOSED = "proposed"
    """Offered to a person, as the machine's side of a conflict."""
    APPLIED = "applied"
    REJECTED = "rejected"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A blob at one version. Version 0 is a blob that does not exist yet; its document is None."""

    document: Document | None = None
    version: int = 0
    deleted: bool = False

    @property
    def root(self) -> dict[str, Any] | None:
        """The JSON that patches act on; None before the blob exists."""
        return None if self.document is None else self.document.to_json()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What replay needs of a stored delta."""

    operation: DeltaOperation
    from_version: int
    to_version: int
    patch: Sequence[Operation]
    document_hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaDraft(Change):
    """A decided change, verified and not yet stored; ``after`` is the state it leads to.

    ``document_hash`` names the canonical bytes of the whole document afterwards, ``content_hash`` its body alone.
    """

    inverse: Sequence[Operation]
    content_hash: str
    after: State

    @property
    def document(self) -> Document:
        """The document afterwards; a deleted blob keeps its last one."""
        if self.after.document is None:  # a draft always leads to a document
            raise StudioError("A delta leads to no document.")
        return self.after.document

    @property
    def patch_bytes(self) -> bytes:
        """The patch as it is stored: canonical JSON, never jsonb."""
        return patch_bytes(self.patch)

    @property
    def inverse_bytes(self) -> bytes:
        """The inverse patch as it is stored."""
        return patch_bytes(self.inverse)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta(Change):
    """A stored delta, as the history shows it."""

    id: DeltaId
    blob_id: BlobId
    user_id: UserId
    inverse: Sequence[Operation]
    content_hash: str
    status: DeltaStatus
    created_by: str
    """``user``, or the slug of the provider."""
    created_at: datetime
    applied_at: datetime | None = None
    run_id: RunId | None = None
    cascade_id: CascadeId | None = None
    previous_delta: DeltaId | None = None
    caused_by: UUID | None = None
    """The delta or event that this one answers."""
    idempotency_key: str | None = None
    machine_hash: str | None = None
    """Machine deltas: the pure machine document that was taken in."""
    base_hash: str | None = None
    """Machine deltas: the machine head that it was merged against."""
    conflicts: Sequence[Mapping[str, Any]] = ()
    inputs: Sequence[Mapping[str, Any]] = ()
    """Machine deltas: ``{blob_id, version, hash}`` of each input."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


def create(document: Document) -> DeltaDraft:
    """Return the first delta of a blob: from version 0, where there is nothing, to version 1."""
    return _draft(State(), document, DeltaOperation.CREATE)


def update(current: State, patch: Patch, *, operation: DeltaOperation = DeltaOperation.UPDATE) -> DeltaDraft | None:
    """Return the delta of a client's patch, None if it changes nothing.

    Raises VersionConflict if the patch names another version, Gone ``deleted``, and what ``Patch.apply`` and
    ``Document.parse`` raise, with pointers into the request.
    """
    document = _living(current)
    if patch.from_version is not None:
        expect_version(current, patch.from_version)
    root = patch.apply(document.to_json())
    try:
        after = Document.parse(root)
    except Invalid as err:
        raise patch.relocated(err) from None
    return rewrite(current, after, operation=operation)


def rewrite(current: State, after: Document, *, operation: DeltaOperation) -> DeltaDraft | None:
    """Return the delta that makes the document ``after`` the current one, None if it is already.

    For ``transform`` (the merged output of a run), ``revert`` (the document of an earlier version) and whole
    replacements. Raises Gone ``deleted``, Invalid ``immutable_field`` for another content type.
    """
    document = _living(current)
    if after.content_type != document.content_type:
        raise Invalid("content_type does not change; create another blob.", code="immutable_field")
    return None if after == document else _draft(current, after, operation)


def delete(current: State) -> DeltaDraft:
    """Return the delta that marks a blob deleted; its patch is empty, so every version stays readable.

    Raises Gone ``deleted`` if it is deleted already.
    """
    return _draft(current, _living(current), DeltaOperation.DELETE)


def restore(current: State) -> DeltaDraft | None:
    """Return the delta that brings a deleted blob back with its last document, None if it is not deleted."""
    if not current.deleted or current.document is None:
        return None
    return _draft(current, current.document, DeltaOperation.RESTORE)


def revert(current: State, earlier: Document) -> DeltaDraft | None:
    """Return the delta that makes the document of an earlier version the current one, None if it is already.

    History is not undone but continued: a new version, with everything in between still readable.
    """
    return rewrite(current, earlier, operation=DeltaOperation.REVERT)


def expect_version(current: State, version: int) -> None:
    """Raise VersionConflict (members ``current_version``, ``current_etag``) unless the blob is at this version."""
    if current.version != version:
        raise VersionConflict(
            f"The blob is at version {current.version}, not {version}.",
            members={"current_version": current.version, "current_etag": f'"v{current.version}"'},
        )


def replay(snapshot: State, deltas: Iterable[Change]) -> State:
    """Fold applied deltas, in order, into the state they lead to; ``State()`` replays from the beginning.

    Raises StudioError ``integrity`` if a delta does not continue the one before, or if the document reached is
    not, byte for byte, the one that the last delta recorded.
    """
    editing = Editing(snapshot.root)
    version, deleted, last = snapshot.version, snapshot.deleted, None
    for last in deltas:
        if last.from_version != version:
            raise StudioError(f"The history jumps from {version} to {last.from_version}.", code="integrity")
        for index, operation in enumerate(last.patch):
            editing.apply(operation, f"/{index}")
        version = last.to_version
        deleted = _deleted_after(last.operation, deleted=deleted)
    if last is None:
        return snapshot
    document = Document.stored(editing.value)
    if document_hash(document.to_bytes()) != last.document_hash:
        raise StudioError(f"Replay differs from what version {version} recorded.", code="integrity")
    return State(document=document, version=version, deleted=deleted)


def rebuilt(kept: Any, patches: Iterable[Sequence[Operation]], document_hash_expected: str) -> Document:
    """Return the document that ``patches`` make of ``kept``, the patch root of an earlier version.

    Raises StudioError ``integrity`` unless it is, byte for byte, the one that its delta recorded.
    """
    editing = Editing(kept)
    for patch in patches:
        for index, operation in enumerate(patch):
            editing.apply(operation, f"/{index}")
    document = Document.stored(editing.value)
    if document_hash(document.to_bytes()) != document_hash_expected:
        raise StudioError(f"Patches do not lead to {document_hash_expected}.", code="integrity")
    return document


def _draft(current: State, after: Document, operation: DeltaOperation) -> DeltaDraft:
    patch, inverse = diff(current.root, after.to_json())
    version = current.version + 1
    deleted = _deleted_after(operation, deleted=current.deleted)
    return DeltaDraft(
        operation=operation,
        from_version=current.version,
        to_version=version,
        patch=patch,
        inverse=inverse,
        document_hash=document_hash(after.to_bytes()),
        content_hash=content_hash(after),
        after=replace(current, document=after, version=version, deleted=deleted),
    )


def _deleted_after(operation: DeltaOperation, *, deleted: bool) -> bool:
    if operation == DeltaOperation.DELETE:
        return True
    return False if operation == DeltaOperation.RESTORE else deleted


def _living(current: State) -> Document:
    if current.document is None or current.deleted:
        raise Gone("The blob is deleted; its versions can be read, or restore it.")
    return current.document
