"""The rows of the schedule: what is stored about blobs, derivations, runs and cascades (CASCADES.md, Facts).

The field names are those of the tables. Rows are mutable because the model in ``domain/cascades.py`` changes them
as a transaction does; nothing outside a move may write to them. Times are seconds of any clock that only grows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from domain.ids import BlobId, BucketId, BudgetId, CascadeId, DerivationId, InstanceId, RunId
from domain.runs import Hold, RunStatus


class Anchor(StrEnum):
    """What triggers a derivation: one blob, or a bucket whose blobs it joins."""

    BLOB = "blob"
    BUCKET = "bucket"


class Execution(StrEnum):
    """Whether a run is evaluated in a batch or is a child workflow of its own."""

    INLINE = "inline"
    WORKFLOW = "workflow"


class Supersede(StrEnum):
    """What happens to a run whose inputs move: dropped, or left to finish and followed by another (rule 6)."""

    CANCEL = "cancel"
    FINISH = "finish"


class OnDelete(StrEnum):
    """What becomes of the outputs of a derivation whose required input was deleted (rule 9)."""

    KEEP = "keep"
    DELETE = "delete"


class OnParentFailure(StrEnum):
    """What a derivation does when something that it reads cannot be made, because it or what it needs has failed."""

    BLOCK = "block"
    USE_LAST_GOOD = "use_last_good"
    SKIP = "skip"


class Provisional(StrEnum):
    """How a derivation was settled below a failure; it is unsettled again when that failure is over."""

    LAST_GOOD = "last_good"
    SKIPPED = "skipped"


class Cause(StrEnum):
    """What sets a cascade in motion."""

    CREATE = "create"
    EDIT = "edit"
    DELETE = "delete"
    RESTORE = "restore"
    BUCKET = "bucket"
    PROVIDER = "provider"
    REPROCESS = "reprocess"
    TOP_UP = "top_up"
    REDRIVE = "redrive"
    PROVIDER_CHANGE = "provider_change"


BLOB_CAUSES = frozenset({Cause.CREATE, Cause.EDIT, Cause.DELETE, Cause.RESTORE})
"""Causes that a person's write to one blob makes; while unplanned, the next write to it joins them (rule 10)."""

AT_ONCE = frozenset({Cause.REPROCESS, Cause.REDRIVE, Cause.PROVIDER_CHANGE})
"""Causes by which somebody asks for runs: no debounce holds those back."""


class CascadeStatus(StrEnum):
    """Where a cascade stands; ``pending`` and ``running`` are open."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    PARTIAL = "partial"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


OPEN = frozenset({CascadeStatus.PENDING, CascadeStatus.RUNNING})


@dataclass(slots=True)
class Member:
    """A blob's place in a bucket; ``inherited_from`` is the anchor it follows, None if a person put it there."""

    position: int
    inherited_from: UUID | None = None


@dataclass(slots=True)
class Blob:
    """``version, hash`` are what readers see, ``planned_version, planned_hash`` what the schedule sees (rule 1).

    ``hash`` is the cut-off hash (rule 5) of the current document and survives deletion; ``planned_hash`` is None
    while there is nothing to read: not made yet, or deleted.
    """

    id: BlobId
    schema_id: str
    version: int = 0
    hash: str | None = None
    planned_version: int = 0
    planned_hash: str | None = None
    deleted: bool = False
    buckets: dict[BucketId, Member] = field(default_factory=dict)


@dataclass(slots=True)
class Delta:
    """One applied change of a blob; ``run_id`` and ``machine_hash`` only if a provider made it."""

    blob_id: BlobId
    from_version: int
    to_version: int
    hash: str | None
    deleted: bool
    cascade_id: CascadeId
    run_id: RunId | None = None
    machine_hash: str | None = None


@dataclass(slots=True, kw_only=True)
class Instance:
    """A user's activation of a provider, with what discovery needs of its definition.

    ``tracks`` false means that it reacts to a blob once (onCreate) and keeps reading that version. ``quiet_seconds``
    count from the last edit of a cause, ``max_wait_seconds`` from the first that no run has taken in (rule 10).
    ``max_concurrency`` bounds its runs at a time, ``priority`` (1 first) says what is claimed first. ``published``
    means that somebody else defines it: a newer definition redoes nothing by itself.
    """

    id: InstanceId
    input_schemas: frozenset[str]
    outputs: tuple[tuple[str, str], ...]
    definition_digest: str
    settings_digest: str = ""
    anchor: Anchor = Anchor.BLOB
    active: bool = False
    tracks: bool = True
    execution: Execution = Execution.INLINE
    supersede: Supersede = Supersede.CANCEL
    on_delete: OnDelete = OnDelete.KEEP
    quiet_seconds: float = 0.0
    max_wait_seconds: float = 0.0
    max_concurrency: int | None = None
    priority: int = 3
    on_parent_failure: OnParentFailure = OnParentFailure.BLOCK
    published: bool = False


