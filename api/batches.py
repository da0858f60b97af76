"""Many blobs at once: a batch of writes with one cascade, and reading many by their ids."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Identity, allow
from api.batching import Work, written
from api.blobs import VERSION_MAX, NewBlobBody
from api.bodies import Wire, answer, checked, fault, read, request_body
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.making import bucket_ids_of, default_schema
from api.shapes import Blob, Shape
from api.wire import blob_json
from api.writing import finished, require_schema, schema_of
from domain.batches import (
    ITEMS_MAX,
    KEY_CHARACTERS_MAX,
    READ_BYTES_MAX,
    READ_MAX,
    Creation,
    Edit,
    at_item,
    id_of_key,
    inside,
    twice,
)
from domain.blobs import BlobView
from domain.documents import Document
from domain.errors import NotFound, StudioError
from domain.ids import parse_id
from domain.patches import JSON_PATCH, MERGE_PATCH, parse_patch

router = APIRouter(prefix="/blobs", tags=["blobs"])

_PAUSE_EVERY = 25
"""Items after which other requests get their turn."""
BATCH_EXAMPLE = {
    "atomic": True,
    "items": [
        {"op": "create", "content": "The ship sailed into the storm.", "title": "Chapter 1", "tags": ["sea"]},
        {"op": "create", "content": "The calm.", "key": "chapters/2.md"},
    ],
}


Wanted = tuple[UUID, int | None]
"""A blob, and the version it is to be read at; None: as it is."""


class BatchBody(Wire):
    """What is to be written at once."""

    atomic: bool = True
    """All or nothing; otherwise each item by itself."""
    items: list[Any] = Field(min_length=1, max_length=ITEMS_MAX)


class CreateItem(NewBlobBody):
    """A blob to be made, as ``POST /blobs`` has it; the same ``key`` again makes nothing, and answers what it made."""

    op: Literal["create"]
    key: str | None = Field(default=None, min_length=1, max_length=KEY_CHARACTERS_MAX)


class UpdateItem(Wire):
    """A change by RFC 7396 (an object) or RFC 6902 (an array)."""

    op: Literal["update"]
    id: str
    patch: Any
    from_version: int | None = Field(default=None, ge=1, le=VERSION_MAX)


class DeleteItem(Wire):
    """A deletion."""

    op: Literal["delete"]
    id: str
    from_version: int | None = Field(default=None, ge=1, le=VERSION_MAX)


_ITEMS: Mapping[str, type[Wire]] = {"create": CreateItem, "update": UpdateItem, "delete": DeleteItem}


class BatchResult(Shape):
    """What became of one item: ``status`` as a request of its own would have it."""

    index: int
    status: int
    id: UUID | None = None
    version: int | None = None
    etag: str | None = None
    problem: dict[str, Any] | None = None
    """Why the item was refused (RFC 9457)."""


class BatchAnswer(Shape):
    """What became of the items, in their order; ``cascade_id`` is null if nothing changed."""

    cascade_id: UUID | None
    results: list[BatchResult]


class ManyIds(Wire):
    """Blobs to be read: as they are, or at the versions of the same places (null: as it is)."""

    ids: list[str] = Field(min_length=1, max_length=READ_MAX)
    versions: list[int | None] | None = None


class ManyBlobs(Shape):
    """Blobs in the order of their ids. ``left_off``: known, but too much for one answer; ask for these again."""

    data: list[Blob]
    unknown: list[UUID]
    deleted: list[UUID]
    left_off: list[UUID]


@router.post(
    "/batch",
    operation_id="blobs_batch",
    openapi_extra=request_body(BatchBody, example=BATCH_EXAMPLE),
    responses={200: {"model": BatchAnswer, "description": "What became of each item"}},
)
async def batch(request: Request) -> Response:
    """Create, update and delete up to 1,000 blobs at once: all or nothing, or each by itself; one cascade follows."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")

    async def work(attempt: Attempt) -> Response:
        body = await read(request, BatchBody)
        going = Work(ports, identity, attempt, attempt.id("cascade"), body.atomic)
        await _parse(going, body.items)
        return await written(request, going, len(body.items))

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))


async def _parse(work: Work, items: Sequence[Any]) -> None:
    for index, item in enumerate(items):
        if index % _PAUSE_EVERY == _PAUSE_EVERY - 1:
            await asyncio.sleep(0)
        try:
            work.wanted[index] = await _wanted(work, index, item)
        except StudioError as error:
            work.refuse(index, at_item(error, index))
    for index, refusal in twice(work.wanted.values()).items():
        work.refuse(index, refusal)


