"""What runs read: pinned inputs, definition, settings, outputs as they stand. A batch costs two round trips.

Definitions and schema versions never change, so each process keeps them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar
from uuid import UUID

import orjson

from domain.definitions import Definition
from domain.documents import Document
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
PIN = "pin-"
"""How a digest begins that ``studio_pin`` has made."""

_RUNS = "select * from load_works($1, $2)"
_DEFINITIONS = "select owner_id, digest, ir from definitions where digest = any($1)"
_SCHEMAS = """
select distinct on (s.slug, s.version) s.* from schemas s
where s.slug = any($1) and (s.owner_id = $2 or s.published)
order by s.slug, s.version, (s.owner_id = $2) desc
"""

Key = TypeVar("Key")
Value = TypeVar("Value")
SchemaKey: TypeAlias = tuple[UUID, str, str]
"""Owner, slug, version."""
Documents: TypeAlias = Mapping[tuple[UUID, int], Document]
"""By blob and version."""


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

    async def load(self, user_id: UUID, run_ids: Sequence[UUID]) -> list[RunWork]:
        """The work of these runs in the order asked for; runs that have ended are left out."""
        async with self._database.connection() as connection:
            runs = await connection.fetch(_RUNS, user_id, list(run_ids))
        outputs = [output for run in runs for output in run["outputs"]]
        definitions = await self._definitions_of(user_id, runs)
        schemas = await self._schemas_of(user_id, runs, definitions)
        current = {output["document_hash"] for output in outputs}
        documents, named = await self._states.with_contents(
            user_id, _versions(runs, outputs), list((_heads(outputs) - current) | _pins(runs))
        )
        values = {digest: orjson.loads(data) for digest, data in named.items()}
        machine = {digest: Document.stored(values[digest]) for digest in _heads(outputs) & values.keys()}
        # Where nobody changed what the machine wrote, the head is the document itself.
        machine |= {
            output["document_hash"]: documents[UUID(output["blob_id"]), output["version"]]
            for output in outputs
            if output["machine_hash"] == output["document_hash"] is not None
        }
        works = {
            run["id"]: _work(
                user_id,
                run,
                run["outputs"],
                definition=definitions[run["definition_digest"]],
                schemas=schemas,
                documents=documents,
                machine=machine,
                pinned=_pinned(run, values),
            )
            for run in runs
        }
        return [works[run_id] for run_id in run_ids if run_id in works]

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
            (run["owner_id"], slug, version)
            for run in runs
            for slug, version in _references(definitions[run["definition_digest"]])
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
    schemas: Mapping[SchemaKey, Schema],
    documents: Documents,
    machine: Mapping[str, Document],
    pinned: Mapping[str, Any],
) -> RunWork:
    pinned_schemas = {slug: schemas[run["owner_id"], slug, version] for slug, version in _references(definition)}
    spec = orjson.loads(run["spec"])
    made = {output.slot for output in definition.outputs}
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
                current=documents.get((UUID(slot["blob_id"]), slot["version"])),
                machine=machine.get(slot["machine_hash"]),
                schema=pinned_schemas[definition.output(slot["slot"]).schema.slug],
                on_conflict=run["on_conflict"],
                disputed=[conflict for text in slot["disputed"] for conflict in orjson.loads(text)],
            )
            for slot in slots
            if slot["slot"] in made  # an output of an older definition stays as it is
        ),
        schemas=pinned_schemas,
        started_at=run["started_at"],
        storage=Placement(**spec.get("storage", {})),
    )


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


def _versions(runs: Sequence[Any], outputs: Sequence[Any]) -> list[tuple[UUID, int]]:
    """Pinned inputs at their versions, and outputs as they stand."""
    pinned = [(UUID(source["blob_id"]), int(source["version"])) for run in runs for source in run["inputs"]]
    return pinned + [(UUID(output["blob_id"]), output["version"]) for output in outputs if output["version"] > 0]


def _input(source: Mapping[str, Any], documents: Documents) -> RunInput:
    blob_id, version = UUID(source["blob_id"]), int(source["version"])
    found = documents.get((blob_id, version))
    if found is None:
        raise StudioError(f"The content of blob {blob_id} v{version} is gone.", code="integrity")
    return RunInput(blob_id=blob_id, version=version, document=found, position=source["position"])
