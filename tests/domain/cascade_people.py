"""What people do in a random world, and the record of every transaction."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass, is_dataclass
from random import Random
from typing import Any
from uuid import UUID

from domain.cascades import Schedule
from domain.derivations import Anchor, Blob, CascadeStatus, Execution, Instance, OnDelete, OnParentFailure, Supersede
from domain.ids import BlobId, BucketId, BudgetId, CascadeId, InstanceId, RunId
from domain.runs import Hold, RunStatus
from tests.domain.cascade_checks import check_acyclic, check_step

DERIVATIONS_MAX = 40
"""People stop creating blobs and memberships beyond this, so that scenarios stay small."""


def plain(value: Any) -> Any:
    """Turn arguments and answers into JSON values: ids and names as text, dataclasses as objects, sets sorted."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, dict):
        return {str(name): plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple):
        return [plain(member) for member in value]
    if isinstance(value, frozenset | set):
        return sorted(plain(member) for member in value)
    return str(value) if isinstance(value, UUID | str) else value


@dataclass(frozen=True, slots=True)
class Step:
    """One transaction: the name of a move of ``Schedule``, its arguments, and what it answered (``plain``)."""

    move: str
    args: dict[str, Any]
    result: Any

    def fresh(self) -> dict[str, Any]:
        """Return the arguments, not shared with any schedule that has executed them."""
        return copy.deepcopy(self.args)


