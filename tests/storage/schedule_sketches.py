"""The moves of sketches (``tests/domain/cascade_sketches.py``) on PostgreSQL, beside the model and by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from domain.derivations import Draft, Pinned
from domain.ids import BlobId, CascadeId, DerivationId, RunId
from storage.sketches import record_of, sketches_of
from tests.domain.cascade_advances import SketchingWorld
from tests.domain.cascade_checks import check_closed
from tests.domain.cascade_people import plain
from tests.domain.cascade_sketches import Sketch, Sketched, SketchingSchedule
from tests.storage.schedule_lockstep import Deciding, Lockstep, Repeating
from tests.storage.schedule_player import SETTLE_TYPES, Player, output_columns
from tests.storage.schedule_world import SqlDecidingWorld, SqlFrailWorld, SqlLimitedWorld, SqlSchedule, SqlWorld

_LAST = len(SETTLE_TYPES) + 4
_SETTLE_AND_CLAIM = (  # the types are the player's own
    "select * from settle_and_claim($1, $2, '{}', '{}'::jsonb, "  # noqa: S608
    + ", ".join(f"${number + 3}::{kind}[]" for number, kind in enumerate(SETTLE_TYPES))
    + f", '{{}}'::jsonb, ${_LAST - 1}, ${_LAST}, interval '1 hour', ${_LAST + 1}, ${_LAST + 2},"
    f" make_interval(secs => ${_LAST + 3}), ${_LAST + 4}, ${_LAST + 5}, ${_LAST + 6})"
)


class SketchingPlayer(Player):
    """Plays sketches as well: ``sketches`` has what PostgreSQL has answered, by the names of who plays."""

    tick = 1e-6
    """Whether a derivation has settled since it was sketched is told by the time."""

    def __init__(self, connection: Any, user_id: UUID) -> None:
        super().__init__(connection, user_id)
        self.sketches: dict[UUID, Any] = {}

    def take(self, run_id: UUID, row: Any) -> None:
        """Note that a sketch of PostgreSQL goes by this name."""
        [self.sketches[run_id]] = sketches_of([row])
        self.runs[RunId(run_id)] = UUID(row["id"])

    def name_sketches(self, found: Any, answer: Any, where: str) -> None:
        """Hold what was sketched, and what became of sketches, against the model's; note which is which."""
        assert found.get("verdicts", {}) == answer.get("verdicts", {}), f"{where}\n{found}, model {answer['verdicts']}"
        rows = {row["derivation_id"]: row for row in found.get("sketches", ())}
        wanted = {sketch["derivation_id"]: sketch for sketch in answer.get("sketches", ())}
        assert set(rows) == set(wanted), f"{where}\nsketched {list(rows)}, model {list(wanted)}"
        for name, row in rows.items():
            read = plain(read_by(row)), row["attempt"]
            assert read == (wanted[name]["inputs"], wanted[name]["attempt"]), f"{where}\n{row}, model {wanted[name]}"
            self.take(UUID(wanted[name]["run_id"]), row)

    async def _sketch(
        self, cascade_id: CascadeId, run_ids: list[UUID], now: float, window: int, busy: list[DerivationId],
        *, begins: bool,
    ) -> Any:  # fmt: skip
        del run_ids, now
        row = await self.connection.fetchrow(
            "select * from claim_runs($1, $2, $3, interval '1 hour', $4, $5, make_interval(secs => $6), $7, $8, $9)",
            self.user, cascade_id, *self._claiming(window, busy, "begin" if begins else "more"),
        )  # fmt: skip
        return _told(row)

    async def _settle_sketches(
        self, cascade_id: CascadeId, sketches: list[Sketch], drafts: list[list[Draft]], run_ids: list[UUID],
        now: float, window: int, busy: list[DerivationId],
    ) -> Any:  # fmt: skip
        del run_ids, now
        rows = [self.sketches[sketch.run_id] for sketch in sketches]
        outputs = [
            output_columns(row.run_id, draft, slots[draft.slot])
            for row, made in zip(rows, drafts, strict=True)
            for slots in [await self.slots(row.derivation_id)]
            for draft in made
        ]
        columns = [[row[number] for row in outputs] for number in range(len(SETTLE_TYPES))]
        row = await self.connection.fetchrow(
            _SETTLE_AND_CLAIM, self.user, cascade_id, *columns, [record_of(sketch) for sketch in rows],
            *self._claiming(window, busy, "more"),
        )  # fmt: skip
        verdicts = row["verdicts"] or {}
        return {**_told(row), "verdicts": {str(s.run_id): verdicts[str(r.run_id)] for s, r in zip(sketches, rows)}}  # noqa: B905

    def _claiming(self, window: int, busy: list[DerivationId], sketching: str) -> tuple[Any, ...]:
        bounds = (self.repeats.derivation, self.repeats.root, self.repeats.window)
        return window, *bounds, {"runs_per_user": self.runs_per_user}, busy, sketching

    async def _fail_sketch(self, cascade_id: CascadeId, sketch: Sketch, code: str) -> str:
        answer = await self.connection.fetchval(
            "select fail_sketch($1, $2, $3, $4, 'detail')",
            self.user, cascade_id, record_of(self.sketches[sketch.run_id]), code,
        )  # fmt: skip
        return str(answer)


