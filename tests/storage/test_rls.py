"""Row-level security, proved by walking the catalogue of PostgreSQL itself."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from storage.tables import CATALOGUE_TABLES, USER_TABLES, metadata
from tests.conftest import new_person

_TABLES = """
select c.relname as name, c.relrowsecurity as enabled, c.relforcerowsecurity as forced,
  pg_get_userbyid(c.relowner) as owner,
  (select count(*) from pg_policy p where p.polrelid = c.oid) as policies
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = 'public' and c.relkind in ('r', 'p') and c.relname <> 'alembic_version' order by 1
"""
_VIEWS = """
select c.relname as name, coalesce('security_invoker=true' = any(c.reloptions), false) as invoker
from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'public' and c.relkind in ('v', 'm')
"""


async def test_every_table_forces_row_level_security_and_has_a_policy(admin: Any) -> None:
    tables = await admin.fetch(_TABLES)
    assert {row["name"] for row in tables} == set(metadata.tables)
    for row in tables:
        assert row["enabled"], row["name"]
        assert row["forced"], row["name"]
        assert row["policies"] > 0, row["name"]
        assert row["owner"] == "studio_owner", row["name"]


async def test_every_view_asks_with_the_rights_of_its_reader(admin: Any) -> None:
    for row in await admin.fetch(_VIEWS):
        assert row["invoker"], row["name"]


async def test_no_role_of_ours_may_bypass_it(admin: Any) -> None:
    roles = await admin.fetch(
        "select rolname, rolsuper, rolbypassrls, rolcanlogin from pg_roles where rolname like 'studio\\_%'"
        " and rolname <> current_user"
    )
    assert {"studio_owner", "studio_app", "studio_relay"} <= {row["rolname"] for row in roles}
    for row in roles:
        assert not row["rolsuper"], row["rolname"]
        assert not row["rolbypassrls"], row["rolname"]
        assert row["rolcanlogin"] == (row["rolname"] != "studio_owner")
    members = await admin.fetch(
        "select r.rolname from pg_auth_members m join pg_roles r on r.oid = m.member"
        " join pg_roles g on g.oid = m.roleid where g.rolname = 'studio_owner'"
    )
    assert not {"studio_app", "studio_relay"} & {row["rolname"] for row in members}


async def test_every_user_table_leads_its_key_and_every_foreign_key_with_the_user(admin: Any) -> None:
    rows = await admin.fetch(
        "select c.conrelid::regclass::text as name, a.attname as first from pg_constraint c"
        " join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]"
        " where c.contype in ('p', 'f') and c.connamespace = 'public'::regnamespace"
    )
    user_tables = {table.name for table in USER_TABLES}
    for row in rows:
        if row["name"] in user_tables:
            assert row["first"] == "user_id", row["name"]


@pytest.fixture
async def furnished(database: Any, client: Any, user: Any) -> Any:
    """A user with a row in most tables, an open upload and its part among them."""
    answer = await client.post("/api/v1/studio/blobs", json={"content": "secret"}, headers={"idempotency-key": "k"})
    assert answer.status_code == 201
    await client.post("/api/v1/studio/buckets", json={"name": "secret"})
    begun = await client.post("/api/v1/studio/uploads", json={"content_type": "a/b"})
    await client.put(f"{begun.json()['parts_url']}/1", content=b"secret", headers={"content-type": "a/b"})
    return user


async def test_without_a_user_the_application_sees_nothing(database: Any, furnished: Any) -> None:
    async with database.connection() as connection:
        for table in USER_TABLES:
            assert await connection.fetchval(f"select count(*) from {table.name}") == 0, table.name  # noqa: S608
        for table in CATALOGUE_TABLES:
            private = f"select count(*) from {table.name} where not published"  # noqa: S608 - our table's name
            assert await connection.fetchval(private) == 0, table.name


async def test_another_user_neither_sees_nor_changes_nor_adds_rows(
    database: Any, admin: Any, furnished: Any, count_rows: Any
) -> None:
    stranger = await new_person(database)
    before = await count_rows(furnished.user_id)
    assert before["blobs"] == before["buckets"] == 1
    for table in USER_TABLES:
        name = table.name
        async with database.transaction(stranger.user_id) as connection:
            seen = f"select count(*) from {name} where user_id = $1"  # noqa: S608 - our table's name
            assert await connection.fetchval(seen, furnished.user_id) == 0, name
        for statement in (
            f"update {name} set user_id = user_id where user_id = $1",  # noqa: S608
            f"delete from {name} where user_id = $1",  # noqa: S608
        ):
            async with database.transaction(stranger.user_id) as connection:
                assert (await connection.execute(statement, furnished.user_id)).endswith(" 0"), name
    assert await count_rows(furnished.user_id) == before
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with database.transaction(stranger.user_id) as connection:
            await connection.execute(
                "insert into buckets (user_id, id, name) values ($1, $2, 'planted')", furnished.user_id, uuid4()
            )


async def test_the_relay_sees_ids_and_sequences_but_no_content(database_urls: Any, furnished: Any) -> None:
    relay = await asyncpg.connect(database_urls["DATABASE_RELAY_URL"])
    try:
        assert await relay.fetchval("select count(*) from cascades where user_id = $1", furnished.user_id) >= 1
        for forbidden in ("blobs", "deltas", "contents", "snapshots", "uploads", "upload_parts", "run_steps", "buckets",
                          "users", "api_keys", "idempotency_keys", "content_references"):  # fmt: skip
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await relay.fetch(f"select 1 from {forbidden}")  # noqa: S608 - names right above
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await relay.fetch("select label from cascades")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await relay.fetch("select bytes_used from user_state")
    finally:
        await relay.close()


async def test_what_needs_which_content_is_shown_to_its_user_alone(database: Any, furnished: Any) -> None:
    stranger = await new_person(database)
    seen = "select count(*) from content_references"
    assert await database.call(seen) == (0,)
    assert (await database.row(stranger.user_id, seen)) == (0,)
    assert (await database.row(furnished.user_id, seen))[0] > 0


async def test_a_user_lasts_one_transaction(database: Any, furnished: Any) -> None:
    async with database.connection() as connection:
        async with connection.transaction():
            await connection.execute("select studio_enter($1)", furnished.user_id)
            assert await connection.fetchval("select count(*) from blobs") == 1
        assert await connection.fetchval("select count(*) from blobs") == 0


async def test_functions_of_ours_run_with_the_rights_of_their_caller_but_for_two_that_count(admin: Any) -> None:
    definers = await admin.fetch(
        "select proname, pg_get_userbyid(proowner) as owner, proconfig, array(select pg_get_userbyid(x.grantee)"
        " from aclexplode(proacl) x where x.grantee <> proowner) as callers"
        " from pg_proc where pronamespace = 'public'::regnamespace and prosecdef order by 1"
    )
    assert [tuple(row) for row in definers] == [
        (name, "studio_owner", ["search_path=pg_catalog, public, pg_temp"], ["studio_app"])
        for name in ("everybodys_queue", "everybodys_totals")
    ]


async def test_the_owner_of_the_tables_sees_what_it_counts_and_no_more(admin: Any, furnished: Any) -> None:
    async with admin.transaction():
        await admin.execute("set local role studio_owner")
        for table in USER_TABLES:
            some = f"select exists (select from {table.name})"  # noqa: S608 - our table's name
            assert not await admin.fetchval(some) or table.name == "derivations", table.name
        assert not await admin.fetchval("select exists (select from derivations where not unsettled)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await admin.execute("set local role studio_relay; select * from everybodys_totals()")
