"""Buckets: how a person groups blobs, and what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Reader, Writer
from api.bodies import (
    JSON,
    Wire,
    answer,
    checked,
    etag,
    fault,
    parsed,
    path_id,
    read,
    read_body,
    request_body,
    require_media,
)
from api.deps import Stores
from api.idempotency import Attempt, Keep, once
from api.middleware import PREFIX
from api.pages import page_request, page_response
from api.preconditions import IfMatch, if_match, moved_on, not_modified
from domain.buckets import DEFAULT_TYPE, POSITION_MAX, Bucket, Member
from domain.errors import VersionConflict
from domain.ids import BlobId, BucketId, CascadeId, UserId, new_id, parse_id
from domain.patches import merge_patch

router = APIRouter(prefix="/buckets", tags=["buckets"])

MERGE_PATCH = "application/merge-patch+json"
ATTEMPTS_MAX = 25
"""How often a change is tried again because another one came first."""
EXAMPLE = {"name": "The Storm", "type": "book", "metadata": {"genre": "novel"}}


class NewBucket(Wire):
    """A bucket to be made."""

    name: str
    type: str = DEFAULT_TYPE
    parent_id: str | None = None
    parent_bucket_id: str | None = Field(default=None, description="The seeds' name of parent_id.")
    metadata: dict[str, Any] = Field(default_factory=dict)


class BucketChanges(Wire):
    """What may change about a bucket; what is left out stays."""

    name: str | None = None
    parent_id: str | None = None
    metadata: dict[str, Any] | None = None


class NewMember(Wire):
    """A blob to be put into a bucket."""

    blob_id: str
    position: int | None = Field(default=None, ge=0, le=POSITION_MAX)


class Place(Wire):
    """Where in the bucket a blob stands; last, unless given."""

    position: int | None = Field(default=None, ge=0, le=POSITION_MAX)


@router.post("", operation_id="buckets_create", status_code=201, openapi_extra=request_body(NewBucket, example=EXAMPLE))
async def create(request: Request, identity: Writer, ports: Stores) -> Response:
    """Make an empty bucket."""

    async def work(attempt: Attempt) -> Response:
        body = await read(request, NewBucket)
        if body.parent_id is not None and body.parent_bucket_id is not None:
            raise fault("/parent_bucket_id", "invalid_value", "Give parent_id or parent_bucket_id, not both.")
        parent = body.parent_id or body.parent_bucket_id
        keep: Keep[Bucket] = attempt.keep(lambda made: _answered(made, 201))
        await ports.buckets.create(
            UserId(identity.user_id),
            BucketId(new_id()),
            name=body.name,
            type_=body.type,
            parent_id=None if parent is None else BucketId(parse_id(parent, "/parent_id")),
            metadata=body.metadata,
            keep=keep,
        )
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.get("", operation_id="buckets_list")
async def list_(
    request: Request,
    identity: Reader,
    ports: Stores,
    type: str | None = None,  # noqa: A002 - the query's name
    parent_id: str | None = None,
) -> Response:
    """List your buckets in the order they were made."""
    wanted = page_request(request, ports.cursors, identity.user_id, {"type": type, "parent_id": parent_id})
    rows = await ports.buckets.page(
        UserId(identity.user_id),
        limit=wanted.limit + 1,
        after=_position(wanted.after),
        type_=type,
        parent_id=None if parent_id is None else BucketId(parse_id(parent_id, "/query/parent_id")),
    )
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row.created_at.isoformat(), row.id), show=shown
    )


@router.get("/{bucket_id}", operation_id="buckets_get")
async def get(request: Request, bucket_id: str, identity: Reader, ports: Stores) -> Response:
    """Read one bucket; its blobs are at ``blobs_url``."""
    bucket = await ports.buckets.get(UserId(identity.user_id), _bucket_id(bucket_id))
    tag = etag(bucket.version)
    if not_modified(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return answer(shown(bucket), headers={"ETag": tag})


@router.patch(
    "/{bucket_id}", operation_id="buckets_update",
    openapi_extra=request_body(BucketChanges, example={"name": "The Calm"}, media=(JSON, MERGE_PATCH)),
)  # fmt: skip
async def update(request: Request, bucket_id: str, identity: Writer, ports: Stores) -> Response:
    """Rename a bucket, move it below another, or change its metadata (merged by RFC 7396, replaced by JSON)."""

    async def work(attempt: Attempt) -> Response:
        user_id, wanted = UserId(identity.user_id), _bucket_id(bucket_id)
        bucket = await ports.buckets.get(user_id, wanted)
        media = require_media(request, (JSON, MERGE_PATCH))
        body = checked(BucketChanges, parsed(await read_body(request)))
        match = if_match(request, required=media == MERGE_PATCH)
        keep: Keep[Bucket] = attempt.keep(lambda changed: _answered(changed, 200))
        for _ in range(ATTEMPTS_MAX):
            if match is not None and not match.allows(bucket.version):
                break
            changes = _changes(body, bucket, merge=media == MERGE_PATCH)
            try:
                # What was merged with the metadata of this version applies to this version alone.
                await ports.buckets.change(user_id, wanted, expected={bucket.version}, changes=changes, keep=keep)
            except VersionConflict:
                bucket = await ports.buckets.get(user_id, wanted)
                continue
            ports.bell.ring()
            return keep.response
        raise moved_on(bucket.version, _url(wanted), by_header=match is not None)

    return await once(request, ports, identity.user_id, work)


@router.delete("/{bucket_id}", operation_id="buckets_delete", status_code=204)
async def delete(request: Request, bucket_id: str, identity: Writer, ports: Stores) -> Response:
    """Delete a bucket: its blobs stay, its child buckets move up."""

    async def work(attempt: Attempt) -> Response:
        wanted, keep = _bucket_id(bucket_id), attempt.keep(_gone)
        try:
            await ports.buckets.delete(
                UserId(identity.user_id), wanted, expected=_versions(if_match(request)), actor=identity.actor, keep=keep
            )
        except VersionConflict as error:
            raise moved_on(error.members["current_version"], _url(wanted), by_header=True) from None
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


@router.get("/{bucket_id}/blobs", operation_id="buckets_list_blobs")
async def list_blobs(request: Request, bucket_id: str, identity: Reader, ports: Stores) -> Response:
    """List the blobs of a bucket by position; ``inherited_from`` names the blob that an output follows."""
    wanted = page_request(request, ports.cursors, identity.user_id)
    after = None if wanted.after is None else (int(wanted.after[0]), UUID(wanted.after[1]))
    rows = await ports.members.page(
        UserId(identity.user_id), _bucket_id(bucket_id), limit=wanted.limit + 1, after=after
    )
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row.position, row.blob_id), show=shown_member
    )


@router.post(
    "/{bucket_id}/blobs", operation_id="buckets_add_blob", status_code=201,
    openapi_extra=request_body(NewMember, example={"blob_id": "01890a5d-ac96-774b-bcce-b302099a8057"}),
)  # fmt: skip
async def add_blob(request: Request, bucket_id: str, identity: Writer, ports: Stores) -> Response:
    """Put a blob into a bucket; a member moves to the position given."""

    async def work(attempt: Attempt) -> Response:
        bucket = await ports.buckets.get(UserId(identity.user_id), _bucket_id(bucket_id))
        body = await read(request, NewMember)
        blob = BlobId(parse_id(body.blob_id, "/blob_id"))
        return await _add(ports, identity, attempt, bucket.id, blob, position=body.position, status=201)

    return await once(request, ports, identity.user_id, work)


@router.put(
    "/{bucket_id}/blobs/{blob_id}", operation_id="buckets_put_blob",
    openapi_extra=request_body(Place, example={"position": 1}),
)  # fmt: skip
async def put_blob(request: Request, bucket_id: str, blob_id: str, identity: Writer, ports: Stores) -> Response:
    """Let a blob be in a bucket, at the position given; the body may be left out."""

    async def work(attempt: Attempt) -> Response:
        bucket, blob = _bucket_id(bucket_id), BlobId(path_id(blob_id, "blob_id"))
        await ports.buckets.get(UserId(identity.user_id), bucket)
        raw = await read_body(request)
        if raw:
            require_media(request)
        place = checked(Place, parsed(raw)) if raw else Place()
        return await _add(ports, identity, attempt, bucket, blob, position=place.position, status=200)

    return await once(request, ports, identity.user_id, work)


@router.delete("/{bucket_id}/blobs/{blob_id}", operation_id="buckets_remove_blob", status_code=204)
async def remove_blob(request: Request, bucket_id: str, blob_id: str, identity: Writer, ports: Stores) -> Response:
    """Take a blob, and what was derived from it, out of a bucket."""

    async def work(attempt: Attempt) -> Response:
        keep = attempt.keep(_gone)
        await ports.members.remove(
            UserId(identity.user_id), _bucket_id(bucket_id), BlobId(path_id(blob_id, "blob_id")),
            actor=identity.actor, keep=keep,
        )  # fmt: skip
        ports.bell.ring()
        return keep.response

    return await once(request, ports, identity.user_id, work)


async def _add(
    ports: Stores, identity: Writer, attempt: Attempt, bucket: BucketId, blob: BlobId, *, position: int | None,
    status: int,
) -> Response:  # fmt: skip
    def render(added: tuple[Member, CascadeId | None]) -> Response:
        member, cascade = added
        headers = {"Location": f"{_url(bucket)}/blobs/{blob}"} | _cascade_link(cascade)
        body = {"bucket_id": str(bucket), **shown_member(member), "cascade_id": cascade and str(cascade)}
        return answer(body, status, headers)

    keep = attempt.keep(render)
    await ports.members.add(UserId(identity.user_id), bucket, blob, position=position, actor=identity.actor, keep=keep)
    ports.bell.ring()
    return keep.response


def _answered(bucket: Bucket, status: int) -> Response:
    headers = {"ETag": etag(bucket.version)}
    if status == 201:  # noqa: PLR2004 - created
        headers["Location"] = _url(bucket.id)
    return answer(shown(bucket), status, headers)


def _gone(cascade: CascadeId) -> Response:
    return Response(status_code=204, headers=_cascade_link(cascade))


def shown(bucket: Bucket) -> dict[str, Any]:
    """Return a bucket as JSON."""
    return {
        "id": str(bucket.id),
        "name": bucket.name,
        "type": bucket.type,
        "parent_id": bucket.parent_id and str(bucket.parent_id),
        "child_bucket_ids": [str(child) for child in bucket.child_bucket_ids],
        "blob_count": bucket.blob_count,
        "blobs_url": f"{_url(bucket.id)}/blobs",
        "metadata": bucket.metadata,
        "version": bucket.version,
        "created_at": bucket.created_at,
        "updated_at": bucket.updated_at,
    }


def shown_member(member: Member) -> dict[str, Any]:
    """Return a member of a bucket as JSON."""
    return {
        "blob_id": str(member.blob_id),
        "position": member.position,
        "inherited_from": member.inherited_from and str(member.inherited_from),
        "title": member.title,
        "schema_id": member.schema_id,
        "content_type": member.content_type,
        "version": member.version,
        "provider_id": member.provider_id,
        "added_at": member.added_at,
    }


def _changes(body: BucketChanges, bucket: Bucket, *, merge: bool) -> dict[str, Any]:
    given = {name: getattr(body, name) for name in body.model_fields_set}
    if "name" in given and given["name"] is None:
        raise fault("/name", "wrong_type", "A bucket has a name.")
    if "parent_id" in given and given["parent_id"] is not None:
        given["parent_id"] = BucketId(parse_id(given["parent_id"], "/parent_id"))
    if "metadata" in given:
        metadata: Mapping[str, Any] = given["metadata"] or {}
        given["metadata"] = merge_patch(dict(bucket.metadata), given["metadata"] or {}) if merge else dict(metadata)
    return given


def _versions(match: IfMatch | None) -> frozenset[int] | None:
    return None if match is None or match.any else match.versions


def _bucket_id(value: str) -> BucketId:
    return BucketId(path_id(value, "bucket_id"))


def _position(after: list[Any] | None) -> tuple[datetime, UUID] | None:
    return None if after is None else (datetime.fromisoformat(after[0]), UUID(after[1]))


def _url(bucket_id: BucketId) -> str:
    return f"{PREFIX}/buckets/{bucket_id}"


def _cascade_link(cascade: CascadeId | None) -> dict[str, str]:
    return {} if cascade is None else {"Link": f'<{PREFIX}/cascades/{cascade}>; rel="cascade"'}
