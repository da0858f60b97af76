"""Plan: how a cause enters the schedule (CASCADES.md, rules 1, 3, 8 and 9)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from domain.derivations import BLOB_CAUSES, Cascade, CascadeStatus, Cause, Derivation, Instance
from domain.discovery import Discovery
from domain.facts import move
from domain.ids import BlobId, CascadeId, DerivationId, InstanceId
from domain.runs import Hold


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What plan did: ``planned`` is false if there was nothing (left) to plan; ``touched`` are now unsettled."""

    planned: bool
    touched: tuple[DerivationId, ...] = ()


class Planning(Discovery):
    """Advances what a cause changed, and unsettles everything below it."""

    @move
    def plan(self, cascade_id: CascadeId, now: float) -> Planned:
        """Carry a cause into the schedule: advance, discover, unsettle and own everything below it. Once."""
        self.clock = now
        cascade = self.cascades.get(cascade_id)
        if cascade is None or self._already_planned(cascade):
            return Planned(planned=False)
        return self._plan(cascade, now)

    def _plan(self, cascade: Cascade, now: float) -> Planned:
        touched = self._unsettle(self._directly_moved(cascade), cascade, now)
        if cascade.cause == Cause.PROVIDER:  # whom a change of policy concerns that is held for its own failure
            self.recount(self._of_instance(InstanceId(cascade.roots[0])))
        cascade.planned_at = now
        self.bells.discard(cascade.id)
        return Planned(planned=True, touched=touched)

    def _already_planned(self, cascade: Cascade) -> bool:
        """Tell whether plan is over (rule 3)."""
        return cascade.planned_at is not None or cascade.status == CascadeStatus.CANCELLED

    def _directly_moved(self, cascade: Cascade) -> set[DerivationId]:
        """Advance what the cause changed, and return the derivations that it moves itself."""
        if cascade.cause == Cause.TOP_UP:
            return set()  # holds were lifted with the fact: no planned version moves
        if cascade.cause == Cause.REDRIVE:
            return self._redriven(cascade)
        [root] = cascade.roots
        if cascade.cause in BLOB_CAUSES:
            return self._blob_moved(BlobId(root))
        if cascade.cause == Cause.BUCKET:
            return self.discover(self.inherit(BlobId(root)))
        if cascade.cause in (Cause.PROVIDER, Cause.PROVIDER_CHANGE):
            upgrade = cascade.cause == Cause.PROVIDER_CHANGE
            return self._outdated(InstanceId(root)) if upgrade else self._instance_moved(InstanceId(root))
        return self._asked_again(DerivationId(root), cascade)

    def _asked_again(self, asked: DerivationId, cascade: Cascade) -> set[DerivationId]:
        """Force what is to run again: a run that is left to finish is an answer as well, unless it has to be fresh."""
        derivation = self.derivations[asked]
        if derivation.hold == Hold.INACTIVE:
            return {asked}
        if derivation.hold == Hold.APPROVAL:
            self.drop_run(derivation)
        derivation.hold, derivation.hold_code = None, None
        forced = {asked, *(self.descendants([asked]) if cascade.subtree else ())}
        for found in map(self.derivations.__getitem__, forced):
            found.force = True
            if cascade.fresh:
                found.fresh_after = max(found.fresh_after or cascade.created_at, cascade.created_at)
        return forced

    def _blob_moved(self, blob_id: BlobId) -> set[DerivationId]:
        blob = self.blobs[blob_id]
        moved = set(self.readers([blob_id])) if self.advance(blob) else set()
        producer = self.producer(blob_id)
        if producer is not None and (blob.deleted or producer.hold == Hold.RETIRED):
            moved.add(producer.id)
        return moved | self.discover([blob_id])

    def _instance_moved(self, instance_id: InstanceId) -> set[DerivationId]:
        """Bring an instance's derivations in line with it, whichever of its causes is planned first."""
        instance = self.instances[instance_id]
        known = self._of_instance(instance.id)
        if not instance.active:
            for found in known:
                self._deactivate(self.derivations[found])
            return set()
        members = {blob_id for found in known for blob_id in self.inputs[found]}
        matching = {b.id for b in self.blobs.values() if b.schema_id in instance.input_schemas}
        moved = self.discover(sorted(members | matching), instance)
        for derivation in map(self.derivations.__getitem__, known):
            policy, derivation.on_parent_failure = derivation.on_parent_failure, instance.on_parent_failure
            waits = derivation.hold is None and (derivation.unsettled or derivation.provisional is not None)
            changed = waits and policy != instance.on_parent_failure
            if self._want_as(derivation, instance) or changed or derivation.hold == Hold.INACTIVE:
                moved.add(derivation.id)
            if derivation.hold == Hold.INACTIVE:
                derivation.hold = None
        return moved

    def _want_as(self, derivation: Derivation, instance: Instance) -> bool:
        """Want what the instance says; a newer definition of somebody else's alone is no reason to make it again."""
        if instance.published and derivation.settings_digest == instance.settings_digest:
            return self._want_again(derivation.id)
        return self.renew(derivation)

    def _outdated(self, instance_id: InstanceId) -> set[DerivationId]:
        """Return what wants an older definition than its provider's, wanting that of now."""
        rows = map(self.derivations.__getitem__, self._of_instance(instance_id))
        return {row.id for row in rows if not row.asleep and self.renew(row)}

    def _redriven(self, cascade: Cascade) -> set[DerivationId]:
        """Free what is still failed, to run whatever it wants by now."""
        found = {DerivationId(root) for root in cascade.roots}
        failed = {row for row in found if self.derivations[row].hold == Hold.FAILED}
        for derivation in map(self.derivations.__getitem__, failed):
            self.renew(derivation)
            derivation.force, derivation.hold, derivation.hold_code = True, None, None
        return failed

    def _deactivate(self, derivation: Derivation) -> None:
        if derivation.hold != Hold.INACTIVE:
            self.drop_run(derivation)
            derivation.hold, derivation.hold_code = Hold.INACTIVE, None
            if derivation.unsettled:
                self.ring(derivation.owner_cascade_id)
            self.close(derivation)

    def _unsettle(self, moved: set[DerivationId], cascade: Cascade, now: float) -> tuple[DerivationId, ...]:
        """Unsettle and own the directly moved and everything active below them; ring the former owners."""
        direct = {found for found in moved if not self._inactive(found)}
        for found in sorted(direct):
            self.input_moved(self.derivations[found], now)
        touched = direct | set(self.descendants(sorted(direct)))
        former: set[CascadeId] = set()
        for derivation in map(self.derivations.__getitem__, touched):
            if derivation.hold in (Hold.RETIRED, Hold.CANCELLED):  # cancelled is what a cause before this one did
                derivation.hold = derivation.hold_code = None
            if derivation.unsettled and derivation.owner_cascade_id not in (None, cascade.id):
                former.add(derivation.owner_cascade_id)
            derivation.unsettled, derivation.owner_cascade_id, derivation.provisional = True, cascade.id, None
            if derivation.dirty_since is None:
                derivation.dirty_since = cascade.created_at
            derivation.run_after = self.due(derivation, cascade)
        self.recount(touched.union(moved, *(self.dependants(found) for found in touched)))
        self._supersede(former, cascade)
        return tuple(sorted(touched))

    def _supersede(self, former: Iterable[CascadeId], cascade: Cascade) -> None:
        for found in former:
            self.ring(found)
            if not self.owned(found):
                self.cascades[found].superseded_by = cascade.id