@dataclass(slots=True, kw_only=True)
class Derivation:
    """The standing fact that an instance, at an anchor, makes these outputs of these inputs, and its schedule.

    ``budget_place`` is its place in the line of those who wait for money, ``budget_needed`` what it needs.
    ``definition_digest, settings_digest`` are what it wants to be made with. ``failing``: unsettled, and not to be
    settled before a failure is lifted, its own or one above. ``provisional``: settled below such a failure.
    """

    id: DerivationId
    provider_id: InstanceId
    anchor_id: UUID
    execution: Execution
    supersede: Supersede
    want_digest: str
    definition_digest: str = ""
    settings_digest: str = ""
    used_digest: str | None = None
    unsettled: bool = True
    pending_inputs: int = 0
    hold: Hold | None = None
    hold_code: str | None = None
    run_id: RunId | None = None
    attempt: int = 0
    owner_cascade_id: CascadeId | None = None
    run_after: float | None = None
    dirty_since: float | None = None
    force: bool = False
    fresh_after: float | None = None
    priority: int = 3
    level: int = 0
    budget_place: int | None = None
    budget_needed: int | None = None
    resume_run_id: RunId | None = None
    on_parent_failure: OnParentFailure = OnParentFailure.BLOCK
    failing: bool = False
    provisional: Provisional | None = None
    losses: int = 0
    """Runs lost in a row on the inputs as they are."""

    @property
    def asleep(self) -> bool:
        """Whether the derivation is out of the schedule: its provider is off, or something it needs is deleted."""
        return self.hold in (Hold.INACTIVE, Hold.RETIRED)


@dataclass(slots=True, kw_only=True)
class Input:
    """An input of a derivation and what its last settled run used of it (None: nothing was there)."""

    derivation_id: DerivationId
    blob_id: BlobId
    role: str = "source"
    position: int = 0
    required: bool = True
    tracks: bool = True
    used_version: int | None = None
    used_hash: str | None = None

    @property
    def live(self) -> bool:
        """Whether the schedule looks at this input: a pinned one counts only until it was used."""
        return self.tracks or self.used_version is None


@dataclass(slots=True, kw_only=True)
class Output:
    """An output slot; ``machine_hash`` is the machine head, the last pure machine document taken in.

    A deleted blob without a head was deleted by ``on_delete``, one with a head by a person.
    """

    derivation_id: DerivationId
    slot: str
    blob_id: BlobId
    machine_hash: str | None = None
    machine_run_id: RunId | None = None


@dataclass(frozen=True, slots=True)
class Pinned:
    """One input as a run reads it: exactly this version.

    ``stale``: something that it is made from has failed or was skipped, so that it is of an older generation.
    """

    blob_id: BlobId
    version: int
    hash: str
    stale: bool = False


@dataclass(slots=True, kw_only=True)
class Run:
    """One execution of a derivation; ``used_digest`` and ``inputs`` are copied from the plan by claim.

    ``resumed`` counts the approvals after which it went on. ``approved``: a person has approved it, or the run whose
    finished steps it took over.
    """

    id: RunId
    derivation_id: DerivationId
    attempt: int
    cascade_id: CascadeId
    inputs: tuple[Pinned, ...]
    used_digest: str
    status: RunStatus = RunStatus.RUNNING
    error: str | None = None
    started_at: float = 0.0
    fresh_after: float | None = None
    resumed: int = 0
    approved: bool = False


@dataclass(slots=True, kw_only=True)
class Cascade:
    """Everything one cause sets in motion; ``seq`` counts doorbells rung, ``sent_seq`` those delivered.

    ``created_at`` is when its first edit was made, ``caused_at`` when the last one that was folded into it was.
    ``subtree, fresh``: everything below is to run again as well, and on no answer from before.
    """

    id: CascadeId
    cause: Cause
    roots: tuple[UUID, ...]
    planned_at: float | None = None
    status: CascadeStatus = CascadeStatus.PENDING
    superseded_by: CascadeId | None = None
    seq: int = 1
    sent_seq: int = 0
    created_at: float = 0.0
    caused_at: float = 0.0
    subtree: bool = False
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a run offers for one slot: the machine's document, and its merge with the blob at ``version``."""

    slot: str
    machine_hash: str
    merged_hash: str
    version: int


@dataclass(slots=True, kw_only=True)
class Budget:
    """What a user may spend in micro-dollars (None: no limit), and what was charged since it was first set."""

    id: BudgetId
    limit: int | None
    spent: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What one attempt of a step did cost; ``overrun`` is the part that the budget no longer had."""

    run_id: RunId
    step_id: str
    attempt: int
    amount: int
    overrun: int = 0
