"""Users, and who holds an API key: found by its hash before any user is set (policy ``api_keys_lookup``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from domain.errors import Conflict, Fault
from domain.ids import ApiKeyId, UserId
from domain.keys import key_hash, key_prefix
from storage.database import Database

_KEY = """
select user_id, id, scopes, expires_at, revoked_at from api_keys where key_hash = $1
"""

_USER = "insert into users (user_id, name, roles) values ($1, $2, $3) on conflict (user_id) do nothing"
_STATE = "insert into user_state (user_id) values ($1) on conflict do nothing"
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


class Users:
    """Making users."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
                await connection.execute(_STATE, user_id)
                await connection.execute(
                    _FIRST_KEY, user_id, key_id, key_hash(key), key_prefix(key), "first", list(scopes)
                )
        except asyncpg.UniqueViolationError:
            detail = f"There is a user {name!r} already."
            raise Conflict(detail, faults=[Fault("/name", "already_exists", detail)]) from None
