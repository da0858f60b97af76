"""Proposed deltas decided: accepted, then they are applied; or rejected, then they only are in the history."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.auth import Identity, allow
from api.bodies import path_id
from api.checks import cutoff_of, require_schema, schema_of, state_of
from api.concurrency import apart, asked_policy
from api.deltas import delta_answer
from api.deps import Ports, ports_of
from api.idempotency import Attempt, once
from api.openapi import ON_CONFLICT, parameters
from api.shapes import Delta
from api.writing import ATTEMPTS_MAX, finished
from domain.blobs import BlobSchema, BlobView, NewDelta, NewProposal, Proposal, unknown_content
from domain.concurrency import ConflictPolicy, Resolution, merged, overwritten
from domain.deltas import DeltaDraft, DeltaOperation, DeltaStatus, rewrite
from domain.documents import Document, content_size
from domain.errors import Conflict, Gone

router = APIRouter(prefix="/deltas", tags=["proposals"])


@router.post(
    "/{delta_id}/accept",
    operation_id="deltas_accept",
    responses={200: {"model": Delta, "description": "The delta, applied"}},
    openapi_extra=parameters(ON_CONFLICT),
)
async def accept(request: Request, delta_id: str) -> Response:
    """Apply a proposed delta, merged with what came since; where that clashes: 409, or as ``on_conflict`` says."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(delta_id, "delta_id")

    async def work(attempt: Attempt) -> Response:
        for _ in range(ATTEMPTS_MAX):
            proposal = await ports.proposals.get(identity.user_id, identifier)
            if proposal is None:
                return await _decided(ports, identity, identifier, DeltaStatus.APPLIED)
            blob = await ports.blobs.living(identity.user_id, proposal.blob_id)
            accepting = _Accepting(ports, identity, proposal, blob, attempt)
            if await accepting.done(asked_policy(request)):
                return await delta_answer(ports, identity, identifier, 200)
        raise Conflict("Others change the blob all the time; try again.", code="version_conflict")

    return await finished(request, ports, identity, await once(request, ports, identity.user_id, work))


@router.post(
    "/{delta_id}/reject",
    operation_id="deltas_reject",
    responses={200: {"model": Delta, "description": "The delta, rejected"}},
)
async def reject(request: Request, delta_id: str) -> Response:
    """Turn a proposed delta down: the blob stays as it is, and what waited for the decision goes on."""
    ports, identity = ports_of(request), await allow(request, "blobs:write")
    identifier = path_id(delta_id, "delta_id")

    async def work(_attempt: Attempt) -> Response:
        await ports.proposals.reject(identity.user_id, identifier, identity.actor)
        ports.bell.ring()
        return await _decided(ports, identity, identifier, DeltaStatus.REJECTED)

    return await once(request, ports, identity.user_id, work)


async def _decided(ports: Ports, identity: Identity, delta_id: UUID, wanted: DeltaStatus) -> Response:
    """Answer a delta that has been decided this way, whoever did it; raises Conflict ``already_decided``."""
    row = await ports.deltas.get(identity.user_id, delta_id)
    if row["status"] != wanted:
        raise Conflict(
            f"The delta is {row['status']}.", code="already_decided", members={"delta_status": row["status"]}
        )
    return await delta_answer(ports, identity, delta_id, 200)


class _Accepting:
    """One proposal against the blob as it is."""

    def __init__(self, ports: Ports, identity: Identity, proposal: Proposal, blob: BlobView, attempt: Attempt) -> None:
        self._ports = ports
        self._identity = identity
        self._proposal = proposal
        self._blob = blob
        self._attempt = attempt

    async def done(self, asked: str | None) -> bool:
        """Apply it; False if somebody changed the blob, or decided, meanwhile."""
        schema = await schema_of(self._ports, self._identity.user_id, self._blob.schema_id)
        size = max(self._blob.read_bytes, content_size(self._proposal.theirs))
        resolution = await apart(partial(self._resolution, asked, schema), size)
        if resolution.conflicts and (asked in {None, ConflictPolicy.REJECT} or resolution.draft is None):
            raise self._conflict(resolution)
        user_id, delta_id = self._identity.user_id, self._proposal.delta_id
        if resolution.draft is None:  # it says what the blob says already
            await self._ports.proposals.reject(user_id, delta_id, self._identity.actor)
            self._ports.bell.ring()
            return True
        done = await self._ports.deltas.accept(self._delta(resolution, resolution.draft, schema))
        if done.status == "deleted":
            raise Gone("The blob was deleted meanwhile.", members={"current_version": done.version})
        if done.status == "unknown_content":
            raise unknown_content(resolution.draft.document)
        self._ports.bell.ring()
        return done.status == "applied"

    def _resolution(self, asked: str | None, schema: BlobSchema) -> Resolution:
        current, theirs = state_of(self._blob), self._proposal.theirs

        def check(document: Document) -> None:
            require_schema(schema, document)

        if self._proposal.from_version == self._blob.version:
            check(theirs)
            return Resolution(draft=rewrite(current, theirs, operation=DeltaOperation.UPDATE))
        if asked == ConflictPolicy.LAST_WRITE_WINS:
            return overwritten(self._proposal.base, current, theirs, check=check)
        return merged(self._proposal.base, current, theirs, definition=schema.definition, check=check)

    def _conflict(self, resolution: Resolution) -> Conflict:
        members = {
            "conflicts": list(resolution.conflicts),
            "current_version": self._blob.version,
            "from_version": self._proposal.from_version,
        }
        detail = f"The blob has changed in {len(resolution.conflicts)} place(s) that the delta changes as well: "
        detail += "on_conflict=last_write_wins takes the delta's side; or reject it."
        return Conflict(detail, code="merge_conflict", members=members)

    def _delta(self, resolution: Resolution, draft: DeltaDraft, schema: BlobSchema) -> NewDelta:
        blob, identity = self._blob, self._identity
        return NewDelta(
            user_id=identity.user_id,
            blob_id=blob.id,
            delta_id=self._proposal.delta_id,
            cascade_id=self._attempt.id("cascade"),
            draft=draft,
            cutoff_hash=cutoff_of(schema, draft.document, volatile=blob.volatile),
            actor=identity.actor,
            kept_version=blob.kept_version,
            patch_bytes=blob.patch_bytes,
            external=blob.external,
            conflicts=resolution.conflicts,
            aside=self._aside(resolution, schema),
        )

    def _aside(self, resolution: Resolution, schema: BlobSchema) -> NewProposal | None:
        aside = resolution.aside
        if aside is None:
            return None
        return NewProposal(
            user_id=self._identity.user_id,
            blob_id=self._blob.id,
            delta_id=self._attempt.id("aside"),
            draft=aside.draft,
            cutoff_hash=cutoff_of(schema, aside.draft.document, volatile=self._blob.volatile),
            actor=self._identity.actor,
            status=aside.status,
            base_version=self._proposal.from_version,
            conflicts=resolution.conflicts,
            answers=self._proposal.delta_id,
        )
