"""Who is asking: ``Authorization: Bearer mst_live_…``, looked up by hash, with scopes and expiry.

Lookups are kept in the process for ``api.key_cache`` (a few seconds), so a revoked key works at most that much
longer. Unknown keys are remembered as well, so that guessing costs the database nothing.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import Depends, Request

from api.queries import require_documented
from domain.errors import Forbidden, Unauthenticated
from domain.keys import KEY_CHARACTERS_MAX, key_hash, key_is_mistyped

CACHE_ENTRIES_MAX = 10_000


class KnownKey(Protocol):
    """A stored key and its user."""

    @property
    def user_id(self) -> UUID:
        """Whose key it is."""
        ...

    @property
    def key_id(self) -> UUID:
        """The key's own id."""
        ...

    @property
    def name(self) -> str:
        """The user's name."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """The user's roles."""
        ...

    @property
    def scopes(self) -> frozenset[str]:
        """What the key allows."""
        ...

    @property
    def expires_at(self) -> datetime | None:
        """When it stops working; None: never."""
        ...

    @property
    def revoked_at(self) -> datetime | None:
        """When it was revoked; None: it was not."""
        ...


class KeyLookup(Protocol):
    """Finds a key by its hash."""

    async def by_key_hash(self, digest: bytes) -> KnownKey | None:
        """Return the key with this SHA-256, expired and revoked ones included, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """The user behind a request and what the key allows."""

    user_id: UUID
    key_id: UUID
    name: str
    roles: tuple[str, ...]
    scopes: frozenset[str]
    expires_at: datetime | None

    @property
    def actor(self) -> str:
        """How deltas, cascades and logs name this person."""
        return f"user:{self.user_id}"


Entry = tuple[float, Identity | None, bool]
"""Until when it holds, whose key it is, whether it was revoked."""


class Authenticator:
    """Turns a key into an identity, asking the database at most once per key and cache period."""

    def __init__(self, lookup: KeyLookup, cache_seconds: float) -> None:
        self._lookup = lookup
        self._cache_seconds = cache_seconds
        self._known: OrderedDict[bytes, Entry] = OrderedDict()

    async def identify(self, key: str) -> Identity:
        """Return who holds this key; raises Unauthenticated if it is unknown, expired or revoked."""
        digest = key_hash(key)
        entry = self._known.get(digest)
        if entry is None or entry[0] <= time.monotonic():
            entry = await self._looked_up(key, digest)
        _, identity, revoked = entry
        if identity is None:
            raise Unauthenticated("Nobody has this API key.", code="invalid_credentials")
        if revoked or (identity.expires_at is not None and identity.expires_at <= datetime.now(UTC)):
            raise Unauthenticated("The API key has expired or was revoked.", code="expired_credentials")
        return identity

    def forget(self) -> None:
        """Ask the database again for every key: after this process itself revoked one."""
        self._known.clear()

    async def _looked_up(self, key: str, digest: bytes) -> Entry:
        if len(key) > KEY_CHARACTERS_MAX or key_is_mistyped(key):
            raise Unauthenticated("The API key is mistyped: its checksum is wrong.", code="invalid_credentials")
        until = time.monotonic() + self._cache_seconds
        known = await self._lookup.by_key_hash(digest)
        identity = None
        if known is not None:
            identity = Identity(known.user_id, known.key_id, known.name, known.roles, known.scopes, known.expires_at)
        entry = (until, identity, known is not None and known.revoked_at is not None)
        self._known[digest] = entry
        self._known.move_to_end(digest)
        while len(self._known) > CACHE_ENTRIES_MAX:
            self._known.popitem(last=False)
        return entry


def bearer_of(request: Request) -> str:
    """Return the credential of a request; raises Unauthenticated if there is none of the right kind."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("The request has no Authorization: Bearer header.")
    return key


async def identified(request: Request) -> Identity:
    """Return who sends this request."""
    authenticator: Authenticator = request.app.state.authenticator
    identity = await authenticator.identify(bearer_of(request))
    request.scope["state"]["user_id"] = str(identity.user_id)
    request.scope["state"]["principal"] = identity.key_id
    return identity


def require(identity: Identity, scope: str) -> None:
    """Raise Forbidden, naming the scope, unless the key allows it."""
    if scope not in identity.scopes:
        raise Forbidden(f"The API key lacks the scope {scope}.", members={"required_scope": scope})


async def allow(request: Request, scope: str) -> Identity:
    """Return who sends this request if the key has ``scope``; refuses a write's unknown query parameters."""
    identity = await identified(request)
    require(identity, scope)
    require_documented(request)
    return identity


def scoped(scope: str) -> Callable[[Request], Awaitable[Identity]]:
    """Make a dependency that lets in whoever has ``scope``."""

    async def holder(request: Request) -> Identity:
        return await allow(request, scope)

    return holder


Caller = Annotated[Identity, Depends(identified)]
"""Anybody with a valid key."""
Reader = Annotated[Identity, Depends(scoped("blobs:read"))]
"""Reads blobs, catalogue, runs, cascades, events."""
Writer = Annotated[Identity, Depends(scoped("blobs:write"))]
"""Writes blobs and buckets."""
Registrar = Annotated[Identity, Depends(scoped("providers:write"))]
"""Registers schemas, workflows, providers."""
Executor = Annotated[Identity, Depends(scoped("providers:execute"))]
"""Asks for runs."""
Controller = Annotated[Identity, Depends(scoped("runs:control"))]
"""Cancels, retries, approves, rejects; sets a budget."""
Admin = Annotated[Identity, Depends(scoped("admin"))]
"""Makes users, reads metrics."""
