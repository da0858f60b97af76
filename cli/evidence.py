"""What the database says about the demo's story, read as its user: row-level security shows nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import orjson

from cli.story import Story

PUBLISHED_WITHIN_SECONDS = 15.0
POLL_SECONDS = 0.2

Row = Mapping[str, Any]

# Everything that stems from the chapters, found by walking the inputs: no product code is asked.
_WALK = """
create temporary table story_blobs as
with recursive reached (blob_id) as (
  select unnest($1::uuid[])
  union
  select o.blob_id from reached r
  join derivation_inputs i on i.blob_id = r.blob_id
  join derivation_outputs o on o.derivation_id = i.derivation_id
) select blob_id from reached
"""
_WALK_UP = """
create temporary table story_derivations as
select distinct i.derivation_id as id from derivation_inputs i join story_blobs using (blob_id)
"""
_DERIVATIONS = """
select d.id, p.slug as provider, d.unsettled, d.hold, d.run_id, d.pending_inputs
from story_derivations join derivations d using (id) join providers p on p.id = d.provider_id
"""
_OUT_OF_DATE = """
select d.id, i.blob_id, i.used_version, b.version, b.planned_version
from story_derivations join derivations d using (id)
join derivation_inputs i on i.derivation_id = d.id join blobs b on b.id = i.blob_id
where b.planned_version <> b.version or i.used_hash is distinct from
  b.planned_hash || case when d.reads_meta then ' ' || coalesce(b.planned_meta_hash, '-') else '' end
"""
_TWICE = """
select r.derivation_id, count(*) from story_derivations s join runs r on r.derivation_id = s.id
where r.status = 'settled'
group by r.derivation_id, r.definition_digest, r.settings_digest, r.inputs having count(*) > 1
"""
_RUNS = """
select r.id, r.derivation_id, r.cascade_id, r.provider_id, r.status, r.usage, r.started_at, r.ended_at,
  (select count(*) from deltas x where x.run_id = r.id and x.status = 'applied') as deltas
from story_derivations s join runs r on r.derivation_id = s.id order by r.id
"""
_VERSIONS = """
select x.blob_id, x.to_version, x.document_hash, b.version, b.document_hash as current_hash
from story_blobs join deltas x using (blob_id) join blobs b on b.id = x.blob_id
where x.status = 'applied' order by x.blob_id, x.to_version
"""
_CUT_OFF = "select id::text, cut_off from cascades where cut_off > 0"
_EVENTS = """
select count(*) as events, coalesce(max(seq), 0) as last,
  (select coalesce(sum(last_seq - first_seq + 1), 0)::bigint from outbox) as waiting
from events
"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Rows, as they are named in ``storage/tables.py``."""

    derivations: Sequence[Row]
    out_of_date: Sequence[Row]
    twice: Sequence[Row]
    runs: Sequence[Row]
    versions: Sequence[Row]
    cut_off: Mapping[str, int]
    events: Row


async def gather_evidence(database_url: str, story: Story) -> Evidence:
    """Read everything that the claims need."""
    connection: Any = await asyncpg.connect(database_url)
    try:
        await connection.set_type_codec("jsonb", encoder=str, decoder=orjson.loads, schema="pg_catalog")
        await connection.execute("select set_config('app.user_id', $1, false)", story.user_id)
        events = await _events(connection)
        await connection.execute(_WALK.replace("$1", "'{" + ",".join(str(UUID(c)) for c in story.chapters) + "}'"))
        await connection.execute(_WALK_UP)
        return Evidence(
            derivations=await connection.fetch(_DERIVATIONS),
            out_of_date=await connection.fetch(_OUT_OF_DATE),
            twice=await connection.fetch(_TWICE),
            runs=await connection.fetch(_RUNS),
            versions=await connection.fetch(_VERSIONS),
            cut_off=dict(await connection.fetch(_CUT_OFF)),
            events=events,
        )
    finally:
        await connection.close()


async def _events(connection: asyncpg.Connection[Any]) -> Row:
    """Read how far the relay is, once it has had time to publish everything."""
    for _ in range(round(PUBLISHED_WITHIN_SECONDS / POLL_SECONDS)):
        row = await connection.fetchrow(_EVENTS)
        if row is not None and row["waiting"] == 0:
            break
        await asyncio.sleep(POLL_SECONDS)
    return dict(row or {})
