"""Playing one scenario on PostgreSQL: in lock step with the model, compared after every transaction, or by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

import migrations
from domain.cascades import Schedule
from domain.derivations import Anchor, Instance, OnDelete
from domain.ids import new_id
from storage.database import prepare
from tests.domain.cascade_people import Step, plain
from tests.domain.cascade_world import play
from tests.domain.cascade_worlds import DecidingWorld, FrailWorld, LimitedWorld, PayingWorld, RepeatingWorld
from tests.storage import invariants
from tests.storage.schedule_expected import closes, differences, expected
from tests.storage.schedule_player import CLOCK, SESSION, WINDOW, Player, name_runs, owner
from tests.storage.schedule_world import SqlWorld

STEPS = 60
FUNCTIONS = Path(migrations.__file__).parent.parent / "storage" / "functions"
LOOKS = ("claim", "sketch", "settle_sketches")
"""The moves that claim."""
CONTROLS = ("park", "approve", "reject", "cancel_run", "cancel_cascade", "retry_run", "retry_cascade")

REPORTS = (
    "settle", "fail", "lose", "plan", "begin", "charge", "set_budget", "top_up", "fail_sketch", *CONTROLS,
)  # fmt: skip
"""The moves whose answers mean the same."""
MakeDatabase = Callable[..., Awaitable[Mapping[str, str]]]


async def new_oracle(make_database: MakeDatabase, *mutations: str) -> str:
    """A database whose functions go by the scenario's clock."""
    url = (await make_database())["DATABASE_ADMIN_URL"]
    connection = await asyncpg.connect(url)
    for statements in (CLOCK, *mutations):
        await connection.execute(statements)
    await connection.close()
    return url


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Any]:
    found = await asyncpg.connect(url)
    await prepare(found)
    await found.execute(SESSION)
    yield found
    await found.close()


class Lockstep(FrailWorld):
    """A world whose facts are planned at once, without deletions: what both sides agree on move by move."""

    model: type[Schedule] = Schedule
    player: type[Player] = Player
    """Those who play it once more, side by side."""
    window = WINDOW
    at_once = frozenset({
        "create", "add_member", "remove_member", "activate", "deactivate", "redefine", "reprocess", "set_policy",
        "upgrade", "redrive", "set_budget", "top_up",
    })  # fmt: skip

    def do(self, name: str, **args: Any) -> Any:
        answer = super().do(name, **args)
        if name in self.at_once and answer is not None:
            super().do("plan", cascade_id=answer, now=self.now)
        return answer

    def _catalogue(self) -> Iterator[Instance]:
        """No loops (where two could feed each other, order decides), joins of one schema, whose output stays."""
        for instance in super()._catalogue():
            reads = sorted(instance.input_schemas)[-1:] if instance.anchor == Anchor.BUCKET else instance.input_schemas
            deepest = max(reads)
            outputs = tuple((slot, max(made, f"s{int(deepest[1:]) + 1}")) for slot, made in instance.outputs)
            kept = OnDelete.KEEP if instance.anchor == Anchor.BUCKET else instance.on_delete
            yield replace(instance, input_schemas=frozenset(reads), outputs=outputs, on_delete=kept)

    def _membership(self) -> None:
        """Each once: a position that changes no order is news to PostgreSQL only."""
        found = [blob for blob in self._blobs() if not blob.buckets]
        if found and self._small():
            self.do(
                "add_member", bucket_id=self.random.choice(self.buckets), blob_id=self.random.choice(found).id,
                position=self.random.randrange(3), cascade_id=self.cascade_id(),
            )  # fmt: skip

    def _delete(self) -> None:
        """Not in lockstep."""

    def _restore(self) -> None:
        """Not in lockstep."""


class Deciding(DecidingWorld, Lockstep):
    """The same where people decide as much as they write."""


class Paying(PayingWorld, Lockstep):
    """The same where nearly everything costs and money is short."""


class Limited(LimitedWorld, Lockstep):
    """The same where places are few."""


class Repeating(RepeatingWorld, Lockstep):
    """The same where little may run twice within a window."""


async def new_user(connection: Any) -> UUID:
    user = new_id()
    await connection.execute("insert into users (user_id, name) values ($1, $2)", user, f"user-{user}")
    await connection.execute("insert into user_state (user_id) values ($1)", user)
    return user


