"""What housekeeping does for each user, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

FINDINGS_MAX = 20
"""Findings that are told by name; the counts have them all, and so has the log."""


class Chore(StrEnum):
    """One kind of work, in the order in which it is done: each finds what the ones before have let go of."""

    STEPS = "steps"
    """Forget what steps of runs that ended long ago put out, and answers that none has asked for in a long time."""
    CONTENTS = "contents"
    """Delete contents that nothing refers to, and their objects."""
    UPLOADS = "uploads"
    """Abort uploads that have expired, with the parts that they left."""
    OBJECTS = "objects"
    """Delete objects that nothing names: what a crash between two steps left."""
    COLD = "cold"
    """Move content that nobody reads to the object store."""
    WARM = "warm"
    """Bring content back that is read again."""
    SAMPLE = "sample"
    """Hold some stored contents against their hashes, the longest unverified first."""
    KEYS = "keys"
    """Forget old idempotency keys and plans, and counts of runs whose window has passed."""


@dataclass(frozen=True, kw_only=True)
class Tidied:
    """How much was done; ``findings`` are sentences about stored content that is not what its hash says.

    Of an activity that was tried again the last attempt counts.
    """

    users: int = 0
    steps_dropped: int = 0
    memo_dropped: int = 0
    contents_collected: int = 0
    bytes_collected: int = 0
    uploads_ended: int = 0
    objects_collected: int = 0
    moved_to_cold: int = 0
    moved_to_warm: int = 0
    verified: int = 0
    damaged: int = 0
    keys_forgotten: int = 0
    plans_forgotten: int = 0
    failed: int = 0
    """Chores of single users that could not be done; the findings say why."""
    findings: tuple[str, ...] = ()

    def __add__(self, other: Tidied) -> Tidied:
        counts = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self) if f.name != "findings"}
        return Tidied(**counts, findings=(*self.findings, *other.findings)[:FINDINGS_MAX])
