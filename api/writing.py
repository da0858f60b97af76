"""What every write of a blob does between the request and the store: the loop over versions, and the answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from uuid import UUID

from fastapi import Request
from starlette.responses import Response

from api.auth import Identity
from api.bodies import answer, etag
from api.checks import (
    SCHEMA_OF_DATA,
    SCHEMA_OF_TEXT,
    cutoff_of,
    require_schema,
    schema_of,
    state_of,
)
from api.concurrency import Decide, Wanted, asked_policy, overtaken, resolved
from api.deps import Ports
from api.idempotency import Attempt
from api.preconditions import IfMatch
from api.quotas import require_room
from api.streams import declared_size
from api.waiting import waited
from api.wire import blob_json, blob_url, cascade_link
from domain.blobs import Appended, BlobSchema, BlobView, LostSide, NewDelta, NewProposal, unknown_content
from domain.concurrency import Resolution, policy_of
from domain.deltas import DeltaDraft
from domain.documents import content_size, preview
from domain.errors import Gone, NotFound
from domain.uploads import Landing

__all__ = [
    "SCHEMA_OF_DATA",
    "SCHEMA_OF_TEXT",
    "Decide",
    "Show",
    "Written",
    "advanced",
    "change",
    "changed",
    "cutoff_of",
    "finished",
    "require_schema",
    "respond",
    "schema_of",
    "state_of",
]

ATTEMPTS_MAX = 100
"""How often an edit that may be is decided again because another one came first."""
_CASCADE = re.compile(r'/cascades/([0-9a-f-]{36})>; rel="cascade"')


async def change(
    request: Request,
    ports: Ports,
    identity: Identity,
    blob: BlobView,
    attempt: Attempt,
    *,
    decide: Decide,
    match: IfMatch | None = None,
    pinned: int | None = None,
    stated: str | None = None,
    inside: str = "/delta",
    merges: bool = True,
    status: int = 200,
    landing: Landing | None = None,
    show: Show | None = None,
) -> Response:
    """Decide and append one delta; decide again if another came first, as far as the client's policy lets it.

    ``pinned`` is the version that the body names, ``stated`` the policy that it asks for, both at ``inside``. What
    does not merge (``merges``), or ends an upload, is refused if it knew an older version. ``show`` makes the answer.

    Raises 412 if ``match`` does not allow the current version, 409 if the body named it, both with what has changed.
    """
    schema = await schema_of(ports, identity.user_id, blob.schema_id)
    wanted = Wanted(match=match, version=pinned or None, inside=inside)
    if merges and landing is None:
        wanted = replace(wanted, policy=policy_of(asked_policy(request, stated, inside=inside), schema.definition))
    writing = _Writing(
        request=request,
        ports=ports,
        identity=identity,
        attempt=attempt,
        decide=decide,
        wanted=wanted,
        schema=schema,
        status=status,
        landing=landing,
        show=show or show_blob,
        delta_id=attempt.id("delta"),
        cascade_id=attempt.id("cascade"),
        aside_id=attempt.id("aside"),
    )
    return await writing.run(blob)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writing:
    """One change under way."""

    request: Request
    ports: Ports
    identity: Identity
    attempt: Attempt
    decide: Decide
    wanted: Wanted
    schema: BlobSchema
    status: int
    landing: Landing | None
    show: Show
    delta_id: UUID
    cascade_id: UUID
    aside_id: UUID

    async def run(self, blob: BlobView) -> Response:
        """Write until it is written or refused."""
        response = await self._tried(blob)
        if response is not None:
            return response
        # Many write at once: one after the other, each decides against what the last one left.
        async with self.ports.deltas.turn(blob.id):
            for _ in range(ATTEMPTS_MAX):
                read = self.ports.blobs.get if blob.deleted else self.ports.blobs.living
                blob = await read(self.identity.user_id, blob.id)
                response = await self._tried(blob)
                if response is not None:
                    return response
        raise await overtaken(self.ports, self.identity.user_id, blob, self.wanted)

    async def _tried(self, blob: BlobView) -> Response | None:
        """Decide against the blob as it is, and write; None if somebody else was faster."""
        resolution = await resolved(
            self.ports,
            self.identity,
            blob,
            self.wanted,
            decide=self.decide,
            schema=self.schema,
            check=partial(require_schema, self.schema),
            size=max(blob.read_bytes, declared_size(self.request) or 0),
        )
        aside = self._aside(blob, resolution)
        if resolution.draft is None:
            if aside is not None and not await self._proposed(aside):
                return None
            return await self.show(self.request, Written(blob, self.status, None, resolution.conflicts, aside))
        reserved = self.landing.reserved if self.landing else 0
        growth = content_size(resolution.draft.document) - blob.size - reserved
        await require_room(self.ports, self.identity.user_id, growth)
        before = self.landing.before if self.landing else None
        done = await self.ports.deltas.append(self._delta(blob, resolution, resolution.draft, aside), before=before)
        if done.status != "applied":
            return await self._overtaken(done, resolution.draft)
        self.ports.bell.ring()
        after = advanced(blob, resolution.draft, done)
        return await self.show(self.request, Written(after, self.status, done.cascade_id, resolution.conflicts, aside))

    async def _proposed(self, aside: NewProposal) -> bool:
        """Keep the side that lost by itself; False if the blob was deleted meanwhile."""
        status = await self.ports.proposals.propose(aside)
        if status == "unknown_content":
            raise unknown_content(aside.draft.document)
        self.ports.bell.ring()
        return status in {aside.status, "done"}

    async def _overtaken(self, done: Appended, draft: DeltaDraft) -> Response | None:
        if done.status == "not_found":
            raise NotFound("There is no such blob.")
        if done.status == "unknown_content":
            raise unknown_content(draft.document)
        # The one that came first may be this very request, taken over from an attempt that was still under way.
        user_id = self.identity.user_id
        if self.attempt.keyed and (own := await self.ports.deltas.outcome(user_id, self.delta_id)):
            return await changed(
                self.request, self.ports, self.identity, own.blob_id, own.version, status=self.status, show=self.show
            )
        if done.status == "deleted":
            raise Gone("The blob was deleted meanwhile.", members={"current_version": done.version})
        return None

    def _delta(self, blob: BlobView, resolution: Resolution, draft: DeltaDraft, aside: NewProposal | None) -> NewDelta:
        return NewDelta(
            user_id=self.identity.user_id,
            blob_id=blob.id,
            delta_id=self.delta_id,
            cascade_id=self.cascade_id,
            draft=draft,
            cutoff_hash=cutoff_of(self.schema, draft.document, volatile=blob.volatile),
            actor=self.identity.actor,
            kept_version=blob.kept_version,
            patch_bytes=blob.patch_bytes,
            external=blob.external,
            idempotency_key=self.attempt.key,
            reserved=self.landing.reserved if self.landing else 0,
            base_version=None if self.wanted.allows(blob.version) else self.wanted.known,
            conflicts=resolution.conflicts,
            aside=aside,
        )

    def _aside(self, blob: BlobView, resolution: Resolution) -> NewProposal | None:
        """Return the side that lost, as it is stored beside the delta, or alone if nothing else is to be written."""
        aside = resolution.aside
        if aside is None:
            return None
        return NewProposal(
            user_id=self.identity.user_id,
            blob_id=blob.id,
            delta_id=self.aside_id,
            draft=aside.draft,
            cutoff_hash=cutoff_of(self.schema, aside.draft.document, volatile=blob.volatile),
            actor=self.identity.actor,
            status=aside.status,
            base_version=self.wanted.known,
            conflicts=resolution.conflicts,
            answers=None if resolution.draft is None else self.delta_id,
        )


async def changed(
    request: Request,
    ports: Ports,
    identity: Identity,
    blob_id: UUID,
    version: int,
    *,
    status: int,
    show: Show | None = None,
) -> Response:
    """Answer a write that an earlier attempt of the same request has done."""
    blob = await ports.blobs.get(identity.user_id, blob_id, version)
    blob = replace(blob, current_version=version)
    conflicts, aside = await ports.deltas.resolution(identity.user_id, blob_id, version)
    return await (show or show_blob)(request, Written(blob, status, blob.cascade_id, conflicts, aside))


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


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write: the blob as it is now, where it clashed with others, and the side that lost."""

    blob: BlobView
    status: int
    cascade_id: UUID | None
    conflicts: Sequence[Mapping[str, Any]] = ()
    aside: NewProposal | LostSide | None = None

    @property
    def disputed(self) -> dict[str, Any]:
        """What an answer says about conflicts: nothing without any."""
        if not self.conflicts:
            return {}
        said: dict[str, Any] = {"conflicts": list(self.conflicts)}
        if self.aside is not None:
            said[f"{self.aside.status}_delta"] = self.aside.delta_id
        return said


