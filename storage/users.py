"""Users, and who holds an API key: found by its hash before any user is set (policy ``api_keys_lookup``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from domain.errors import Conflict, Fault, NotFound
from domain.ids import ApiKeyId, UserId
from domain.keys import key_hash, key_prefix
from domain.quotas import Usage
from storage.database import Database
from storage.idempotency import Keep, unkept

_KEY = """
select user_id, id, scopes, expires_at, revoked_at from api_keys where key_hash = $1
"""

_USER = "insert into users (user_id, name, roles) values ($1, $2, $3) on conflict (user_id) do nothing"
_STATE = "insert into user_state (user_id, bytes_quota) values ($1, $2) on conflict do nothing"
_READ_STATE = """
select blob_count, bytes_used, bytes_reserved, bytes_quota, event_seq, updated_at from user_state where user_id = $1
"""
_LIMIT = """
update user_state set bytes_quota = case when $2 then $3 else bytes_quota end,
  runs_limit = case when $4 then $5 else runs_limit end, updated_at = now()
where user_id = $1 returning bytes_used, bytes_reserved, bytes_quota, runs_limit
"""
_FIRST_KEY = """
insert into api_keys (user_id, id, key_hash, prefix, name, scopes) values ($1, $2, $3, $4, $5, $6)
on conflict (user_id, id) do nothing
"""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A stored key and its user."""

    user_id: UUID
    key_id: UUID
    name: str
    roles: tuple[str, ...]
    scopes: frozenset[str]
    expires_at: datetime | None
    revoked_at: datetime | None


class KeyHolders:
    """The holders of API keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_key_hash(self, digest: bytes) -> StoredKey | None:
        """Return the key with this SHA-256, expired and revoked ones included, or None."""
        async with self._database.connection() as connection, connection.transaction():
            await connection.execute("select set_config('app.key_hash', $1, true)", digest.hex())
            key = await connection.fetchrow(_KEY, digest)
            if key is None:
                return None
            await connection.execute("select studio_enter($1)", key["user_id"])
            user = await connection.fetchrow("select name, roles from users where user_id = $1", key["user_id"])
        if user is None:
            return None
        return StoredKey(
            user_id=key["user_id"],
            key_id=key["id"],
            name=user["name"],
            roles=tuple(user["roles"]),
            scopes=frozenset(key["scopes"]),
            expires_at=key["expires_at"],
            revoked_at=key["revoked_at"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserState:
    """What a user has: blobs that are not deleted, and bytes."""

    blob_count: int
    usage: Usage
    event_seq: int
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a user may have: bytes, and runs at a time (None: as the settings say)."""

    usage: Usage
    runs_limit: int | None


class Users:
    """Making users, and what they have and may have. ``quota_default`` is what new ones may store, in bytes."""

    def __init__(self, database: Database, *, quota_default: int | None = None) -> None:
        self._database = database
        self._quota_default = quota_default

    async def create(
        self,
        user_id: UserId,
        name: str,
        *,
        roles: Sequence[str],
        scopes: Sequence[str],
        key_id: ApiKeyId,
        key: str,
    ) -> None:
        """Make a user with a first key; again with the same ids (a retry) changes nothing.

        Raises Conflict ``already_exists`` if the name is taken.
        """
        try:
            async with self._database.transaction(user_id) as connection:
                await connection.execute(_USER, user_id, name, list(roles))
                await connection.execute(_STATE, user_id, self._quota_default)
                await connection.execute(
                    _FIRST_KEY, user_id, key_id, key_hash(key), key_prefix(key), "first", list(scopes)
                )
        except asyncpg.UniqueViolationError:
            detail = f"There is a user {name!r} already."
            raise Conflict(detail, faults=[Fault("/name", "already_exists", detail)]) from None

    async def state(self, user_id: UUID) -> UserState:
        """Return what a user has. Raises NotFound for an unknown one."""
        row = await self._database.row(user_id, _READ_STATE, user_id)
        if row is None:
            raise NotFound("There is no such user.")
        return UserState(
            blob_count=row["blob_count"],
            usage=_usage(row),
            event_seq=row["event_seq"],
            updated_at=row["updated_at"],
        )

    async def require_room(self, user_id: UUID, growth: int) -> None:
        """Raise Forbidden ``storage_quota_exceeded`` if so many bytes more do not fit as things stand.

        A look ahead, before bytes go to the object store; the write itself is checked under the lock.
        """
        if growth > 0:
            (await self.state(user_id)).usage.require(growth)

    async def limit(
        self, user_id: UUID, limits: Mapping[str, int | None], *, by: UUID, keep: Keep[Allowed] = unkept
    ) -> Allowed:
        """Set ``bytes_quota`` (None: no limit), ``runs_limit`` (None: as the settings say), or both.

        What is there stays, even over the new quota: then nothing can grow. Runs that wait for a place are offered what
        there is now. ``by`` is the admin who says so, whose answer ``keep`` keeps. Raises NotFound for an unknown user.
        """
        quota, runs = limits.get("bytes_quota"), limits.get("runs_limit")
        async with self._database.locked(user_id) as connection:
            row = await connection.fetchrow(
                _LIMIT, user_id, "bytes_quota" in limits, quota, "runs_limit" in limits, runs
            )  # fmt: skip
            if row is None:
                raise NotFound("There is no such user.")
            await connection.execute("select studio_offer($1)", user_id)
            allowed = Allowed(usage=_usage(row), runs_limit=row["runs_limit"])
            await connection.execute("select studio_enter($1)", by)
            await keep(connection, allowed)
        return allowed


def _usage(row: asyncpg.Record) -> Usage:
    return Usage(used=row["bytes_used"], reserved=row["bytes_reserved"], quota=row["bytes_quota"])
