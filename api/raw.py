"""A body that is a content itself: no JSON around it, of any type and size, taken as it comes."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from starlette.responses import Response

from api.auth import Identity, allow
from api.bodies import JSON, fault, media_type_of
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.landing import awaited, document_bytes_max, land_change, land_new, over
from api.making import BUCKETS_MAX, Wish, bucket_ids_of
from api.openapi import query
from api.preconditions import IfMatch
from api.streams import bounded, declared_digest, declared_size, pieces
from api.writing import changed, finished, schema_of
from domain.blobs import BlobView
from domain.canonical import load
from domain.errors import Invalid, Malformed
from domain.ids import new_id, parse_id
from domain.uploads import Arrived, NewUpload, Tally, require_digest

FORMS = ("application/x-www-form-urlencoded", "multipart/")
"""Types of bodies that are no content: what a form, or a forgotten header, sends."""
PARAMETERS = (
    query("title", "string", "Title of the blob, where the body is its content."),
    query("tag", "string", "A tag of the blob; may be given several times."),
    query("metadata", "string", "Metadata of the blob, as a JSON object."),
    query("schema_id", "string", "Its schema."),
    query("bucket_id", "string", "A bucket to put it in; may be given several times."),
    query("parent_id", "string", "The blob that it comes from."),
)


def is_raw(request: Request) -> bool:
    """Whether the body is a content itself, and not JSON that describes a blob."""
    given = media_type_of(request)
    return given not in {"", JSON} and not given.startswith(FORMS)


async def create_raw(request: Request) -> Response:
    """Make a blob whose content is the body itself."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")

    async def work(attempt: Attempt) -> Response:
        if attempt.keyed and (done := await ports.deltas.outcome(identity.user_id, attempt.id("delta"))):
            return await changed(request, ports, identity, done.blob_id, done.version, status=201)
        content_type = request.headers["content-type"].strip()
        wish = _wish(request, content_type)
        await schema_of(ports, identity.user_id, wish.schema_id or "text-v1")
        arrived = await arrive(request, ports, identity, content_type)
        try:
            return await land_new(request, ports, identity, attempt, arrived, wish)
        finally:
            await over(ports, arrived)

    answered = await once(request, ports, identity.user_id, work, streamed=True)
    return await finished(request, ports, identity, answered)


async def replace_raw(
    request: Request, ports: Ports, identity: Identity, attempt: Attempt, blob: BlobView, match: IfMatch
) -> Response:
    """Replace the content of a blob by the body itself."""
    arrived = await arrive(request, ports, identity, blob.document.content_type)
    try:
        return await land_change(request, ports, identity, attempt, arrived, blob=blob, match=match)
    finally:
        await over(ports, arrived)


async def arrive(request: Request, ports: Ports, identity: Identity, content_type: str) -> Arrived:
    """Take the body: text and JSON that may become a document into memory, the rest into the store as it comes.

    Raises Malformed ``digest_mismatch``, Invalid ``content_type_mismatch``, Forbidden ``storage_quota_exceeded``.
    """
    wanted, size = declared_digest(request), declared_size(request)
    kept = document_bytes_max(content_type)
    if kept and (size is None or size <= kept):
        async with ports.places.one():
            arrived = _here(identity, bytes(await bounded(request, kept)))
    else:
        new = NewUpload(user_id=identity.user_id, id=new_id(), content_type=content_type, size=size)
        arrived = await ports.uploads.received(new, pieces(request, ports.places, ports.part_size))
    try:
        require_digest(wanted, arrived.hash)
    except BaseException:
        await over(ports, arrived)
        raise
    return arrived


def _here(identity: Identity, body: bytes) -> Arrived:
    tally = Tally()
    tally.add(body)
    return Arrived(
        user_id=identity.user_id, hash=tally.digest, size=tally.size, chunks=tally.chunks, body=body, upload=None
    )


def _wish(request: Request, content_type: str) -> Wish:
    given = request.query_params
    fields: dict[str, Any] = {"title": given.get("title", ""), "tags": given.getlist("tag")}
    if "metadata" in given:
        fields["metadata"] = _metadata(given["metadata"])
    buckets = given.getlist("bucket_id")
    if len(buckets) > BUCKETS_MAX:
        raise fault("/query/bucket_id", "too_many", f"A create names at most {BUCKETS_MAX} buckets.")
    parent = given.get("parent_id")
    return Wish(
        document=awaited(content_type, fields),
        schema_id=given.get("schema_id"),
        parent_id=None if parent is None else parse_id(parent, "/query/parent_id"),
        bucket_ids=bucket_ids_of(buckets),
    )


def _metadata(text: str) -> Any:
    try:
        return load(text)
    except Malformed:
        raise fault("/query/metadata", "invalid_value", "metadata is a JSON object.") from None
    except Invalid as error:
        raise fault("/query/metadata", error.problem_code, error.detail) from None
