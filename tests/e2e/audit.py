"""The auditor: looks at the database, the content store and the stream, and knows nothing of how things came about.

Each check states one promise of ``docs/explanation/promises.md``; failures name what breaks it. It replays patches with
code of its own, so that a fault of the product's patch code cannot hide.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import asyncpg
import nats
import zstandard
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.api import ConsumerConfig, DeliverPolicy
from temporalio.client import Client as Temporal

from storage.invariants import violations
from storage.objects import S3Objects
from tests.e2e.people import Person
from tests.e2e.studio import Studio
from tests.e2e.waiting import eventually

BATCH = 500
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_UNREST = """
with recursive up (root, id, hold) as (
  select d.id, d.id, d.hold from derivations d where d.user_id = $1 and d.unsettled
  union
  select u.root, p.id, p.hold from up u
  join derivation_inputs i on i.user_id = $1 and i.derivation_id = u.id
  join derivation_outputs o on o.user_id = $1 and o.blob_id = i.blob_id
  join derivations p on p.user_id = $1 and p.id = o.derivation_id
  where p.unsettled and u.hold is null
), held as (select root from up where hold is not null)
select
  (select count(*) from derivations where user_id = $1 and unsettled and hold is null and not exists (
     select from held where held.root = derivations.id)) as unsettled,
  (select count(*) from runs where user_id = $1 and status in ('running', 'parked')) as live_runs,
  (select count(*) from cascades where user_id = $1 and status in ('pending', 'running')) as open_cascades,
  (select count(*) from cascades where user_id = $1 and seq > sent_seq) as unsent_doorbells,
  (select count(*) from outbox where user_id = $1) as unpublished_events
"""
_RECOUNT = """
select d.id from derivations d where d.user_id = $1 and d.pending_inputs <> (
  select count(*) from derivation_inputs i
  join derivation_outputs o on o.user_id = $1 and o.blob_id = i.blob_id
  join derivations p on p.user_id = $1 and p.id = o.derivation_id
  where i.user_id = $1 and i.derivation_id = d.id and p.unsettled)
"""
_STALE = """
select d.id from derivations d
join studio_want($1, (select array_agg(id) from derivations where user_id = $1)) w on w.id = d.id
where d.user_id = $1 and d.hold is null and not d.unsettled and d.used_digest is distinct from w.digest
"""
# One after the other: a join that somebody takes a member from, and gives it back, is made of the same inputs again.
_TWICE = """
select blob_id, inputs from (
  select *, lag(inputs) over (partition by blob_id order by to_version) as before from (
    select d.blob_id, d.to_version, (
      select jsonb_agg(jsonb_build_array(x->>'blob_id', x->'version') order by x->>'blob_id')
      from jsonb_array_elements(d.inputs) x) as inputs
    from deltas d where d.user_id = $1 and d.run_id is not null and d.status = 'applied') v) w
where inputs = before
"""
_RUN_TWICE = """
select derivation_id, used_digest from (
  select *, lag(used_digest) over (partition by derivation_id order by attempt) as before from runs
  where user_id = $1 and status = 'settled') r
