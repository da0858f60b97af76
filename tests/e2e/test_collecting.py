"""SIGKILL between any two steps of collecting and moving content: nothing is lost, and the next pass leaves no orphan.

Workers of the test's own keep house, with a grace that is over at once.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from temporalio.client import Client as Temporal
from temporalio.service import RPCError

from devstack.apps import ROOT
from devstack.ports import choose
from domain.documents import document_hash
from domain.housekeeping import Tidied
from storage.contents import Contents
from storage.database import Database
from storage.objects import S3Objects
from storage.states import States
from storage.verification import Verification
from tests.e2e.audit import Auditor
from tests.e2e.people import Person
from tests.e2e.studio import Studio
from tests.e2e.waiting import eventually
from tests.sampling import sampled
from workflows.contracts import HOUSEKEEPING

FAILPOINTS = (
    "collect.after_rows_before_objects",
    "collect.between_objects",
    "objects.between_objects",
    "cold.after_object_before_row",
    "cold.after_row",
    "warm.after_row_before_object",
)
FAILPOINTS_OF = {"some": (FAILPOINTS[0], FAILPOINTS[2]), "all": FAILPOINTS}
"""Where every run of the suite kills, and where a soak does. What is cold comes late: the API notes ten seconds after
the first reading that somebody has read."""
INLINE_MAX = 2_000  # as tests/e2e/studio.py sets it


@contextmanager
def housekeeper(studio: Studio, failpoint: str = "") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A worker that keeps house at once, and dies at a point of it; with its queue, which no dead worker polls."""
    queue = f"housekeeping-{uuid4()}"
    raw = Path(f"/proc/{studio.pid('worker')}/environ").read_bytes()
    environment = dict(entry.split("=", 1) for entry in raw.decode().split("\0") if "=" in entry) | {
        "WORKER_HEALTH_PORT": str(choose(set())),
        "STUDIO__WORKFLOW__TASK_QUEUE": queue,
        "STUDIO__HOUSEKEEPING__GRACE": "100ms",
        "STUDIO__SERVICE__FAILPOINT": failpoint,
    }
    with studio.state.log("housekeeper").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "worker"], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield process, queue
    finally:
        process.kill()
        process.wait()


def words(size: int, seed: int) -> str:
    """A text that does not pack well."""
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=size))


