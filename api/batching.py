"""Writing a batch: decide its items, write them in one transaction, decide again those that others came before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from api.auth import Identity
from api.bodies import answer, etag
from api.concurrency import Wanted, overtaken
from api.deps import Ports
from api.idempotency import Attempt, Keep
from api.preconditions import moved_on
from api.problems import problem_body
from api.wire import blob_url, cascade_link
from api.writing import cutoff_of, require_schema, schema_of, state_of
from domain.batches import CHANGED_BYTES_MAX, Batch, BatchRow, Creation, Edit, Verdict, at_item
from domain.blobs import BlobSchema, BlobView, unknown_content
from domain.deltas import DeltaDraft
from domain.documents import content_hash, content_size
from domain.errors import Fault, Forbidden, Gone, Invalid, NotFound, StudioError, TooLarge, Unavailable
from domain.quotas import quota_exceeded

ATTEMPTS_MAX = 5
"""How often a batch is decided again because others came first; then their items are refused."""


@dataclass(slots=True)
class Work:
    """A batch on its way: what is still to be decided, what is decided, and what became of items."""

    ports: Ports
    identity: Identity
    attempt: Attempt
    cascade_id: UUID
    atomic: bool
    wanted: dict[int, Creation | Edit] = field(default_factory=dict)
    rows: dict[int, BatchRow] = field(default_factory=dict)
    done: dict[int, Verdict] = field(default_factory=dict)
    """Items that are written, or change nothing."""
    refused: dict[int, StudioError] = field(default_factory=dict)

    def refuse(self, index: int, error: StudioError) -> None:
        """Let an item fail; in an atomic batch, all of it."""
        if self.atomic:
            raise error
        self.refused[index] = error
        self.wanted.pop(index, None)
        self.rows.pop(index, None)


async def written(request: Request, work: Work, count: int) -> Response:
    """Decide, write, and decide again what others came before; the answer is recorded with what it tells of."""

    def render(verdicts: Sequence[Verdict]) -> Response:
        written = any(verdict.status == "ok" for verdict in verdicts)
        return _answered(request, work, verdicts, count, written=written)

    keep: Keep[Sequence[Verdict]] = work.attempt.keep(render)
    for attempt in range(1, ATTEMPTS_MAX + 1):
        await _decide(work)
        await _require_room(work)
        if not work.rows:
            return render([])
        last = attempt == ATTEMPTS_MAX
        verdicts = await _tried(work, keep, strict=work.atomic or not last)
        if verdicts is None:
            continue
        if all(verdict.stands for verdict in verdicts) or (last and not work.atomic):
            if not any(verdict.status == "ok" for verdict in verdicts):
                return render(verdicts)
            work.ports.bell.ring()
            return keep.response
        for verdict in verdicts:
            if not verdict.stands and (last or not _again(work, verdict)):
                work.refuse(verdict.index, _refusal(work, verdict))
    raise Unavailable("Others write the same faster than this batch can be decided.")


async def _tried(work: Work, keep: Keep[Sequence[Verdict]], *, strict: bool) -> Sequence[Verdict] | None:
    return await work.ports.batches.write(
        Batch(
            user_id=work.identity.user_id,
            cascade_id=work.cascade_id,
            actor=work.identity.actor,
            rows=[work.rows[index] for index in sorted(work.rows)],
            idempotency_key=work.attempt.key,
        ),
        strict=strict,
        keep=keep,
    )


def _again(work: Work, verdict: Verdict) -> bool:
    """Whether an edit is to be decided again on the newer version, to be refused there if it names another one."""
    if verdict.status != "conflict":
        return False
    work.rows.pop(verdict.index, None)
    return True


async def _decide(work: Work) -> None:
    """Decide what is not decided, against the blobs as they are."""
    open_items = [item for index, item in work.wanted.items() if index not in work.rows and index not in work.done]
    edits = {item.blob_id: item for item in open_items if isinstance(item, Edit)}
    for item in open_items:
        if isinstance(item, Creation):
            work.rows[item.index] = _row_of_creation(item)
            await asyncio.sleep(0)  # a thousand of them would keep all others waiting
    left, total = list(edits), 0
    while left:
        views, cut = await work.ports.blobs.many(work.identity.user_id, left)
        total += sum(view.read_bytes for view in views)
        if total > CHANGED_BYTES_MAX:
            raise TooLarge(
                f"The blobs that a batch changes have at most {CHANGED_BYTES_MAX} bytes together; send less."
            )
        for view in views:
            await _decide_edit(work, edits.pop(view.id), view)
            await asyncio.sleep(0)
        left = left[left.index(views[-1].id) + 1 :] if cut else []
    for item in edits.values():
        work.refuse(item.index, at_item(NotFound("There is no such blob."), item.index, "/id"))


def _row_of_creation(item: Creation) -> BatchRow:
    return BatchRow(
        index=item.index,
        op="create",
        blob_id=item.blob_id,
        delta_id=item.delta_id,
        schema_id=item.schema.slug,
        document=item.document,
        cutoff_hash=cutoff_of(item.schema, item.document),
        content_hash=content_hash(item.document),
        growth=content_size(item.document),
        parent_id=item.parent_id,
        bucket_ids=item.bucket_ids,
    )


async def _decide_edit(work: Work, item: Edit, view: BlobView) -> None:
    user_id = work.identity.user_id
    if item.from_version not in {None, view.version} and not view.deleted:
        error = await overtaken(work.ports, user_id, view, Wanted(version=item.from_version))
        work.refuse(item.index, at_item(error, item.index, "/from_version"))
        return
    schema = await schema_of(work.ports, user_id, view.schema_id)
    try:
        draft = _draft(item, view, schema)
    except StudioError as refusal:
        member = "/id" if refusal.problem_code == "deleted" else "/patch"
        work.refuse(item.index, at_item(refusal, item.index, member))
        return
    if draft is None:
        work.done[item.index] = Verdict(item.index, "unchanged", view.version)
        return
    work.rows[item.index] = BatchRow(
        index=item.index,
        op=item.op,
        blob_id=item.blob_id,
        delta_id=item.delta_id,
        schema_id=view.schema_id,
        document=draft.document,
        cutoff_hash=cutoff_of(schema, draft.document, volatile=view.volatile),
        content_hash=draft.content_hash,
        growth=content_size(draft.document) - view.size,
        draft=draft,
        kept_version=view.kept_version,
        patch_bytes=view.patch_bytes,
        external=view.external,
    )


def _draft(item: Edit, view: BlobView, schema: BlobSchema) -> DeltaDraft | None:
    if view.deleted:
        raise _gone(view.version)
    draft = item.decide(state_of(view))
    if draft is not None and item.patch is not None:
        try:
            require_schema(schema, draft.document)
        except Invalid as error:
            raise item.patch.relocated(error) from None
    return draft


async def _require_room(work: Work) -> None:
    """Refuse what does not fit, before anything goes to the object store; the write is checked again."""
    usage = (await work.ports.users.state(work.identity.user_id)).usage
    left = usage.free
    if left is None:
        return
    known = {item.blob_id for item in work.wanted.values() if isinstance(item, Creation) and item.keyed}
    there = await work.ports.batches.present(work.identity.user_id, list(known)) if known else set()
    for index in sorted(work.rows):
        row = work.rows[index]
        growth = 0 if row.blob_id in there else row.growth
        if growth > 0 and growth > left:
            work.refuse(index, at_item(quota_exceeded(usage, growth), index))
        else:
            left -= growth


def _moved(item: Edit, version: int) -> StudioError:
    return moved_on(
        version, f"{blob_url(item.blob_id)}/deltas?from_version={item.from_version or version}", by_header=False
    )


def _gone(version: int) -> Gone:
    return Gone("The blob was deleted.", members={"current_version": version})


def _refusal(work: Work, verdict: Verdict) -> StudioError:
    """Say why the store did not write an item."""
    item, status = work.wanted[verdict.index], verdict.status
    if status == "conflict" and isinstance(item, Edit):
        pointer, error = "/from_version", _moved(item, verdict.version)
    elif status == "deleted":
        pointer, error = "/key" if isinstance(item, Creation) else "/id", _gone(verdict.version)
    elif status == "not_found":
        pointer, error = "/id", NotFound("There is no such blob.")
    elif status == "key_reused":
        pointer, error = "", _invalid("/key", "idempotency_key_reused", "The key made another document before.")
    elif status == "unknown_content":
        pointer, error = "", unknown_content(work.rows[verdict.index].document)
    elif status == "over_quota":
        pointer, error = "", Forbidden("There is no room for it.", code="storage_quota_exceeded")
    else:
        pointer, error = "", _unknown(item, verdict)
    return at_item(error, verdict.index, pointer)


def _unknown(item: Creation | Edit, verdict: Verdict) -> Invalid:
    if verdict.status == "unknown_parent" or not isinstance(item, Creation):
        return _invalid("/parent_id", "not_found", f"There is no blob {verdict.about}.", code="invalid_request")
    place = [str(bucket_id) for bucket_id in item.bucket_ids].index(str(verdict.about))
    return _invalid(f"/bucket_ids/{place}", "not_found", f"There is no bucket {verdict.about}.", code="invalid_request")


def _invalid(pointer: str, fault_code: str, detail: str, *, code: str | None = None) -> Invalid:
    return Invalid(detail, code=code or fault_code, faults=[Fault(pointer, fault_code, detail)])


def _answered(request: Request, work: Work, verdicts: Sequence[Verdict], count: int, *, written: bool) -> Response:
    by_index = {verdict.index: verdict for verdict in verdicts} | work.done
    results = []
    for index in range(count):
        verdict = by_index.get(index)
        if verdict is not None and (verdict.stands or verdict.status == "unchanged"):
            results.append(_shown(work.wanted[index], verdict))
        else:
            error = work.refused.get(index) or _refusal(work, by_index[index])
            body = problem_body(request, error)
            results.append({"index": index, "status": body["status"], "problem": body})
    cascade = work.cascade_id if written else None
    headers = {} if cascade is None else {"Link": cascade_link(cascade)}
    return answer({"cascade_id": cascade, "results": results}, headers=headers)


def _shown(item: Creation | Edit, verdict: Verdict) -> dict[str, Any]:
    status = HTTPStatus.OK
    if verdict.status == "ok" and isinstance(item, Creation):
        status = HTTPStatus.CREATED
    elif isinstance(item, Edit) and item.patch is None:
        status = HTTPStatus.NO_CONTENT
    return {
        "index": item.index,
        "status": int(status),
        "id": item.blob_id,
        "version": verdict.version,
        "etag": etag(verdict.version),
    }
