"""Plans: what a write would set in motion, what of that is certain, and whether it still holds when the write comes.

A plan is read off the schedule after the write has been made and before it is undone (``storage/plans.py``), so what is
decided here is only what to call things. *Certain* is what runs unless something above it fails or somebody is
faster; *possible* is what waits for something above it, whose output may turn out to be as it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from domain.errors import Conflict
from domain.estimates import Measure, Sample, Work
from domain.runs import ASLEEP, Hold, derivation_state

DIFFERENCES_SHOWN_MAX = 100
"""Nodes that a refused write names of each kind of difference."""
_UNTIL_MOVED = frozenset({Hold.APPROVAL, Hold.FAILED, Hold.CONFLICT, Hold.BUDGET})


class Outlook(StrEnum):
    """What would become of a derivation."""

    CERTAIN = "certain"
    POSSIBLE = "possible"
    UNCHANGED = "unchanged"
    BLOCKED = "blocked"
    RESTS = "rests"


MAY_RUN = frozenset({Outlook.CERTAIN, Outlook.POSSIBLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """Something that the write itself changes; ``version`` is the one that it knew."""

    kind: str
    id: UUID
    title: str
    operation: str
    version: int
    print: str

    def to_json(self) -> dict[str, Any]:
        """Return it as it is shown, and stored."""
        return {"kind": self.kind, "id": str(self.id), "title": self.title, "operation": self.operation,
                "version": self.version, "print": self.print}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A derivation that the write touches, as it is once planned and cut off; ``known`` is its row of before."""

    id: UUID
    provider_id: str
    provider: str
    definition_digest: str
    anchor_kind: str
    anchor_id: UUID
    anchor: str
    execution: str
    made: bool
    unsettled: bool
    pending: int
    hold: Hold | None
    force: bool
    level: int
    run_after: datetime | None
    complete: bool
    waits: Sequence[UUID]
    moved: bool
    spared: UUID | None
    inputs: Sequence[UUID]
    outputs: Sequence[Mapping[str, Any]] = field(hash=False)
    services: Sequence[str] = ()
    approval: bool = False
    known: Mapping[str, Any] | None = field(default=None, hash=False)

    @property
    def held(self) -> bool:
        """Whether it stays where it is until somebody does something; what else holds ends when an input moves."""
        return self.hold == Hold.CANCELLED or (self.hold in _UNTIL_MOVED and self.pending == 0)