async def _wanted(work: Work, index: int, item: Any) -> Creation | Edit:
    operation = item.get("op") if isinstance(item, dict) else None
    if not isinstance(item, dict):
        raise fault("", "wrong_type", "An item is an object.")
    if not isinstance(operation, str) or operation not in _ITEMS:
        raise fault("/op", "invalid_value", f"op is one of {', '.join(_ITEMS)}.")
    body = checked(_ITEMS[operation], item)
    if isinstance(body, CreateItem):
        return await _creation(work, index, body)
    if not isinstance(body, UpdateItem | DeleteItem):
        raise TypeError(f"{operation} has no model")
    patch = None
    if isinstance(body, UpdateItem):
        media = JSON_PATCH if isinstance(body.patch, list) else MERGE_PATCH
        try:
            patch = parse_patch(media, body.patch)
        except StudioError as error:
            raise inside("/patch", error) from None
    return Edit(
        index=index,
        blob_id=parse_id(body.id, "/id"),
        delta_id=work.attempt.id(f"delta:{index}"),
        patch=patch,
        from_version=body.from_version,
    )


async def _creation(work: Work, index: int, body: CreateItem) -> Creation:
    document = Document.parse(body.document)
    user_id = work.identity.user_id
    schema = await schema_of(work.ports, user_id, body.schema_id or default_schema(document))
    require_schema(schema, document)
    return Creation(
        index=index,
        blob_id=work.attempt.id(f"blob:{index}") if body.key is None else id_of_key(user_id, body.key),
        delta_id=work.attempt.id(f"delta:{index}"),
        document=document,
        schema=schema,
        parent_id=None if body.parent_id is None else parse_id(body.parent_id, "/parent_id"),
        bucket_ids=bucket_ids_of(body.bucket_ids),
        keyed=body.key is not None,
    )


@router.post(
    "/batch-get",
    operation_id="blobs_batch_get",
    openapi_extra=request_body(ManyIds, example={"ids": ["01890a5d-ac96-774b-bcce-b302099a8057"]}),
    responses={200: {"model": ManyBlobs, "description": "What there is of them"}},
)
async def batch_get(request: Request) -> Response:
    """Read up to 200 blobs by their ids; unknown and deleted ones are listed, and are no error."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")

    async def work(_: Attempt) -> Response:
        body = await read(request, ManyIds)
        ids = [parse_id(value, f"/ids/{index}") for index, value in enumerate(body.ids)]
        wanted = list(dict.fromkeys(zip(ids, _versions(body), strict=True)))
        return answer(await _read_many(request, ports, identity, wanted))

    return await once(request, ports, identity.user_id, work)


def _versions(body: ManyIds) -> Sequence[int | None]:
    versions = body.versions if body.versions is not None else [None] * len(body.ids)
    if len(versions) != len(body.ids):
        raise fault("/versions", "invalid_value", "versions has as many entries as ids.")
    for index, version in enumerate(versions):
        if version is not None and not 1 <= version <= VERSION_MAX:
            raise fault(f"/versions/{index}", "invalid_value", f"A version is a whole number from 1 to {VERSION_MAX}.")
    return versions


async def _read_many(request: Request, ports: Ports, identity: Identity, wanted: Sequence[Wanted]) -> dict[str, Any]:
    found, left_off = await _found(ports, identity, wanted)
    blobs = [(found[pair], pair[1]) for pair in wanted if pair in found]
    return {
        "data": [blob_json(request, blob) for blob, version in blobs if version or not blob.deleted],
        "unknown": [pair[0] for pair in wanted if pair not in found and pair not in left_off],
        "deleted": [blob.id for blob, version in blobs if blob.deleted and not version],
        "left_off": [blob_id for blob_id, _ in left_off],
    }


async def _found(
    ports: Ports, identity: Identity, wanted: Sequence[Wanted]
) -> tuple[dict[Wanted, BlobView], list[Wanted]]:
    """Return what there is, and what an answer of bounded size has no room for."""
    current = [blob_id for blob_id, version in wanted if version is None]
    views, cut = await ports.blobs.many(identity.user_id, current)
    found: dict[Wanted, BlobView] = {(view.id, None): view for view in views}
    rest = current[current.index(views[-1].id) + 1 :] if cut else []
    left_off: list[Wanted] = [(blob_id, None) for blob_id in rest]
    size = sum(view.read_bytes for view in views)
    for blob_id, version in wanted:
        if version is not None and size > READ_BYTES_MAX:
            left_off.append((blob_id, version))
        elif version is not None:
            with suppress(NotFound):
                view = await ports.blobs.get(identity.user_id, blob_id, version)
                found[blob_id, version] = view
                size += view.read_bytes
    return found, left_off
