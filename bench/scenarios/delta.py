"""Apply a delta: PATCH over HTTP and the store's append, against a version-checked update and insert as one statement.

Ours reads the blob, decides the patch and its inverse, applies both to verify them, and appends; the bare side is told
the new content and the version. What the store is given is decided (patch, inverse, proof) on the clock as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID, uuid4

import orjson

from bench.figures import Figure
from bench.load import Turn, connections, medians_ms, rates, request
from bench.raw.database import CREATE, UPDATE
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import SCHEMA, SCHEMA_SLUG, fresh_text, note
from bench.sizes import Sizes
from bench.stage import PREFIX, Person, Stage
from domain.blobs import NewDelta
from domain.deltas import DeltaOperation as Operation
from domain.deltas import State, rewrite
from domain.documents import Document, cutoff_hash
from domain.ids import new_id
from storage.deltas import Deltas

SNAPSHOT_EVERY = 20
"""The default of the settings."""
FIGURES = (
    Figure(
        key="delta-rate",
        title="PATCH over HTTP, 16 users at once",
        unit="requests/s",
        ours="http.rate",
        raw="bare.rate",
    ),
    Figure(
        key="delta-median",
        title="PATCH over HTTP, one at a time, p50",
        unit="ms",
        ours="http.p50",
        raw="bare.p50",
    ),
    Figure(
        key="delta-store-rate",
        title="decide and append in the store, 16 users at once",
        unit="deltas/s",
        ours="store.rate",
        raw="raw.rate",
    ),
    Figure(
        key="delta-store-median",
        title="decide and append in the store, one at a time, p50",
        unit="ms",
        ours="store.p50",
        raw="raw.p50",
    ),
)


@dataclass(slots=True)
class Edited:
    """A client's blob, on both sides."""

    person: Person
    blob_id: UUID
    document: Document
    raw_id: UUID
    version: int = 1
    raw_version: int = 1
    kept_version: int = 1
    patch_bytes: int = 0

    def patch(self) -> bytes:
        """A request that gives it another content."""
        body = orjson.dumps({"data": note()})
        kind = {"content-type": "application/merge-patch+json", "if-match": f'"v{self.version}"'}
        headers = {**self.person.headers, **kind}
        return request("PATCH", f"{PREFIX}/blobs/{self.blob_id}", body, headers)

    def decided(self) -> NewDelta:
        """A decided and verified delta on the one before, as the store takes it."""
        state = State(document=self.document, version=self.version)
        draft = rewrite(state, Document.parse({"data": note(), "title": "A note"}), operation=Operation.UPDATE)
        assert draft is not None
        self.document, self.version = draft.document, draft.to_version
        return NewDelta(
            user_id=self.person.user_id,
            blob_id=self.blob_id,
            delta_id=new_id(),
            cascade_id=new_id(),
            draft=draft,
            cutoff_hash=cutoff_hash(draft.document),
            actor=f"user:{self.person.user_id}",
            kept_version=self.kept_version,
            patch_bytes=self.patch_bytes,
            external=False,
        )


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """One blob, one user, one connection a client; HTTP and the store edit different ones."""
    patched = [await _made(stage) for _ in range(sizes.connections)]
    appended = [await _made(stage) for _ in range(sizes.connections)]
    async with AsyncExitStack() as closing:
        ours = await connections(closing, stage.api, sizes.connections)
        bare = await connections(closing, stage.raw_api, sizes.connections)

        async def over_http(number: int) -> None:
            await ours[number].ask(patched[number].patch(), 200)
            patched[number].version += 1

        async def over_bare_http(number: int) -> None:
            edited = patched[number]
            body = orjson.dumps({"version": edited.raw_version, "content": fresh_text()})
            await bare[number].ask(request("PATCH", f"/blob/{edited.raw_id}", body), 200)
            edited.raw_version += 1

        async def http_rate() -> dict[str, float]:
            turns = {"bare.rate": over_bare_http, "http.rate": over_http}
            return await rates(turns, clients=sizes.connections, seconds=sizes.seconds)

        async def http_latency() -> dict[str, float]:
            return await medians_ms({"bare.p50": over_bare_http, "http.p50": over_http}, times=sizes.singles)

        append, append_raw = _appending(stage, appended), _appending_raw(stage, appended)

        async def store_rate() -> dict[str, float]:
            turns = {"raw.rate": append_raw, "store.rate": append}
            return await rates(turns, clients=sizes.connections, seconds=sizes.seconds)

        async def store_latency() -> dict[str, float]:
            return await medians_ms({"raw.p50": append_raw, "store.p50": append}, times=sizes.singles)

        yield {"http": http_rate, "http p50": http_latency, "store": store_rate, "store p50": store_latency}


async def _made(stage: Stage) -> Edited:
    person = await stage.person()
    await stage.post(person, "/schemas", SCHEMA)
    data, raw_id, text = note(), uuid4(), fresh_text()
    made = await stage.post(person, "/blobs", {"data": data, "schema_id": SCHEMA_SLUG, "title": "A note"})
    digest = hashlib.sha256(text.encode()).hexdigest()
    await stage.raw.execute(CREATE, raw_id, person.user_id, "text/plain", text, digest, uuid4(), str(raw_id))
    return Edited(person, UUID(made["id"]), Document.parse({"data": data, "title": "A note"}), raw_id)


def _appending(stage: Stage, blobs: list[Edited]) -> Turn:
    deltas = Deltas(stage.database, stage.contents, snapshot_every=SNAPSHOT_EVERY)

    async def append(number: int) -> None:
        done = await deltas.append(blobs[number].decided())
        assert done.status == "applied", done.status
        blobs[number].kept_version, blobs[number].patch_bytes = done.kept_version, done.patch_bytes

    return append


def _appending_raw(stage: Stage, blobs: list[Edited]) -> Turn:
    async def update(number: int) -> None:
        blob, text = blobs[number], fresh_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        found = await stage.raw.fetchval(UPDATE, blob.raw_id, blob.raw_version, text, digest, uuid4(), str(blob.raw_id))
        assert found == blob.raw_version + 1
        blob.raw_version = found

    return update


SCENARIO = Scenario(name="delta", figures=FIGURES, setting=setting)
