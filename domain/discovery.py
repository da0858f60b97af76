"""Discovery: which instance reacts to which blob (CASCADES.md, rule 8). It happens in plan and nowhere else.

Matching is by schema and bucket, transitively: the outputs of a new derivation exist at once, as invisible blobs
at version 0, and are matched in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from uuid import UUID

from domain.causes import Causes
from domain.derivations import Anchor, Blob, Derivation, Input, Instance, Member, Output
from domain.graphs import levels, reachable
from domain.ids import BlobId, BucketId, DerivationId, InstanceId, derivation_id, output_blob_id

DEPTH_MAX = 1_200
"""How many derivations may stand one below the other; matching stops there."""
NODES_MAX = 20_000
"""How many derivations one plan may create; matching stops there."""


class Discovery(Causes):
    """Creates derivations and keeps the inputs of joins equal to the members of their buckets."""

    def discover(self, blob_ids: Iterable[BlobId], only: Instance | None = None) -> set[DerivationId]:
        """Match these blobs, and whatever they newly lead to; return the derivations that are new or changed.

        ``only`` restricts the first round to one instance. Instances are tried by id, blobs in the order given:
        where two joins could feed each other, the first to match wins, the other is refused as a cycle.
        """
        changed: set[DerivationId] = set()
        queue: deque[tuple[BlobId, Instance | None]] = deque((found, only) for found in blob_ids)
        made = 0
        while queue:
            blob_id, wanted = queue.popleft()
            blob = self.blobs[blob_id]
            changed |= self._leave_buckets(blob)
            if not self._matchable(blob):
                continue
            for instance, anchor_id in self._matches(blob, wanted):
                found = derivation_id(instance.id, anchor_id)
                if found not in self.derivations:
                    if made == NODES_MAX:
                        continue
                    made += 1
                    changed.add(found)
                    queue.extend((output, None) for output in self._derive(found, instance, anchor_id, blob))
                if instance.anchor == Anchor.BUCKET and self._join(found, instance, blob, BucketId(anchor_id)):
                    changed.add(found)
        for found in changed:
            self._want_again(found)
        return changed

    def inherit(self, blob_id: BlobId) -> list[BlobId]:
        """Let everything anchored at a blob follow it into and out of buckets; return the blob and those."""
        chain = [blob_id]
        for anchor_id in chain:
            anchor = self.blobs[anchor_id]
            for row in self._anchored(anchor_id):
                self._follow(self.blobs[row.blob_id], anchor)
                chain.append(row.blob_id)
        return chain

    def _matchable(self, blob: Blob) -> bool:
        """Tell whether the schedule knows the blob: planned, or a derivation's, which may come (back) any time."""
        return self.sees(blob)[1] is not None or blob.id in self.producers

    def _matches(self, blob: Blob, only: Instance | None) -> Iterator[tuple[Instance, UUID]]:
        """Yield the active instances that take this blob, with the anchor of the derivation."""
        instances = sorted(self.instances.values(), key=lambda i: i.id) if only is None else [only]
        above = self._makers(blob)
        if len(above) >= DEPTH_MAX and self._depth(blob) >= DEPTH_MAX:
            return
        used = {self.derivations[found].provider_id for found in above}
        for instance in instances:
            if not instance.active or blob.schema_id not in instance.input_schemas or instance.id in used:
                continue
            if instance.anchor == Anchor.BLOB:
                yield instance, blob.id
            else:
                yield from ((instance, bucket) for bucket in sorted(blob.buckets))

    def _makers(self, blob: Blob) -> list[DerivationId]:
        """Return every derivation among the producers of a blob, pinned inputs included."""
        made = self.producers.get(blob.id)
        if made is None:
            return []
        up = reachable([made], lambda d: [self.producers[b] for b in self.inputs[d] if b in self.producers])
        return [made, *up]

    def _depth(self, blob: Blob) -> int:
        """Count the derivations on the longest way from a person's blob to this one."""
        edges = [
            (self.producers[row], made) for made in self._makers(blob) for row in self.inputs[made]
            if row in self.producers
        ]  # fmt: skip
        return len(levels(edges, self._makers(blob)))

    def _derive(self, found: DerivationId, instance: Instance, anchor_id: UUID, blob: Blob) -> list[BlobId]:
        """Create a derivation with its invisible outputs; return those."""
        self.derivations[found] = Derivation(
            id=found, provider_id=instance.id, anchor_id=anchor_id, execution=instance.execution,
            supersede=instance.supersede, want_digest="", definition_digest=instance.definition_digest,
            settings_digest=instance.settings_digest, on_parent_failure=instance.on_parent_failure,
            priority=instance.priority,
        )  # fmt: skip
        self.inputs[found] = {}
        self.outputs[found] = {}
        joins = instance.anchor == Anchor.BUCKET
        if not joins:
            self._add_input(Input(derivation_id=found, blob_id=blob.id, tracks=instance.tracks))
            self._level(self.derivations[found])
        for slot, schema_id in instance.outputs:
            output = Blob(output_blob_id(found, slot), schema_id)
            if joins:
                output.buckets = {BucketId(anchor_id): Member(0, anchor_id)}
            else:
                self._follow(output, blob)
            self.blobs[output.id] = output
            self.producers[output.id] = found
            self.outputs[found][slot] = Output(derivation_id=found, slot=slot, blob_id=output.id)
        return [row.blob_id for row in self.outputs[found].values()]

    def _join(self, found: DerivationId, instance: Instance, blob: Blob, bucket_id: BucketId) -> bool:
        """Make a member of a bucket an input of its join, at its place; tell whether that changes anything."""
        position = blob.buckets[bucket_id].position
        row = self.inputs[found].get(blob.id)
        if row is not None:
            row.position, before = position, row.position
            if position != before:
                self._level(self.derivations[found])
            return position != before
        self._add_input(
            Input(derivation_id=found, blob_id=blob.id, position=position, required=False, tracks=instance.tracks)
        )
        self._level(self.derivations[found])
        return True

    def _leave_buckets(self, blob: Blob) -> set[DerivationId]:
        """Take the blob out of the joins of buckets that it has left; return those."""
        left = set()
        for found in sorted(self.consumers.get(blob.id, ())):
            derivation = self.derivations[found]
            instance = self.instances[derivation.provider_id]
            if instance.active and instance.anchor == Anchor.BUCKET and derivation.anchor_id not in blob.buckets:
                del self.inputs[found][blob.id]
                self.consumers[blob.id].discard(found)
                self._level(derivation)
                left.add(found)
        return left

    def _level(self, derivation: Derivation) -> None:
        """Place a derivation below those that make its inputs, as deep as they stand now: claim goes by it."""
        above = [self.producers[row] for row in self.inputs[derivation.id] if row in self.producers]
        derivation.level = 1 + max((self.derivations[found].level for found in above), default=0)

    def _want_again(self, found: DerivationId) -> bool:
        """Compute *want* again; tell whether it changed."""
        derivation = self.derivations[found]
        before = derivation.want_digest
        derivation.want_digest = self.want(found)
        return derivation.want_digest != before

    def renew(self, derivation: Derivation) -> bool:
        """Let a derivation want the definition and settings of now; tell whether that changed anything."""
        instance = self.instances[derivation.provider_id]
        derivation.definition_digest = instance.definition_digest
        derivation.settings_digest = instance.settings_digest
        return self._want_again(derivation.id)

    def _of_instance(self, instance_id: InstanceId) -> list[DerivationId]:
        return sorted(d.id for d in self.derivations.values() if d.provider_id == instance_id)

    def _anchored(self, blob_id: BlobId) -> list[Output]:
        at = sorted(d.id for d in self.derivations.values() if d.anchor_id == blob_id)
        return [row for found in at for row in self.outputs[found].values()]

    def _add_input(self, row: Input) -> None:
        self.inputs[row.derivation_id][row.blob_id] = row
        self.consumers.setdefault(row.blob_id, set()).add(row.derivation_id)

    @staticmethod
    def _follow(output: Blob, anchor: Blob) -> None:
        """Give an output the memberships of its anchor, keeping those that a person gave it."""
        own = {bucket: member for bucket, member in output.buckets.items() if member.inherited_from is None}
        theirs = {
            bucket: Member(member.position, member.inherited_from or anchor.id)
            for bucket, member in anchor.buckets.items()
        }
        output.buckets = theirs | own
