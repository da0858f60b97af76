"""SIGKILL after every step of every write of large content: repeated, it is done once; tidied up, nothing is left over.

Real processes of the API die after each change of the object store and each transaction that wrote, one step further
each time, until one lives to answer. Between death and repetition housekeeping comes by, for whom every grace is over.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from api.app import create_app
from devstack.apps import ROOT
from domain.housekeeping import Chore
from settings import load_settings
from storage.contents import Contents
from storage.database import Database
from storage.housekeeping import Housekeeping, Rules
from storage.idempotency import IdempotencyKeys
from storage.objects import S3Objects
from storage.uploads import Uploads
from storage.verification import Verification
from tests.api.requests import make
from tests.api.writes import Call, said
from tests.conftest import BASE, Person, client_of, new_person, objects_of
from tests.e2e.armed_api import EACH
from tests.sampling import sampled

INLINE_MAX = 2_000
PART = 8 * 2**20
OCTETS = "application/octet-stream"
STEPS_MAX = 60
PATIENCE_SECONDS = 45.0
SETTINGS = {"STUDIO__STORAGE__INLINE_MAX": str(INLINE_MAX)}

Client = httpx2.AsyncClient


def words(seed: int, size: int = 6_000) -> str:
    """A text that does not pack well."""
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz0123456789 ", k=size))


@dataclass(frozen=True)
class Case:
    """A write, and what the blob's content is when it is done; ``blob`` of the answer's unless it is known before."""

    call: Call
    content: bytes | None = None
    blob: str | None = None


async def _done(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    answer = await client.request(method, BASE + path, json=body, headers=headers)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else None


def digest_of(data: bytes) -> dict[str, str]:
    named = base64.b64encode(hashlib.sha256(data).digest()).decode()
    return {"content-type": OCTETS, "content-digest": f"sha-256=:{named}:"}


async def create(_client: Client, seed: int) -> Case:
    text = words(seed)
    return Case(Call("POST", "/blobs", {"content": text}), text.encode())


async def create_streamed(_client: Client, seed: int) -> Case:
    data = random.Random(seed).randbytes(5_000)
    return Case(Call("POST", "/blobs", content=data, headers=digest_of(data)), data)


async def _outweighed(client: Client, seed: int) -> str:
    """A text rewritten once: with the next one its patches outweigh it, so that one is kept whole, as an object."""
    blob = str((await make(client, content=words(seed)))["id"])
    patch = {"content": words(seed + 2_000_000)}
    await _done(client, "PATCH", f"/blobs/{blob}", {"delta": {"operation": "update", "patch": patch}})
    return blob


async def replace_text(client: Client, seed: int) -> Case:
    blob, text = await _outweighed(client, seed), words(seed + 4_000_000)
    headers = {"content-type": "text/plain", "if-match": '"v2"'}
    return Case(Call("PUT", f"/blobs/{blob}/content", content=text.encode(), headers=headers), text.encode(), blob)


async def replace_binary(client: Client, seed: int) -> Case:
    first, second = random.Random(seed).randbytes(5_000), random.Random(seed + 4_000_000).randbytes(5_000)
    made = await client.post(f"{BASE}/blobs", content=first, headers={"content-type": OCTETS})
    blob = made.json()["id"]
    headers = {**digest_of(second), "if-match": '"v1"'}
    return Case(Call("PUT", f"/blobs/{blob}/content", content=second, headers=headers), second, blob)


async def revert(client: Client, seed: int) -> Case:
    text = words(seed)
    blob = (await make(client, content=text))["id"]
    await _done(client, "PATCH", f"/blobs/{blob}", {"delta": {"operation": "update", "patch": {"content": "short"}}})
    return Case(Call("POST", f"/blobs/{blob}/revert", {"version": 1}), text.encode(), blob)


async def restore(client: Client, seed: int) -> Case:
    text = words(seed)
    blob = (await make(client, content=text))["id"]
    await _done(client, "DELETE", f"/blobs/{blob}")
    return Case(Call("POST", f"/blobs/{blob}/restore"), text.encode(), blob)


async def propose(client: Client, seed: int) -> Case:
    blob = await _outweighed(client, seed)
    body = {"operation": "update", "patch": {"content": words(seed + 4_000_000)}, "proposed": True}
    return Case(Call("POST", f"/blobs/{blob}/deltas", body), words(seed + 2_000_000).encode(), blob)


async def accept(client: Client, seed: int) -> Case:
    proposing = await propose(client, seed)
    proposed = await _done(client, "POST", proposing.call.path, proposing.call.json)
    return Case(Call("POST", f"/deltas/{proposed['id']}/accept"), words(seed + 4_000_000).encode(), proposing.blob)


async def batch(client: Client, seed: int) -> Case:
    blob, text = (await make(client, content=words(seed)))["id"], words(seed + 4_000_000)
    items = [
        {"op": "create", "content": words(seed + 1_000_000)},
        {"op": "update", "id": blob, "patch": {"content": text}},
    ]
    return Case(Call("POST", "/blobs/batch", {"items": items}), text.encode(), blob)


async def upload_begin(_client: Client, _seed: int) -> Case:
    return Case(Call("POST", "/uploads", {"content_type": OCTETS, "size": 5_000}))


async def upload_part(client: Client, seed: int) -> Case:
    upload = await _done(client, "POST", "/uploads", {"content_type": OCTETS})
    data = random.Random(seed).randbytes(5_000)
    return Case(Call("PUT", f"/uploads/{upload['id']}/parts/1", content=data, headers=digest_of(data)))


async def upload_complete(client: Client, seed: int) -> Case:
    part = await upload_part(client, seed)
    assert (await part.call.send(client)).is_success
    path = part.call.path.removesuffix("/parts/1")
    return Case(Call("POST", f"{path}/complete"), part.call.content)


async def upload_abort(client: Client, seed: int) -> Case:
    part = await upload_part(client, seed)
    await part.call.send(client)
    return Case(Call("DELETE", part.call.path.removesuffix("/parts/1")))


CASES: Mapping[str, tuple[Callable[[Client, int], Awaitable[Case]], set[str]]] = {
    "create": (create, {"put"}),
    "create_streamed": (create_streamed, {"begin", "part", "finish"}),
    "replace_text": (replace_text, {"put"}),
    "replace_binary": (replace_binary, {"begin", "part", "finish"}),
    "revert": (revert, set()),  # the text that it goes back to is stored already
    "restore": (restore, set()),
    "propose": (propose, set()),
    "accept": (accept, {"put"}),
    "batch": (batch, {"put"}),
    "upload_begin": (upload_begin, set()),
    "upload_part": (upload_part, {"begin", "part"}),
    "upload_complete": (upload_complete, {"finish"}),
    "upload_abort": (upload_abort, {"abort", "delete"}),
}
"""How each write comes about, and what it does to the object store."""
BRIEF = ("create", "revert", "upload_part")
"""What every run of the suite kills; a soak kills them all."""

MADE = """
select (select event_seq from user_state where user_id = $1) as events,
  (select count(*) from cascades where user_id = $1) as cascades,
  (select count(*) from blobs where user_id = $1 and version > 0) as blobs,
  (select count(*) from deltas where user_id = $1) as deltas,
  (select bytes_used from user_state where user_id = $1) as bytes,
  (select count(*) from uploads where user_id = $1 and status = 'open') as uploads
