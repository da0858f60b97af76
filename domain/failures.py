"""What a failure means further down: who waits for it, who goes on without, and what comes back when it is over.

``failing`` says of an unsettled derivation that it cannot settle before a failure is lifted, and that nothing is under
way that could cure it. It is a recount like ``pending_inputs`` (rule 2): when it changes, what reads the derivation is
counted again. A derivation whose ``on_parent_failure`` says so does not wait for an input that is failing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from domain.derivations import Derivation, Input, OnParentFailure, Pinned, Provisional
from domain.facts import Facts
from domain.graphs import reachable
from domain.ids import BlobId, CascadeId, DerivationId
from domain.runs import Hold

_SETTLED_AS = {
    OnParentFailure.USE_LAST_GOOD: Provisional.LAST_GOOD,
    OnParentFailure.SKIP: Provisional.SKIPPED,
}


class Failures(Facts):
    """Which inputs are waited for, and the recount that follows failures down the graph."""

    def waived(self, row: Input) -> bool:
        """Tell whether an input is not waited for although it is being made: its maker is failing.

        What was never made cannot be used: then ``use_last_good`` waits as ``block`` does.
        """
        maker = self.producer(row.blob_id)
        if maker is None or not maker.failing or not row.live:
            return False
        policy = self.derivations[row.derivation_id].on_parent_failure
        made = self.sees(self.blobs[row.blob_id])[1] is not None
        return policy == OnParentFailure.SKIP or (policy == OnParentFailure.USE_LAST_GOOD and made)

    def goes_on(self, derivation: Derivation) -> bool:
        """Tell whether a derivation does without something that is failing."""
        return any(self.waived(row) for row in self.inputs[derivation.id].values())

    def skipped(self, derivation: Derivation) -> bool:
        """Tell whether a derivation is to be settled without a run because something that it reads is failing."""
        return derivation.on_parent_failure == OnParentFailure.SKIP and self.goes_on(derivation)

    def waits(self, derivation_id: DerivationId) -> list[Derivation]:
        """Return the unsettled producers that a derivation waits for, one for each input."""
        rows = (row for row in self.inputs[derivation_id].values() if row.live and not self.waived(row))
        makers = (self.producer(row.blob_id) for row in rows)
        return [maker for maker in makers if maker is not None and maker.unsettled]

    def pending(self, derivation_id: DerivationId) -> int:
        """Count the inputs whose producer is waited for (rule 2)."""
        return len(self.waits(derivation_id))

    def blocked_by(self, derivation: Derivation) -> list[DerivationId]:
        """Return the unsettled ancestors that have a hold and are waited for, directly or not."""
        above = reachable([derivation.id], lambda found: [maker.id for maker in self.waits(found)])
        return sorted(found for found in above if self.derivations[found].hold is not None)

    def stale(self, derivation_id: DerivationId) -> bool:
        """Tell whether the outputs are of an older generation: failing or skipped, this one or one above."""
        seen = reachable([derivation_id], self._living_sources)
        rows = [self.derivations[found] for found in (derivation_id, *seen)]
        return any(row.unsettled or row.provisional == Provisional.SKIPPED for row in rows)

    def marked_inputs(self, derivation_id: DerivationId) -> tuple[Pinned, ...]:
        """Return what a run claimed now would read, each input with whether it is of an older generation."""
        rows = self.inputs[derivation_id]
        return tuple(
            replace(pinned, stale=rows[pinned.blob_id].live and self._stale_blob(pinned.blob_id))
            for pinned in self.pinned_inputs(derivation_id)
        )

    def _stale_blob(self, blob_id: BlobId) -> bool:
        maker = self.producer(blob_id)
        return maker is not None and not maker.asleep and self.stale(maker.id)

    def recount(self, derivation_ids: Iterable[DerivationId]) -> None:
        """Write ``pending_inputs`` and ``failing`` anew, wave by wave; then take back what went on over a failure."""
        wave, seen = list(dict.fromkeys(derivation_ids)), set[DerivationId]()
        while wave:
            seen.update(wave)
            changed = [found for found in wave if self._count(self.derivations[found])]
            wave = list(dict.fromkeys(below for found in changed for below in self.dependants(found)))
        lapsed = [found for found in sorted(seen) if self._lapsed(self.derivations[found])]
        if lapsed:
            self._take_back(lapsed)

    def close(self, derivation: Derivation) -> None:
        """Settle a derivation and free its dependants; a skipped one remembers that it was asked for."""
        going_on = self.goes_on(derivation) and not derivation.asleep
        force = derivation.force and going_on and derivation.on_parent_failure == OnParentFailure.SKIP
        derivation.provisional = _SETTLED_AS[derivation.on_parent_failure] if going_on else None
        derivation.failing = False
        super().close(derivation)
        derivation.force = force

    def _count(self, derivation: Derivation) -> bool:
        """Count one derivation; tell whether ``failing`` changed. Who waits for nothing more is rung."""
        waits = self.waits(derivation.id)
        if derivation.unsettled and derivation.pending_inputs > 0 and not waits:
            self.ring(derivation.owner_cascade_id)
        derivation.pending_inputs = len(waits)
        before, derivation.failing = derivation.failing, self._failing(derivation, waits)
        return derivation.failing != before

    def _failing(self, derivation: Derivation, waits: list[Derivation]) -> bool:
        """A failure stands while nothing above it moves; who waits for one that stands cannot go on either."""
        if not derivation.unsettled or derivation.run_id is not None:
            return False
        if derivation.hold == Hold.FAILED:
            return all(maker.failing for maker in waits)
        return derivation.hold is None and any(maker.failing for maker in waits)

    def _lapsed(self, derivation: Derivation) -> bool:
        """Tell whether the failure below which a derivation was settled is over, or about to be."""
        return derivation.provisional is not None and (derivation.pending_inputs > 0 or not self.goes_on(derivation))

    def _take_back(self, lapsed: list[DerivationId]) -> None:
        """Unsettle again what was settled below failures that are over, and what is below it."""
        touched: set[DerivationId] = set()
        for found in lapsed:
            owner = self._healer(found)
            for below in (found, *self.descendants([found])):
                row = self.derivations[below]
                if below not in touched and not row.unsettled:
                    touched.add(below)
                    row.unsettled, row.owner_cascade_id, row.provisional = True, owner, None
                    row.hold = None if row.hold == Hold.RETIRED else row.hold
            self.ring(owner)
        self.recount(touched.union(*(self.dependants(found) for found in touched)))

    def _healer(self, derivation_id: DerivationId) -> CascadeId | None:
        """Return the cascade that makes what was failing, else the derivation's own."""
        makers = sorted((m for m in self.waits(derivation_id) if not m.failing), key=lambda maker: maker.id)
        return (makers or [self.derivations[derivation_id]])[0].owner_cascade_id

    def _living_sources(self, derivation_id: DerivationId) -> list[DerivationId]:
        """What this one is made from; what is asleep, failing or skipped is as it is, whatever stands above it."""
        rows = (self.derivations[found] for found in self._sources(derivation_id))
        return [row.id for row in rows if not row.asleep]
