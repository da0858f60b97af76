"""Dead letters in PostgreSQL: every run that failed for good, parked once, and trying them again as one cascade."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any
from uuid import UUID

import asyncpg

from domain.dead_letters import Redrive
from domain.errors import NotFound
from domain.ids import UserId
from storage.causes import add_cause
from storage.database import Database
from storage.definitions import outdated_providers
from storage.idempotency import Keep, unkept

# open: what failed is held for it still. overtaken: it ran again for another reason, or nothing needs it any more.
_STATUS = """
case when l.redriven_at is not null then 'redriven'
  when d.hold = 'failed' and d.hold_detail->>'run_id' = l.run_id::text then 'open' else 'overtaken' end
"""
_LETTERS = f"""
select * from (
  select l.*, {_STATUS} as status, p.definition_digest as current_definition_digest, p.id as provider_key,
    r.label,
    (select sum(c.amount) from charges c where c.user_id = l.user_id and c.run_id = l.run_id)::bigint as charged
  from dead_letters l
  join derivations d on d.user_id = l.user_id and d.id = l.derivation_id
  join runs r on r.user_id = l.user_id and r.id = l.run_id
  join providers p on p.id = d.provider_id
  where l.user_id = $1
    and ($2::uuid is null or l.id < $2)
    and ($3::text is null or l.provider_id = $3)
    and ($4::text is null or l.code = $4)
    and ($6::uuid[] is null or l.id = any($6))) x
where ($5::text is null or x.status = $5)
order by x.id desc limit $7
"""  # noqa: S608 - constants of this module


class DeadLetters:
    """A user's dead letters, newest first; rows are mappings by column."""

    def __init__(self, database: Database, *, redrive_max: int) -> None:
        self._database = database
        self._redrive_max = redrive_max

    async def page(
        self,
        user_id: UserId,
        *,
        limit: int,
        before: UUID | None = None,
        provider_id: str | None = None,
        code: str | None = None,
        status: str | None = None,
    ) -> list[asyncpg.Record]:
        """Return up to ``limit`` letters older than ``before``."""
        return await self._database.rows(
            user_id, _LETTERS, user_id, before, provider_id, code, status, None, limit
        )  # fmt: skip

    async def get(self, user_id: UserId, letter_id: UUID) -> asyncpg.Record:
        """Return one letter. Raises NotFound."""
        rows = await self._database.rows(user_id, _LETTERS, user_id, None, None, None, None, [letter_id], 1)
        if not rows:
            raise NotFound("There is no such dead letter.")
        return rows[0]

    async def redrive(
        self,
        user_id: UserId,
        *,
        ids: Collection[UUID] | None,
        provider_id: str | None,
        code: str | None,
        dry_run: bool,
        actor: str,
        keep: Keep[Redrive] = unkept,
    ) -> Redrive:
        """Try again what is still held for these failures, as one cascade; ``dry_run`` only says what that would be."""
        wanted = None if ids is None else list(ids)
        async with self._database.locked(user_id) as connection:
            # Those of a filter: only what is open counts, however many others there are.
            filters = (provider_id, code, "open" if wanted is None else None, wanted, self._redrive_max + 1)
            rows = await connection.fetch(_LETTERS, user_id, None, *filters)
            found = Redrive(
                letters=[row for row in rows if row["status"] == "open"][: self._redrive_max],
                redriven_before=sum(row["status"] == "redriven" for row in rows),
                overtaken=sum(row["status"] == "overtaken" for row in rows),
                unknown=sorted(set(wanted or ()) - {row["id"] for row in rows}),
                more=wanted is None and len(rows) > self._redrive_max,
            )
            keys = list({row["provider_key"] for row in found.letters})
            found = replace(found, outdated=await outdated_providers(connection, user_id, keys=keys))
            if not dry_run and found.letters:
                found = await self._redriven(connection, user_id, found, actor)
            await keep(connection, found)
        return found

    async def _redriven(self, connection: Any, user_id: UserId, found: Redrive, actor: str) -> Redrive:
        count = len(found.letters)
        label = f"Redrive of {found.letters[0]['label']}" if count == 1 else f"Redrive of {count} failed runs"
        cascade = await add_cause(connection, user_id, cause="redrive", target_id=None, actor=actor, label=label)
        await connection.execute(
            "update dead_letters set redriven_at = now(), redriven_by = $3 where user_id = $1 and id = any($2)",
            user_id, [row["id"] for row in found.letters], cascade,
        )  # fmt: skip
        return replace(found, cascade_id=cascade)
