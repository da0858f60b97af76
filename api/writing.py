"""What every write of a blob does between the request and the store: schema, hashes, the loop over versions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from api.auth import Identity
from api.bodies import answer, etag
from api.deps import Ports
from api.idempotency import Attempt
from api.preconditions import IfMatch, moved_on
from api.waiting import waited
from api.wire import blob_json, blob_url, cascade_link
from domain.blobs import Appended, BlobSchema, BlobView, NewDelta
from domain.deltas import DeltaDraft, State
from domain.documents import Document, content_size, cutoff_hash, preview, visible
from domain.errors import Fault, Gone, Invalid, NotFound
from domain.uploads import Landing

ATTEMPTS_MAX = 25
"""How often an edit that names no version is decided again because another one came first."""
SCHEMA_OF_TEXT = "text-v1"
SCHEMA_OF_DATA = "blob-v1"

_CASCADE = re.compile(r'/cascades/([0-9a-f-]{36})>; rel="cascade"')

Decide = Callable[[BlobView], DeltaDraft | None]
"""Decides a delta against the blob as it is; None: nothing changes."""


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
    """Return the hash that early cut-off compares: without the fields that the schema marks volatile.

    ``volatile`` are those that a blob's provider computes per run (``BlobView.volatile``).
    """
    return cutoff_hash(document, body=schema.lasting(document.body, also=volatile))


async def change(
    request: Request,
    ports: Ports,
    identity: Identity,
    blob: BlobView,
    attempt: Attempt,
    *,
    decide: Decide,
    match: IfMatch | None,
    pinned: bool,
    status: int = 200,
    landing: Landing | None = None,
) -> Response:
    """Decide and append one delta; decide again if another came first, unless the client named a version.

    Raises 412 if ``match`` does not allow the current version, 409 if the body named it (``pinned``).
    """
    named = pinned or (match is not None and not match.any)
    for _ in range(ATTEMPTS_MAX):
        if match is not None and not match.allows(blob.version):
            raise moved_on(blob.version, changes_url(blob, match), by_header=True)
        draft = decide(blob)
        if draft is None:
            return respond(request, blob, status)
        schema = await schema_of(ports, identity.user_id, blob.schema_id)
        new = NewDelta(
            user_id=identity.user_id,
            blob_id=blob.id,
            delta_id=attempt.id("delta"),
            cascade_id=attempt.id("cascade"),
            draft=draft,
            cutoff_hash=cutoff_of(schema, draft.document, volatile=blob.volatile),
            actor=identity.actor,
            kept_version=blob.kept_version,
            patch_bytes=blob.patch_bytes,
            external=blob.external,
            idempotency_key=attempt.key,
            reserved=landing.reserved if landing else 0,
        )
        done = await ports.deltas.append(new, before=landing.before if landing else None)
        if done.status == "applied":
            ports.bell.ring()
            after = advanced(blob, draft, done)
            return respond(request, after, status, cascade_id=done.cascade_id)
        if done.status == "not_found":
            raise NotFound("There is no such blob.")
        if done.status == "unknown_content":
            raise unknown_content(draft.document)
        # The one that came first may be this very request, taken over from an attempt that was still under way.
        if attempt.keyed and (own := await ports.deltas.outcome(identity.user_id, new.delta_id)):
            return await changed(request, ports, identity, own.blob_id, own.version, status=status)
        if done.status == "deleted":
            raise Gone("The blob was deleted meanwhile.", members={"current_version": done.version})
        if named:
            raise moved_on(done.version, changes_url(blob, match), by_header=match is not None and not match.any)
        blob = await ports.blobs.living(identity.user_id, blob.id)
    raise moved_on(blob.version, changes_url(blob, match), by_header=False)


async def changed(
    request: Request, ports: Ports, identity: Identity, blob_id: UUID, version: int, *, status: int
) -> Response:
    """Answer a write that an earlier attempt of the same request has done."""
    blob = await ports.blobs.get(identity.user_id, blob_id, version)
    return respond(request, replace(blob, current_version=version), status, cascade_id=blob.cascade_id)


def changes_url(blob: BlobView, match: IfMatch | None) -> str:
    """Return where to read what changed since the version that the client knew."""
    known = min(match.versions, default=blob.version) if match is not None else blob.version
    return f"{blob_url(blob.id)}/deltas?from_version={known}"


def unknown_content(document: Document) -> Invalid:
    """Return the error about a binary document that names bytes which the user has not."""
    detail = f"There is no content {document.body['hash']} of yours; send it first: POST /uploads."
    return Invalid(detail, code="unknown_content", faults=[Fault("/binary/hash", "unknown_content", detail)])


def advanced(blob: BlobView, draft: DeltaDraft, done: Appended) -> BlobView:
    """Return the blob after a delta, without reading it again."""
    return replace(
        blob,
        version=done.version,
        current_version=done.version,
        document=draft.document,
        content_hash=draft.content_hash,
        size=content_size(draft.document),
        preview=preview(draft.document),
        cascade_id=done.cascade_id,
        updated_at=done.updated_at,
        kept_version=done.kept_version,
        patch_bytes=done.patch_bytes,
        external=done.external,
    )


def respond(request: Request, blob: BlobView, status: int, *, cascade_id: UUID | None = None) -> Response:
    """Answer a write with the blob (204: without), its ETag, and the link of its cascade."""
    headers = {"ETag": etag(blob.version)}
    if cascade_id is not None:
        headers["Link"] = cascade_link(cascade_id)
    if status == 201:  # noqa: PLR2004 - created
        headers["Location"] = blob_url(blob.id)
    if status == 204:  # noqa: PLR2004 - no content
        return Response(status_code=204, headers=headers)
    return answer(blob_json(request, blob), status, headers)


def state_of(blob: BlobView) -> State:
    """Return what the rules of ``domain.deltas`` see of a blob."""
    return State(document=blob.document, version=blob.version, deleted=blob.deleted)


async def finished(request: Request, ports: Ports, identity: Identity, response: Response) -> Response:
    """Wait for the cascade of a write, if the client prefers to (``Prefer: wait=N``); the status stays."""
    if "prefer" not in request.headers:
        return response
    named = _CASCADE.search(response.headers.get("link", ""))
    if named is not None:
        response.headers.update(await waited(request, ports, identity.user_id, UUID(named[1])))
    return response
