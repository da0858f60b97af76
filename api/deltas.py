"""A blob's history: deltas, versions, and one delta by its id; deltas that a client appends or proposes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from api.auth import Identity, allow
from api.blobs import relocation
from api.bodies import Wire, answer, etag, fault, path_id, query_int, read, request_body, whole
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.middleware import PREFIX
from api.openapi import CURSOR, LIMIT, ON_CONFLICT, parameters, query
from api.pages import page_request, page_response
from api.preconditions import if_match, not_modified
from api.shapes import Blob, Delta, HistoryEntry, Page
from api.wire import blob_json, cascade_link, delta_json, history_json
from api.writing import (
    Written,
    change,
    changed,
    cutoff_of,
    finished,
    require_schema,
    schema_of,
    state_of,
)
from domain.blobs import BlobView, NewProposal, unknown_content
from domain.deltas import DeltaDraft, DeltaStatus, update
from domain.errors import Fault, Gone, NotFound, StudioError
from domain.patches import JSON_PATCH, MERGE_PATCH, Patch, parse_patch

router = APIRouter(tags=["deltas"])

VERSION_MAX = 2**31 - 1
APPLIED = str(DeltaStatus.APPLIED)
PATCH = "/patch"


FROM_VERSION = query("from_version", "integer", "Only what came after this version.")
STATUS = query("status", "string", "pending, proposed, applied, rejected, failed, or any; applied without it.")


@router.get(
    "/blobs/{blob_id}/history",
    operation_id="blobs_history",
    responses={200: {"model": Page[HistoryEntry]}},
    openapi_extra=parameters(LIMIT, CURSOR, FROM_VERSION),
)
async def history(request: Request, blob_id: str) -> Response:
    """List what happened to a blob, oldest first: who, when, because of what."""
    return await _page(request, blob_id, history_json, status=APPLIED)


@router.get(
    "/blobs/{blob_id}/versions",
    operation_id="blobs_versions",
    responses={200: {"model": Page[HistoryEntry]}},
    openapi_extra=parameters(LIMIT, CURSOR, FROM_VERSION),
)
async def versions(request: Request, blob_id: str) -> Response:
    """List a blob's versions, oldest first."""
    return await _page(request, blob_id, history_json, status=APPLIED)


@router.get(
    "/blobs/{blob_id}/deltas",
    operation_id="blobs_deltas",
    responses={200: {"model": Page[Delta]}},
    openapi_extra=parameters(LIMIT, CURSOR, FROM_VERSION, STATUS),
)
async def deltas(request: Request, blob_id: str) -> Response:
    """List a blob's deltas, oldest first, with their patches and inverses."""
    status = request.query_params.get("status", APPLIED)
    if status != "any" and status not in set(DeltaStatus):
        raise fault("/query/status", "invalid_value", f"status is any or one of {', '.join(DeltaStatus)}.")
    return await _page(request, blob_id, delta_json, status=None if status == "any" else status)


class NewDeltaBody(Wire):
    """A change to be appended: RFC 6902 operations, or the members that change (RFC 7396)."""

    operation: str = Field(default="update", pattern="^update$", description="The other operations have own routes.")
    patch: Any = Field(json_schema_extra={"type": ["array", "object"]})
    from_version: int | None = Field(default=None, ge=1, le=VERSION_MAX, description="The version that you read.")
    on_conflict: str | None = None
    proposed: bool = Field(default=False, description="Change nothing until somebody accepts it.")

    def parsed(self) -> Patch:
        """Return the patch, checked; pointers of its faults begin with ``/patch``."""
        if not isinstance(self.patch, list | dict):
            raise fault(PATCH, "wrong_type", "patch is an array of operations, or an object of what changes.")
        with _inside_patch():
            given = parse_patch(JSON_PATCH if isinstance(self.patch, list) else MERGE_PATCH, self.patch)
        return replace(given, from_version=self.from_version)


