"""What a database holds before anybody uses it: its installation id, the built-in catalogue, the first users.

Safe to repeat: the catalogue's versions are immutable and only added to, users are found again by derived ids.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from domain.errors import Invalid
from domain.ids import SYSTEM_USER, UserId, derived_id, new_id
from domain.keys import SCOPES, USER_SCOPES, key_hash, key_prefix
from migrations.catalogue import write_catalogue
from settings import Settings, required
from storage.catalog import builtin_catalogue
from storage.database import prepare

SECRET_BYTES = 32
KEY_NAME = "environment"
"""Name of the keys that the environment gives; one that it no longer names is revoked."""

# Rows are made as the roles that own them: as anybody else, row-level security shows and takes nothing.
_BECOME = """
do $$ begin
  execute format('grant studio_owner, studio_app to %I', current_user);
end $$;
"""

_KEY = """
insert into api_keys (user_id, id, key_hash, prefix, name, scopes) values ($1, $2, $3, $4, $5, $6)
on conflict (key_hash) do update set scopes = excluded.scopes, revoked_at = null
"""


def first_user_id(name: str) -> UserId:
    """Return the id of a user that migrate makes: ``dev`` or ``admin``."""
    return UserId(derived_id(f"user:{name}"))


async def seed(settings: Settings) -> None:
    """Write whatever is missing, in one transaction, as the admin of the database. See the module."""
    url = required(settings.storage.metadata.admin_url, "storage.metadata.admin_url").get_secret_value()
    keys = {"dev": settings.api.dev_api_key, "admin": settings.api.admin_api_key}
    connection = await asyncpg.connect(url)
    await prepare(connection)
    try:
        async with connection.transaction():
            await connection.execute("select pg_advisory_xact_lock(7264539)")
            await connection.execute(_BECOME)
            await _install(connection)
            await connection.execute("set local role studio_app")
            await add_user(connection, SYSTEM_USER, "system", ["system"])
            await write_catalogue(connection, builtin_catalogue(set(settings.services)))
            for name, key in keys.items():
                user_id = first_user_id(name)
                await add_user(connection, user_id, name, [name if name == "admin" else "user"])
                if key is not None:
                    scopes = SCOPES if name == "admin" else USER_SCOPES
                    await _add_key(connection, user_id, key.get_secret_value(), scopes)
    finally:
        await connection.close()


async def _install(connection: Any) -> None:
    await connection.execute("set local role studio_app")
    if await connection.fetchval("select count(*) from installation"):
        return
    await connection.execute("set local role studio_owner")
    await connection.execute(
        "insert into installation (id, secret) values ($1, $2)", new_id(), secrets.token_bytes(SECRET_BYTES)
    )


async def add_user(connection: Any, user_id: UserId, name: str, roles: Sequence[str]) -> None:
    """Make a user and the row that counts for them, unless they exist; sets the user of the transaction."""
    await connection.execute("select studio_enter($1)", user_id)
    await connection.execute(
        "insert into users (user_id, name, roles) values ($1, $2, $3) on conflict (user_id) do nothing",
        user_id, name, list(roles),
    )  # fmt: skip
    await connection.execute("insert into user_state (user_id) values ($1) on conflict do nothing", user_id)


async def _add_key(connection: Any, user_id: UUID, key: str, scopes: Sequence[str]) -> None:
    digest = key_hash(key)
    try:
        await connection.execute(_KEY, user_id, new_id(), digest, key_prefix(key), KEY_NAME, list(scopes))
    except asyncpg.InsufficientPrivilegeError:
        # The conflicting row is somebody else's, which row-level security does not let us update.
        raise Invalid("The API key of the environment belongs to another user.", code="invalid_settings") from None
    await connection.execute(
        "update api_keys set revoked_at = now()"
        " where user_id = $1 and name = $2 and key_hash <> $3 and revoked_at is null",
        user_id, KEY_NAME, digest,
    )  # fmt: skip
