"""The invariants of CASCADES.md, held against the model: after every transaction, at each claim, at rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from domain.cascades import Schedule
from domain.derivations import (
    OPEN,
    Anchor,
    Cascade,
    CascadeStatus,
    Cause,
    Derivation,
    Instance,
    OnDelete,
    Pinned,
    Provisional,
    Run,
)
from domain.graphs import levels, reachable
from domain.ids import BlobId, BucketId, CascadeId, DerivationId, InstanceId, RunId, derivation_id
from domain.runs import UNFINISHED, Hold, RunStatus

Expected = Callable[[str, str, tuple[Pinned, ...], InstanceId], str]


class Violation(AssertionError):
    """The model broke one of its invariants."""


def expect(holds: object, message: str) -> None:
    if not holds:
        raise Violation(message)


# --- after every transaction ------------------------------------------------------------------------------------


def check_step(schedule: Schedule, now: float) -> None:
    """Invariants (1) to (5), and that a live run reads what the schedule sees unless it was left to finish."""
    live: Counter[DerivationId] = Counter()
    for run in schedule.runs.values():
        if run.status in UNFINISHED:
            live[run.derivation_id] += 1
            check_fence(schedule, run, now)
    standing = Standing(schedule)
    for derivation in schedule.derivations.values():
        check_derivation(schedule, derivation, live[derivation.id], standing)
    for blob in schedule.blobs.values():
        expect(blob.planned_version <= blob.version, "(5) planned is beyond current")
    check_money(schedule)


def check_money(schedule: Schedule) -> None:
    """(12): nothing beyond the budget, nothing reserved for a run that has ended, nobody held for no reason."""
    funds = schedule.funds()
    expect(funds.limit is None or funds.spent + funds.reserved <= funds.limit, f"(12) beyond the budget: {funds}")
    expect(funds.limit is not None or not schedule.reservations, "(12) reserved without a budget")
    for run_id, step_id, attempt in schedule.reservations:
        expect((run_id, step_id, attempt) not in schedule.charges, f"(12) reserved for what is paid: {run_id}")
        expect(schedule.runs[run_id].status in UNFINISHED, f"(12) an ended run holds a reservation: {run_id}")
    needed = 0
    for derivation in schedule.line():
        needed += derivation.budget_needed or 0
        fits = funds.remaining is None or needed <= funds.remaining
        expect(not fits or derivation.hold is None, f"(12) {derivation.id} is held although it can be paid")


def needed_before(schedule: Schedule, run_id: RunId) -> int:
    """What those need who stand in the line before the derivation of a run."""
    run = schedule.runs.get(run_id)
    place = None if run is None else schedule.derivations[run.derivation_id].budget_place
    ahead = (d for d in schedule.line() if place is None or (d.budget_place or 0) < place)
    return sum(d.budget_needed or 0 for d in ahead)


def check_turn(schedule: Schedule, ahead: int) -> None:
    """(12): whoever has just reserved has left what those before it in the line need."""
    remaining = schedule.funds().remaining
    expect(remaining is None or remaining >= ahead, f"(12) {ahead} are needed before, {remaining} are left")


def check_acyclic(schedule: Schedule) -> None:
    """(5): the inputs of derivations form no cycle."""
    levels([
        (schedule.producers[row.blob_id], found)
        for found, rows in schedule.inputs.items() for row in rows.values() if row.blob_id in schedule.producers
    ])  # fmt: skip


def check_derivation(schedule: Schedule, derivation: Derivation, live: int, standing: Standing) -> None:
    unsettled, asleep, runs = derivation.unsettled, derivation.asleep, derivation.run_id is not None
    settled, over, without = not unsettled and not asleep, derivation.provisional, standing.without(derivation)
    makers = map(schedule.derivations.__getitem__, schedule._sources(derivation.id))
    moving = [maker.id for maker in makers if maker.unsettled and not standing.failing(maker.id)]
    parked = derivation.run_id is not None and schedule.runs[derivation.run_id].status == RunStatus.PARKED
    held = derivation.hold not in (None, Hold.APPROVAL)
    for rule, holds in (
        ("(4) held, with a run", not (held and runs)),
        ("(4) waits for a person, and not with a parked run", parked == (derivation.hold == Hold.APPROVAL)),
        ("(1) pending_inputs is not the recount", derivation.pending_inputs == len(standing.waits(derivation))),
        ("(1) failing is not the recount", derivation.failing == standing.failing(derivation.id)),
        ("(2) settled below what is waited for", unsettled or asleep or derivation.pending_inputs == 0),
        ("(2) provisional is not what it went on without", bool(over) == bool(settled and without)),
        ("(2) settled below what may still be made", not settled or not moving),
        ("(3) settled, but want is not used", not settled or over == "skipped" or schedule.unchanged(derivation)),
        ("(3) settled with a run or a hold", not settled or not (runs or derivation.hold)),
        ("(3) asleep with a run", not (asleep and runs)),
        ("(4) not exactly one live run if and only if run_id is set", live == runs),
        ("unsettled, but nobody's", not unsettled or derivation.owner_cascade_id in schedule.cascades),
    ):
        if not holds:
            raise Violation(f"{rule}: {derivation}")


class Standing:
    """Which failures stand at this moment, said once more and from above: what ``domain/failures.py`` must find."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.known: dict[DerivationId, bool] = {}

    def failing(self, found: DerivationId) -> bool:
        """Unsettled, and not to be settled before a failure is lifted; nothing that could cure it is under way."""
        if found not in self.known:
            row = self.schedule.derivations[found]
            above = [self.failing(maker) for maker in self.waits(row)] if row.unsettled else []
            failed = all(above) if row.hold == Hold.FAILED else row.hold is None and any(above)
            self.known[found] = row.unsettled and row.run_id is None and failed
        return self.known[found]

    def waits(self, row: Derivation) -> list[DerivationId]:
        return [maker for maker, goes_on in self._open(row) if not goes_on]

    def without(self, row: Derivation) -> list[DerivationId]:
        return [maker for maker, goes_on in self._open(row) if goes_on]

    def _open(self, row: Derivation) -> list[tuple[DerivationId, bool]]:
        """The unsettled makers of live inputs, and whether the derivation goes on without."""
        found = []
        for read in self.schedule.inputs[row.id].values():
            maker = self.schedule.producers.get(read.blob_id)
            if maker is None or not read.live or not self.schedule.derivations[maker].unsettled:
                continue
            made = self.schedule.blobs[read.blob_id].planned_hash is not None
            may = row.on_parent_failure == "skip" or (row.on_parent_failure == "use_last_good" and made)
            found.append((maker, may and self.failing(maker)))
        return found