@dataclass
class Library:
    """What one person has stored, and what it must be read as."""

    person: Person
    auditor: Auditor
    database: Database
    objects: S3Objects
    texts: dict[tuple[UUID, int], str] = field(default_factory=dict)

    async def fill(self) -> None:
        """Texts of several versions: small ones in rows, large ones as objects, most versions as patches."""
        for number, size in enumerate((1_600, 1_700, 1_800, 1_900, 6_000, 9_000)):
            text = words(size, number)
            made = await self.person.note(text)
            blob = UUID(made["id"])
            self.texts[blob, 1] = text
            for version in range(2, 6):
                # The fourth is another text altogether: it outweighs the document, and so is kept whole.
                text = words(size, 100 * number) if version == 4 else text[: size // 2] + f" v{version} " + text[-99:]
                await self.person.replace(str(blob), "/content", text)
                self.texts[blob, version] = text

    async def litter(self) -> None:
        """What a crash, or a version nobody refers to any more, leaves: contents with objects, an object alone."""
        for _ in range(2):
            location, data = f"{self.person.user_id}/{uuid4()}", uuid4().bytes
            await self.objects.put(location, data)
            await self.auditor.rows(
                "insert into contents (user_id, hash, size, stored_size, tier, location, touched_at)"
                " values ($1, $2, 16, 16, 'cold', $3, now() - interval '2 hours')",
                self.person.user_id, document_hash(data), location,
            )  # fmt: skip
        for _ in range(2):
            await self.objects.put(f"{self.person.user_id}/{uuid4()}", b"left behind")

    async def long_unread(self) -> None:
        """As if nobody had read some of what is in rows for months."""
        aged = await self.auditor.rows(
            "update contents set accessed_at = now() - interval '60 days', touched_at = now() - interval '60 days'"
            " where user_id = $1 and hash in (select hash from contents where user_id = $1 and body is not null"
            " and stored_size >= 1024 order by hash limit 2) returning hash", self.person.user_id,
        )  # fmt: skip
        assert len(aged) == 2, "there must be something to move"

    async def read_again(self) -> None:
        """As if what was moved had been read since."""
        await self.auditor.rows(
            "update contents set accessed_at = now() where user_id = $1 and moved_at is not null", self.person.user_id
        )

    async def nothing_is_lost(self) -> None:
        """Every version of every blob is read, past every cache, as it was written; and everything is proven."""
        contents = Contents(self.database, self.objects, inline_max=INLINE_MAX)
        documents = await States(self.database, contents).documents(self.person.user_id, list(self.texts))
        assert {key: document.to_json()["content"] for key, document in documents.items()} == self.texts
        looks = Verification(self.database, contents).looks(self.person.user_id, sample=None, at_rest=False)
        assert [finding async for look in looks for finding in look.findings] == []
        contents._accesses._pending.clear()  # that this test has read it must not make anything warmer
        await contents._accesses.close()

    async def nothing_is_orphaned(self) -> None:
        """The store has exactly the objects that rows name, and everything in rows is needed."""
        rows = await self.auditor.rows(
            "select location from contents where user_id = $1 and location is not null", self.person.user_id
        )
        stored = {found.key for found in await self.objects.list(f"{self.person.user_id}/")}
        assert stored == {row["location"] for row in rows}
        assert await self.auditor.rows(
            "select hash from contents where user_id = $1 except select hash from content_references"
            " where user_id = $1", self.person.user_id,
        ) == []  # fmt: skip


@pytest_asyncio.fixture
async def library(studio: Studio, person: Person, auditor: Auditor) -> AsyncIterator[Library]:
    endpoints = studio.endpoints
    database = await Database.connect(endpoints["database_url"], size_max=4)
    objects = S3Objects(
        endpoints["s3_bucket"],
        endpoint=endpoints["s3_endpoint"],
        access_key=endpoints["s3_access_key"],
        secret_key=endpoints["s3_secret_key"],
    )
    made = Library(person, auditor, database, objects)
    await made.fill()
    yield made
    await objects.close()
    await database.close()


@asynccontextmanager
async def asked(temporal: Temporal, queue: str) -> AsyncIterator[str]:
    """A pass that has been asked for; what is left of it in the end is terminated."""
    handle = await temporal.start_workflow(HOUSEKEEPING, id=f"housekeeping-{uuid4()}", task_queue=queue)
    try:
        yield handle.id
    finally:
        with suppress(RPCError):  # it has ended: the test says what it had been waiting for
            await handle.terminate("its worker was killed")


async def ended(process: subprocess.Popen[bytes], what: str) -> None:
    await eventually(lambda: process.poll() is not None, what)


async def whole_pass(studio: Studio, temporal: Temporal) -> Tidied:
    """One pass by a worker that lives."""
    with housekeeper(studio) as (_, queue):
        done: Tidied = await temporal.execute_workflow(
            HOUSEKEEPING, id=f"housekeeping-{uuid4()}", task_queue=queue, result_type=Tidied
        )
    return done


@pytest.mark.timeout(480)
@pytest.mark.parametrize("where", sampled(FAILPOINTS_OF, ("some",)))
async def test_housekeeping_killed_between_any_two_steps_loses_nothing_and_leaves_nothing(
    library: Library, studio: Studio, auditor: Auditor, where: str
) -> None:
    temporal = await auditor.temporal()
    await library.nothing_is_lost()
    for failpoint in FAILPOINTS_OF[where]:
        if failpoint.startswith("warm"):
            await library.read_again()
        elif failpoint.startswith("cold"):
            await library.long_unread()
        else:
            await library.litter()
        with housekeeper(studio, failpoint) as (process, queue):
            async with asked(temporal, queue):
                await ended(process, f"it has died at {failpoint}")
            assert process.returncode == -signal.SIGKILL
        await library.nothing_is_lost()
        done = await whole_pass(studio, temporal)
        assert (done.damaged, done.failed) == (0, 0)
        await library.nothing_is_lost()
        await library.nothing_is_orphaned()
    for (blob, version), text in library.texts.items():
        assert (await library.person.get(f"/blobs/{blob}", version=version))["content"] == text