@dataclass(slots=True, kw_only=True)
class Forecast:
    """What a rehearsed write would set in motion: read before it was undone, or nothing at all."""

    roots: Sequence[Root] = ()
    prints: Mapping[str, str] = field(default_factory=dict)
    due: Mapping[str, datetime | None] = field(default_factory=dict)
    """Until when each node is put off (debounce)."""
    nodes: Sequence[Node] = ()
    problem: str | None = None
    """The bound at which discovery stopped: ``depth`` or ``nodes``."""
    history: Mapping[str, Sequence[Sample]] = field(default_factory=dict)
    unplanned: int = 0
    """Causes of before that are not planned yet: what they will touch is not in this plan."""

    @property
    def etag(self) -> str:
        """The digest of everything that it depends on."""
        return etag_of(self.roots, self.prints)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A plan as it is kept; ``path`` is the write that it is for, ``blob_id`` the blob that this would make."""

    id: UUID
    path: str
    etag: str
    roots: Sequence[Mapping[str, Any]] = field(hash=False)
    prints: Mapping[str, str] = field(hash=False)
    outputs: Sequence[UUID] = field(hash=False)
    body: Mapping[str, Any] = field(hash=False)
    blob_id: UUID
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_key: str | None
    cascade_id: UUID | None

    @property
    def status(self) -> str:
        """``open``, ``used`` or ``expired``."""
        if self.used_at is not None:
            return "used"
        return "expired" if self.expires_at <= datetime.now(UTC) else "open"


def outlooks(nodes: Iterable[Node]) -> dict[UUID, Outlook]:
    """Return what would become of each node."""
    by_id = {node.id: node for node in nodes}
    blocked = _below(by_id, [node.id for node in by_id.values() if node.unsettled and node.held])
    return {node.id: _outlook(node, blocked) for node in by_id.values()}


def _outlook(node: Node, blocked: frozenset[UUID]) -> Outlook:
    if node.hold in ASLEEP:
        return Outlook.RESTS
    if not node.unsettled:
        return Outlook.UNCHANGED
    if node.id in blocked:
        return Outlook.BLOCKED
    ready = node.pending == 0 and node.hold is None
    sure = node.hold is None and node.made and node.complete and (node.moved or node.force)
    return Outlook.CERTAIN if ready or sure else Outlook.POSSIBLE


def _below(nodes: Mapping[UUID, Node], held: Iterable[UUID]) -> frozenset[UUID]:
    users: dict[UUID, list[UUID]] = {}
    for node in nodes.values():
        for above in node.waits:
            users.setdefault(above, []).append(node.id)
    found, pending = set(held), list(held)
    while pending:
        for below in users.get(pending.pop(), ()):
            if below not in found:
                found.add(below)
                pending.append(below)
    return frozenset(found)


def reason_of(node: Node, outlook: Outlook) -> str:
    """Return in words why a node has its outlook."""
    if outlook in {Outlook.RESTS, Outlook.BLOCKED} and node.hold is not None:
        return derivation_state(hold=node.hold, unsettled=True).reason
    if outlook == Outlook.CERTAIN and node.force:
        return "It is asked for."
    condition = {
        Outlook.UNCHANGED: node.complete, Outlook.CERTAIN: node.made, Outlook.POSSIBLE: node.made,
    }.get(outlook, True)  # fmt: skip
    return _REASONS[outlook, condition]


_REASONS = {
    (Outlook.RESTS, True): "It is asleep.",
    (Outlook.BLOCKED, True): "Something above it cannot go on.",
    (Outlook.UNCHANGED, True): "What it reads is what it has read before.",
    (Outlook.UNCHANGED, False): "There is nothing to work on.",
    (Outlook.CERTAIN, True): "What it reads, or what it is, changes.",
    (Outlook.CERTAIN, False): "It has not been made yet.",
    (Outlook.POSSIBLE, True): "What it reads is made anew, and may turn out as it was.",
    (Outlook.POSSIBLE, False): "It is made for the first time, if what it reads is made.",
}


def work_of(node: Node, outlook: Outlook, measure: Measure, now: datetime) -> Work:
    """Return a node that may run as a piece of work."""
    delay = 0.0 if node.run_after is None else max((node.run_after - now).total_seconds(), 0.0)
    return Work(
        id=node.id,
        measure=measure,
        waits=node.waits,
        certain=outlook == Outlook.CERTAIN,
        spared=node.spared is not None,
        delay=delay,
    )


def etag_of(roots: Iterable[Root], prints: Mapping[str, str]) -> str:
    """Return the digest of everything that a plan depends on: what is written, and what each derivation wants."""
    lines = sorted(f"{root.kind} {root.id} {root.print}" for root in roots)
    lines += sorted(f"{node} {printed}" for node, printed in prints.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def moved(plan: Plan, found: Forecast) -> Conflict:
    """Return the error of a write whose plan does not hold any more: what came, what went, what is another."""
    planned, now = plan.prints, found.prints
    before = {(root["kind"], root["id"]): root for root in plan.roots}
    after = {(root.kind, str(root.id)): root.to_json() for root in found.roots}
    changed_roots = [
        {"kind": key[0], "id": key[1], "planned_version": before.get(key, {}).get("version"),
         "current_version": after.get(key, {}).get("version")}
        for key in sorted(before.keys() | after.keys())
        if before.get(key, {}).get("print") != after.get(key, {}).get("print")
    ]  # fmt: skip
    added, removed = sorted(now.keys() - planned.keys()), sorted(planned.keys() - now.keys())
    changed = sorted(node for node in now.keys() & planned.keys() if now[node] != planned[node])
    counts = {"roots": len(changed_roots), "added": len(added), "removed": len(removed), "changed": len(changed)}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "the effect is another"
    return Conflict(
        f"What the plan says would happen is not what would happen now: {said}. Nothing was written.",
        code="plan_moved",
        members={
            "difference": {
                "counts": counts,
                "roots": changed_roots[:DIFFERENCES_SHOWN_MAX],
                "added": added[:DIFFERENCES_SHOWN_MAX],
                "removed": removed[:DIFFERENCES_SHOWN_MAX],
                "changed": changed[:DIFFERENCES_SHOWN_MAX],
            }
        },
    )


def target_of(path: str) -> str:
    """Return what a write is about: a blob, however it is changed, else its path."""
    head, found, rest = path.partition("/blobs/")
    if not found or not head.endswith("/studio"):
        return path
    return f"{head}/blobs/{rest.partition('/')[0]}"
