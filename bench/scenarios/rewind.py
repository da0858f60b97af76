"""Read a blob of 10,000 deltas, at its newest and at any version, against one of 100 and against replaying all of them.

The replay is the one that the library for JSON Patch does: 10,000 patches applied to the first document in memory, with
no database, no hash, no proof.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import jsonpatch

from bench.figures import Bound, Figure
from bench.load import Turn, medians_ms
from bench.scenario import Configurations, Scenario
from bench.scenarios.bodies import TEXT
from bench.scenarios.store import new_blob
from bench.sizes import Sizes
from bench.stage import Stage
from domain.blobs import NewDelta
from domain.deltas import DeltaOperation, State, rewrite
from domain.documents import Document, cutoff_hash
from domain.ids import new_id
from storage.blobs import Blobs
from storage.deltas import Deltas

FEW_SHARE = 100
"""The other blob has so many times fewer deltas."""
FIGURES = (
    Figure(
        key="rewind-newest",
        title="read a blob of 10,000 deltas against one of 100, p50",
        unit="ms",
        ours="many.newest",
        raw="few.newest",
        goal=Bound(at_most=2.0),
        number="8",
    ),
    Figure(
        key="rewind-any",
        title="read any version of 10,000 against any of 100, p50",
        unit="ms",
        ours="many.any",
        raw="few.any",
        goal=Bound(at_most=2.0),
        number="8",
    ),
    Figure(
        key="rewind-replay",
        title="read any version of 10,000 against replay by jsonpatch",
        unit="ms",
        ours="many.any",
        raw="replay",
        goal=Bound(at_most=1 / 50),
        number="8",
    ),
)


@dataclass(frozen=True)
class Past:
    """A blob with a past."""

    user_id: UUID
    blob_id: UUID
    versions: int
    first: Any
    patches: list[Any]


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """Two blobs of one user that differ in the length of their past only."""
    person = await stage.person()
    few = await _edited(stage, person.user_id, max(sizes.deltas // FEW_SHARE, 2))
    many = await _edited(stage, person.user_id, sizes.deltas)
    await stage.analyze()
    blobs, chance = Blobs(stage.database, stage.contents), random.Random(8)

    async def latency() -> dict[str, float]:
        turns = {}
        for name, past in (("few", few), ("many", many)):
            turns[f"{name}.newest"] = _reading(blobs, past, None)
            turns[f"{name}.any"] = _reading(blobs, past, chance)
        return await medians_ms(turns, times=sizes.singles)

    async def replay() -> dict[str, float]:
        started = time.perf_counter()
        document = many.first
        for patch in many.patches:
            document = jsonpatch.apply_patch(document, patch)
        assert document["data"]["number"] == sizes.deltas
        return {"replay": (time.perf_counter() - started) * 1000}

    yield {"latency": latency, "replay": replay}


def _reading(blobs: Blobs, past: Past, chance: random.Random | None) -> Turn:
    async def read(_number: int) -> None:
        version = None if chance is None else chance.randint(1, past.versions)
        found = await blobs.get(past.user_id, past.blob_id, version)
        assert found.document.body["number"] == (version or past.versions) - 1

    return read


async def _edited(stage: Stage, user_id: UUID, deltas: int) -> Past:
    """Make a blob and change one number of it so many times, each as the store does it."""
    store, document = Deltas(stage.database, stage.contents), _document(0)
    new = new_blob(user_id, document)
    await Blobs(stage.database, stage.contents).create(new)
    state, kept, weight, patches = State(document=document, version=1), 1, 0, []
    for number in range(1, deltas + 1):
        draft = rewrite(state, _document(number), operation=DeltaOperation.UPDATE)
        assert draft is not None
        done = await store.append(
            NewDelta(
                user_id=user_id,
                blob_id=new.blob_id,
                delta_id=new_id(),
                cascade_id=new_id(),
                draft=draft,
                cutoff_hash=cutoff_hash(draft.document),
                actor=new.actor,
                kept_version=kept,
                patch_bytes=weight,
                external=False,
            )
        )
        assert done.status == "applied", done.status
        state, kept, weight = draft.after, done.kept_version, done.patch_bytes
        patches.append(list(draft.patch))
    return Past(user_id, new.blob_id, deltas + 1, document.to_json(), patches)


def _document(number: int) -> Document:
    return Document.parse({"data": {"text": TEXT, "number": number}, "title": "A note"})


SCENARIO = Scenario(name="rewind", figures=FIGURES, setting=setting)
