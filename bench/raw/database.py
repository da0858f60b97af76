"""Plain tables in a database of their own: a blob, its delta and an outbox row in one statement (cte3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import asyncpg

DATABASE = "studio_raw"
TABLES = """
create table if not exists blobs (
  id uuid primary key, user_id uuid not null, version int not null, content_type text not null,
  content text not null, hash text not null, created_at timestamptz not null default now());
create table if not exists deltas (
  id uuid primary key, blob_id uuid not null, from_version int not null, to_version int not null,
  patch text not null, created_at timestamptz not null default now(), unique (blob_id, to_version));
create table if not exists outbox (
  seq bigint generated always as identity primary key, type text not null, data text not null);
create table if not exists edges (parent uuid not null, child uuid not null, primary key (parent, child));
create index if not exists edges_child on edges (child);
"""
_MAKING = 7264611  # an advisory lock: the API and the driver make the tables at the same time

CREATE = """
with b as (
  insert into blobs (id, user_id, version, content_type, content, hash) values ($1, $2, 1, $3, $4, $5)
  returning created_at
), d as (
  insert into deltas (id, blob_id, from_version, to_version, patch) values ($6, $1, 0, 1, $4)
), o as (
  insert into outbox (type, data) values ('blob.created', $7)
) select created_at from b
"""
UPDATE = """
with b as (
  update blobs set version = version + 1, content = $3, hash = $4 where id = $1 and version = $2 returning version
), d as (
  insert into deltas (id, blob_id, from_version, to_version, patch) select $5, $1, $2, $2 + 1, $3 from b
), o as (
  insert into outbox (type, data) select 'blob.updated', $6 from b
) select version from b
"""
CREATE_MANY = """
with x as (select * from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::uuid[]) x(id, content, hash, d, p)),
b as (
  insert into blobs (id, user_id, version, content_type, content, hash)
    select id, $6, 1, 'application/json', content, hash from x
), d as (
  insert into deltas (id, blob_id, from_version, to_version, patch) select d, id, 0, 1, content from x
), o as (
  insert into outbox (type, data) select 'blob.derived', content from x
) insert into edges (parent, child) select p, id from x
"""
DESCENDANTS = """
with recursive w (id, depth) as (
  select $1::uuid, 0
  union
  select x.child, w.depth + 1 from w
    cross join lateral (select e.child from edges e where e.parent = w.id offset 0) x
)
select id, min(depth) as depth from w where depth > 0 group by id order by 2, 1
"""
GRAPH = """
with recursive w (id) as (
  select $1::uuid
  union
  select x.child from w cross join lateral (select e.child from edges e where e.parent = w.id offset 0) x
)
select b.id::text as id, b.version, left(b.content, 80) as preview, b.content_type,
  array(select e.parent::text from edges e where e.child = b.id) as parents
from w join blobs b on b.id = w.id
"""


async def connect(admin_url: str, *, size: int) -> Any:
    """Return a pool on the raw database; made if it is not there."""
    admin = await asyncpg.connect(_named(admin_url, "postgres"))
    try:
        await admin.execute("select pg_advisory_lock($1)", _MAKING)
        if not await admin.fetchval("select 1 from pg_database where datname = $1", DATABASE):
            await admin.execute(f"create database {DATABASE}")
        fresh = await asyncpg.connect(_named(admin_url, DATABASE))
        await fresh.execute(TABLES)
        await fresh.close()
    finally:
        await admin.close()
    return await asyncpg.create_pool(_named(admin_url, DATABASE), min_size=size, max_size=size)


async def insert_graph(pool: Any, user_id: UUID, edges: Sequence[tuple[UUID, UUID]], content: str) -> None:
    """Write blobs and edges: every child of ``edges``, and the roots beside them."""
    children = {child for _, child in edges}
    roots = [parent for parent, _ in edges if parent not in children]
    blob = "insert into blobs (id, user_id, version, content_type, content, hash) values ($1, $2, 1, $3, $4, '')"
    rows = [(blob_id, user_id, "application/json", content) for blob_id in [*dict.fromkeys(roots), *children]]
    async with pool.acquire() as connection:
        await connection.executemany(blob, rows)
        await connection.executemany("insert into edges (parent, child) values ($1, $2)", edges)
        await connection.execute("analyze")


def _named(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