async def compare(
    connection: Any, seed: int, *, steps: int = STEPS, every: int = 1, world: type[Lockstep] = Lockstep
) -> list[Step]:
    """Play one scenario on both sides; returns its transactions."""
    played = play(world(Random(seed)), steps=steps, rests=1)
    trace = played.trace
    player, model = world.player(connection, await new_user(connection)), world.model()
    player.runs_per_user = model.runs_per_user = played.schedule.runs_per_user
    model.repeats = played.schedule.repeats
    player.repeats = model.repeats or player.repeats
    seqs: dict[str, int] = {}
    for number, step in enumerate(trace):
        told = {name: value for name, value in step.args.items() if name != "run_ids"}
        where = f"seed {seed}, step {number}: {step.move} {plain(told)}"
        rung = {str(c.id): c.seq for c in model.cascades.values()}
        answer = plain(getattr(model, step.move)(**step.fresh()))
        assert answer == step.result, where
        found = await player.play(step)
        rows = await player.observed()
        cascades = rows.pop("cascades")
        if step.move in LOOKS:
            await check_claim(player, model, step, found, answer, where)
        elif step.move in (
            "settle",
            "fail",
            "lose",
            "plan",
            "begin",
            "charge",
            "set_budget",
            "top_up",
            "fail_sketch",
            *CONTROLS,
        ):
            check_answer(step.move, found, answer, where)
        wanted_rows = expected(model)
        if step.move == "remove_member":  # its followers leave with the fact here, with the plan there
            del rows["members"], wanted_rows["members"]
        differ = differences(rows, wanted_rows)
        assert not differ, "\n".join([where, *differ[:20]])
        unrung = {
            c for c, seq in rung.items()
            if model.cascades[owner(c)].seq > seq and cascades[c]["seq"] <= seqs.get(c, 0)
        }  # fmt: skip
        assert not unrung, f"{where}\nnot rung: {unrung}"
        seqs = {c: row["seq"] for c, row in cascades.items()}
        if number % every == 0:
            await invariants.check(connection, player.user)
    await invariants.check_history(connection, player.user)
    return trace


async def check_claim(player: Player, model: Schedule, step: Step, found: Any, answer: Any, where: str) -> None:
    """What a claim has found: the runs of its cascade, sketches, and whether the cascade is closed."""
    rows = await player.connection.fetch(
        "select id, derivation_id || '/' || attempt as name from runs where user_id = $1", player.user
    )
    name_runs(player, model, answer["runs"], {row["name"]: row["id"] for row in rows})
    player.name_sketches(found, answer, where)
    wanted = {str(player.runs.get(UUID(run), run)) for run in answer["runs"]}
    assert set(found["runs"]) == wanted, f"{where}\nclaimed {found['runs']}, model {wanted}"
    closed, left = closes(model, model.cascades[owner(str(step.args["cascade_id"]))])
    closed = closed and not step.args.get("busy")  # who has sketches in hand goes on
    assert found["closed"] == closed, f"{where}\n{found}, model closes: {closed}"
    assert not (closed and left) or found["status"] in ("partial", "cancelled"), (
        f"{where}\n{found}, model leaves something"
    )


def check_answer(move: str, found: Any, answer: Any, where: str) -> None:
    """What a report came to, in the model's words; SQL says ``settled`` to a repeated settle as well."""
    if move == "plan":
        assert found["planned"] == answer["planned"], f"{where}\n{found}, model {answer}"
    elif move in ("begin", "charge", "set_budget", "top_up"):
        assert found == answer, f"{where}\n{found}, model {answer}"
    elif move == "settle":
        wanted = {"already": "settled"}.get(answer["status"], answer["status"])
        assert found == wanted, f"{where}\n{found}, model {answer}"
    elif move == "fail":
        wanted = {"already": "settled"}.get(answer, answer)
        assert found == wanted or wanted == "superseded" != found, f"{where}\n{found}, model {answer}"
    elif move in ("park", "lose"):  # what came too late is told by the run's own status
        news = ("parked", "running") if move == "park" else ("lost", "failed")
        told = {"already": "running"}.get(answer, answer) if move == "park" else answer
        wanted = told if told in news else None
        late = wanted is None and (move == "lose" or found not in news)
        assert found == wanted or late, f"{where}\n{found}, model {answer}"
    elif move == "retry_cascade" and "done" not in (found, answer):
        pass  # the model closes later: an open cascade says already, one that has ended refused
    else:
        assert found == answer, f"{where}\n{found}, model {answer}"


async def found_out(
    make_database: MakeDatabase, mutant: tuple[str, str, str], seeds: Iterable[int], *, world: type[Lockstep],
    steps: int = STEPS,
) -> int | None:  # fmt: skip
    """Take a rule out of a function (file, what says it, what stands there instead); returns the seed that notices."""
    file, rule, without = mutant
    text = (FUNCTIONS / file).read_text()
    assert rule in text, f"{file} says it in other words by now"
    async with opened(await new_oracle(make_database, text.replace(rule, without))) as connection:
        for seed in seeds:
            try:
                await compare(connection, seed, steps=steps, every=1000, world=world)
            except (AssertionError, asyncpg.PostgresError) as error:
                print(f"found by seed {seed}: {error}")  # noqa: T201 - for those who name the first seed
                return seed
    return None


Survivor = TypeVar("Survivor", bound=SqlWorld)


async def survive(connection: Any, seed: int, *, world: type[Survivor], steps: int = STEPS) -> Survivor:
    """Play the model's world on PostgreSQL; what it says of itself is checked after every move. Returns the world."""
    schedule = world.schedule_of(world.player(connection, await new_user(connection)), asyncio.get_running_loop())

    def played() -> Survivor:
        found = world(Random(seed), schedule)
        play(found, steps=steps, rests=1)
        return found

    try:
        return await asyncio.to_thread(played)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}, {world.__name__}: {error}") from error
