"""``studio admin``: what operators do beside the API, with the settings of a server process.

Settings come from the environment as for ``python -m worker``; what it leaves open comes from the running stack.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar
from uuid import UUID

import typer

from cli import exits
from cli.output import AsJson, err, print_json, say, wants_json

if TYPE_CHECKING:
    from domain.housekeeping import Tidied
    from settings import Settings
    from storage.verification import Finding, Verification
    from workflows.contracts import Pass

T = TypeVar("T")

FINDINGS_MAX = 1_000
"""Findings that are told; beyond them something is wrong everywhere."""
USERS_AT_ONCE = 500
POLL_SECONDS = 0.3

app = typer.Typer(no_args_is_help=True, help="For operators: prove what is stored, tidy up now.")


@app.command()
def verify(
    user: Annotated[UUID | None, typer.Option(help="Only this user.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=1, help="So many contents and blobs of each user, by chance; else all.")
    ] = None,
    at_rest: Annotated[bool, typer.Option("--at-rest", help="Also what holds only when nothing is under way.")] = False,
    as_json: AsJson = None,
) -> None:
    """Prove stored state: invariants, every content against its hash, every blob replayed. Writes nothing.

    Exit 0 if all is as it must be, 1 with findings, 6 without such a user. It may run beside a system at work.
    """
    proof = _done(lambda settings: _verify(settings, user, sample=sample, at_rest=at_rest))
    told = [_told(finding) for finding in proof.findings]
    if wants_json(as_json):
        print_json({"users": proof.users, "looks": proof.looks, "findings": told, "findings_left_off": proof.left_off})
    else:
        for finding in proof.findings:
            _print_finding(finding)
        looks = ", ".join(f"{count} {kind}s" for kind, count in proof.looks.items())
        say(f"{proof.users} users, {looks}: {len(told) + proof.left_off} findings.")
    raise typer.Exit(exits.FAILURE if told else exits.OK)


@app.command()
def housekeep(as_json: AsJson = None) -> None:
    """Let the worker tidy up now, and wait: collect, move, verify a sample. Exit 1 if stored content is damaged."""
    done = _done(_housekeep)
    if wants_json(as_json):
        print_json(asdict(done))
    else:
        for name, count in asdict(done).items():
            if isinstance(count, int) and (count or name == "users"):
                print(f"{name.replace('_', ' ')}: {count}")
        for said in done.findings:
            print(f"finding: {said}")
    raise typer.Exit(exits.FAILURE if done.damaged or done.failed else exits.OK)


@dataclass(slots=True)
class Proof:
    """What verification has looked at, and found."""

    users: int = 0
    looks: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    left_off: int = 0

    def add(self, kind: str, findings: tuple[Finding, ...]) -> None:
        """Count one look; findings beyond the bound are counted alone."""
        self.looks[kind] = self.looks.get(kind, 0) + 1
        room = max(FINDINGS_MAX - len(self.findings), 0)
        self.findings += findings[:room]
        self.left_off += max(len(findings) - room, 0)


class Progress(Protocol):
    """Where progress is shown."""

    def total(self, count: int) -> None:
        """Say how much more there is to do."""
        ...

    def step(self) -> None:
        """One thing is done."""
        ...

    def note(self, words: str) -> None:
        """Say where we are."""
        ...


def stack_settings() -> Settings:
    """Return the settings of the environment, completed by those of the stack that runs here."""
    from devstack.endpoints import VARIABLES  # noqa: PLC0415 - only who asks for it pays for the imports
    from sdk.endpoints import NoEndpoints, find_endpoints  # noqa: PLC0415
    from settings import load_settings  # noqa: PLC0415

    environment = dict(os.environ)
    if not environment.get("DATABASE_URL"):
        alone = {name: value for name, value in environment.items() if name != "STUDIO_API_URL"}
        try:
            values = find_endpoints(alone).values
        except NoEndpoints:
            values = {}
        known = {**VARIABLES, "database_admin_url": "DATABASE_ADMIN_URL"}
        environment |= {
            variable: str(values[name])
            for name, variable in known.items()
            if values.get(name) and variable not in environment
        }
    return load_settings(environment)


def _done(work: Callable[[Settings], Awaitable[T]]) -> T:
    """Do some work with the settings; an error of ours is a sentence and an exit status."""
    from domain.errors import NotFound, StudioError  # noqa: PLC0415

    async def run() -> T:
        return await work(stack_settings())

    try:
        return asyncio.run(run())
    except NotFound as error:
        say(error.detail)
        raise typer.Exit(exits.NOT_FOUND) from None
    except StudioError as error:
        say(error.detail)
        raise typer.Exit(exits.RETRYABLE if error.retryable else exits.FAILURE) from None


async def _verify(settings: Settings, user: UUID | None, *, sample: int | None, at_rest: bool) -> Proof:
    proof = Proof()
    async with _verification(settings, user) as verification:
        users = [user] if user else [found async for found in _users(settings)]
        with _progress("verifying") as progress:
            for number, user_id in enumerate(users, 1):
                progress.note(f"user {number} of {len(users)}")
                progress.total(await verification.size(user_id, sample=sample, at_rest=at_rest))
                async for look in verification.looks(user_id, sample=sample, at_rest=at_rest):
                    proof.add(look.kind, look.findings)
                    progress.step()
                proof.users += 1
    return proof


@asynccontextmanager
async def _verification(settings: Settings, user: UUID | None) -> AsyncIterator[Verification]:
    """Yield what verifies; raises NotFound for a user who is none."""
    from domain.errors import NotFound  # noqa: PLC0415
    from settings import required  # noqa: PLC0415
    from storage.contents import Contents  # noqa: PLC0415
    from storage.database import Database  # noqa: PLC0415
    from storage.users import Users  # noqa: PLC0415
    from storage.verification import Verification  # noqa: PLC0415
    from stores import make_objects  # noqa: PLC0415

    url = required(settings.storage.metadata.url, "storage.metadata.url").get_secret_value()
    database = await Database.connect(url, size_max=2)
    contents = Contents(database, make_objects(settings), inline_max=settings.storage.inline_max)
    try:
        if user is not None:
            try:
                await Users(database).state(user)
            except NotFound:
                raise NotFound(f"There is no user {user}: nothing was verified.") from None
        yield Verification(database, contents)
    finally:
        await contents.close()
        await database.close()


async def _users(settings: Settings) -> AsyncIterator[UUID]:
    """Yield every user: over the relay's role, which sees ids alone, or else over the admin's."""
    from settings import required  # noqa: PLC0415
    from storage.database import Database  # noqa: PLC0415
    from storage.registry import Registry  # noqa: PLC0415

    metadata = settings.storage.metadata
    url = metadata.relay_url or required(metadata.admin_url, "storage.metadata.admin_url")
    database = await Database.connect(url.get_secret_value(), size_max=1)
    try:
        after: UUID | None = None
        while page := await Registry(database).users(after=after, limit=USERS_AT_ONCE):
            for found in page:
                yield found
            after = page[-1]
    finally:
        await database.close()


async def _housekeep(settings: Settings) -> Tidied:
    from temporalio.client import Client, WorkflowFailureError  # noqa: PLC0415
    from temporalio.service import RPCError  # noqa: PLC0415

    from domain.errors import StudioError, Unavailable  # noqa: PLC0415
    from workflows.contracts import PROGRESS, Pass  # noqa: PLC0415
    from workflows.starter import TemporalStarter  # noqa: PLC0415

    workflow = settings.workflow
    try:
        client = await Client.connect(workflow.temporal_host, namespace=workflow.namespace)
    except RuntimeError as error:
        raise Unavailable("Temporal does not answer.") from error
    handle = await TemporalStarter(client, workflow.task_queue).housekeep()
    ended = asyncio.create_task(handle.result())
    with _progress("tidying up") as progress:
        progress.note(f"{handle.id} is under way")
        while not (await asyncio.wait([ended], timeout=POLL_SECONDS))[0]:
            try:
                _show_pass(progress, await handle.query(PROGRESS, result_type=Pass))
            except RPCError:
                progress.note("waiting for a worker")
    try:
        return await ended
    except WorkflowFailureError as error:
        raise StudioError(f"The pass has failed: {error.cause}") from error


def _show_pass(progress: Progress, now: Pass) -> None:
    progress.note(f"{now.done.users} users done, {now.chore or 'looking who is next'}")


class _Lines:
    """Progress for where nobody watches: a line for each note that is new."""

    def __init__(self, words: str) -> None:
        self._words = words
        self._last = ""

    def total(self, count: int) -> None:
        """Nothing: a line says where we are."""

    def step(self) -> None:
        """Nothing: as above."""

    def note(self, words: str) -> None:
        if words != self._last:
            say(f"{self._words}: {words}")
            self._last = words


class _Bar:
    """Progress on a terminal."""

    def __init__(self, bar: Any, words: str) -> None:
        self._bar, self._words, self._total = bar, words, 0
        self._task = bar.add_task(words, total=None)

    def total(self, count: int) -> None:
        self._total += count
        self._bar.update(self._task, total=self._total)

    def step(self) -> None:
        self._bar.advance(self._task)

    def note(self, words: str) -> None:
        self._bar.update(self._task, description=f"{self._words}: {words}")


@contextmanager
def _progress(words: str) -> Iterator[Progress]:
    """Show progress on stderr for the block: a bar on a terminal, lines anywhere else."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    console = err()
    if not console.is_terminal:
        yield _Lines(words)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bar:
        yield _Bar(bar, words)


def _told(finding: Finding) -> dict[str, Any]:
    return {
        "user": str(finding.user_id),
        "blob": str(finding.blob_id) if finding.blob_id else None,
        "version": finding.version,
        "what": finding.what,
        "expected": finding.expected,
        "found": finding.found,
    }


def _print_finding(finding: Finding) -> None:
    where = f"user {finding.user_id}"
    if finding.blob_id:
        where += f", blob {finding.blob_id} v{finding.version}"
    print(f"{where}: {finding.what}\n  expected {finding.expected}\n  found {finding.found}")
