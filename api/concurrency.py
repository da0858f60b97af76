"""A write of a version that is not the newest any more: refused, with what has changed since, or resolved."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import UUID

from fastapi import Request

from api.auth import Identity
from api.bodies import fault
from api.deps import Ports
from api.preconditions import IfMatch, moved_on
from api.wire import blob_url
from domain.blobs import BlobSchema, BlobView
from domain.concurrency import ConflictPolicy, Resolution, merged, overwritten
from domain.deltas import DeltaDraft, State
from domain.documents import Document
from domain.errors import NotFound, StudioError

THREAD_BYTES_MIN = 65_536
"""Larger contents are compared and merged beside the event loop: of megabytes that takes seconds."""

Made = TypeVar("Made")
Decide = Callable[[BlobView], DeltaDraft | None]
"""Decides a delta against the blob at a version; None: nothing changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a client said about versions: by header, in its body, and what is to be done if it knew an older one."""

    match: IfMatch | None = None
    version: int | None = None
    policy: ConflictPolicy = ConflictPolicy.REJECT
    inside: str = ""
    """Where in the body ``from_version`` and ``on_conflict`` are."""

    @property
    def by_header(self) -> bool:
        """Whether the header names versions; it is 412 then, else 409."""
        return self.match is not None and not self.match.any

    @property
    def named(self) -> bool:
        """Whether any version was named."""
        return self.by_header or self.version is not None

    def allows(self, current: int) -> bool:
        """Tell whether a blob at this version is the one that the client knew."""
        return (self.match is None or self.match.allows(current)) and self.version in {None, current}

    @property
    def known(self) -> int:
        """The newest version that the client named; 0 if it named none of ours."""
        by_header = self.match.versions if self.match is not None else frozenset()
        return max(by_header | ({self.version} if self.version is not None else set()), default=0)


def asked_policy(request: Request, stated: str | None = None, *, inside: str = "") -> str | None:
    """Return ``?on_conflict=`` or what the body stated; raises Invalid ``invalid_value``."""
    asked = request.query_params.get("on_conflict", stated)
    if asked is not None and asked not in set(ConflictPolicy):
        pointer = "/query/on_conflict" if "on_conflict" in request.query_params else f"{inside}/on_conflict"
        raise fault(pointer, "invalid_value", f"on_conflict is one of {', '.join(ConflictPolicy)}.")
    return asked


async def apart(work: Callable[[], Made], size: int) -> Made:
    """Return what the work makes; of contents of so many bytes others do not wait for it."""
    return await asyncio.to_thread(work) if size >= THREAD_BYTES_MIN else work()


async def resolved(
    ports: Ports,
    identity: Identity,
    blob: BlobView,
    wanted: Wanted,
    *,
    decide: Decide,
    schema: BlobSchema,
    check: Callable[[Document], object],
    size: int,
) -> Resolution:
    """Return what to write of a client's change to the blob as it is.

    ``size`` is about how large what is compared is, in bytes.

    Raises 412 or 409 if the client knew another version and the policy is ``reject``, Invalid ``unknown_version`` if
    there never was the one that it names.
    """
    if wanted.allows(blob.version):
        return Resolution(draft=await apart(partial(decide, blob), size))
    if wanted.policy is ConflictPolicy.REJECT or not wanted.named:
        raise await overtaken(ports, identity.user_id, blob, wanted)
    base = await _base(ports, identity, blob, wanted)
    draft = await apart(partial(decide, base), size)
    if draft is None:
        return Resolution(draft=None)
    current = State(document=blob.document, version=blob.version, deleted=blob.deleted)
    if wanted.policy is ConflictPolicy.LAST_WRITE_WINS:
        return await apart(partial(overwritten, base.document, current, draft.document, check=check), size)
    merging = partial(merged, base.document, current, draft.document, definition=schema.definition, check=check)
    return await apart(merging, size)


async def _base(ports: Ports, identity: Identity, blob: BlobView, wanted: Wanted) -> BlobView:
    try:
        return await ports.blobs.get(identity.user_id, blob.id, wanted.known)
    except NotFound:
        pointer = "/header/if-match" if wanted.by_header else f"{wanted.inside}/from_version"
        raise fault(pointer, "unknown_version", f"The blob has versions 1 to {blob.version}.") from None


async def overtaken(ports: Ports, user_id: UUID, blob: BlobView, wanted: Wanted) -> StudioError:
    """Return the error of a stale version; it says what has changed since, and by whom."""
    since = wanted.known if wanted.known < blob.version else 0
    error = moved_on(blob.version, f"{blob_url(blob.id)}/deltas?from_version={since}", by_header=wanted.by_header)
    error.members["changes"] = await ports.deltas.changes(user_id, blob.id, since)
    return error
