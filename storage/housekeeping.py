"""Housekeeping of one user's contents: collect, move between tiers, verify (``storage/functions/15_housekeeping.sql``).

Every chore may be killed between any two steps and done again at any time, also by several processes at once:

- *collect* deletes the row, then its object; *objects* deletes what a kill in between, or a writer's crash, has left.
- *cold* puts the object, then names it in the row; *warm* takes the bytes into the row, then deletes the object.

So at every moment each row has its bytes, and whatever no row names is an object that the next pass deletes. The grace
is what makes it safe to look for such objects without a lock: it must be longer than any write takes from its first
object to its commit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import structlog

from domain.errors import StudioError
from domain.housekeeping import Chore, Tidied
from storage.contents import STORED, Contents
from storage.database import Database
from storage.objects import Objects
from storage.uploads import EXPIRED_AT_ONCE

BATCH = 500
"""Rows that one statement handles at most."""
COLD_BYTES_MIN = 1_024
"""Stored bytes below which content stays in PostgreSQL: as an object it would cost more than as a row."""

_COLLECT = "select hash, stored_size, location from collect_contents($1, $2, $3)"
_UNNAMED = "select location from unnamed_objects($1, $2)"
_DROP_STEPS = "select drop_step_outputs($1, $2, $3)"
_DROP_MEMO = "select drop_memo($1, $2, $3, $4)"
_DROP_CUT_OFFS = "select drop_cut_offs($1, $2, $3)"
_DROP_PLANS = "select drop_plans($1, $2, $3)"
_DROP_ROOT_RUNS = "select drop_root_runs($1, $2, $3)"
# chunks: who reads a part of a content reads its object.
_UNREAD = """
select hash, accessed_at from contents
where user_id = $1 and body is not null and chunks is null and stored_size >= $3
  and accessed_at < now() - $2::interval and touched_at < now() - $2::interval and hash > $4
order by hash limit $5
"""
# Only what was moved comes back: the rest are objects because they are large, or because a provider wants them so.
_READ_AGAIN = f"""
select {STORED} from contents
where user_id = $1 and location is not null and chunks is null and accessed_at > moved_at and hash > $2
order by hash limit $3
"""  # noqa: S608 - a constant
_OLDEST = f"""
select {STORED} from contents where user_id = $1 order by verified_at nulls first, hash limit $2
"""  # noqa: S608
_VERIFIED = "update contents set verified_at = now() where user_id = $1 and hash = $2"

log = structlog.get_logger("storage.housekeeping")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How long what is kept, and how much is looked at."""

    grace: timedelta
    cold_after: timedelta
    steps_kept: timedelta
    memo_kept: timedelta
    memo_max: int
    plans_kept: timedelta
    runs_window: timedelta
    sample: int


def _nothing(_point: str) -> None:
    """No failpoint."""


