"""Rows of the schedule, as the player reads them, in the model's own types."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from domain.derivations import Blob, Cascade, CascadeStatus, Cause, Delta, Member, Pinned, Run
from domain.ids import BlobId, BucketId, CascadeId, DerivationId, RunId
from domain.runs import RunStatus


def time_of(seconds: float | None) -> float | None:
    """A time of the scenario's, without the microseconds that tell transactions apart."""
    return None if seconds is None else round(seconds, 3)


def id_of(text: str | None) -> Any:
    return None if text is None else UUID(text)


def blob_of(row: dict[str, Any]) -> Blob:
    return Blob(
        BlobId(UUID(row["id"])), row["schema"], row["version"], row["hash"], row["planned"], row["planned_hash"],
        row["deleted"], {BucketId(UUID(b)): Member(position, id_of(of)) for b, position, of in row["members"] or []},
    )  # fmt: skip


def delta_of(row: list[Any]) -> Delta:
    blob, old, new, content, operation, cascade, run, machine = row
    return Delta(BlobId(UUID(blob)), old, new, content, operation == "delete", id_of(cascade), id_of(run), machine)


def run_of(row: dict[str, Any]) -> Run:
    inputs = tuple(
        Pinned(BlobId(UUID(i["blob_id"])), i["version"], i["hash"], i.get("stale", False)) for i in row["inputs"]
    )
    return Run(
        id=RunId(UUID(row["id"])), derivation_id=DerivationId(UUID(row["derivation"])), attempt=row["attempt"],
        cascade_id=CascadeId(UUID(row["cascade"])), inputs=inputs, used_digest=row["digest"],
        status=RunStatus(row["status"]), resumed=row["resumed"], approved=row["approved"],
    )  # fmt: skip


def cascade_of(row: dict[str, Any]) -> Cascade:
    cause = {"process": Cause.REPROCESS}.get(row["cause"]) or Cause(row["cause"])
    return Cascade(
        id=CascadeId(UUID(row["id"])), cause=cause, roots=(id_of(row["target"] or row["instance"] or row["id"]),),
        planned_at=0.0 if row["planned"] else None, status=CascadeStatus(row["status"]),
        superseded_by=id_of(row["superseded_by"]), seq=row["seq"], sent_seq=row["sent"],
    )  # fmt: skip
