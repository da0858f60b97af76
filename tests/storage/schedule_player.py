"""One scenario of the model of cascades (``tests/domain/cascade_world.py``), played on PostgreSQL.

``Player`` translates each recorded move into the function or the facts that stand for it; ``observed`` reads the rows
afterwards, ``schedule_expected.py`` the model's, in one shape. Content hashes of the model are stored as they are. Ids
agree by themselves, because both sides derive them from instance, anchor and slot; runs are named by derivation and
attempt, since claim makes their ids. The clock is the scenario's: ``now()`` of the functions is found in a
schema of the test's.

What is not compared, because it differs on purpose:

- ``want_digest``, ``used_digest`` (other texts), ``seq`` (SQL rings more often, which costs one look), labels;
- levels: they order the work, and are counted as deep as things stand when a derivation is made, in which each side
  has an order of its own;
- ``close_cascade``: SQL closes at the end of claim. What the model would answer there is compared with claim's answer;
- how a closed cascade ended, beyond partial or not: in SQL the first end stays (a later one that takes over what failed
  does not make it complete), and a former owner is superseded only while it is open;
- ``losses`` of what is asleep: whatever wakes it sets them back;
- ``retired`` of the model for a derivation without any input to read (its producers made nothing): in SQL it is settled
  without a hold, and wakes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

import orjson

from domain.bounds import Repeats
from domain.cascades import Schedule
from domain.derivations import Anchor, Instance
from domain.ids import CascadeId, RunId, new_id
from tests.domain.cascade_people import Step
from tests.storage.schedule_expected import run_name

CLOCK = """
create schema oracle;
create function oracle.now() returns timestamptz language sql stable as
  $$ select '2026-01-01 00:00:00+00'::timestamptz + current_setting('oracle.seconds')::float8 * interval '1 second' $$;
alter table cascades alter column created_at set default oracle.now(), alter column caused_at set default oracle.now();
create sequence oracle.ids;
create function oracle.studio_uuid7() returns uuid language sql as
  $$ select (lpad(to_hex(nextval('oracle.ids')), 12, '0') || '70008000000000000000')::uuid $$;
"""
"""Makes a database of the test's own obey ``oracle.seconds``; its ids come in their order, not by the clock."""
SESSION = "set search_path = oracle, pg_catalog, public; set oracle.seconds = '0'"
STRANGER = uuid5(UUID(int=0), "whose published providers these are")
DEPTH_MAX, NODES_MAX = 64, 20_000
WINDOW = 200
"""Wide enough that claim leaves nothing over: SQL claims in the order of level and id, the model of id."""