class Housekeeping:
    """The chores, for one user at a time.

    ``expire`` and ``forget`` are those of uploads and of idempotency keys: they answer how many they have handled.
    ``failpoint`` is called with the name of each place where a crash matters; tests kill the process there.
    """

    def __init__(
        self,
        database: Database,
        contents: Contents,
        objects: Objects,
        *,
        rules: Rules,
        expire: Callable[[UUID], Awaitable[int]],
        forget: Callable[[UUID], Awaitable[int]],
        failpoint: Callable[[str], None] = _nothing,
    ) -> None:
        self._database = database
        self._contents = contents
        self._objects = objects
        self._rules = rules
        self._expire = expire
        self._forget = forget
        self._failpoint = failpoint
        self._chores = {
            Chore.STEPS: self._drop_steps,
            Chore.CONTENTS: self._collect,
            Chore.UPLOADS: self._expire_uploads,
            Chore.OBJECTS: self._collect_objects,
            Chore.COLD: self._cool,
            Chore.WARM: self._warm,
            Chore.SAMPLE: self._verify,
            Chore.KEYS: self._forget_keys,
        }

    async def tidy(self, chore: Chore, user_id: UUID) -> Tidied:
        """Do one chore for one user. Raises Unavailable."""
        return await self._chores[chore](user_id)

    async def _drop_steps(self, user_id: UUID) -> Tidied:
        """Forget what steps put out, answers that nobody asked for again, and facts, each by its own rule."""
        rules = self._rules
        steps = await self._drop(_DROP_STEPS, user_id, rules.steps_kept)
        answers = await self._drop(_DROP_MEMO, user_id, rules.memo_kept, rules.memo_max)
        await self._drop(_DROP_CUT_OFFS, user_id, rules.steps_kept)
        return Tidied(steps_dropped=steps, memo_dropped=answers)

    async def _drop(self, query: str, *arguments: object) -> int:
        done = 0
        while True:
            row = await self._database.call(query, *arguments, BATCH)
            dropped = row[0] if row else 0
            done += dropped
            if dropped < BATCH:
                return done

    async def _collect(self, user_id: UUID) -> Tidied:
        done = Tidied()
        while True:
            async with self._database.connection() as connection:
                rows = await connection.fetch(_COLLECT, user_id, self._rules.grace, BATCH)
            done += Tidied(contents_collected=len(rows), bytes_collected=sum(row["stored_size"] for row in rows))
            if rows:
                self._failpoint("collect.after_rows_before_objects")
            for row in rows:
                if row["location"] is not None:
                    await self._objects.delete(row["location"])
                    self._failpoint("collect.between_objects")
            if len(rows) < BATCH:
                return done

    async def _collect_objects(self, user_id: UUID) -> Tidied:
        done, after = Tidied(), ""
        while page := await self._objects.list(f"{user_id}/", after):
            after = page[-1].key
            young = datetime.now(UTC) - self._rules.grace
            old = [found.key for found in page if found.modified < young]
            async with self._database.connection() as connection:
                rows = await connection.fetch(_UNNAMED, user_id, old)
            for row in rows:
                await self._objects.delete(row["location"])
                self._failpoint("objects.between_objects")
            done += Tidied(objects_collected=len(rows))
        return done

    async def _expire_uploads(self, user_id: UUID) -> Tidied:
        done = Tidied()
        while True:
            ended = await self._expire(user_id)
            done += Tidied(uploads_ended=ended)
            if ended < EXPIRED_AT_ONCE:
                return done

    async def _forget_keys(self, user_id: UUID) -> Tidied:
        keys = await self._forget(user_id)
        plans = await self._drop(_DROP_PLANS, user_id, self._rules.plans_kept)
        await self._drop(_DROP_ROOT_RUNS, user_id, self._rules.runs_window)
        return Tidied(keys_forgotten=keys, plans_forgotten=plans)

    async def _cool(self, user_id: UUID) -> Tidied:
        done, after = Tidied(), ""
        while True:
            rows = await self._database.rows(
                user_id, _UNREAD, user_id, self._rules.cold_after, COLD_BYTES_MIN, after, BATCH
            )
            for row in rows:
                done += await self._cool_one(user_id, row["hash"], row["accessed_at"])
            if len(rows) < BATCH:
                return done
            after = rows[-1]["hash"]

    async def _cool_one(self, user_id: UUID, digest: str, accessed_at: datetime) -> Tidied:
        row = await self._contents.find(user_id, digest)
        if row is None or row["body"] is None:
            return Tidied()
        if (damage := await self._damage(user_id, row)) is not None:  # stays where it is, for a person to look at
            return damage
        location = f"{user_id}/{uuid4()}"
        await self._objects.put(location, row["body"])
        self._failpoint("cold.after_object_before_row")
        moved = await self._database.call("select move_to_cold($1, $2, $3, $4)", user_id, digest, location, accessed_at)
        if moved is None or not moved[0]:
            await self._objects.delete(location)
            return Tidied()
        self._failpoint("cold.after_row")
        return Tidied(moved_to_cold=1)

    async def _warm(self, user_id: UUID) -> Tidied:
        done, after = Tidied(), ""
        while True:
            rows = await self._database.rows(user_id, _READ_AGAIN, user_id, after, BATCH)
            for row in rows:
                done += await self._warm_one(user_id, row)
            if len(rows) < BATCH:
                return done
            after = rows[-1]["hash"]

    async def _warm_one(self, user_id: UUID, row: Any) -> Tidied:
        if (damage := await self._damage(user_id, row)) is not None:
            return damage
        location = row["location"]
        try:
            body = await self._objects.get(location)
        except StudioError as error:
            if error.problem_code != "integrity":
                raise
            return Tidied()  # somebody else was faster
        moved = await self._database.call("select move_to_warm($1, $2, $3, $4)", user_id, row["hash"], location, body)
        if moved is None or not moved[0]:
            return Tidied()
        self._failpoint("warm.after_row_before_object")
        await self._objects.delete(location)
        return Tidied(moved_to_warm=1)

    async def _verify(self, user_id: UUID) -> Tidied:
        done = Tidied()
        for row in await self._database.rows(user_id, _OLDEST, user_id, self._rules.sample):
            done += await self._damage(user_id, row) or Tidied(verified=1)
            async with self._database.transaction(user_id) as connection:
                await connection.execute(_VERIFIED, user_id, row["hash"])
        return done

    async def _damage(self, user_id: UUID, row: Any) -> Tidied | None:
        """Say that a content is not what its hash says, None if it is (or is gone meanwhile). Nothing is deleted."""
        try:
            await self._contents.prove(user_id, row)
        except StudioError as error:
            if error.problem_code != "integrity":
                raise
            if await self._contents.find(user_id, row["hash"]) is None:
                return None
            log.warning("housekeeping.content_damaged", user_id=str(user_id), hash=row["hash"], detail=error.detail)
            return Tidied(damaged=1, findings=(f"user {user_id}, content {row['hash']}: {error.detail}",))
        return None
