"""Small graphs by name, and one pair of hands for all workflows: for tests of single rules."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

from domain.cascades import Closing, Schedule
from domain.derivations import Blob, Derivation, Draft, Instance, Run
from domain.ids import BlobId, BucketId, CascadeId, InstanceId, RunId, derivation_id, output_blob_id
from domain.runs import UNFINISHED
from domain.settling import Ending
from tests.domain.cascade_checks import check_step

HERE = UUID(int=7)


def uid(name: str) -> UUID:
    return uuid5(HERE, name)


class Story:
    """A schedule with names instead of ids, and one pair of hands for all workflows."""

    def __init__(self, schedule: Schedule | None = None) -> None:
        self.schedule = Schedule() if schedule is None else schedule
        self.count = 0
        self.now = 0.0

    def instance(self, name: str, reads: str, makes: str, **more: Any) -> InstanceId:
        instance = Instance(
            id=InstanceId(uid(name)), input_schemas=frozenset(reads.split()),
            outputs=tuple((made, made) for made in makes.split()), definition_digest=name, **more,
        )  # fmt: skip
        self.schedule.register(instance)
        self.do("activate", instance_id=instance.id)
        return instance.id

    def do(self, move: str, **args: Any) -> CascadeId:
        """A person's move, under a cascade of its own; what it answers."""
        answer: CascadeId = getattr(self.schedule, move)(**args, cascade_id=self.new_cascade())
        check_step(self.schedule, self.now)
        return answer

    def new_cascade(self) -> CascadeId:
        self.count += 1
        return CascadeId(UUID(int=self.count, version=4))

    def create(self, name: str, schema: str, content: str = "a", **buckets: int) -> BlobId:
        blob_id = BlobId(uid(name))
        inside = {bucket(found): position for found, position in buckets.items()}
        self.do("create", blob_id=blob_id, schema_id=schema, content=content, buckets=inside)
        return blob_id

    def edit(self, blob_id: BlobId, content: str) -> CascadeId:
        return self.do("edit", blob_id=blob_id, content=content)

    def plan(self, *cascades: CascadeId) -> None:
        for found in cascades:
            self.schedule.plan(found, self.now)
            check_step(self.schedule, self.now)

    def claim(self, cascade_id: CascadeId, window: int = 9) -> list[Run]:
        """Claim, and return the runs to be seen to."""
        self.count += 1
        fresh = [RunId(UUID(int=(self.count << 16) + n, version=4)) for n in range(window)]
        claim = self.schedule.claim(cascade_id, fresh, self.now, window)
        check_step(self.schedule, self.now)
        return [self.schedule.runs[found] for found in claim.runs]

    def settle(self, run: Run, made: str | None = None) -> Ending:
        """Settle a run with what it made: by default its inputs in brackets, after the slot."""
        drafts = []
        for slot, row in self.schedule.outputs[run.derivation_id].items():
            content = made or f"{slot}({','.join(pinned.hash for pinned in run.inputs)})"
            version = self.schedule.blobs[row.blob_id].version
            drafts.append(Draft(slot=slot, machine_hash=content, merged_hash=content, version=version))
        ending = self.schedule.settle(run.id, drafts, self.now).status
        check_step(self.schedule, self.now)
        return ending

    def rest(self, *failing: str) -> list[str]:
        """Serve every cascade until none has anything to do; return what ran, in order, by instance name.

        Runs of the instances named ``failing`` fail.
        """
        ran = []
        while todo := [c.id for c in self.schedule.cascades.values() if c.seq > c.sent_seq or self.due(c.id)]:
            for cascade_id in todo:
                self.schedule.sent(cascade_id, self.schedule.cascades[cascade_id].seq)
                self.plan(cascade_id)
                for run in self.claim(cascade_id):
                    ran.append(self.name_of(run))
                    if self.name_of(run) in failing:
                        self.schedule.fail(run.id, "provider_failed")
                        check_step(self.schedule, self.now)
                    else:
                        self.settle(run)
                self.close(cascade_id)
        return ran

    def due(self, cascade_id: CascadeId) -> bool:
        return any(d.run_id is None and self.schedule._ready(d) for d in self.schedule.owned(cascade_id))

    def close(self, cascade_id: CascadeId) -> Closing:
        return self.schedule.close_cascade(cascade_id, self.schedule.cascades[cascade_id].seq)

    def name_of(self, run: Run) -> str:
        instance_id = self.schedule.derivations[run.derivation_id].provider_id
        return self.schedule.instances[instance_id].definition_digest

    def derivation(self, instance: InstanceId, anchor: UUID) -> Derivation:
        return self.schedule.derivations[derivation_id(instance, anchor)]

    def output(self, instance: InstanceId, anchor: UUID, slot: str) -> Blob:
        return self.schedule.blobs[output_blob_id(derivation_id(instance, anchor), slot)]

    def live(self) -> list[Run]:
        return [run for run in self.schedule.runs.values() if run.status in UNFINISHED]


def bucket(name: str) -> BucketId:
    return BucketId(uid(f"bucket {name}"))


def chain(story: Story, **more: Any) -> tuple[InstanceId, InstanceId, InstanceId]:
    return (
        story.instance("outline", "topic", "outlined", **more),
        story.instance("expand", "outlined", "chapter", **more),
        story.instance("polish", "chapter", "polished", **more),
    )