class People:
    """One user's schedule, the choices that are made about it, and the trace of what was executed."""

    def __init__(self, random: Random, schedule: Schedule | None = None) -> None:
        self.random = random
        self.schedule = Schedule() if schedule is None else schedule
        self.now = 0.0
        self.trace: list[Step] = []
        self.units = 0
        self.controls = True
        self.buckets = [BucketId(self.uuid()) for _ in range(2)]
        for instance in self._catalogue():
            self.do("register", instance=instance)
            if self.chance(0.8):
                self.do("activate", instance_id=instance.id, cascade_id=self.cascade_id())
        for _ in range(self.random.randint(1, 3)):
            self._create()

    # --- chance -------------------------------------------------------------------------------------------

    def uuid(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def cascade_id(self) -> CascadeId:
        return CascadeId(self.uuid())

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def _catalogue(self) -> Iterator[Instance]:
        """Instances over a few schemas: mostly a chain downwards, sometimes upwards, some joins."""
        for number in range(self.random.randint(3, 7)):
            join = self.chance(0.3)
            reads = self.random.sample(range(4), self.random.choice([1, 1, 2]))
            makes = [
                min(5, max(reads) + 1) if self.chance(0.85) else self.random.randrange(6)
                for _ in range(self.random.choice([1, 1, 1, 2]))
            ]
            yield Instance(
                id=InstanceId(self.uuid()), input_schemas=frozenset(f"s{read}" for read in reads),
                outputs=tuple((f"out{place}", f"s{made}") for place, made in enumerate(makes)),
                definition_digest=f"d{number}", anchor=Anchor.BUCKET if join else Anchor.BLOB,
                tracks=join or self.chance(0.9),
                execution=self.random.choice(list(Execution)),
                supersede=Supersede.FINISH if self.chance(0.3) else Supersede.CANCEL,
                on_delete=OnDelete.DELETE if self.chance(0.4) else OnDelete.KEEP,
                quiet_seconds=5.0 if self.chance(0.15) else 0.0, max_wait_seconds=12.0,
                on_parent_failure=self.random.choice(list(OnParentFailure)), published=self.chance(0.3),
            )  # fmt: skip

    # --- transactions -------------------------------------------------------------------------------------

    def do(self, name: str, **args: Any) -> Any:
        """Execute one move, record it, and check what must hold after every transaction."""
        recorded = copy.deepcopy(args) if name == "register" else dict(args)
        result = getattr(self.schedule, name)(**args)
        self.trace.append(Step(name, recorded, plain(result)))
        if name not in ("register", "sent"):
            check_step(self.schedule, self.now)
        if name in ("plan", "claim"):
            check_acyclic(self.schedule)
        return result

    # --- people -------------------------------------------------------------------------------------------

    def person(self) -> None:
        """One thing that a person does, if it is possible."""
        acts = [self._create] * 3 + [self._edit] * 6 + [self._membership] * 3 + [self._remove_member]
        acts += [self._delete, self._restore, self._switch, self._redefine, self._reprocess, self._budget]
        acts += [self._set_policy, self._publish, self._upgrade, self._redrive]
        if self.controls:
            acts += [self._decide] * 2 + [self._cancel_run, self._cancel_cascade, self._retry]
        self.random.choice(acts)()

    def _blobs(self, *, deleted: bool = False, derived: bool | None = None) -> list[Blob]:
        rows = (b for b in self.schedule.blobs.values() if b.version > 0 and b.deleted == deleted)
        found = [b for b in rows if derived is None or (b.id in self.schedule.producers) == derived]
        return sorted(found, key=lambda b: b.id)

    def _small(self) -> bool:
        return len(self.schedule.derivations) < DERIVATIONS_MAX and len(self._blobs(derived=False)) < 6

    def _create(self) -> None:
        if self._small():
            buckets = {self.random.choice(self.buckets): self.random.randrange(3)} if self.chance(0.4) else {}
            self.do(
                "create", blob_id=BlobId(self.uuid()), schema_id=f"s{self.random.choice([0, 0, 1, 2])}",
                content=self.random.choice("abc"), cascade_id=self.cascade_id(), buckets=buckets,
            )  # fmt: skip

    def _edit(self) -> None:
        merging = self.merging()
        blobs = self._blobs(derived=self.random.choice([True, False, False, None]))
        if merging and self.chance(0.2):
            blobs = [self.schedule.blobs[self.random.choice(merging)]]
        if blobs:
            blob = self.random.choice(blobs)
            content = self.random.choice("abc")
            if blob.id in self.schedule.producers:
                self.units += 1
                content = f"{blob.hash}+{'!' if self.chance(0.1) else ''}u{self.units}"
            self.do("edit", blob_id=blob.id, content=content, cascade_id=self.cascade_id())

    def merging(self) -> list[BlobId]:
        """The readable outputs that a run has been merged with, and not settled."""
        return []

    def _delete(self) -> None:
        if blobs := self._blobs():
            self.do("delete", blob_id=self.random.choice(blobs).id, cascade_id=self.cascade_id())

    def _restore(self) -> None:
        if blobs := self._blobs(deleted=True):
            self.do("restore", blob_id=self.random.choice(blobs).id, cascade_id=self.cascade_id())

    def _membership(self) -> None:
        blobs = self._blobs()
        if blobs and self._small():
            self.do(
                "add_member", bucket_id=self.random.choice(self.buckets),
                blob_id=self.random.choice(blobs).id, position=self.random.randrange(3), cascade_id=self.cascade_id(),
            )  # fmt: skip

    def _remove_member(self) -> None:
        members = [
            (blob, bucket) for blob in self._blobs() + self._blobs(deleted=True)
            for bucket, member in sorted(blob.buckets.items()) if member.inherited_from is None
        ]  # fmt: skip
        if members:
            blob, bucket = self.random.choice(members)
            self.do("remove_member", bucket_id=bucket, blob_id=blob.id, cascade_id=self.cascade_id())

    def _switch(self) -> None:
        instance = self.random.choice(sorted(self.schedule.instances.values(), key=lambda i: i.id))
        name = "deactivate" if instance.active else "activate"
        self.do(name, instance_id=instance.id, cascade_id=self.cascade_id())

    def _redefine(self) -> None:
        instance = self.random.choice(sorted(self.schedule.instances.values(), key=lambda i: i.id))
        self.do(
            "redefine", instance_id=instance.id, definition_digest=f"d{self.random.randrange(3)}",
            settings_digest=f"t{self.random.randrange(2)}", cascade_id=self.cascade_id(),
        )  # fmt: skip

    def _budget(self) -> None:
        """A budget is set, ended, or topped up; limits below what is in use are refused, which the API says."""
        funds = self.schedule.funds()
        if funds.limit is not None and self.chance(0.6):
            self.do("top_up", amount=self.random.randint(1, 20), cascade_id=self.cascade_id())
            return
        limit = None if self.chance(0.15) else funds.spent + funds.reserved + self.random.randrange(30)
        self.do("set_budget", budget_id=BudgetId(self.uuid()), limit=limit, cascade_id=self.cascade_id())

    def _reprocess(self) -> None:
        if found := sorted(self.schedule.derivations):
            self.do(
                "reprocess", derivation_id=self.random.choice(found), cascade_id=self.cascade_id(),
                subtree=self.random.random() < 0.4, fresh=self.random.random() < 0.4,
            )  # fmt: skip

    def _set_policy(self) -> None:
        instance = self.random.choice(sorted(self.schedule.instances.values(), key=lambda i: i.id))
        policy = self.random.choice(list(OnParentFailure))
        self.do("set_policy", instance_id=instance.id, policy=policy, cascade_id=self.cascade_id())

    def _published(self) -> list[Instance]:
        return sorted((i for i in self.schedule.instances.values() if i.published), key=lambda i: i.id)

    def _publish(self) -> None:
        if found := self._published():
            chosen = self.random.choice(found).id
            self.do("publish", instance_id=chosen, definition_digest=f"d{self.random.randrange(3)}")

    def _upgrade(self) -> None:
        if found := self._published():
            self.do("upgrade", instance_id=self.random.choice(found).id, cascade_id=self.cascade_id())

    def _redrive(self) -> None:
        """Redrive what has failed, and at times something that has not (any more)."""
        rows = self.schedule.derivations.values()
        found = sorted(d.id for d in rows if d.hold == Hold.FAILED or self.chance(0.05))
        if found:
            some = found if self.chance(0.5) else found[:1]
            self.do("redrive", derivation_ids=some, cascade_id=self.cascade_id())

    # --- controls -----------------------------------------------------------------------------------------

    def _some_run(self, *statuses: RunStatus) -> RunId | None:
        """Mostly a run that there is something to decide about, sometimes one that is long over."""
        rows = self.schedule.runs.values()
        found = sorted(run.id for run in rows if run.status in statuses or self.chance(0.02))
        return self.random.choice(found) if found else None

    def _decide(self) -> None:
        if run_id := self._some_run(RunStatus.PARKED):
            if self.chance(0.25):
                self.do("reject", run_id=run_id, now=self.now)
            else:
                self.do("approve", run_id=run_id)

    def _cancel_run(self) -> None:
        if run_id := self._some_run(RunStatus.RUNNING, RunStatus.PARKED):
            self.do("cancel_run", run_id=run_id)

    def _some_cascade(self, *statuses: CascadeStatus) -> CascadeId | None:
        rows = self.schedule.cascades.values()
        found = sorted(c.id for c in rows if c.status in statuses or self.chance(0.02))
        return self.random.choice(found) if found else None

    def _cancel_cascade(self) -> None:
        if cascade_id := self._some_cascade(CascadeStatus.PENDING, CascadeStatus.RUNNING):
            self.do("cancel_cascade", cascade_id=cascade_id, now=self.now)

    def _retry(self) -> None:
        if self.chance(0.5):
            if run_id := self._some_run(RunStatus.FAILED, RunStatus.CANCELLED):
                self.do("retry_run", run_id=run_id)
        elif cascade_id := self._some_cascade(CascadeStatus.PARTIAL, CascadeStatus.CANCELLED):
            self.do("retry_cascade", cascade_id=cascade_id)
