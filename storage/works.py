"""What runs read: pinned inputs, definition, settings, outputs as they stand. A batch costs two round trips.

Sketches say themselves what they read: theirs costs one, and none if their documents are remembered. Definitions and
schema versions never change, so each process keeps them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

import orjson

from domain.definitions import Definition
from domain.documents import Document, document_hash
from domain.errors import StudioError
from domain.provider_ir import Placement
from domain.retries import Retry
from domain.schemas import Schema
from domain.works import RunInput, RunOutput, RunWork
from storage.contents import Contents
from storage.database import Database
from storage.schemas import schema_of
from storage.states import States

DEFINITIONS_CACHED = 500
SCHEMAS_CACHED = 1000
DOCUMENTS_CACHED = 3000
DOCUMENT_BYTES_MAX = 8192
"""Larger documents are read each time: those that are kept take 24 MiB at most, as they are stored."""
PIN = "pin-"
"""How a digest begins that ``studio_pin`` has made."""

_RUNS = "select * from load_works($1, $2)"
_DEFINITIONS = "select owner_id, digest, ir from definitions where digest = any($1)"
_PROVIDERS = "select id, version, slug, owner_id, spec from providers where id = any($1)"
_SCHEMAS = """
select distinct on (s.slug, s.version) s.* from schemas s
where s.slug = any($1) and (s.owner_id = $2 or s.published)
order by s.slug, s.version, (s.owner_id = $2) desc
"""

Key = TypeVar("Key")
Value = TypeVar("Value")
SchemaKey: TypeAlias = tuple[UUID, str, str]
"""Owner, slug, version."""
Documents: TypeAlias = Mapping[str, Document]
"""By the hashes of their bytes."""


class Kept(Generic[Key, Value]):
    """Immutable things that were read once; the least recently used go first."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._items: OrderedDict[Key, Value] = OrderedDict()

    def known(self, keys: Iterable[Key]) -> dict[Key, Value]:
        """Those of the keys that are kept. What a caller needs it holds itself: others may push it out meanwhile."""
        found = {key: self._items[key] for key in keys if key in self._items}
        for key in found:
            self._items.move_to_end(key)
        return found

    def put(self, key: Key, value: Value) -> None:
        """Keep one."""
        self._items[key] = value
        if len(self._items) > self._size_max:
            self._items.popitem(last=False)


