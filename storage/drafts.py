"""Drafts as a claim answers them (``42_drafts.sql``): what each reads, and what its settlement records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from domain.errors import Unavailable
from domain.works import Draft, RunWork
from storage.works import Works

Providers: TypeAlias = Mapping[tuple[UUID, int], Mapping[str, Any]]
"""By id and version."""
_RECORDED = (
    "id", "derivation_id", "provider_id", "attempt", "execution", "definition_digest", "settings_digest", "used_digest",
    "inputs", "label", "started_at", "fresh_after",
)  # fmt: skip


def drafts_of(rows: Sequence[Mapping[str, Any]]) -> tuple[Draft, ...]:
    """Drafts as a claim answers them."""
    return tuple(Draft(run_id=UUID(row["id"]), derivation_id=UUID(row["derivation_id"]), row=row) for row in rows)


def record_of(draft: Draft) -> dict[str, Any]:
    """What the settlement of a draft records."""
    return {name: draft.row[name] for name in _RECORDED}


async def read_drafts(works: Works, user_id: UUID, drafts: Sequence[Draft]) -> Sequence[RunWork | Exception]:
    """What drafts read, in their order; one that cannot be loaded says why, the others go on. Raises Unavailable."""
    providers = await works.providers(user_id, {_provider(draft) for draft in drafts})
    try:
        return await works.of(user_id, [_run(draft, providers) for draft in drafts])
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 - whatever is wrong with one of them
        return [await _alone(works, user_id, draft, providers) for draft in drafts]


async def _alone(works: Works, user_id: UUID, draft: Draft, providers: Providers) -> RunWork | Exception:
    try:
        return (await works.of(user_id, [_run(draft, providers)]))[0]
    except Unavailable:
        raise
    except Exception as error:  # noqa: BLE001 - it fails by itself
        return error


def _provider(draft: Draft) -> tuple[UUID, int]:
    return UUID(draft.row["provider"]), draft.row["provider_version"]


def _run(draft: Draft, providers: Providers) -> dict[str, Any]:
    """A draft as ``load_works`` answers a run."""
    return {
        **draft.row,
        **providers[_provider(draft)],
        "id": draft.run_id,
        "started_at": datetime.fromisoformat(draft.row["started_at"]),
    }
