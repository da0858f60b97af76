"""A blob and a delta as JSON: exactly the fields of CONTRACT, the same from POST, PATCH and GET."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from fastapi import Request

from api.addresses import Addresses, content_path
from api.middleware import PREFIX
from domain.blobs import BlobView

CONTENT_SHOWN_MAX = 100 * 1024
"""Bytes of content that a JSON answer carries; beyond, it is only at ``content_url``."""


def blob_url(blob_id: UUID) -> str:
    """Return the path of a blob."""
    return f"{PREFIX}/blobs/{blob_id}"


def cascade_link(cascade_id: UUID) -> str:
    """Return the ``Link`` of the cascade that a write belongs to."""
    return f'<{PREFIX}/cascades/{cascade_id}>; rel="cascade"'


def is_alias(request: Request) -> bool:
    """Tell whether the request used a seed's spelling of the path; the answer then says ``blob_id`` as well."""
    return bool(request.scope["state"].get("alias"))


def blob_json(request: Request, blob: BlobView) -> dict[str, Any]:
    """Return a blob at one version; content beyond 100 KB is left to ``content_url``."""
    document = blob.document
    shown: dict[str, Any] = {
        "id": blob.id,
        "version": blob.version,
        "content_type": document.content_type,
        "schema_id": blob.schema_id,
    }
    if document.binary or blob.size <= CONTENT_SHOWN_MAX:
        shown[document.kind] = document.body
    shown.update(
        content_url=_content_url(request, blob),
        content_hash=blob.content_hash,
        size=blob.size,
        title=document.title,
        preview=blob.preview,
        tags=document.tags,
        metadata=document.metadata,
        created_by=blob.created_by,
        provider_id=blob.provider_id,
        parent_ids=blob.parent_ids,
        root_id=blob.root_id,
        depth=blob.depth,
        storage_type="url" if blob.external else "inline",
        processing_meta=blob.processing_meta,
        cascade_id=blob.cascade_id,
        created_at=blob.created_at,
        updated_at=blob.updated_at,
    )
    if is_alias(request):
        shown["blob_id"] = blob.id
    return shown


def _content_url(request: Request, blob: BlobView) -> str:
    """Return where the content is: if it is large, signed, so that whoever has no key can fetch it."""
    if blob.size > CONTENT_SHOWN_MAX:
        addresses: Addresses = request.app.state.ports.addresses
        return addresses.signed(UUID(request.scope["state"]["user_id"]), blob.id, blob.version)
    path = content_path(blob.id)
    return path if blob.version == blob.current_version else f"{path}?version={blob.version}"


def delta_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored delta. The patch of a create is the whole document, unless that is large."""
    return {
        "id": row["id"],
        "blob_id": row["blob_id"],
        "from_version": row["from_version"],
        "to_version": row["to_version"],
        "operation": row["operation"],
        "patch": _patch(row),
        "inverse": _fragment(row["inverse"]),
        **_story(row),
        "document_hash": row["document_hash"],
        "content_hash": row["content_hash"],
        "machine_hash": row["machine_hash"],
        "base_hash": row["base_hash"],
        "conflicts": _fragment(row["conflicts"]) or [],
        "base_version": row["base_version"],
        "resolved_at": row["resolved_at"],
        "resolved_by": row["resolved_by"],
        "inputs": row["inputs"] or [],
        "error": row["error"],
    }


def history_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a delta as one line of a blob's history: who did what, when, and because of what."""
    return {
        "version": row["to_version"],
        "delta_id": row["id"],
        "operation": row["operation"],
        **_story(row),
        "content_hash": row["content_hash"],
    }


def _story(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("status", "actor", "provider_id", "run_id", "cascade_id", "caused_by", "previous_delta")
    times = ("created_at", "applied_at")
    return {name: row[name] for name in (*names, *times)}


def _patch(row: Mapping[str, Any]) -> Any:
    if row["operation"] == "create" and row["patch"] is None:
        return None if row["created"] is None else [{"op": "add", "path": "", "value": orjson.Fragment(row["created"])}]
    return _fragment(row["patch"])


def _fragment(text: str | None) -> Any:
    # Stored as canonical JSON: it goes out as it is, unparsed.
    return None if text is None else orjson.Fragment(text)


def timestamp(value: datetime) -> str:
    """Return a time as cursors carry it."""
    return value.isoformat()


def ids(values: Sequence[UUID]) -> list[str]:
    """Return ids as text."""
    return [str(value) for value in values]