def check_fence(schedule: Schedule, run: Run, now: float) -> None:
    derivation = schedule.derivations[run.derivation_id]
    if derivation.run_id != run.id:
        raise Violation(f"(4) not the run waited for: {run}")
    if not reads_current(schedule, run) and (run.status == RunStatus.PARKED or not schedule.kept(derivation, now)):
        raise Violation(f"(rule 1) a live run reads what has moved: {run}")


def reads_current(schedule: Schedule, run: Run) -> bool:
    """Tell whether a run reads what one claimed now would read."""
    derivation = schedule.derivations[run.derivation_id]
    read = [(pinned.blob_id, pinned.hash) for pinned in run.inputs]
    reads = [(pinned.blob_id, pinned.hash) for pinned in schedule.pinned_inputs(derivation.id)]
    return run.used_digest == derivation.want_digest and read == reads


# --- at each claim ----------------------------------------------------------------------------------------------


def check_started(schedule: Schedule, run: Run, expected: Expected) -> None:
    """(8): what a run reads is explained by the planned versions of this moment, all the way up."""
    for pinned in run.inputs:
        blob = schedule.blobs[pinned.blob_id]
        row = schedule.inputs[run.derivation_id][pinned.blob_id]
        if row.live and (pinned.version, pinned.hash) != (blob.planned_version, blob.planned_hash):
            raise Violation(f"(rule 1) a run reads version {pinned.version} of {blob}: {run}")
        made = schedule.producers.get(pinned.blob_id) if row.live else None
        old = made is not None and older_generation(schedule, made)
        expect(pinned.stale == old, f"(8) run {run.id} reads {pinned.blob_id}: stale is {pinned.stale}")
    for found in reachable([run.derivation_id], lambda d: [n for n in schedule._sources(d) if not lags(schedule, n)]):
        check_heads(schedule, schedule.derivations[found], expected, f"(8) run {run.id} mixes generations")


