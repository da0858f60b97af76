"""Finding who holds an API key: by its hash alone, before any user is set (policy ``api_keys_lookup``)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from storage.database import Database

_KEY = """
select user_id, id, scopes, expires_at, revoked_at from api_keys where key_hash = $1
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
