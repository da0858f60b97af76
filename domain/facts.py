"""What can be read off the rows of the schedule, and the bookkeeping that every move shares.

Kept beside the moves so that each of the protocol's rules is one small method: the tests take single rules out by
overriding one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast
from uuid import UUID

from domain.derivations import (
    AT_ONCE,
    Blob,
    Budget,
    Cascade,
    Charge,
    Delta,
    Derivation,
    Input,
    Instance,
    Output,
    Pinned,
    Run,
    Supersede,
)
from domain.graphs import reachable
from domain.ids import BlobId, CascadeId, DerivationId, InstanceId, RunId
from domain.runs import Hold, RunStatus, want_digest

MAX_WAIT_SECONDS = 60.0
"""How long edits may keep dropping a derivation's runs; after that a run is left to finish (rule 6)."""


class Facts:
    """The tables of one user, with the look-ups that an index gives."""

    def __init__(self) -> None:
        self.blobs: dict[BlobId, Blob] = {}
        self.deltas: list[Delta] = []
        self.instances: dict[InstanceId, Instance] = {}
        self.derivations: dict[DerivationId, Derivation] = {}
        self.inputs: dict[DerivationId, dict[BlobId, Input]] = {}
        self.outputs: dict[DerivationId, dict[str, Output]] = {}
        self.runs: dict[RunId, Run] = {}
        self.cascades: dict[CascadeId, Cascade] = {}
        self.producers: dict[BlobId, DerivationId] = {}
        self.consumers: dict[BlobId, set[DerivationId]] = {}
        self.bells: set[CascadeId] = set()
        self.clock = 0.0
        """The time that a move was last told: what people do in between happens then."""
        self.budget: Budget | None = None
        self.reservations: dict[tuple[RunId, str, int], int] = {}
        self.charges: dict[tuple[RunId, str, int], Charge] = {}
        self.next_place = 1

    # --- reading ------------------------------------------------------------------------------------------

    def sees(self, blob: Blob) -> tuple[int, str | None]:
        """Return the version and hash that the schedule sees: the planned ones, never the current (rule 1)."""
        return blob.planned_version, blob.planned_hash

    def producer(self, blob_id: BlobId) -> Derivation | None:
        """Return the derivation that makes this blob, None for a person's."""
        found = self.producers.get(blob_id)
        return None if found is None else self.derivations[found]

    def owned(self, cascade_id: CascadeId) -> list[Derivation]:
        """Return the unsettled derivations of a cascade, by id."""
        rows = self.derivations.values()
        return sorted((d for d in rows if d.unsettled and d.owner_cascade_id == cascade_id), key=lambda d: d.id)

    def ordered_inputs(self, derivation_id: DerivationId) -> list[Input]:
        """Return the inputs in the order in which the provider reads them."""
        rows = self.inputs[derivation_id].values()
        return sorted(rows, key=lambda row: (row.role, row.position, row.blob_id))

    def pinned_inputs(self, derivation_id: DerivationId) -> tuple[Pinned, ...]:
        """Return what a run claimed now would read, absent inputs left out."""
        found = []
        for row in self.ordered_inputs(derivation_id):
            used = (row.used_version or 0, row.used_hash)
            version, content = self.sees(self.blobs[row.blob_id]) if row.live else used
            if content is not None:
                found.append(Pinned(row.blob_id, version, content))
        return tuple(found)

    def unchanged(self, derivation: Derivation) -> bool:
        """Tell whether *want* equals *used*: the digest and the hash of every input that is looked at."""
        if derivation.used_digest != derivation.want_digest:
            return False
        rows = self.inputs[derivation.id].values()
        return all(self.sees(self.blobs[row.blob_id])[1] == row.used_hash for row in rows if row.live)

    def supplied(self, derivation: Derivation) -> bool:
        """Tell whether there is something to work on: every required input is there, and at least one at all."""
        present = {pinned.blob_id for pinned in self.pinned_inputs(derivation.id)}
        required = {row.blob_id for row in self.inputs[derivation.id].values() if row.required}
        return bool(present) and required <= present

    def bereft(self, derivation: Derivation) -> bool:
        """Tell whether all that it read is deleted, or has left its collection. What is yet to come is not gone."""
        rows = (self.blobs[row.blob_id] for row in self.inputs[derivation.id].values())
        return all(blob.planned_version > 0 and self.sees(blob)[1] is None for blob in rows)

    def output_deleted(self, derivation: Derivation) -> bool:
        """Tell whether a person deleted an output: it is not made again until restored (rule 9)."""
        rows = self.outputs[derivation.id].values()
        return any(self.blobs[row.blob_id].deleted and row.machine_hash is not None for row in rows)

    def dependants(self, derivation_id: DerivationId) -> list[DerivationId]:
        """Return the derivations that look at an output of this one, inactive ones included, by id."""
        blob_ids = [row.blob_id for row in self.outputs[derivation_id].values()]
        return self.readers(blob_ids)

    def readers(self, blob_ids: Iterable[BlobId]) -> list[DerivationId]:
        """Return the derivations that look at one of these blobs, inactive ones included, by id."""
        return sorted({
            reader for blob_id in blob_ids for reader in self.consumers.get(blob_id, ())
            if self.inputs[reader][blob_id].live
        })  # fmt: skip

    def descendants(self, starts: Iterable[DerivationId]) -> list[DerivationId]:
        """Return the active derivations below the starts; an inactive one passes nothing on."""
        return list(reachable(starts, lambda d: (n for n in self.dependants(d) if not self._inactive(n))))

    def pending(self, derivation_id: DerivationId) -> int:
        """Count the inputs whose producer is unsettled (rule 2)."""
        return sum(self.derivations[source].unsettled for source in self._sources(derivation_id, each=True))

    def want(self, derivation_id: DerivationId) -> str:
        """Return the digest of what the derivation wants now, apart from the content of its inputs."""
        row = self.derivations[derivation_id]
        inputs = ((found.role, found.blob_id) for found in self.ordered_inputs(derivation_id))
        return want_digest(row.definition_digest, row.settings_digest, inputs)

    def snapshot(self) -> dict[str, list[dict[str, Any]]]:
        """Return every table as plain rows in a stable order, to be compared with another implementation's."""
        tables: dict[str, Iterable[Any]] = {
            "blobs": self.blobs.values(),
            "derivations": self.derivations.values(),
            "derivation_inputs": (row for rows in self.inputs.values() for row in rows.values()),
            "derivation_outputs": (row for rows in self.outputs.values() for row in rows.values()),
            "runs": self.runs.values(),
            "cascades": self.cascades.values(),
            "deltas": self.deltas,
        }
        plain = {name: [_plain(asdict(row)) for row in rows] for name, rows in tables.items()}
        return {name: sorted(rows, key=lambda row: str(_key(row))) for name, rows in plain.items()}

    def due(self, derivation: Derivation, cascade: Cascade) -> float | None:
        """Return when a debounced derivation may run: quiet since the cause's last edit, or after its longest wait.

        Both count from the cause, so a chain of debounced derivations waits once (rule 10). What somebody asked for
        by name does not wait.
        """
        instance = self.instances[derivation.provider_id]
        if instance.quiet_seconds <= 0 or cascade.cause in AT_ONCE or derivation.dirty_since is None:
            return None
        longest = max(instance.max_wait_seconds, instance.quiet_seconds)
        return min(cascade.caused_at + instance.quiet_seconds, derivation.dirty_since + longest)

    # --- writing, shared by the moves ---------------------------------------------------------------------

    def ring(self, *cascades: CascadeId | None) -> None:
        """Ring doorbells: each cascade at most once in a transaction (rule 4)."""
        self.bells.update(found for found in cascades if found in self.cascades)

    def recount(self, derivation_ids: Iterable[DerivationId]) -> None:
        """Write ``pending_inputs`` anew, never add to it (rule 2)."""
        for found in derivation_ids:
            self.derivations[found].pending_inputs = self.pending(found)

    def close(self, derivation: Derivation) -> None:
        """Settle a derivation and free its dependants; ring the owners of those that wait for nothing more."""
        derivation.unsettled = False
        derivation.dirty_since = derivation.run_after = None
        derivation.force, derivation.fresh_after = False, None
        derivation.budget_place = derivation.budget_needed = derivation.resume_run_id = None
        below = self.dependants(derivation.id)
        waiting = [d for d in map(self.derivations.__getitem__, below) if d.pending_inputs > 0]
        self.recount(below)
        for found in waiting:
            if found.unsettled and found.pending_inputs == 0:
                self.ring(found.owner_cascade_id)

    def kept(self, derivation: Derivation, now: float) -> bool:
        """Tell whether a run whose inputs moved is left to finish (rule 6)."""
        waited = 0.0 if derivation.dirty_since is None else now - derivation.dirty_since
        return derivation.supersede == Supersede.FINISH or waited >= MAX_WAIT_SECONDS

    def end_run(self, derivation: Derivation, run: Run, status: RunStatus) -> None:
        """End the run that a derivation waits for; its owner and its claimer look again (rule 4)."""
        run.status = status
        derivation.run_id = None
        self.release(run.id)
        if derivation.hold == Hold.APPROVAL:
            derivation.hold = None
        self.ring(derivation.owner_cascade_id, run.cascade_id)

    def release(self, run_id: RunId) -> None:
        """Give back what a run had reserved: an ended run holds no reservation (invariant 12)."""
        self.reservations = {key: amount for key, amount in self.reservations.items() if key[0] != run_id}

    def finish_move(self) -> None:
        """Do what every move does at its end, inside its transaction; mixins add to it."""

    def drop_run(self, derivation: Derivation) -> None:
        """Supersede the run under way, if there is one: whatever it still delivers is fenced off (rule 1)."""
        if derivation.run_id is not None:
            self.end_run(derivation, self.runs[derivation.run_id], RunStatus.SUPERSEDED)

    def input_moved(self, derivation: Derivation, now: float) -> None:
        """Note that an input has moved: what held it is out of date, and so is the run unless kept.

        Who waits for money may need another amount now, or none; the place in the line stays. A person is never left
        to decide about what is out of date: a parked run is not kept.
        """
        if derivation.hold in (Hold.FAILED, Hold.CONFLICT, Hold.BUDGET):
            derivation.hold, derivation.hold_code = None, None
        derivation.losses = 0
        if derivation.hold == Hold.APPROVAL or not self.kept(derivation, now):
            self.drop_run(derivation)

    def blobs_moved(self, blob_ids: Iterable[BlobId], now: float) -> None:
        """Tell the active readers of these blobs that an input of theirs has moved."""
        for found in self.readers(blob_ids):
            if not self._inactive(found):
                self.input_moved(self.derivations[found], now)

    def append(
        self,
        blob: Blob,
        content: str | None,
        *,
        deleted: bool,
        cascade_id: CascadeId,
        run: Run | None = None,
        machine_hash: str | None = None,
    ) -> None:
        """Append a delta: the only way a blob changes. The schedule does not see it yet (rule 1)."""
        version = blob.version + 1
        run_id = None if run is None else run.id
        delta = Delta(blob.id, blob.version, version, content, deleted, cascade_id, run_id, machine_hash)
        self.deltas.append(delta)
        blob.version, blob.hash, blob.deleted = version, content, deleted

    def advance(self, blob: Blob) -> bool:
        """Let the schedule see the current version; tell whether what it sees is different."""
        before = blob.planned_hash
        blob.planned_version = blob.version
        blob.planned_hash = None if blob.deleted else blob.hash
        return blob.planned_hash != before

    def _inactive(self, derivation_id: DerivationId) -> bool:
        return self.derivations[derivation_id].hold == Hold.INACTIVE

    def _sources(self, derivation_id: DerivationId, *, each: bool = False) -> list[DerivationId]:
        rows = (row for row in self.inputs[derivation_id].values() if row.live)
        found = [self.producers[row.blob_id] for row in rows if row.blob_id in self.producers]
        return found if each else list(dict.fromkeys(found))


Params = ParamSpec("Params")
Result = TypeVar("Result")
Owner = TypeVar("Owner", bound=Facts)


def move(method: Callable[Concatenate[Owner, Params], Result]) -> Callable[Concatenate[Owner, Params], Result]:
    """Make a method one transaction: the doorbells that it rings are counted once each, at its end."""

    def transaction(self: Owner, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
        self.bells = set()
        result = method(self, *args, **kwargs)
        self.finish_move()
        for found in self.bells:
            self.cascades[found].seq += 1
        return result

    return cast("Callable[Concatenate[Owner, Params], Result]", wraps(method)(transaction))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return str(value) if isinstance(value, UUID | str) else value


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    if "id" in row:
        return (row["id"],)
    last = row.get("slot") or f"{row.get('to_version', 0):09d}"
    return (row.get("derivation_id", ""), row["blob_id"], last)