"""


class Lives:
    """Processes of the API, each of which dies after a number of steps."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def lived(self, steps: int, send: Callable[[str], Awaitable[httpx2.Response]]) -> str | None:
        """Send a request to a process that dies after ``steps``; where it died, None if it lived to answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{steps}\n".encode())
        port, child = (await self._line()).split()
        answer = None
        try:
            with suppress(httpx2.TransportError):
                answer = await asyncio.wait_for(send(f"http://127.0.0.1:{port}"), PATIENCE_SECONDS)
        finally:
            with suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
            *places, code = [line async for line in self._told()]
        assert code == str(-signal.SIGKILL)
        assert answer is None or answer.is_success, answer.text
        assert len(places) == (answer is None)
        return places[0] if places else None

    async def _told(self) -> AsyncIterator[str]:
        """What is said of a life, up to its exit code."""
        while line := await self._line():
            yield line
            if line.lstrip("-").isdigit():
                return


@dataclass
class House:
    """One user's content: its stores, what is expected of it, and who tidies it up."""

    user: Person
    admin: Any
    database: Database
    objects: S3Objects
    contents: Contents
    keeper: Housekeeping
    expected: dict[str, bytes] = field(default_factory=dict)

    async def tidied(self, *, expire: bool) -> None:
        """Everything that housekeeping does, as if its grace were over; with ``expire`` the time of uploads as well."""
        if expire:
            await self.admin.execute("update uploads set expires_at = now() where user_id = $1", self.user.user_id)
        for chore in Chore:
            done = await self.keeper.tidy(chore, self.user.user_id)
            assert (done.damaged, done.failed) == (0, 0), done.findings

    async def made(self) -> dict[str, int]:
        return dict(await self.admin.fetchrow(MADE, self.user.user_id))

    async def nothing_is_orphaned(self) -> None:
        """The store has exactly the objects that rows name, and no parts; everything in rows is needed."""
        user = self.user.user_id
        rows = await self.admin.fetch(
            "select location from contents where user_id = $1 and location is not null"
            " union all select location from uploads where user_id = $1 and status = 'open'", user,
        )  # fmt: skip
        named = {row["location"] for row in rows}
        assert {found.key for found in await self.objects.list(f"{user}/")} <= named
        client = await self.objects._opened()
        parts = await client.list_multipart_uploads(Bucket=self.objects._bucket, Prefix=f"{user}/")
        assert {upload["Key"] for upload in parts.get("Uploads") or ()} <= named
        unneeded = "select hash from contents where user_id = $1 except select hash from content_references"
        assert await self.admin.fetch(f"{unneeded} where user_id = $1", user) == []

    async def no_upload_is_left(self) -> None:
        state = "select bytes_reserved from user_state where user_id = $1"
        assert await self.admin.fetchval(state, self.user.user_id) == 0
        rows = await self.admin.fetch(
            "select location from contents where user_id = $1 and location is not null", self.user.user_id
        )
        stored = await self.objects.list(f"{self.user.user_id}/")
        assert {found.key for found in stored} == {row["location"] for row in rows}
        client = await self.objects._opened()
        parts = await client.list_multipart_uploads(Bucket=self.objects._bucket, Prefix=f"{self.user.user_id}/")
        assert not parts.get("Uploads")

    async def nothing_is_lost(self, client: Client) -> None:
        """Invariants, a recount among them; every content against its hash; every version replayed; every blob read."""
        looks = Verification(self.database, self.contents).looks(self.user.user_id, sample=None, at_rest=False)
        assert [finding async for look in looks for finding in look.findings] == []
        for blob, content in self.expected.items():
            read = await client.get(f"{BASE}/blobs/{blob}/content")
            assert read.content == content, blob


