"""What a document is held against before it is written: its schema, and what it refers to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from api.deps import Ports
from domain.blobs import BlobSchema, BlobView
from domain.deltas import State
from domain.documents import Document, cutoff_hash, visible
from domain.errors import Fault, Invalid

SCHEMA_OF_TEXT = "text-v1"
SCHEMA_OF_DATA = "blob-v1"


async def schema_of(ports: Ports, user_id: UUID, reference: str) -> BlobSchema:
    """Return a schema by slug or id; raises Invalid ``unknown_schema``."""
    schema = await ports.schema_lookup.find(user_id, reference)
    if schema is None:
        detail = f"There is no schema {reference[:100]!r}; GET /schemas lists them."
        raise Invalid(detail, code="unknown_schema", faults=[Fault("/schema_id", "unknown_schema", detail)])
    return schema


def require_schema(schema: BlobSchema, document: Document, *, relocate: Callable[[str], str] | None = None) -> None:
    """Raise Invalid ``schema_violation`` unless what schemas see of a document satisfies this one."""
    faults = schema.faults(visible(document))
    if not faults:
        return
    inside = f"/{document.kind}" if document.kind == "data" else ""
    moved = [replace(fault, pointer=inside + fault.pointer) for fault in faults]
    words = f"{moved[0].pointer or '/'}: {moved[0].detail}"
    error = Invalid(f"The content does not satisfy {schema.slug}: {words}", code="schema_violation", faults=moved)
    if relocate is not None:
        error = Invalid(
            error.detail,
            code="schema_violation",
            faults=[replace(fault, pointer=relocate(fault.pointer)) for fault in moved],
        )
    raise error


def cutoff_of(schema: BlobSchema, document: Document, *, volatile: Sequence[str] = ()) -> str:
    """Return the hash that early cut-off compares: that of the normal form (``domain/normal_forms.py``).

    ``volatile`` are those that a blob's provider computes per run (``BlobView.volatile``).
    """
    return cutoff_hash(document, body=schema.normal_body(document, also=volatile))


def state_of(blob: BlobView) -> State:
    """Return what the rules of ``domain.deltas`` see of a blob."""
    return State(document=blob.document, version=blob.version, deleted=blob.deleted)
