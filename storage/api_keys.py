"""A user's API keys in PostgreSQL: hashed, scoped, with an expiry. A key itself is shown once, never stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from domain.errors import Conflict, NotFound
from domain.ids import ApiKeyId, UserId
from domain.keys import key_hash, key_prefix
from storage.database import Database
from storage.idempotency import Keep, unkept

KEYS_MAX = 100
"""Keys of one user that are not revoked."""

_INSERT = """
insert into api_keys (user_id, id, key_hash, prefix, name, scopes, expires_at) values ($1, $2, $3, $4, $5, $6, $7)
returning id, name, prefix, scopes, expires_at, revoked_at, created_at
"""

_PAGE = """
select id, name, prefix, scopes, expires_at, revoked_at, created_at from api_keys
where user_id = $1 and ($2::timestamptz is null or (created_at, id) > ($2, $3::uuid))
order by created_at, id limit $4
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as its owner sees it in a list: everything but the key."""

    id: ApiKeyId
    name: str
    prefix: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    revoked_at: datetime | None
    created_at: datetime


class ApiKeys:
    """A user's keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        user_id: UserId,
        identity: ApiKeyId,
        key: str,
        *,
        name: str,
        scopes: Sequence[str],
        expires_at: datetime | None,
        keep: Keep[ApiKey] = unkept,
    ) -> ApiKey:
        """Store the hash of ``key``. Raises Conflict when the user has ``KEYS_MAX`` keys in use."""
        async with self._database.locked(user_id) as connection:
            count = await connection.fetchval(
                "select count(*) from api_keys where user_id = $1 and revoked_at is null", user_id
            )
            if count >= KEYS_MAX:
                raise Conflict(f"You have {KEYS_MAX} keys already: revoke one.", code="too_many")
            row = await connection.fetchrow(
                _INSERT,
                user_id, identity, key_hash(key), key_prefix(key), name, list(scopes), expires_at,
            )  # fmt: skip
            made = _read(row)
            await keep(connection, made)
        return made

    async def page(self, user_id: UserId, *, limit: int, after: tuple[datetime, UUID] | None) -> list[ApiKey]:
        """Return up to ``limit`` keys in the order they were made, revoked ones too."""
        rows = await self._database.rows(user_id, _PAGE, user_id, *(after or (None, None)), limit)
        return [_read(row) for row in rows]

    async def revoke(self, user_id: UserId, key_id: ApiKeyId, *, keep: Keep[None] = unkept) -> None:
        """Make a key stop working; doing it again changes nothing. Raises NotFound."""
        async with self._database.transaction(user_id) as connection:
            row = await connection.fetchrow(
                "select revoked_at from api_keys where user_id = $1 and id = $2 for update", user_id, key_id
            )
            if row is None:
                raise NotFound("There is no such API key.")
            if row["revoked_at"] is None:
                await connection.execute(
                    "update api_keys set revoked_at = now() where user_id = $1 and id = $2", user_id, key_id
                )
            await keep(connection, None)


def _read(row: object) -> ApiKey:
    record = dict(row)  # type: ignore[call-overload]
    return ApiKey(**{**record, "scopes": tuple(record["scopes"])})
