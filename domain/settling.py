"""The ends of a run: settled, failed or lost, and fenced off if they come too late (rules 1 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.derivations import Derivation, Draft, Run
from domain.facts import move
from domain.failures import Failures
from domain.ids import BlobId, RunId
from domain.runs import Hold, RunStatus

LOSSES_MAX = 5
"""How often in a row a derivation may lose its run, on the same inputs, before that counts as a failure."""
RUN_LOST = "run_lost"
"""The code of a run that was the last one to get lost."""


class Ending(StrEnum):
    """What a late or repeated report of a run came to."""

    SETTLED = "settled"
    FAILED = "failed"
    LOST = "lost"
    PARKED = "parked"
    ALREADY = "already"
    SUPERSEDED = "superseded"
    MOVED = "moved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What settle did; ``changed`` are the outputs that got a new version. ``moved``: merge again, then settle."""

    status: Ending
    changed: tuple[BlobId, ...] = ()


class Settling(Failures):
    """What happens to the derivation, its outputs and its dependants when a run ends."""

    @move
    def settle(self, run_id: RunId, drafts: Sequence[Draft], now: float) -> Settled:
        """Take in what a run made: fence, append what differs, advance, free the dependants."""
        self.clock = now
        run = self.runs.get(run_id)
        ended = self._fence(run)
        if run is None or ended is not None:
            return Settled(status=ended or Ending.SUPERSEDED)
        derivation = self.derivations[run.derivation_id]
        if self.output_deleted(derivation):
            self.end_run(derivation, run, RunStatus.SUPERSEDED)
            self.recount([derivation.id])
            return Settled(status=Ending.SUPERSEDED)
        outputs = self.outputs[derivation.id]
        if any(self.blobs[outputs[draft.slot].blob_id].version != draft.version for draft in drafts):
            return Settled(status=Ending.MOVED)
        changed = [found for draft in drafts for found in self._take_in(derivation, run, draft)]
        self._use(derivation, run)
        self.end_run(derivation, run, RunStatus.SETTLED)
        self.blobs_moved(changed, now)
        self.recount([derivation.id, *self.readers(changed)])
        if derivation.pending_inputs == 0 and self.unchanged(derivation) and not derivation.force:
            self.close(derivation)
        else:
            self._wait_anew(derivation, run)
        return Settled(status=Ending.SETTLED, changed=tuple(changed))

    @move
    def fail(self, run_id: RunId, code: str) -> Ending:
        """End a run for good: the derivation stays unsettled and held, so that what is below it waits.

        A run that was left to finish although its inputs had moved proves nothing about the newer ones: no hold.
        """
        run = self.runs.get(run_id)
        ended = self._fence(run)
        if run is None or ended is not None:
            return ended or Ending.SUPERSEDED
        derivation = self.derivations[run.derivation_id]
        run.error, derivation.resume_run_id = code, None  # its finished steps may be why it failed
        self.end_run(derivation, run, RunStatus.FAILED)
        if self._current(derivation, run):
            derivation.hold, derivation.hold_code, derivation.losses = Hold.FAILED, code, 0
        self.recount([derivation.id])
        if derivation.hold is not None:
            self._ring_below(derivation)
        return Ending.FAILED

    @move
    def lose(self, run_id: RunId, losses_max: int = LOSSES_MAX) -> Ending:
        """End a run that nobody executes any more (lease expired, workflow gone): it is claimed again.

        Not for ever: a run that is lost each time is what loses it, and after ``losses_max`` times it has failed.
        """
        run = self.runs.get(run_id)
        ended = self._fence(run)
        if run is None or ended is not None:
            return ended or Ending.SUPERSEDED
        derivation = self.derivations[run.derivation_id]
        derivation.losses += 1
        derivation.resume_run_id = run.id
        failed = derivation.losses >= losses_max and self._current(derivation, run)
        self.end_run(derivation, run, RunStatus.FAILED if failed else RunStatus.LOST)
        if failed:
            run.error = RUN_LOST
            derivation.hold, derivation.hold_code, derivation.losses = Hold.FAILED, RUN_LOST, 0
        self.recount([derivation.id])
        if failed:
            self._ring_below(derivation)
        return Ending.FAILED if failed else Ending.LOST

    def _ring_below(self, derivation: Derivation) -> None:
        """Ring the cascades that wait for a derivation which is held now: they may close as partial."""
        below = map(self.derivations.__getitem__, self.descendants([derivation.id]))
        self.ring(*(d.owner_cascade_id for d in below if d.unsettled))

    def _fence(self, run: Run | None) -> Ending | None:
        """Return why a report on this run comes too late, None if it does not.

        The run's status is looked at first: a report repeated after a lost acknowledgement is no news (rule 3). A
        run that is not known was made before the database was restored (rule 11).
        """
        if run is None:
            return Ending.SUPERSEDED
        if run.status != RunStatus.RUNNING:  # nobody carries out a parked run: who reports on it was given up
            return Ending.ALREADY if run.status == RunStatus.SETTLED else Ending.SUPERSEDED
        if self.derivations[run.derivation_id].run_id != run.id:
            run.status = RunStatus.SUPERSEDED
            self.release(run.id)
            return Ending.SUPERSEDED
        return None

    def _take_in(self, derivation: Derivation, run: Run, draft: Draft) -> list[BlobId]:
        """Move the machine head, and the blob if the merged document differs; return the blob if it moved."""
        row = self.outputs[derivation.id][draft.slot]
        if draft.machine_hash == row.machine_hash:
            return []
        row.machine_hash, row.machine_run_id = draft.machine_hash, run.id
        blob = self.blobs[row.blob_id]
        if draft.merged_hash == blob.hash and not blob.deleted:
            return []
        self.append(
            blob, draft.merged_hash, deleted=False, cascade_id=run.cascade_id, run=run,
            machine_hash=draft.machine_hash,
        )  # fmt: skip
        self.advance(blob)
        return [blob.id]

    def _use(self, derivation: Derivation, run: Run) -> None:
        """Note what the run used; an input that it did not see counts as absent."""
        pinned = {found.blob_id: found for found in run.inputs}
        derivation.used_digest = run.used_digest
        if derivation.fresh_after == run.fresh_after:  # else it was claimed before it was to be fresh
            derivation.force, derivation.fresh_after = False, None
        derivation.losses = 0
        for row in self.inputs[derivation.id].values():
            found = pinned.get(row.blob_id)
            row.used_version, row.used_hash = (None, None) if found is None else (found.version, found.hash)
        self.recount([derivation.id])

    def _wait_anew(self, derivation: Derivation, run: Run) -> None:
        """What a settled run has not taken in came after it began: the longest wait counts from there again."""
        derivation.dirty_since = run.started_at
        owner = self.cascades.get(derivation.owner_cascade_id) if derivation.owner_cascade_id else None
        derivation.run_after = None if owner is None else self.due(derivation, owner)

    def _current(self, derivation: Derivation, run: Run) -> bool:
        """Tell whether the run read what a run claimed now would read."""
        read = [(found.blob_id, found.hash) for found in run.inputs]
        reads = [(found.blob_id, found.hash) for found in self.pinned_inputs(derivation.id)]
        return run.used_digest == derivation.want_digest and read == reads