def _told(row: Any) -> dict[str, Any]:
    return {"runs": [run["run_id"] for run in row["runs"]], "closed": row["closed"], "status": row["status"],
            "timer": row["due_in"] is not None, "sketches": row["sketches"] or []}  # fmt: skip


class SqlSketchingSchedule(SqlSchedule, SketchingSchedule):
    """The moves of sketches, made by PostgreSQL."""

    player: SketchingPlayer

    def sketch(
        self, cascade_id: CascadeId, run_ids: Sequence[RunId], now: float, window: int,
        busy: Sequence[DerivationId], *, begins: bool,
    ) -> Sketched:  # fmt: skip
        found = self._do(
            "sketch", cascade_id=cascade_id, run_ids=list(run_ids), now=now, window=window, busy=list(busy),
            begins=begins,
        )  # fmt: skip
        return self._found(cascade_id, found, now)

    def settle_sketches(
        self, cascade_id: CascadeId, sketches: Sequence[Sketch], drafts: Sequence[Sequence[Draft]],
        run_ids: Sequence[RunId], now: float, window: int, busy: Sequence[DerivationId],
    ) -> Sketched:  # fmt: skip
        found = self._do(
            "settle_sketches", cascade_id=cascade_id, sketches=list(sketches), drafts=[list(made) for made in drafts],
            run_ids=list(run_ids), now=now, window=window, busy=list(busy),
        )  # fmt: skip
        return self._found(cascade_id, found, now)

    def fail_sketch(self, cascade_id: CascadeId, sketch: Sketch, code: str) -> str:
        return str(self._do("fail_sketch", cascade_id=cascade_id, sketch=sketch, code=code))

    def _do(self, move: str, **args: Any) -> Any:
        self.player.runs_per_user = self.runs_per_user
        return super()._do(move, **args)

    def _found(self, cascade_id: CascadeId, found: dict[str, Any], now: float) -> Sketched:
        sketches = [_sketch(cascade_id, row, now) for row in found["sketches"]]
        for sketch, row in zip(sketches, found["sketches"], strict=True):
            self.player.take(sketch.run_id, row)
        claim = self.claimed(cascade_id, found, now)
        return Sketched(
            runs=claim.runs, sketches=tuple(sketches), next_run_after=claim.next_run_after,
            verdicts=found.get("verdicts", {}),
        )  # fmt: skip


def _sketch(cascade_id: CascadeId, row: Any, now: float) -> Sketch:
    return Sketch(
        run_id=RunId(UUID(row["id"])), derivation_id=DerivationId(UUID(row["derivation_id"])), cascade_id=cascade_id,
        attempt=row["attempt"], inputs=read_by(row), fresh_after=None, started_at=now,
        used_digest=f"{row['definition_digest']}:{row['settings_digest']}",
    )  # fmt: skip


def read_by(row: Any) -> tuple[Pinned, ...]:
    """Return what a sketch of PostgreSQL reads, in the model's words."""
    return tuple(
        Pinned(BlobId(UUID(i["blob_id"])), i["version"], i["hash"], i.get("stale", False)) for i in row["inputs"]
    )


class Sketching(SketchingWorld, Lockstep):
    """The world in lock step, whose inline runs are sketches."""

    model = SketchingSchedule
    player = SketchingPlayer

    def _remove_member(self) -> None:
        """Not in lockstep: a join without members is retired in the model, and wakes when its output is edited."""


class SketchingDeciding(Sketching, Deciding):
    """The same where people decide as much as they write."""


class SketchingRepeating(Sketching, Repeating):
    """The same where little may run twice within a window."""


class SqlSketching(SketchingWorld, SqlWorld):
    """The world of PostgreSQL, whose inline runs are sketches."""

    player = SketchingPlayer
    schedule_of = SqlSketchingSchedule

    def _look(self, name: str, cascade_id: CascadeId, *, window: int | None = None, **more: Any) -> Sketched:
        found = super()._look(name, cascade_id, window=window, **more)
        if cascade_id in self.sql.ended:
            check_closed(self.schedule, cascade_id)
        return found


class SqlSketchingFrail(SqlSketching, SqlFrailWorld):
    """The same, where providers fail often and most derivations go on without what has failed."""


class SqlSketchingDeciding(SqlSketching, SqlDecidingWorld):
    """The same in which people decide as much as they write."""


class SqlSketchingLimited(SqlSketching, SqlLimitedWorld):
    """The same, where places are few."""


SKETCHING_LOCKSTEPS = (Sketching, SketchingDeciding, SketchingRepeating)
SKETCHING_SURVIVALS = (SqlSketching, SqlSketchingFrail, SqlSketchingDeciding, SqlSketchingLimited)
