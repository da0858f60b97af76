"""Sketches as a claim answers them (``42_sketches.sql``): what each reads, and what its settlement records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from domain.errors import Unavailable
from domain.works import RunWork, Sketch
from storage.works import Works

Providers: TypeAlias = Mapping[tuple[UUID, int], Mapping[str, Any]]
"""By id and version."""
_RECORDED = (
    "id", "derivation_id", "provider_id", "attempt", "execution", "definition_digest", "settings_digest", "used_digest",
    "inputs", "label", "started_at", "fresh_after", "settled_at",
)  # fmt: skip


def sketches_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Sketch, ...]:
    """Sketches as a claim answers them."""
    return tuple(Sketch(run_id=UUID(row["id"]), derivation_id=UUID(row["derivation_id"]), row=row) for row in rows)


def record_of(sketch: Sketch) -> dict[str, Any]:
    """What the settlement of a sketch records, and when its derivation had settled as it was sketched."""
    return {name: sketch.row[name] for name in _RECORDED}


async def read_sketches(
    works: Works, user_id: UUID, sketches: Sequence[Sketch]
) -> Sequence[RunWork | Exception | None]:
    """What sketches read, in their order; one that cannot be loaded says why, the others go on. Raises Unavailable.

    None where the provider is not to be seen any more: there is nothing to carry out.
    """
    providers = await works.providers(user_id, {_provider(sketch) for sketch in sketches})
    there = [sketch for sketch in sketches if _provider(sketch) in providers]
    try:
        loaded: Sequence[RunWork | Exception] = await works.of(user_id, [_run(sketch, providers) for sketch in there])
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 - whatever is wrong with one of them
        loaded = [await _alone(works, user_id, sketch, providers) for sketch in there]
    found = dict(zip([sketch.run_id for sketch in there], loaded, strict=True))
    return [found.get(sketch.run_id) for sketch in sketches]


async def _alone(works: Works, user_id: UUID, sketch: Sketch, providers: Providers) -> RunWork | Exception:
    try:
        return (await works.of(user_id, [_run(sketch, providers)]))[0]
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - it fails by itself
        return error


def _provider(sketch: Sketch) -> tuple[UUID, int]:
    return UUID(sketch.row["provider"]), sketch.row["provider_version"]


def _run(sketch: Sketch, providers: Providers) -> dict[str, Any]:
    """A sketch as ``load_works`` answers a run."""
    return {
        **sketch.row,
        **providers[_provider(sketch)],
        "id": sketch.run_id,
        "started_at": datetime.fromisoformat(sketch.row["started_at"]),
    }