@router.post(
    "/blobs/{blob_id}/deltas",
    operation_id="deltas_append",
    status_code=201,
    responses={
        200: {"model": Delta, "description": "Nothing changes: the delta that the blob is at"},
        201: {"model": Delta, "description": "Applied, or proposed"},
    },
    openapi_extra=request_body(NewDeltaBody, example={"operation": "update", "patch": {"title": "The Storm"}})
    | parameters(ON_CONFLICT),
)
async def append(request: Request, blob_id: str) -> Response:
    """Append a delta as PATCH does and answer it, or propose it (``proposed``) for somebody to accept or reject."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(blob_id, "blob_id")

    async def work(attempt: Attempt) -> Response:
        if attempt.keyed and (done := await ports.deltas.outcome(identity.user_id, attempt.id("delta"))):
            return await changed(
                request, ports, identity, done.blob_id, done.version, status=201, show=_show_delta(ports, identity)
            )
        if attempt.keyed:  # proposed before, whatever became of it or of the blob
            with suppress(NotFound):
                return await delta_answer(ports, identity, attempt.id("delta"), 201)
        blob = await ports.blobs.living(identity.user_id, identifier)
        body = await read(request, NewDeltaBody)
        if body.proposed:
            return await _proposed(ports, identity, blob, attempt, body)
        return await _applied(request, ports, identity, blob, attempt, body)

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))


async def _applied(
    request: Request, ports: Ports, identity: Identity, blob: BlobView, attempt: Attempt, body: NewDeltaBody
) -> Response:
    patch = body.parsed()
    schema = await schema_of(ports, identity.user_id, blob.schema_id)

    def decide(current: BlobView) -> DeltaDraft | None:
        with _inside_patch():
            draft = update(state_of(current), patch)
            if draft is not None:
                require_schema(schema, draft.document, relocate=relocation(patch))
        return draft

    return await change(
        request, ports, identity, blob, attempt,
        decide=decide, match=if_match(request), pinned=body.from_version, stated=body.on_conflict, inside="",
        status=201, show=_show_delta(ports, identity),
    )  # fmt: skip


async def _proposed(ports: Ports, identity: Identity, blob: BlobView, attempt: Attempt, body: NewDeltaBody) -> Response:
    patch = body.parsed()
    base = blob if body.from_version is None else await _version_of(ports, identity, blob, body.from_version)
    schema = await schema_of(ports, identity.user_id, blob.schema_id)
    with _inside_patch():
        draft = update(state_of(base), patch)
        if draft is None:
            raise fault("", "invalid_value", "The patch changes nothing: there is nothing to propose.")
        require_schema(schema, draft.document, relocate=relocation(patch))
    delta_id = attempt.id("delta")
    status = await ports.proposals.propose(
        NewProposal(
            user_id=identity.user_id,
            blob_id=blob.id,
            delta_id=delta_id,
            draft=draft,
            cutoff_hash=cutoff_of(schema, draft.document, volatile=blob.volatile),
            actor=identity.actor,
            base_version=body.from_version,
            idempotency_key=attempt.key,
        )
    )
    if status == "deleted":
        raise Gone("The blob was deleted meanwhile.")
    if status == "unknown_content":
        raise unknown_content(draft.document)
    ports.bell.ring()
    return await delta_answer(ports, identity, delta_id, 201)


async def _version_of(ports: Ports, identity: Identity, blob: BlobView, version: int) -> BlobView:
    try:
        return await ports.blobs.get(identity.user_id, blob.id, version)
    except NotFound:
        raise fault("/from_version", "unknown_version", f"The blob has versions 1 to {blob.version}.") from None


def _show_delta(ports: Ports, identity: Identity) -> Callable[[Request, Written], Any]:
    async def show(_request: Request, written: Written) -> Response:
        """Answer the delta that was written; if nothing was, the one that the blob is at."""
        if written.cascade_id is None and written.aside is not None:
            return await delta_answer(ports, identity, written.aside.delta_id, written.status)
        row = await ports.deltas.latest(identity.user_id, written.blob.id, written.blob.version)
        status = 200 if written.cascade_id is None else written.status
        return shown_delta(row, status, written.cascade_id, **written.disputed)

    return show


async def delta_answer(ports: Ports, identity: Identity, delta_id: UUID, status: int) -> Response:
    """Answer one delta as it is stored."""
    row = await ports.deltas.get(identity.user_id, delta_id)
    return shown_delta(row, status, row["cascade_id"] if row["status"] == DeltaStatus.APPLIED else None)


def shown_delta(row: dict[str, Any], status: int, cascade_id: UUID | None, **more: Any) -> Response:
    """Answer a delta, with the ETag of the version that it made and the link of its cascade."""
    headers = {"Location": f"{PREFIX}/deltas/{row['id']}"} if status == 201 else {}  # noqa: PLR2004 - created
    if row["status"] == DeltaStatus.APPLIED:
        headers["ETag"] = etag(row["to_version"])
    if cascade_id is not None:
        headers["Link"] = cascade_link(cascade_id)
    return answer(delta_json(row) | more, status, headers)


@contextmanager
def _inside_patch() -> Iterator[None]:
    """Point faults of a patch at the member of the body that holds it."""
    try:
        yield
    except StudioError as error:
        faults = [Fault(PATCH + found.pointer, found.code, found.detail) for found in error.faults]
        raise type(error)(error.detail, code=error.problem_code, faults=faults, members=error.members) from None


async def _page(request: Request, blob_id: str, show: Any, *, status: str | None) -> Response:
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    identifier = path_id(blob_id, "blob_id")
    await ports.blobs.exists(identity.user_id, identifier)
    from_version = query_int(request, "from_version", low=0, high=VERSION_MAX, default=0)
    filters = {"from_version": request.query_params.get("from_version")}
    if show is delta_json:
        filters["status"] = request.query_params.get("status")
    wanted = page_request(request, ports.cursors, identity.user_id, filters)
    after = None if wanted.after is None else (int(wanted.after[0]), UUID(wanted.after[1]))
    rows = await ports.deltas.page(
        identity.user_id,
        identifier,
        limit=wanted.limit + 1,
        after=after,
        from_version=from_version or 0,
        status=status,
    )
    return page_response(
        request, ports.cursors, wanted, rows, lambda row: (row["to_version"], str(row["id"])), show=show
    )


@router.get("/blobs/{blob_id}/versions/{version}", operation_id="blobs_version", responses={200: {"model": Blob}})
async def version_of(request: Request, blob_id: str, version: str) -> Response:
    """Read a blob as it was at one version; deletion does not hide it."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    identifier = path_id(blob_id, "blob_id")
    number = whole(version, high=VERSION_MAX)
    if number is None:
        raise fault("/path/version", "invalid_value", "A version is a whole number.")
    blob = await ports.blobs.get(identity.user_id, identifier, number)
    tag = etag(blob.version)
    if not_modified(request, tag):
        return Response(status_code=304, headers={"ETag": tag})
    return answer(blob_json(request, blob), headers={"ETag": tag})


@router.get("/deltas/{delta_id}", operation_id="deltas_get", responses={200: {"model": Delta}})
async def get(request: Request, delta_id: str) -> Response:
    """Read one delta with its patch and its inverse."""
    ports, identity = ports_of(request), await allow(request, "blobs:read")
    return answer(delta_json(dict(await ports.deltas.get(identity.user_id, path_id(delta_id, "delta_id")))))