def lags(schedule: Schedule, found: DerivationId) -> bool:
    """Tell whether a derivation's outputs are of another generation than its inputs, as everybody can see."""
    row = schedule.derivations[found]
    return row.asleep or row.unsettled or row.provisional == Provisional.SKIPPED


def older_generation(schedule: Schedule, made: DerivationId) -> bool:
    """Tell whether something that failed, or was skipped, is among the makers of what this one makes."""
    if schedule.derivations[made].asleep:
        return False
    makers = [n for n in schedule._sources(made) if not schedule.derivations[n].asleep]
    return lags(schedule, made) or any(older_generation(schedule, found) for found in makers)


def check_heads(schedule: Schedule, derivation: Derivation, expected: Expected, message: str) -> None:
    inputs = schedule.pinned_inputs(derivation.id)
    for slot, row in schedule.outputs[derivation.id].items():
        wanted = expected(slot, derivation.want_digest, inputs, derivation.provider_id)
        expect(row.machine_hash == wanted, f"{message}: {derivation.id} {slot} is not f(inputs)")


def check_closed(schedule: Schedule, cascade_id: CascadeId) -> None:
    """A cascade that has closed owns nothing that can go on before somebody lifts a hold."""
    for derivation in schedule.owned(cascade_id):
        held = derivation.hold is not None or schedule.blocked_by(derivation)
        expect(held, f"(rule 4) cascade {cascade_id} closed before {derivation.id}")


def check_alone(schedule: Schedule, started: list[Run]) -> None:
    """(9): one cause alone runs each derivation at most once, one that forces a run exactly once."""
    counts = Counter(run.derivation_id for run in started if run.status != RunStatus.BLOCKED_BUDGET)
    expect(all(count == 1 for count in counts.values()), f"(9) run more than once for one cause: {counts}")
    expect(all(run.status != RunStatus.SUPERSEDED for run in started), "(9) superseded, with nothing to do so")
    cause = list(schedule.cascades.values())[-1]
    if cause.cause == Cause.REPROCESS:
        forced = schedule.derivations[DerivationId(cause.roots[0])]
        waits = forced.asleep or schedule.blocked_by(forced) or forced.hold == Hold.BUDGET
        waits = waits or forced.provisional == Provisional.SKIPPED
        expect(waits or counts[forced.id] == 1, f"(9) {forced.id} was to run again, and did not")


# --- at rest ----------------------------------------------------------------------------------------------------


def check_rest(world: Any) -> None:
    """(6), (7), (10), (11), and that the graph is the one that people asked for. ``world`` is a ``World``."""
    schedule: Schedule = world.schedule
    expect(not world.unsent() and not world.workflows and not world.executions, "somebody is still awake")
    expect(all(r.status != RunStatus.RUNNING for r in schedule.runs.values()), "(6) a run is under way at rest")
    expect(not schedule.reservations, "(12) something is reserved at rest")
    for blob in schedule.blobs.values():
        seen = None if blob.deleted else blob.hash
        planned = (blob.planned_version, blob.planned_hash)
        expect(planned == (blob.version, seen), f"(6) {blob.id}: planned is behind current")
    for derivation in schedule.derivations.values():
        check_derivation_at_rest(schedule, derivation, world.expected)
    for cascade in schedule.cascades.values():
        check_cascade_at_rest(schedule, cascade)
    check_graph(schedule)
    check_history(schedule)