@pytest_asyncio.fixture(scope="module")
async def small(database_urls: Mapping[str, str]) -> Mapping[str, str]:
    """The environment of a process for which a text of a few pages is large."""
    return {**database_urls, **SETTINGS}


@pytest_asyncio.fixture(scope="module")
async def survivor(small: Mapping[str, str]) -> AsyncIterator[Any]:
    """An API that nobody kills."""
    application = create_app(load_settings(small))
    async with application.router.lifespan_context(application):
        yield application


@pytest_asyncio.fixture(scope="module")
async def lives(small: Mapping[str, str]) -> AsyncIterator[Lives]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "DATABASE_"))}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.e2e.armed_api", EACH, cwd=ROOT, env={**outside, **small},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    yield Lives(process)
    assert process.stdin is not None
    process.stdin.close()
    assert await process.wait() == 0


@asynccontextmanager
async def house_of(small: Mapping[str, str], database: Database, admin: Any) -> AsyncIterator[House]:
    now = timedelta(0)
    objects = objects_of(small)
    contents = Contents(database, objects, inline_max=INLINE_MAX)
    uploads = Uploads(database, objects, part_size=PART, inline_max=INLINE_MAX, lifetime=timedelta(hours=1))
    keeper = Housekeeping(
        database, contents, objects,
        rules=Rules(grace=now, cold_after=timedelta(days=9), steps_kept=now, memo_kept=now, memo_max=1, plans_kept=now,
                    runs_window=now, sample=3),
        expire=uploads.expire, forget=IdempotencyKeys(database).forget_old,
    )  # fmt: skip
    try:
        yield House(await new_person(database), admin, database, objects, contents, keeper)
    finally:
        await contents.close()


async def repeated(client: Client, admin: Any, user: Person, call: Call, key: str) -> httpx2.Response:
    """Send a request again whose process has died, after its lease; and once more, which answers the same."""
    await admin.execute(
        "update idempotency_keys set leased_at = '-infinity' where user_id = $1 and completed_at is null", user.user_id
    )
    answer = await call.send(client, key)
    assert answer.is_success, answer.text
    again = await call.send(client, key)
    assert (said(again), again.headers["idempotency-replayed"]) == (said(answer), "true")
    return answer


@pytest.mark.timeout(480)  # a process each step
@pytest.mark.parametrize("name", sampled(CASES, BRIEF))
async def test_a_write_killed_after_any_step_is_done_once_and_leaves_nothing(
    name: str, lives: Lives, survivor: Any, small: Mapping[str, str], database: Database, admin: Any
) -> None:
    prepare, stores = CASES[name]
    is_upload = name.startswith("upload_")
    places: list[str] = []
    async with house_of(small, database, admin) as house, client_of(survivor, house.user.headers) as client:
        case = await prepare(client, 1)
        before = await house.made()
        assert (await case.call.send(client)).is_success
        clean = {key: value - before[key] for key, value in (await house.made()).items()}
        for steps in range(1, STEPS_MAX):
            case = await prepare(client, steps + 1)
            before = await house.made()
            key = f"{name}-{steps}"

            async def send(url: str, call: Call = case.call, key: str = key) -> httpx2.Response:
                async with httpx2.AsyncClient(base_url=url, headers=dict(house.user.headers), timeout=60) as victim:
                    return await call.send(victim, key)

            place = await lives.lived(steps, send)
            await house.tidied(expire=not is_upload)
            await house.nothing_is_orphaned()
            if place is None:
                break
            places.append(place)
            answer = await repeated(client, admin, house.user, case.call, key)
            if case.content is not None:
                house.expected[case.blob or answer.json()["id"]] = case.content
            assert {key: value - before[key] for key, value in (await house.made()).items()} == clean, place
        assert stores <= set(places), places
        assert "answer" in places  # a lease renewed on the way is one more commit
        await house.tidied(expire=True)
        await house.no_upload_is_left()
        await house.nothing_is_lost(client)