_OBSERVED = """
select jsonb_build_object(
  'blobs', (select jsonb_object_agg(b.id, jsonb_build_object('version', version, 'planned', planned_version,
      'hash', cutoff_hash, 'deleted', deleted_at is not null)) from blobs b where user_id = $1),
  'derivations', (select jsonb_object_agg(d.id, jsonb_build_object('unsettled', d.unsettled, 'hold', d.hold,
      'run', case when d.run_id is not null then (select r.attempt from runs r where r.user_id = $1 and r.id = d.run_id)
        end, 'attempt', d.attempt, 'owner', case when d.unsettled then d.owner_cascade_id end,
      'pending', d.pending_inputs, 'force', d.force,
      'fresh', extract(epoch from d.fresh_after - '2026-01-01 00:00:00+00'::timestamptz)::float8,
      'place', d.budget_place, 'needed', d.budget_needed,
      'failing', d.failing, 'provisional', d.provisional,
      'policy', d.on_parent_failure, 'definition', split_part(d.want_digest, ':', 1),
      'losses', case when d.hold = 'inactive' then 0 else d.losses end,
      'due', extract(epoch from d.run_after - '2026-01-01 00:00:00+00'::timestamptz)::float8,
      'dirty', extract(epoch from d.dirty_since - '2026-01-01 00:00:00+00'::timestamptz)::float8,
      'unchanged', w.digest is not distinct from d.used_digest,
      'inputs', (select jsonb_agg(jsonb_build_array(i.blob_id, i.tracks, i.used_hash) order by i.position, i.blob_id)
        from derivation_inputs i where i.user_id = $1 and i.derivation_id = d.id),
      'outputs', (select jsonb_object_agg(o.slot, jsonb_build_array(o.blob_id, o.machine_hash))
        from derivation_outputs o where o.user_id = $1 and o.derivation_id = d.id)))
    from derivations d
    join studio_want($1, (select array_agg(id) from derivations where user_id = $1)) w on w.id = d.id
    where d.user_id = $1),
  'runs', (select jsonb_object_agg(derivation_id || '/' || attempt, jsonb_build_object('status', status,
      'cascade', cascade_id, 'resumed', resumed, 'approved', exists (select from run_steps s where s.user_id = $1
        and s.run_id = runs.id and s.type = 'approval' and s.status = 'done'), 'inputs', (
        select coalesce(jsonb_agg(jsonb_build_array(x->>'blob_id', x->'version', x->>'hash',
          coalesce((x->>'stale')::boolean, false))), '[]')
        from jsonb_array_elements(inputs) x))) from runs where user_id = $1),
  'cascades', (select jsonb_object_agg(id, jsonb_build_object('planned', planned_at is not null, 'seq', seq,
      'status', status)) from cascades where user_id = $1),
  'budget', (select jsonb_build_object('limit', limit_amount, 'spent', spent, 'reserved', reserved) from budgets
    where user_id = $1 and limit_amount is not null),
  'charges', (select jsonb_object_agg(r.derivation_id || '/' || r.attempt || '/' || c.step_id || '/' || c.attempt,
      jsonb_build_array(c.amount, c.overrun)) from charges c join runs r on r.user_id = c.user_id and r.id = c.run_id
    where c.user_id = $1),
  'reservations', (select jsonb_object_agg(r.derivation_id || '/' || r.attempt || '/' || x.step_id || '/' || x.attempt,
      x.amount)
    from reservations x join runs r on r.user_id = x.user_id and r.id = x.run_id where x.user_id = $1),
  'members', (select jsonb_object_agg(bucket_id || '/' || blob_id, jsonb_build_array(position, inherited_from is null))
    from bucket_blobs where user_id = $1))
"""

SETTLE_TYPES = (
    "uuid", "text", "int", "text", "text", "text", "text", "text", "text", "text", "bigint",
    "bigint", "bigint", "text", "bytea", "text", "text", "text", "text",
    "text", "bigint", "bigint", "text", "bytea", "text", "text", "text", "text",
)  # fmt: skip
_SETTLE = (  # the types are this module's own
    "select * from settle_runs($1, $2, '{}'::jsonb, null, "  # noqa: S608
    + ", ".join(f"${number + 3}::{kind}[]" for number, kind in enumerate(SETTLE_TYPES))
    + ")"
)


NO_BOUNDS = Repeats(derivation=1_000_000, root=1_000_000, window=3600.0)