def check_derivation_at_rest(schedule: Schedule, derivation: Derivation, expected: Expected) -> None:
    name = derivation.id
    off = not schedule.instances[derivation.provider_id].active
    expect(off == (derivation.hold == Hold.INACTIVE), f"{name}: hold inactive, but not what the instance says")
    expect(not derivation.asleep or not derivation.unsettled, f"{name}: asleep and unsettled")
    if derivation.unsettled:
        held = derivation.hold is not None or schedule.blocked_by(derivation)
        expect(held, f"(6) {name}: unsettled at rest, with nothing that holds it")
        if derivation.hold in (Hold.FAILED, Hold.BUDGET):
            last = max((r for r in schedule.runs.values() if r.derivation_id == name), key=lambda r: r.attempt)
            expect(reads_current(schedule, last), f"(rule 6) {name}: failed, but not on its newest inputs")
        return
    if derivation.hold == Hold.INACTIVE:
        return
    wanted = schedule.supplied(derivation) and not schedule.output_deleted(derivation)
    if derivation.provisional == Provisional.SKIPPED:
        expect(derivation.hold is None, f"{name}: skipped and {derivation.hold}")
        return
    expect(wanted == (derivation.hold is None), f"(rule 9) {name}: {derivation.hold}, supplied {wanted}")
    if derivation.hold is None:
        check_heads(schedule, derivation, expected, "(6)")
        check_documents(schedule, derivation)
    elif not schedule.supplied(derivation) and schedule.bereft(derivation):
        check_withdrawn(schedule, derivation)


def check_withdrawn(schedule: Schedule, derivation: Derivation) -> None:
    """(rule 9): ``on_delete: delete`` leaves nothing that was made from what is gone."""
    if schedule.instances[derivation.provider_id].on_delete == OnDelete.DELETE:
        made = [row for row in schedule.outputs[derivation.id].values() if row.machine_hash is not None]
        left = [row.blob_id for row in made if not schedule.blobs[row.blob_id].deleted]
        expect(not left, f"(rule 9) {derivation.id}: made from nothing, {left}")


def check_documents(schedule: Schedule, derivation: Derivation) -> None:
    """(11): the machine part is the head unless a person's unit won, and every human unit is there."""
    for row in schedule.outputs[derivation.id].values():
        blob = schedule.blobs[row.blob_id]
        expect(not blob.deleted, f"{blob.id}: deleted although its derivation is settled")
        machine, *units = str(blob.hash).split("+")
        written = {
            unit for delta in schedule.deltas if delta.blob_id == blob.id and delta.run_id is None
            for unit in str(delta.hash).split("+")[1:]
        }  # fmt: skip
        expect(written <= set(units), f"(11) {blob.id}: human words lost, {written - set(units)}")
        won = any(unit.startswith("!") for unit in units)
        expect(won or machine == row.machine_hash, f"(11) {blob.id}: not the merge with the head")


def check_cascade_at_rest(schedule: Schedule, cascade: Cascade) -> None:
    expect(cascade.status not in OPEN, f"(7) cascade {cascade.id} is {cascade.status} at rest")
    expect(cascade.planned_at is not None, f"(7) cascade {cascade.id} was never planned")
    left = schedule.owned(cascade.id)
    if cascade.status == CascadeStatus.CANCELLED:
        return
    expect(bool(left) == (cascade.status == CascadeStatus.PARTIAL), f"{cascade.id}: {cascade.status}, left {left}")