class Works:
    """Loads the work of runs."""

    def __init__(self, database: Database, contents: Contents) -> None:
        self._database = database
        self._contents = contents
        self._states = States(database, contents)
        self._definitions: Kept[str, Definition] = Kept(DEFINITIONS_CACHED)
        self._schemas: Kept[SchemaKey, Schema] = Kept(SCHEMAS_CACHED)
        self._specs: Kept[str, Mapping[str, Any]] = Kept(DEFINITIONS_CACHED)
        self._providers: Kept[tuple[UUID, int], Any] = Kept(DEFINITIONS_CACHED)
        self._pins: Kept[str, Any] = Kept(DEFINITIONS_CACHED)
        self._documents: Kept[tuple[UUID, str], Document] = Kept(DOCUMENTS_CACHED)

    async def load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        """The work of these runs in the order asked for; runs that have ended are left out."""
        async with self._database.connection() as connection:
            runs = await connection.fetch(_RUNS, user_id, list(run_ids))
        works = {work.run_id: work for work in await self.of(user_id, runs)}
        return [works[run_id] for run_id in run_ids if run_id in works]

    async def of(self, user_id: UUID, runs: Sequence[Mapping[str, Any]]) -> list[RunWork]:
        """The work of runs as ``load_works`` and ``studio_sketches`` answer them; what is kept costs nothing."""
        outputs = [output for run in runs for output in run["outputs"]]
        definitions = await self._definitions_of(user_id, runs)
        schemas = _pinned_schemas(runs, definitions, await self._schemas_of(user_id, runs, definitions))
        documents, values = await self._documents_of(user_id, runs, outputs)
        return [
            _work(
                user_id,
                run,
                run["outputs"],
                definition=definitions[run["definition_digest"]],
                schemas=schemas[run["owner_id"], run["definition_digest"]],
                documents=documents,
                pinned=_pinned(run, values),
                spec=self._spec_of(run["spec"]),
            )
            for run in runs
        ]

    async def providers(self, user_id: UUID, keys: Collection[tuple[UUID, int]]) -> dict[tuple[UUID, int], Any]:
        """``slug``, ``owner_id`` and ``spec`` of providers, by id and version; a version never changes."""
        found = self._providers.known(keys)
        if missing := {key for key in keys if key not in found}:
            ids = [provider_id for provider_id, _ in missing]
            for row in await self._database.rows(user_id, _PROVIDERS, ids):
                # Registered again a moment ago: what the run is pinned to is in its digests, this is the newest.
                for key in [key for key in missing if key[0] == row["id"]]:
                    found[key] = dict(row)
                    if key[1] == row["version"]:
                        self._providers.put(key, found[key])
        return found

    def keep(self, user_id: UUID, document: Document, digest: str, size: int) -> None:
        """Remember a document that has just been written: whoever reads it next is likely to be here."""
        if size <= DOCUMENT_BYTES_MAX:
            self._documents.put((user_id, digest), document)

    async def _documents_of(
        self, user_id: UUID, runs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> tuple[dict[str, Document], dict[str, Any]]:
        """Documents by their hashes: inputs, outputs as they stand and machine heads; and what runs are pinned to."""
        wanted = _versions(runs, outputs)
        heads, pins = _heads(outputs), _pins(runs)
        hashes = {*wanted.values(), *heads}
        kept = self._documents.known((user_id, digest) for digest in hashes)
        found = {digest: document for (_, digest), document in kept.items()}
        values: dict[str, Any] = dict(self._pins.known(pins))
        states = [version for version, digest in wanted.items() if digest not in found]
        alone = heads - found.keys() - set(wanted.values())
        documents, named = await self._states.with_contents(user_id, states, [*alone, *(pins - values.keys())])
        for version, document in documents.items():
            found[wanted[version]] = document
        for digest, data in named.items():
            value = orjson.loads(data)
            if digest in pins:
                values[digest] = value
                self._pins.put(digest, value)
            if digest in alone:
                found[digest] = Document.stored(value, data)
        sizes = {digest: len(data) for digest, data in named.items()}
        for digest in hashes & found.keys():
            # By number, PostgreSQL restored from a backup may have another document there.
            if (user_id, digest) not in kept and document_hash(found[digest].to_bytes()) == digest:
                self.keep(user_id, found[digest], digest, sizes.get(digest) or len(found[digest].to_bytes()))
        return found, values

    def _spec_of(self, text: str) -> Mapping[str, Any]:
        known = self._specs.known([text])
        if text not in known:
            known[text] = orjson.loads(text)
            self._specs.put(text, known[text])
        return known[text]

    async def _definitions_of(self, user_id: UUID, runs: Sequence[Any]) -> dict[str, Definition]:
        digests = {run["definition_digest"] for run in runs}
        found = self._definitions.known(digests)
        if missing := digests - found.keys():
            for row in await self._database.rows(user_id, _DEFINITIONS, list(missing)):
                found[row["digest"]] = Definition.from_json(orjson.loads(row["ir"]))
                self._definitions.put(row["digest"], found[row["digest"]])
        return found

    async def _schemas_of(
        self, user_id: UUID, runs: Sequence[Any], definitions: Mapping[str, Definition]
    ) -> dict[SchemaKey, Schema]:
        """Schema versions that the definitions pin, as the provider's owner sees them."""
        wanted = {
            (owner, slug, version)
            for owner, digest in {(run["owner_id"], run["definition_digest"]) for run in runs}
            for slug, version in _references(definitions[digest])
        }
        found = self._schemas.known(wanted)
        missing = wanted - found.keys()
        for owner_id in {owner for owner, _, _ in missing}:
            slugs = [slug for owner, slug, _ in missing if owner == owner_id]
            for row in await self._database.rows(user_id, _SCHEMAS, slugs, owner_id):
                key = (owner_id, row["slug"], row["version"])
                found[key] = schema_of(row)
                self._schemas.put(key, found[key])
        return found


def _work(
    user_id: UUID,
    run: Any,
    slots: Sequence[Any],
    *,
    definition: Definition,
    schemas: Mapping[str, Schema],
    documents: Documents,
    pinned: Mapping[str, Any],
    spec: Mapping[str, Any],
) -> RunWork:
    made = {output.slot: output.schema.slug for output in definition.outputs}
    return RunWork(
        user_id=user_id,
        run_id=run["id"],
        label=run["label"],
        provider_id=run["slug"],
        anchor_kind=run["anchor_kind"],
        anchor_title=run["anchor_title"],
        definition=definition,
        trigger_patterns=tuple(pinned["trigger_patterns"] or ()),
        max_input_size=pinned["max_input_size"],
        timeout_seconds=spec.get("timeout_seconds"),
        max_attempts=spec.get("max_attempts"),
        retry=Retry.from_json(spec.get("retry")),
        cache=spec.get("cache"),
        reads=frozenset(spec.get("reads", ())),
        settings={**(pinned["defaults"] or {}), **(pinned["settings"] or {})},
        inputs=tuple(_input(source, documents) for source in run["inputs"]),
        outputs=tuple(
            RunOutput(
                slot=slot["slot"],
                blob_id=UUID(slot["blob_id"]),
                version=slot["version"],
                deleted=slot["deleted"],
                current=documents.get(slot["document_hash"]) if slot["version"] > 0 else None,
                machine=documents.get(slot["machine_hash"]),
                schema=schemas[made[slot["slot"]]],
                on_conflict=run["on_conflict"],
                disputed=[conflict for text in slot["disputed"] for conflict in orjson.loads(text)],
            )
            for slot in slots
            if slot["slot"] in made  # an output of an older definition stays as it is
        ),
        schemas=schemas,
        started_at=run["started_at"],
        storage=Placement(**spec.get("storage", {})),
    )


def _pinned_schemas(
    runs: Sequence[Any], definitions: Mapping[str, Definition], schemas: Mapping[SchemaKey, Schema]
) -> dict[tuple[UUID, str], dict[str, Schema]]:
    """The schemas of each definition by their slugs, as the provider's owner sees them."""
    return {
        (owner, digest): {slug: schemas[owner, slug, version] for slug, version in _references(definitions[digest])}
        for owner, digest in {(run["owner_id"], run["definition_digest"]) for run in runs}
    }


def _references(definition: Definition) -> list[tuple[str, str]]:
    pinned = [step.schema for step in definition.steps if step.schema] + [slot.schema for slot in definition.outputs]
    return list(dict.fromkeys((ref.slug, ref.version) for ref in pinned))


def _pins(runs: Sequence[Any]) -> set[str]:
    """The contents that hold what runs are pinned to."""
    return {_pin(run) for run in runs if run["settings_digest"].startswith(PIN)}


def _pin(run: Any) -> str:
    return f"sha256:{run['settings_digest'].removeprefix(PIN)}"


def _pinned(run: Any, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the run reads besides inputs and definition, as its derivation wanted it (``studio_pin``).

    A run that was planned before there were pins reads what holds now.
    """
    if run["settings_digest"].startswith(PIN):
        found: Mapping[str, Any] | None = values.get(_pin(run))
        if found is None:
            raise StudioError("The settings that a run is pinned to are gone.", code="integrity")
        return found
    spec = orjson.loads(run["spec"])
    own = {name: spec.get(name) for name in ("trigger_patterns", "max_input_size")}
    return {"defaults": spec.get("settings"), "settings": orjson.loads(run["settings"]), **own}


def _heads(outputs: Sequence[Any]) -> set[str]:
    return {output["machine_hash"] for output in outputs if output["machine_hash"]}


def _versions(runs: Sequence[Any], outputs: Sequence[Any]) -> dict[tuple[UUID, int], str]:
    """Pinned inputs at their versions, and outputs as they stand, each with its hash."""
    pinned = {
        (UUID(source["blob_id"]), int(source["version"])): source["document_hash"]
        for run in runs
        for source in run["inputs"]
    }
    stand = {
        (UUID(output["blob_id"]), output["version"]): output["document_hash"]
        for output in outputs
        if output["version"] > 0
    }
    return pinned | stand


def _input(source: Mapping[str, Any], documents: Documents) -> RunInput:
    blob_id, version = UUID(source["blob_id"]), int(source["version"])
    found = documents.get(source["document_hash"])
    if found is None:
        raise StudioError(f"The content of blob {blob_id} v{version} is gone.", code="integrity")
    return RunInput(blob_id=blob_id, version=version, document=found, position=source["position"])
