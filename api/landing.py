"""From a content that has arrived to the blob that has it: made, or changed.

What arrived is a document of its own if it is text or JSON of the size that documents may have; everything else is
referred to by hash and size. The write of the blob, the content and the end of the upload are one transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from fastapi import Request
from starlette.responses import Response

from api.auth import Identity
from api.deps import Ports
from api.idempotency import Attempt
from api.making import Wish, made_of
from api.preconditions import IfMatch
from api.writing import change, require_schema, schema_of, state_of
from domain.blobs import BlobView
from domain.canonical import JSON_BYTES_MAX, load
from domain.deltas import DeltaDraft, DeltaOperation, rewrite
from domain.documents import Document
from domain.errors import Malformed, TooLarge
from domain.ids import new_id
from domain.media import is_json, is_text
from domain.uploads import Arrived, NewUpload

THREAD_BYTES_MIN = 65_536
"""Larger texts are parsed beside the event loop."""


def document_bytes_max(content_type: str) -> int:
    """Return up to which size content of this type may become a document of its own; 0: never."""
    return JSON_BYTES_MAX if is_text(content_type) or is_json(content_type) else 0


async def document_of(content_type: str, arrived: Arrived, fields: Mapping[str, Any]) -> Document:
    """Return the document of a content. Raises Malformed if it is not the text or JSON that its type says."""
    body, bound = arrived.body, document_bytes_max(content_type)
    if body is not None and bound and len(body) <= bound:
        try:
            if len(body) >= THREAD_BYTES_MIN:
                return await asyncio.to_thread(_document, content_type, body, fields)
            return _document(content_type, body, fields)
        except TooLarge as error:
            if error.problem_code != "content_too_large":
                raise
            # Within the bound as bytes, beyond it as JSON: then it is kept as bytes.
    named = {"hash": arrived.hash, "size": arrived.size}
    return Document.parse({**fields, "content_type": content_type, "binary": named})


def _document(content_type: str, body: bytes, fields: Mapping[str, Any]) -> Document:
    if is_json(content_type):
        return Document.parse({**fields, "content_type": content_type, "data": load(body)})
    return Document.parse({**fields, "content_type": content_type, "content": text_of(body)})


def text_of(raw: bytes) -> str:
    """Return bytes as text; raises Malformed, with the offset, if they are not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"The body is not UTF-8, at offset {error.start}.") from None


async def land_new(
    request: Request, ports: Ports, identity: Identity, attempt: Attempt, arrived: Arrived, wish: Wish
) -> Response:
    """Make the blob of a content; ``wish.document`` says what it is to have beside it."""
    document = await document_of(wish.document.content_type, arrived, fields_of(wish.document))
    async with _placed(ports, arrived, document) as placed:
        landing = ports.uploads.landing(placed, attempt.id("blob"), binary=document.binary, replaces=False)
        return await made_of(request, ports, identity, attempt, replace(wish, document=document), landing)


async def land_change(
    request: Request,
    ports: Ports,
    identity: Identity,
    attempt: Attempt,
    arrived: Arrived,
    *,
    blob: BlobView,
    match: IfMatch,
) -> Response:
    """Replace the content of a blob; title, tags and metadata stay."""
    found = await document_of(blob.document.content_type, arrived, fields_of(blob.document))
    schema = await schema_of(ports, identity.user_id, blob.schema_id)
    unchanged = False

    def decide(current: BlobView) -> DeltaDraft | None:
        nonlocal unchanged
        after = replace(current.document, body=found.body, binary=found.binary)
        require_schema(schema, after)
        draft = rewrite(state_of(current), after, operation=DeltaOperation.UPDATE)
        unchanged = draft is None
        return draft

    async with _placed(ports, arrived, found) as placed:
        landing = ports.uploads.landing(placed, blob.id, binary=found.binary, replaces=True)
        response = await change(request, ports, identity, blob, attempt, decide=decide, match=match, landing=landing)
        if unchanged and placed.upload is not None:
            await ports.uploads.land_alone(landing, identity.user_id)
    return response


async def over(ports: Ports, arrived: Arrived) -> None:
    """Remove what is not used of a content whose write is done, or will never be."""
    if arrived.upload is not None:
        await asyncio.shield(ports.uploads.close(arrived.upload))


@asynccontextmanager
async def _placed(ports: Ports, arrived: Arrived, document: Document) -> AsyncIterator[Arrived]:
    """Send on to the object store what came as a text and is too large to be a document."""
    body = arrived.body
    if not document.binary or body is None or arrived.upload is not None or arrived.size <= ports.uploads.inline_max:
        yield arrived
        return
    new = NewUpload(user_id=arrived.user_id, id=new_id(), content_type=document.content_type, size=arrived.size)
    placed = await ports.uploads.received(new, _slices(body, ports.part_size))
    try:
        yield placed
    finally:
        await over(ports, placed)


async def _slices(body: bytes, size: int) -> AsyncIterator[bytearray]:
    for start in range(0, len(body) + 1, size):
        yield bytearray(body[start : start + size])


def fields_of(document: Document) -> dict[str, Any]:
    """Return what a document has beside its content."""
    return {"title": document.title, "tags": list(document.tags), "metadata": document.metadata}


def awaited(content_type: str, fields: Mapping[str, Any]) -> Document:
    """Return a document whose content has yet to come; raises Invalid for faulty fields or an odd type."""
    empty = {"hash": f"sha256:{'0' * 64}", "size": 0}
    return Document.parse({**fields, "content_type": content_type, "binary": empty})