where used_digest = before
"""
_DELTA_OF_ITS_RUN = """
select d.id from deltas d join runs r on r.user_id = d.user_id and r.id = d.run_id
where d.user_id = $1 and (d.inputs <> r.inputs or r.status <> 'settled')
"""


def named(value: Any) -> str:
    """The name of a document's canonical bytes."""
    data = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Auditor:
    """Reads as the database's superuser, whom row-level security does not stop."""

    def __init__(self, studio: Studio) -> None:
        self._endpoints = studio.endpoints
        self._objects = S3Objects(
            self._endpoints["s3_bucket"],
            endpoint=self._endpoints["s3_endpoint"],
            access_key=self._endpoints["s3_access_key"],
            secret_key=self._endpoints["s3_secret_key"],
        )

    async def close(self) -> None:
        await self._objects.close()

    async def rows(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """One read over a connection of its own: servers are killed here."""
        connection = await asyncpg.connect(self._endpoints["database_admin_url"], timeout=5)
        try:
            await connection.set_type_codec(
                "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads, format="text"
            )
            found: list[asyncpg.Record] = await connection.fetch(query, *arguments, timeout=20)
            return found
        finally:
            await connection.close()

    async def value(self, query: str, *arguments: object) -> Any:
        """The only value of one read."""
        return (await self.rows(query, *arguments))[0][0]

    @asynccontextmanager
    async def locking(self, query: str) -> AsyncIterator[Callable[[UUID], Awaitable[None]]]:
        """A way to lock the rows of a query until the end of the block."""
        connection = await asyncpg.connect(self._endpoints["database_admin_url"])
        try:
            async with connection.transaction():

                async def lock(user_id: UUID) -> None:
                    assert await connection.fetch(f"{query} for update", user_id), "there is nothing to lock"

                yield lock
        finally:
            await connection.close()

    async def temporal(self) -> Temporal:
        """A client of Temporal."""
        address, namespace = self._endpoints["temporal_address"], self._endpoints["temporal_namespace"]
        return await Temporal.connect(address, namespace=namespace)

    # -- waiting

    async def unrest(self, user_id: UUID) -> dict[str, int]:
        """What is still under way; derivations that a hold stops count as at rest."""
        row = (await self.rows(_UNREST, user_id))[0]
        return {name: count for name, count in row.items() if count}

    async def at_rest(self, person: Person, *, within: float = 60.0) -> None:
        """Wait until nothing of a person is under way."""
        seen: dict[str, int] = {}

        async def rested() -> bool:
            seen.clear()
            with suppress(*AWAY):
                seen.update(await self.unrest(person.user_id) or {"rest": 1})
            return seen == {"rest": 1}

        try:
            await eventually(rested, "everything is at rest", within=within)
        except AssertionError as error:
            raise AssertionError(f"{error}; still under way: {seen}") from None

    async def in_the_middle(self, person: Person, *, settled: int = 5, unsettled: int = 8) -> None:
        """Wait until a cascade is in its middle: runs have settled, runs are running, much is still to do."""
        query = """select (select count(*) from runs where user_id = $1 and status = 'settled') >= $2
          and exists (select from runs where user_id = $1 and status = 'running')
          and (select count(*) from derivations where user_id = $1 and unsettled) >= $3"""
        before = await self.value("select count(*) from runs where user_id = $1 and status = 'settled'", person.user_id)

        async def reached() -> bool:
            return bool(await self.value(query, person.user_id, before + settled, unsettled))

        await eventually(reached, f"in the middle: {settled} more settled, {unsettled} unsettled")

    # -- checks

    async def broken(self, person: Person, invariants: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
        """What breaks these invariants (``storage/invariants.py``), by name."""
        connection = await asyncpg.connect(self._endpoints["database_admin_url"], timeout=5)
        try:
            return await violations(connection, person.user_id, invariants)
        finally:
            await connection.close()

    async def everything_holds(self, person: Person, *, failed: int = 0) -> None:
        """All promises, for one person, at rest and with nothing held; ``failed`` runs, each in a cascade, before."""
        await self.all_is_fresh(person, failed=failed)
        await self.nothing_ran_twice(person)
        await self.history_replays(person)
        await self.lanes_equal_what_they_are_made_from(person)
        await self.generations_do_not_mix(person)
        await self.nothing_acknowledged_is_lost(person)
        await self.every_event_arrived(person)

    async def all_is_fresh(self, person: Person, *, failed: int = 0) -> None:
        """Nothing unsettled, every used equals its want, every count equals its recount."""
        await self.counts_are_recounts(person)
        user_id = person.user_id
        assert not await self.rows("select id, hold from derivations where user_id = $1 and unsettled", user_id)
        assert not await self.rows(_STALE, user_id), "used differs from want"
        open_ = "select id, status from cascades where user_id = $1 and status not in ('completed', 'superseded')"
        left = [row["status"] for row in await self.rows(open_, user_id)]
        assert left == ["partial"] * failed, "a cascade did not complete"
        runs = "select provider_id, error from runs where user_id = $1 and status = 'failed'"
        errors = [(row["provider_id"], row["error"]) for row in await self.rows(runs, user_id)]
        assert len(errors) == failed, f"runs failed that should not: {errors}"

    async def counts_are_recounts(self, person: Person) -> None:
        """Rule 2 of CASCADES; and a fence is there exactly while a run is live."""
        assert not await self.rows(_RECOUNT, person.user_id), "pending_inputs differs from its recount"
        fenced = """select d.id from derivations d left join runs r on r.user_id = d.user_id and r.derivation_id = d.id
          and r.status in ('running', 'parked') where d.user_id = $1 and d.run_id is distinct from r.id"""
        assert not await self.rows(fenced, person.user_id), "a fence without its run, or a run without its fence"

    async def nothing_ran_twice(self, person: Person) -> None:
        """One applied delta per output and input versions; no two settled runs of equal inputs."""
        twice = await self.rows(_TWICE, person.user_id)
        assert not twice, f"two deltas of the same inputs: {[dict(row) for row in twice]}"
        ran = await self.rows(_RUN_TWICE, person.user_id)
        assert not ran, f"two settled runs of the same inputs: {[dict(row) for row in ran]}"
        assert not await self.rows(_DELTA_OF_ITS_RUN, person.user_id), "a delta that is not what its run says"

    async def history_replays(self, person: Person) -> None:
        """Versions are contiguous, and folding the patches gives every stored state, and back again."""
        blobs = await self.rows("select id, version, document_hash from blobs where user_id = $1", person.user_id)
        deltas = await self.rows(
            "select d.blob_id, d.from_version, d.to_version, d.patch, d.inverse, d.document_hash, c.body, c.location,"
            " c.codec from deltas d left join contents c on c.user_id = d.user_id and c.hash = d.document_hash"
            " where d.user_id = $1 and d.status = 'applied' order by d.blob_id, d.to_version",
            person.user_id,
        )
        lives: dict[UUID, list[asyncpg.Record]] = {}
        for delta in deltas:
            lives.setdefault(delta["blob_id"], []).append(delta)
        for blob in blobs:
            life = lives.get(blob["id"], [])
            assert [delta["to_version"] for delta in life] == list(range(1, blob["version"] + 1))
            if life:
                assert life[-1]["document_hash"] == blob["document_hash"]
                await self._replayed(life)

    async def _replayed(self, life: Sequence[asyncpg.Record]) -> Any:
        """The document after the last delta; whatever is kept on the way is held against the replay."""
        value: Any = None
        for delta in life:
            before, kept = value, await self._content(delta)
            value = json.loads(kept or b"") if delta["patch"] is None else apply(before, json.loads(delta["patch"]))
            assert named(value) == delta["document_hash"], "replay differs from what the delta recorded"
            assert kept is None or json.loads(kept) == value, "a kept version differs from the replay"
            if delta["patch"] is not None:
                assert apply(value, json.loads(delta["inverse"])) == before, "the inverse does not lead back"
        return value

    async def _content(self, row: asyncpg.Record) -> bytes | None:
        stored = row["body"] or (row["location"] and await self._objects.get(row["location"]))
        return zstandard.decompress(stored) if stored and row["codec"] == "zstd" else stored or None

    async def texts(self, person: Person) -> dict[UUID, str]:
        """The current text of every made blob of JSON, by id."""
        rows = await self.rows(
            "select d.blob_id, d.patch, d.inverse, d.document_hash, c.body, c.location, c.codec from deltas d"
            " join blobs b on b.user_id = d.user_id and b.id = d.blob_id and b.content_type = 'application/json'"
            "   and b.deleted_at is null"
            " left join contents c on c.user_id = d.user_id and c.hash = d.document_hash"
            " where d.user_id = $1 and d.status = 'applied' order by d.blob_id, d.to_version",
            person.user_id,
        )
        lives: dict[UUID, list[asyncpg.Record]] = {}
        for row in rows:
            lives.setdefault(row["blob_id"], []).append(row)
        return {blob: (await self._replayed(life))["data"]["text"] for blob, life in lives.items()}

    async def lanes_equal_what_they_are_made_from(self, person: Person) -> None:
        """Every output says exactly what its provider makes of its inputs as they are now."""
        derived = await self.rows(
            "select o.blob_id, p.slug, array(select i.blob_id from derivation_inputs i where i.user_id = $1"
            "   and i.derivation_id = d.id order by i.position, i.blob_id) as inputs"
            " from derivations d join providers p on p.id = d.provider_id"
            " join derivation_outputs o on o.user_id = $1 and o.derivation_id = d.id"
            " where d.user_id = $1 and d.hold is null",
            person.user_id,
        )
        texts = await self.texts(person)
        marks = {UUID(root): len(made) for root, made in person.workload.marks.items()}
        assert derived
        for node in derived:
            said = [f"{texts[i]} #{marks[i]}" if i in marks else texts[i] for i in node["inputs"]]
            assert texts[node["blob_id"]] == f"{node['slug']}({'+'.join(said)})"

    async def generations_do_not_mix(self, person: Person) -> None:
        """The inputs of every settled run are explained by one version of each root."""
        runs = await self.rows("select id, inputs from runs where user_id = $1 and status = 'settled'", person.user_id)
        made = await self.rows(
            "select blob_id, to_version, run_id from deltas where user_id = $1 and run_id is not null"
            " and status = 'applied'",
            person.user_id,
        )
        maker = {(str(row["blob_id"]), row["to_version"]): row["run_id"] for row in made}
        inputs = {row["id"]: [(x["blob_id"], x["version"]) for x in row["inputs"]] for row in runs}
        roots: dict[UUID, dict[str, set[int]]] = {}

        def explain(run_id: UUID) -> dict[str, set[int]]:
            if run_id not in roots:
                found: dict[str, set[int]] = {}
                for blob_id, version in inputs[run_id]:
                    above = explain(maker[blob_id, version]) if (blob_id, version) in maker else {blob_id: {version}}
                    for root, versions in above.items():
                        found.setdefault(root, set()).update(versions)
                roots[run_id] = found
            return roots[run_id]

        mixed = [run_id for run_id in inputs if any(len(versions) > 1 for versions in explain(run_id).values())]
        assert not mixed, f"runs that mix versions of a root: {[explain(run_id) for run_id in mixed]}"

    async def nothing_acknowledged_is_lost(self, person: Person) -> None:
        """Every acknowledged write is readable over the API with its content, and happened exactly once."""
        for root_id, marks in person.workload.marks.items():
            data = (await person.get(f"/blobs/{root_id}"))["data"]
            assert Counter(data["marks"]) == Counter(marks)
        notes = await self.rows(
            "select id from blobs where user_id = $1 and content_type like 'text/%' and provider_id is null",
            person.user_id,
        )
        assert {str(row["id"]) for row in notes} == set(person.workload.notes), "a note was lost, or made twice"
        for blob_id, text in person.workload.notes.items():
            assert (await person.get(f"/blobs/{blob_id}"))["content"] == text

    async def every_event_arrived(self, person: Person) -> None:
        """Sequences are contiguous; each event is in the stream, and nothing that is not an event."""
        events = await self.rows("select seq, id, type from events where user_id = $1 order by seq", person.user_id)
        last = await self.value("select event_seq from user_state where user_id = $1", person.user_id)
        assert [row["seq"] for row in events] == list(range(1, last + 1))
        applied = "select count(*) from deltas where user_id = $1 and status = 'applied'"
        told = sum(row["type"] == "delta.applied" for row in events)
        assert told == await self.value(applied, person.user_id), "deltas and their events differ in number"
        seen = await self.published(person)
        assert {str(row["id"]) for row in events} - seen.keys() == set(), "events that never arrived"
        assert seen.keys() - {str(row["id"]) for row in events} == set(), "arrived, but never happened"
        assert set(seen.values()) == {1}, "JetStream kept an event twice: publication was not deduplicated"

    async def published(self, person: Person) -> Counter[str]:
        """How often each event of a person is in the stream, by id; read from its beginning."""
        connection = await nats.connect(self._endpoints["nats_url"])
        seen: Counter[str] = Counter()
        try:
            jetstream = connection.jetstream()
            config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL)
            subject = f"studio.*.*.{person.user_id}.>"
            subscription = await jetstream.pull_subscribe(subject, stream="STUDIO", config=config)
            while (await subscription.consumer_info()).num_pending:
                with suppress(NatsTimeoutError):
                    for message in await subscription.fetch(BATCH, timeout=2):
                        seen[json.loads(message.data)["id"]] += 1
                        await message.ack()
            await subscription.unsubscribe()
        finally:
            await connection.close()
        return seen


def apply(value: Any, patch: Sequence[Mapping[str, Any]]) -> Any:
    """The value after a stored patch: add, remove and replace of RFC 6902, and splice of a text."""
    holder = {"": json.loads(json.dumps(value))}
    for operation in patch:
        *parents, last = ["", *[_token(part) for part in operation["path"].split("/")[1:]]]
        here: Any = holder
        for token in parents:
            here = here[int(token) if isinstance(here, list) else token]
        key: Any = last if isinstance(here, dict) else len(here) if last == "-" else int(last)
        if operation["op"] == "remove":
            del here[key]
        elif operation["op"] == "splice":
            at, gone = operation["at"], operation["remove"]
            assert here[key][at : at + len(gone)] == gone
            here[key] = here[key][:at] + operation["insert"] + here[key][at + len(gone) :]
        elif operation["op"] == "add" and isinstance(here, list):
            here.insert(key, operation["value"])
        else:
            assert operation["op"] in ("add", "replace")
            here[key] = operation["value"]
    return holder[""]


def _token(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")
