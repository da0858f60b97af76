"""What people do: each is a delta or a fact, and a cascade that plan will carry into the schedule (rule 9).

None of these moves touches the schedule: what they change becomes visible to it in plan (rule 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from uuid import UUID

from domain.derivations import BLOB_CAUSES, Blob, Cascade, CascadeStatus, Cause, Instance, Member, OnParentFailure
from domain.errors import Conflict, Gone, NotFound
from domain.facts import move
from domain.failures import Failures
from domain.ids import BlobId, BucketId, CascadeId, DerivationId, InstanceId


class Causes(Failures):
    """Edits, memberships, activations: every move answers the cascade that carries it."""

    @move
    def create(
        self,
        blob_id: BlobId,
        schema_id: str,
        content: str,
        cascade_id: CascadeId,
        buckets: Mapping[BucketId, int] | None = None,
    ) -> CascadeId:
        """Create a person's blob at version 1, perhaps in buckets (bucket to position).

        Raises Conflict ``already_exists``.
        """
        if blob_id in self.blobs:
            raise Conflict("A blob with this id exists already.")
        members = {bucket: Member(position) for bucket, position in (buckets or {}).items()}
        blob = self.blobs[blob_id] = Blob(blob_id, schema_id, buckets=members)
        return self._write(blob, content, deleted=False, cause=Cause.CREATE, cascade_id=cascade_id)

    @move
    def edit(self, blob_id: BlobId, content: str, cascade_id: CascadeId) -> CascadeId:
        """Append a person's delta to a blob, their own or a derived one; raises NotFound, Gone."""
        blob = self._readable(blob_id)
        return self._write(blob, content, deleted=False, cause=Cause.EDIT, cascade_id=cascade_id)

    @move
    def delete(self, blob_id: BlobId, cascade_id: CascadeId) -> CascadeId:
        """Delete a blob; it keeps its last content. Raises NotFound, Gone."""
        blob = self._readable(blob_id)
        return self._write(blob, blob.hash, deleted=True, cause=Cause.DELETE, cascade_id=cascade_id)

    @move
    def restore(self, blob_id: BlobId, cascade_id: CascadeId) -> CascadeId:
        """Bring a deleted blob back as it was; raises NotFound, Conflict if it is not deleted."""
        blob = self._known(blob_id)
        if not blob.deleted:
            raise Conflict("The blob is not deleted.")
        return self._write(blob, blob.hash, deleted=False, cause=Cause.RESTORE, cascade_id=cascade_id)

    @move
    def add_member(self, bucket_id: BucketId, blob_id: BlobId, position: int, cascade_id: CascadeId) -> CascadeId:
        """Put a blob into a bucket, or elsewhere in it; raises NotFound, Gone."""
        self._readable(blob_id).buckets[bucket_id] = Member(position)
        return self._cause(Cause.BUCKET, [blob_id], cascade_id)

    @move
    def remove_member(self, bucket_id: BucketId, blob_id: BlobId, cascade_id: CascadeId) -> CascadeId:
        """Take a blob out of a bucket; raises NotFound unless a person had put it there.

        A derived blob whose anchor is in the bucket stays, by inheritance.
        """
        blob = self._known(blob_id)
        member = blob.buckets.get(bucket_id)
        if member is None or member.inherited_from is not None:
            raise NotFound("The blob was not put into this bucket.")
        del blob.buckets[bucket_id]
        producer = self.producer(blob_id)
        anchor = None if producer is None else self.blobs.get(BlobId(producer.anchor_id))
        if anchor is not None and bucket_id in anchor.buckets:
            blob.buckets[bucket_id] = Member(anchor.buckets[bucket_id].position, anchor.id)
        return self._cause(Cause.BUCKET, [blob_id], cascade_id)

    @move
    def register(self, instance: Instance) -> None:
        """Make an instance known, switched off; raises Conflict ``already_exists``."""
        if instance.id in self.instances:
            raise Conflict("An instance with this id exists already.")
        self.instances[instance.id] = instance

    @move
    def activate(self, instance_id: InstanceId, cascade_id: CascadeId) -> CascadeId:
        """Switch an instance on; raises NotFound."""
        self._instance(instance_id).active = True
        return self._cause(Cause.PROVIDER, [instance_id], cascade_id)

    @move
    def deactivate(self, instance_id: InstanceId, cascade_id: CascadeId) -> CascadeId:
        """Switch an instance off; its outputs stay as they are. Raises NotFound."""
        self._instance(instance_id).active = False
        return self._cause(Cause.PROVIDER, [instance_id], cascade_id)

    @move
    def redefine(
        self, instance_id: InstanceId, definition_digest: str, settings_digest: str, cascade_id: CascadeId
    ) -> CascadeId:
        """Give an instance another definition or other settings; raises NotFound."""
        instance = self._instance(instance_id)
        instance.definition_digest, instance.settings_digest = definition_digest, settings_digest
        return self._cause(Cause.PROVIDER, [instance_id], cascade_id)

    @move
    def set_policy(self, instance_id: InstanceId, policy: OnParentFailure, cascade_id: CascadeId) -> CascadeId:
        """Say what an instance's derivations do when something that they read fails; raises NotFound."""
        self._instance(instance_id).on_parent_failure = policy
        return self._cause(Cause.PROVIDER, [instance_id], cascade_id)

    @move
    def publish(self, instance_id: InstanceId, definition_digest: str) -> None:
        """Let somebody else's provider have a newer definition: no cause, for nobody here asked; raises NotFound."""
        self._instance(instance_id).definition_digest = definition_digest

    @move
    def upgrade(self, instance_id: InstanceId, cascade_id: CascadeId) -> CascadeId:
        """Ask that everything made with an older definition is made again; raises NotFound."""
        self._instance(instance_id)
        return self._cause(Cause.PROVIDER_CHANGE, [instance_id], cascade_id)

    @move
    def redrive(self, derivation_ids: Iterable[DerivationId], cascade_id: CascadeId) -> CascadeId:
        """Ask that failed derivations are tried again, with the definition of now; raises NotFound."""
        found = sorted(set(derivation_ids))
        if not set(found) <= set(self.derivations):
            raise NotFound("There is no such derivation.")
        return self._cause(Cause.REDRIVE, found, cascade_id)

    @move
    def reprocess(
        self, derivation_id: DerivationId, cascade_id: CascadeId, *, subtree: bool = False, fresh: bool = False
    ) -> CascadeId:
        """Ask for a run even if nothing changed, or after a failure; raises NotFound.

        ``subtree``: of everything below as well. ``fresh``: nothing that was paid for before counts as an answer.
        """
        if derivation_id not in self.derivations:
            raise NotFound("There is no such derivation.")
        made = self._cause(Cause.REPROCESS, [derivation_id], cascade_id)
        self.cascades[made].subtree, self.cascades[made].fresh = subtree, fresh
        return made

    def _write(
        self, blob: Blob, content: str | None, *, deleted: bool, cause: Cause, cascade_id: CascadeId
    ) -> CascadeId:
        joined = self._fold(blob.id) or self._cause(cause, [blob.id], cascade_id)
        self.append(blob, content, deleted=deleted, cascade_id=joined)
        return joined

    def _fold(self, blob_id: BlobId) -> CascadeId | None:
        """Return the unplanned cascade on this blob, rung again, if there is one (rule 10)."""
        for found in self.cascades.values():
            unplanned = found.planned_at is None and found.status == CascadeStatus.PENDING
            if unplanned and found.cause in BLOB_CAUSES and found.roots == (blob_id,):
                self.ring(found.id)
                found.caused_at = self.clock
                return found.id
        return None

    def _cause(self, cause: Cause, roots: Sequence[UUID], cascade_id: CascadeId) -> CascadeId:
        self.cascades[cascade_id] = Cascade(
            id=cascade_id, cause=cause, roots=tuple(roots), created_at=self.clock, caused_at=self.clock
        )
        return cascade_id

    def _known(self, blob_id: BlobId) -> Blob:
        blob = self.blobs.get(blob_id)
        if blob is None or blob.version == 0:
            raise NotFound("There is no such blob.")
        return blob

    def _readable(self, blob_id: BlobId) -> Blob:
        blob = self._known(blob_id)
        if blob.deleted:
            raise Gone("The blob is deleted; restore it first.")
        return blob

    def _instance(self, instance_id: InstanceId) -> Instance:
        if instance_id not in self.instances:
            raise NotFound("There is no such instance.")
        return self.instances[instance_id]