Show = Callable[[Request, Written], Awaitable[Response]]


async def show_blob(request: Request, written: Written) -> Response:
    """Answer a write with the blob."""
    return respond(request, written.blob, written.status, cascade_id=written.cascade_id, disputed=written.disputed)


def respond(
    request: Request,
    blob: BlobView,
    status: int,
    *,
    cascade_id: UUID | None = None,
    disputed: Mapping[str, Any] | None = None,
) -> Response:
    """Answer a write with the blob (204: without), its ETag, and the link of its cascade."""
    headers = {"ETag": etag(blob.version)}
    if cascade_id is not None:
        headers["Link"] = cascade_link(cascade_id)
    if status == 201:  # noqa: PLR2004 - created
        headers["Location"] = blob_url(blob.id)
    if status == 204:  # noqa: PLR2004 - no content
        return Response(status_code=204, headers=headers)
    return answer(blob_json(request, blob) | dict(disputed or {}), status, headers)


async def finished(request: Request, ports: Ports, identity: Identity, response: Response) -> Response:
    """Wait for the cascade of a write, if the client prefers to (``Prefer: wait=N``); the status stays."""
    if "prefer" not in request.headers:
        return response
    named = _CASCADE.search(response.headers.get("link", ""))
    if named is not None:
        response.headers.update(await waited(request, ports, identity.user_id, UUID(named[1])))
    return response