def check_graph(schedule: Schedule) -> None:
    """(rule 8): every blob is matched by every active instance that takes it, and joins equal their buckets."""
    looping = instances_on_loops(schedule)
    for instance in schedule.instances.values():
        if not instance.active:
            continue
        for blob in schedule.blobs.values():
            known = blob.planned_hash is not None or blob.id in schedule.producers
            if known and blob.schema_id in instance.input_schemas and instance.id not in looping:
                check_matched(schedule, instance, blob.id)
        if instance.anchor == Anchor.BUCKET:
            check_members(schedule, instance)
    for blob_id, made in schedule.producers.items():
        anchor = schedule.blobs.get(BlobId(schedule.derivations[made].anchor_id))
        if anchor is not None:
            missing = set(anchor.buckets) - set(schedule.blobs[blob_id].buckets)
            expect(not missing, f"{blob_id} does not follow its anchor into {missing}")


def check_matched(schedule: Schedule, instance: Instance, blob_id: BlobId) -> None:
    anchors = [blob_id] if instance.anchor == Anchor.BLOB else list(schedule.blobs[blob_id].buckets)
    for anchor in anchors:
        rows = schedule.inputs.get(derivation_id(instance.id, anchor), {})
        expect(blob_id in rows, f"(rule 8) {blob_id} is not taken by {instance.id}")


def check_members(schedule: Schedule, instance: Instance) -> None:
    for derivation in schedule.derivations.values():
        if derivation.provider_id == instance.id:
            for row in schedule.inputs[derivation.id].values():
                member = schedule.blobs[row.blob_id].buckets.get(BucketId(derivation.anchor_id))
                gone = schedule.blobs[row.blob_id].deleted
                same = member is not None and member.position == row.position
                expect(same or gone, f"(rule 9) {row.blob_id} is in a join, but not so in its bucket")


def instances_on_loops(schedule: Schedule) -> set[InstanceId]:
    """Return the instances that could find themselves among a blob's producers, where order decides who matches."""
    feeds = {
        one.id: [
            other.id for other in schedule.instances.values()
            if any(made in other.input_schemas for _, made in one.outputs)
        ]
        for one in schedule.instances.values()
    }  # fmt: skip
    return {found for found in feeds if found in reachable([found], feeds.__getitem__)}


def check_history(schedule: Schedule) -> None:
    """(10) one delta for each changed slot of a settled run, else none; (11) replay equals state."""
    last: dict[BlobId, int] = {}
    made: Counter[tuple[Any, BlobId]] = Counter()
    content: dict[BlobId, tuple[str | None, bool]] = {}
    for delta in schedule.deltas:
        expect(delta.from_version == last.get(delta.blob_id, 0), f"(11) {delta.blob_id}: a version is missing")
        last[delta.blob_id] = delta.to_version
        content[delta.blob_id] = (delta.hash, delta.deleted)
        if delta.run_id is not None:
            made[delta.run_id, delta.blob_id] += 1
            settled = schedule.runs[delta.run_id].status == RunStatus.SETTLED
            expect(settled, f"(10) run {delta.run_id} has a delta, but is {schedule.runs[delta.run_id].status}")
    expect(all(count == 1 for count in made.values()), "(10) a run changed one slot twice")
    for blob_id, version in last.items():
        blob = schedule.blobs[blob_id]
        expect((blob.version, (blob.hash, blob.deleted)) == (version, content[blob_id]), f"(11) {blob_id}: replay")


def check_repeats(schedule: Schedule, now: float) -> None:
    """Nothing has run more often within its window than it may."""
    repeats = schedule.repeats
    if repeats is None:
        return
    lately = [run.derivation_id for run in schedule.runs.values() if round(run.started_at + repeats.window, 6) > now]
    for found, runs in Counter(lately).items():
        expect(runs <= repeats.derivation, f"derivation {found} has had {runs} runs, {repeats} allows fewer")
    for root, (_, runs) in schedule.root_runs.items():
        expect(runs <= repeats.root, f"root {root} has had {runs} runs, {repeats} allows fewer")