class Player:
    """Executes the moves of one user's scenario; the connection is a superuser's, in ``SESSION``."""

    tick = 0.0
    """Seconds between any two transactions beside those of the scenario: none, as in the model, where order counts."""

    def __init__(self, connection: Any, user_id: UUID) -> None:
        self.connection = connection
        self.user = user_id
        self.instances: dict[UUID, Instance] = {}
        self.runs: dict[UUID, UUID] = {}
        """From the model's run ids to those that claim made."""
        self.seconds = -1.0
        self.moves = 0
        self.runs_per_user: int | None = None
        self.repeats = NO_BOUNDS

    async def play(self, step: Step) -> Any:
        """Execute one move; returns what SQL answers, in words of the model where both have one."""
        args = step.fresh()
        await self.at(args.get("now", max(self.seconds, 0.0)))
        async with self.connection.transaction():
            await self.connection.execute("select studio_enter($1)", self.user)
            return await getattr(self, f"_{step.move}")(**args)

    async def at(self, seconds: float) -> None:
        """Set the clock."""
        self.seconds, self.moves = seconds, self.moves + 1
        told = f"{seconds + self.moves * self.tick:.6f}"
        await self.connection.execute("select set_config('oracle.seconds', $1, false)", told)

    # --- people ---------------------------------------------------------------------------------------------------

    async def _register(self, instance: Instance) -> None:
        self.instances[instance.id] = instance
        joins = instance.anchor == Anchor.BUCKET
        schemas = sorted(instance.input_schemas)
        outputs = [
            {"slot": slot, "schema_id": schema, "content_type": "application/json"} for slot, schema in instance.outputs
        ]
        events = ["onCreate", "onEdit"] if instance.tracks else ["onCreate"]
        await self.connection.execute(
            "insert into providers (id, owner_id, slug, name, spec, workflow_id, definition_digest, input_schemas,"
            " content_types, events, origin, anchor, collect_bucket_type, collect_schema, outputs, execution,"
            " supersede, on_delete, debounce_ms, debounce_max_ms, priority, on_parent_failure, max_concurrency,"
            " published)"
            " values ($1, $2, $3, $3, '{}', $3, $4, $5, '{}', $6,"
            " 'any', $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
            self._provider(instance.id), STRANGER if instance.published else self.user, f"p-{self.user}-{instance.id}",
            instance.definition_digest,
            [] if joins else schemas, events,
            instance.anchor.value, "book" if joins else None, schemas[0] if joins else None, outputs,
            instance.execution.value, instance.supersede.value, instance.on_delete.value,
            int(instance.quiet_seconds * 1000), int(instance.max_wait_seconds * 1000), instance.priority,
            instance.on_parent_failure.value, instance.max_concurrency, instance.published,
        )  # fmt: skip
        await self.connection.execute(
            "insert into instances (user_id, id, provider_id, active, settings) values ($1, $2, $3, false, $4)",
            self.user, instance.id, self._provider(instance.id), orjson.dumps(instance.settings_digest).decode(),
        )  # fmt: skip

    def _provider(self, instance_id: UUID) -> UUID:
        """One provider for each user's instance: the catalogue is everybody's, the scenarios' ids are not.

        In the order of the instances, in which the model tries them: it decides which of two joins feeds the other.
        """
        low = 2**64 - 1
        return UUID(int=instance_id.int & ~low | uuid5(self.user, str(instance_id)).int & low)

    async def _activate(self, instance_id: UUID, cascade_id: UUID) -> str:
        return await self._switch(instance_id, cascade_id, active=True)

    async def _deactivate(self, instance_id: UUID, cascade_id: UUID) -> str:
        return await self._switch(instance_id, cascade_id, active=False)

    async def _switch(self, instance_id: UUID, cascade_id: UUID, *, active: bool) -> str:
        await self.connection.execute("update instances set active = $2 where id = $1", instance_id, active)
        return await self._cause("provider", None, cascade_id, instance_id)

    async def _redefine(self, instance_id: UUID, definition_digest: str, settings_digest: str, cascade_id: UUID) -> str:
        await self.connection.execute(
            "update providers set definition_digest = $2 where id = $1",
            self._provider(instance_id),
            definition_digest,
        )
        settings = orjson.dumps(settings_digest).decode()
        await self.connection.execute("update instances set settings = $2 where id = $1", instance_id, settings)
        return await self._cause("provider", None, cascade_id, instance_id)

    async def _set_policy(self, instance_id: UUID, policy: str, cascade_id: UUID) -> str:
        await self.connection.execute(
            "update instances set on_parent_failure = $2 where id = $1", instance_id, str(policy)
        )
        return await self._cause("provider", None, cascade_id, instance_id)

    async def _publish(self, instance_id: UUID, definition_digest: str) -> None:
        await self.connection.execute(
            "update providers set definition_digest = $2 where id = $1", self._provider(instance_id), definition_digest
        )

    async def _upgrade(self, instance_id: UUID, cascade_id: UUID) -> str:
        return await self._cause("provider_change", None, cascade_id, instance_id)

    async def _redrive(self, derivation_ids: list[UUID], cascade_id: UUID) -> str:
        """By the last letter of each; what has never failed has none, and is left alone on both sides."""
        await self.connection.execute(
            "update dead_letters set redriven_at = now(), redriven_by = $3 where id in ("
            "select distinct on (derivation_id) id from dead_letters"
            " where user_id = $1 and derivation_id = any($2) order by derivation_id, id desc)",
            self.user, derivation_ids, cascade_id,
        )  # fmt: skip
        return await self._cause("redrive", None, cascade_id)

    async def _reprocess(self, derivation_id: UUID, cascade_id: UUID, *, subtree: bool, fresh: bool) -> str:
        row = await self.connection.fetchrow(
            "select instance_id, anchor_id from derivations where user_id = $1 and id = $2", self.user, derivation_id
        )
        await self._cause("reprocess", row["anchor_id"], cascade_id, row["instance_id"])
        options = {"derivation_id": str(derivation_id), "scope": "subtree" if subtree else "node", "force": fresh}
        await self.connection.execute("update cascades set options = $2 where id = $1", cascade_id, options)
        return str(cascade_id)

    async def _cause(self, cause: str, target: UUID | None, cascade_id: UUID, instance_id: UUID | None = None) -> str:
        """What ``storage/causes.py`` does, without joining an unplanned one: the model counts each."""
        await self.connection.execute(
            "insert into cascades (user_id, id, cause, target_id, instance_id, actor)"
            " values ($1, $2, $3, $4, $5, 'user')",
            self.user, cascade_id, cause, target, instance_id,
        )  # fmt: skip
        return str(cascade_id)

    async def _create(
        self, blob_id: UUID, schema_id: str, content: str, cascade_id: UUID, buckets: Mapping[UUID, int]
    ) -> str:
        for bucket in buckets:
            await self._bucket(bucket)
        row = await self.connection.fetchrow(
            "select problem from create_blob($1, $2, $3, $4, 'application/json', $5, $6, $6, $6, 'meta', null, $7, $7,"
            " $7, 'identity', $8, null, '', '', '{}', 'user', null, $9, $10, null)",
            self.user, blob_id, new_id(), cascade_id, schema_id, content, len(content), content.encode(),
            list(buckets), list(buckets.values()),
        )  # fmt: skip
        assert row["problem"] is None, row
        return str(cascade_id)

    async def _edit(self, blob_id: UUID, content: str, cascade_id: UUID) -> str:
        return await self._append(blob_id, "update", content, cascade_id)

    async def _delete(self, blob_id: UUID, cascade_id: UUID) -> str:
        return await self._append(blob_id, "delete", None, cascade_id)

    async def _restore(self, blob_id: UUID, cascade_id: UUID) -> str:
        return await self._append(blob_id, "restore", None, cascade_id)

    async def _append(self, blob_id: UUID, operation: str, content: str | None, cascade_id: UUID) -> str:
        blob = await self.connection.fetchrow(
            "select version, cutoff_hash from blobs where user_id = $1 and id = $2", self.user, blob_id
        )
        content = blob["cutoff_hash"] if content is None else content
        row = await self.connection.fetchrow(
            "select status, cascade_id from append_delta($1, $2, $3, $4, $5, $6, '[]', '[]', $7, $7, $7, 'meta', null,"
            " $8, $8, $8, 'identity', $9, null, false, '', '', '{}', 'user', null)",
            self.user, blob_id, blob["version"], new_id(), cascade_id, operation, content, len(content),
            content.encode(),
        )  # fmt: skip
        assert row["status"] == "applied", row
        return str(row["cascade_id"])

    async def _add_member(self, bucket_id: UUID, blob_id: UUID, position: int, cascade_id: UUID) -> str:
        await self._bucket(bucket_id)
        await self.connection.execute(
            "insert into bucket_blobs (user_id, bucket_id, blob_id, position) values ($1, $2, $3, $4)"
            " on conflict (user_id, bucket_id, blob_id)"
            " do update set position = excluded.position, inherited_from = null",
            self.user, bucket_id, blob_id, position,
        )  # fmt: skip
        return await self._cause("bucket", bucket_id, cascade_id)

    async def _remove_member(self, bucket_id: UUID, blob_id: UUID, cascade_id: UUID) -> str:
        await self.connection.execute(
            "delete from bucket_blobs where user_id = $1 and bucket_id = $2"
            " and (blob_id = $3 and inherited_from is null or inherited_from = $3 and blob_id <> $3)",
            self.user, bucket_id, blob_id,
        )  # fmt: skip
        return await self._cause("bucket", bucket_id, cascade_id)

    async def _bucket(self, bucket_id: UUID) -> None:
        await self.connection.execute(
            "insert into buckets (user_id, id, name, type) values ($1, $2, 'B', 'book') on conflict do nothing",
            self.user, bucket_id,
        )  # fmt: skip

    # --- the schedule ---------------------------------------------------------------------------------------------

    async def _plan(self, cascade_id: UUID, now: float) -> Any:
        del now
        row = await self.connection.fetchrow(
            "select planned, problem from plan_cascade($1, $2, $3, $4)", self.user, cascade_id, DEPTH_MAX, NODES_MAX
        )
        assert row["problem"] is None, row
        return {"planned": row["planned"]}

    async def _claim(self, cascade_id: UUID, run_ids: list[UUID], now: float, window: int) -> Any:
        del run_ids, now
        row = await self.connection.fetchrow(
            "select * from claim_runs($1, $2, $3, interval '1 hour', $4, $5, make_interval(secs => $6), $7)",
            self.user, cascade_id, window, self.repeats.derivation, self.repeats.root, self.repeats.window,
            {"runs_per_user": self.runs_per_user},
        )  # fmt: skip
        return {"runs": [run["run_id"] for run in row["runs"]], "closed": row["closed"], "status": row["status"],
                "timer": row["due_in"] is not None}  # fmt: skip

    async def _settle(self, run_id: UUID, drafts: list[Any], now: float) -> Any:
        del now
        run = self.runs[run_id]
        derivation = await self.connection.fetchval(
            "select derivation_id from runs where user_id = $1 and id = $2", self.user, run
        )
        slots = await self.slots(derivation)
        outputs = [output_columns(run, draft, slots[draft.slot]) for draft in drafts]
        columns = [[row[number] for row in outputs] for number in range(len(SETTLE_TYPES))]
        [answer] = await self.connection.fetch(_SETTLE, self.user, [run], *columns)
        return answer["status"]

    async def slots(self, derivation_id: UUID) -> dict[str, Any]:
        """The outputs of a derivation as they stand, by slot."""
        rows = await self.connection.fetch(
            "select o.slot, o.machine_hash, b.cutoff_hash, b.version from derivation_outputs o"
            " join blobs b on b.user_id = o.user_id and b.id = o.blob_id where o.user_id = $1 and o.derivation_id = $2",
            self.user, derivation_id,
        )  # fmt: skip
        return {row["slot"]: row for row in rows}

    async def _fail(self, run_id: UUID, code: str) -> str:
        answer = await self.connection.fetchval(
            "select fail_run($1, $2, $3, 'detail', '{}'::jsonb)", self.user, self.runs[run_id], code
        )
        return str(answer)

    async def _lose(self, run_id: UUID, losses_max: int) -> str:
        answer = await self.connection.fetchval("select lose_run($1, $2, $3)", self.user, self.runs[run_id], losses_max)
        return str(answer)

    # --- controls -------------------------------------------------------------------------------------------------

    async def _park(self, run_id: UUID) -> str:
        return str(
            await self.connection.fetchval("select park_run($1, $2, 'ask', 0, '?')", self.user, self.runs[run_id])
        )

    async def _approve(self, run_id: UUID) -> str:
        answer = await self.connection.fetchval(
            "select approve_run($1, $2, 'ask', 'user', interval '1 hour', 'yes', 2, 2, 'identity', $3, null)",
            self.user, self.runs[run_id], b"{}",
        )  # fmt: skip
        return str(answer)

    async def _reject(self, run_id: UUID, now: float) -> str:
        del now
        return str(
            await self.connection.fetchval(
                "select reject_run($1, $2, 'ask', 'no', 'user')", self.user, self.runs[run_id]
            )
        )

    async def _cancel_run(self, run_id: UUID) -> str:
        return str(await self.connection.fetchval("select cancel_run($1, $2, 'user')", self.user, self.runs[run_id]))

    async def _retry_run(self, run_id: UUID) -> str:
        return str(await self.connection.fetchval("select retry_run($1, $2, 'user')", self.user, self.runs[run_id]))

    async def _cancel_cascade(self, cascade_id: UUID, now: float) -> str:
        del now
        answer = await self.connection.fetchval(
            "select cancel_cascade($1, $2, 'user', $3, $4)", self.user, cascade_id, DEPTH_MAX, NODES_MAX
        )
        return str(answer)

    async def _retry_cascade(self, cascade_id: UUID) -> str:
        return str(await self.connection.fetchval("select retry_cascade($1, $2, 'user')", self.user, cascade_id))

    async def _begin(self, run_id: UUID, step_id: str, worst: int, attempt: int) -> str:
        answer = await self.connection.fetchval(
            "select reserve_step($1, $2, $3, $4, $5, '{}'::jsonb)",
            self.user,
            self.runs[run_id],
            step_id,
            attempt,
            worst,
        )
        return str(answer)

    async def _charge(self, run_id: UUID, step_id: str, amount: int, attempt: int) -> bool:
        charge = (self.user, self.runs[run_id], step_id, attempt, amount)
        answer = await self.connection.fetchval("select charge_step($1, $2, $3, $4, $5, 'test', null, 0, 0)", *charge)
        return bool(answer)

    async def _set_budget(self, budget_id: UUID, limit: int | None, cascade_id: UUID) -> str | None:
        del budget_id
        return await self._fund(limit, None, cascade_id)

    async def _top_up(self, amount: int, cascade_id: UUID) -> str | None:
        return await self._fund(None, amount, cascade_id)

    async def _fund(self, limit: int | None, add: int | None, cascade_id: UUID) -> str | None:
        row = await self.connection.fetchrow(
            "select problem, lifted from set_budget($1, $2, $3, 1000000, null, $4, 'user', false)",
            self.user, limit, add, cascade_id,
        )  # fmt: skip
        assert row["problem"] is None, row
        return str(cascade_id) if row["lifted"] else None

    async def _sent(self, cascade_id: UUID, seq: int) -> None:
        """Delivered: the model's ``seq`` counts other rings, so everything up to now is."""
        del seq
        await self.connection.execute(
            "update cascades set sent_seq = seq where user_id = $1 and id = $2", self.user, cascade_id
        )

    async def _close_cascade(self, cascade_id: UUID, seen_seq: int) -> None:
        """Claim has closed it already, or will: see the module's text."""

    def name_sketches(self, found: Any, answer: Any, where: str) -> None:
        """Note what a claim has sketched: nothing, as this player claims."""

    # --- looking --------------------------------------------------------------------------------------------------

    async def observed(self) -> dict[str, Any]:
        found = await self.connection.fetchval(_OBSERVED, self.user)
        return {name: rows or {} for name, rows in found.items()}


def output_columns(run: UUID, draft: Any, row: Mapping[str, Any]) -> tuple[Any, ...]:
    """One draft as ``settle_runs`` takes it; ``none``, which does nothing, lets it look at the version all the same."""
    made, merged = draft.machine_hash, draft.merged_hash
    effect = "none" if made == row["machine_hash"] else "head" if merged == row["cutoff_hash"] else "change"
    document, head = ((len(text), len(text), "identity", text.encode(), None) for text in (merged, made))
    return (
        run, draft.slot, draft.version, effect, "[]", "[]", merged, merged, merged, "meta", len(merged), *document,
        "", "", "[]", made, *head, row["machine_hash"], None, "[]",
    )  # fmt: skip


def name_runs(player: Player, model: Schedule, run_ids: list[str], names: Mapping[str, UUID]) -> None:
    """Note which run of PostgreSQL a run of the model is."""
    for found in run_ids:
        run = model.runs[RunId(UUID(found))]
        if run_name(run) in names:
            player.runs[run.id] = names[run_name(run)]


def owner(found: str) -> CascadeId:
    return CascadeId(UUID(found))
