"""Random lives of blobs over HTTP, by several writers at once; ``test_histories.py`` plays them.

A seed decides everything but who comes first of those who write at the same time. Requests go to the application
without a socket; PostgreSQL and the object store are real.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from storage.blobs import Blobs
from tests.conftest import BASE, Person
from tests.storage.history_oracle import deleted_after, folded, offered, root_of, spelled, tokens_in, tokens_kept
from tests.storage.history_texts import MERGE_PATCH, Change, Root, any_change, insertable, new_document, token_put

PAGE = 200
"""Deltas asked for at once."""
ROUNDS = (2, 5)
WRITERS = (1, 3)


@dataclass(frozen=True)
class Answer:
    """What the application said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return orjson.loads(self.body)

    @property
    def version(self) -> int:
        """The version that its ETag names."""
        return int(self.headers["etag"].strip('"v'))


@dataclass(frozen=True)
class Studio:
    """The application as one user, and the store below it."""

    app: Any
    user: Person
    blobs: Blobs

    async def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Send one request; ``content_type="text/plain"`` is a header."""
        path, _, query = path.partition("?")
        sent = {**self.user.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
            "path": f"{BASE}{path}", "raw_path": f"{BASE}{path}".encode(), "query_string": query.encode(),
            "root_path": "", "client": ("127.0.0.1", 1), "server": ("studio.test", 80),
            "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
        }  # fmt: skip
        messages: list[Any] = []

        async def receive() -> Mapping[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return Answer(messages[0]["status"], headers, b"".join(one.get("body", b"") for one in messages[1:]))

    async def create(self, root: Root, **more: Any) -> Answer:
        """Make a blob."""
        made = await self.ask("POST", "/blobs", orjson.dumps({**root, **more}), content_type="application/json")
        assert made.status == 201, made.body
        return made

    async def history(self, blob_id: str) -> list[dict[str, Any]]:
        """All deltas of a blob, whatever became of them."""
        found: list[dict[str, Any]] = []
        path = f"/blobs/{blob_id}/deltas?status=any&limit={PAGE}"
        while True:
            page = (await self.ask("GET", path)).json
            found += page["data"]
            if not page["next_cursor"]:
                return found
            path = f"/blobs/{blob_id}/deltas?status=any&limit={PAGE}&cursor={page['next_cursor']}"


@dataclass
class Story:
    """One blob's life: what was asked, what was acknowledged, and whether the history agrees."""

    studio: Studio
    seed: int
    chance: random.Random = field(init=False)
    blob_id: str = ""
    documents: dict[int, Root] = field(default_factory=dict)
    """What was acknowledged, by version."""
    times: dict[int, datetime] = field(default_factory=dict)
    claims: list[tuple[int, Change]] = field(default_factory=list)
    """A version that an answer named, and the request that it answered."""
    deleted: bool = False

    def __post_init__(self) -> None:
        """Draw from the seed."""
        self.chance = random.Random(self.seed)

    @property
    def newest(self) -> int:
        """The newest version that anybody has seen."""
        return max(self.documents)

    def saw(self, answer: Answer) -> None:
        """Hold an answer with a blob against what was seen of that version before."""
        shown = answer.json
        version, root = shown["version"], root_of(shown)
        known = self.documents.setdefault(version, root)
        assert spelled(known) == spelled(root), f"version {version} was another one before"
        self.times[version] = datetime.fromisoformat(shown["updated_at"])

    async def play(self) -> None:
        """Make a blob, let several people at it, and prove its history."""
        made = await self.studio.create(new_document(self.chance))
        self.blob_id = made.json["id"]
        self.saw(made)
        for _ in range(self.chance.randint(*ROUNDS)):
            writers = self.chance.randint(*WRITERS)
            turns = [self.turn(alone=writers == 1) for _ in range(writers)]
            await asyncio.gather(*turns)
        await self.prove()

    def turn(self, *, alone: bool) -> Awaitable[None]:
        """Decide what one writer does now; the decision is made before anybody acts."""
        if self.deleted:
            return self.bring_back() if self.chance.random() < 0.7 else self.refused()
        known = self.newest if self.chance.random() < 0.8 else self.chance.choice(sorted(self.documents))
        roll = self.chance.random()
        if roll < 0.07:
            return self.delete(known)
        if roll < 0.17:
            return self.go_back(self.chance.choice(sorted(self.documents)))
        if roll < 0.25:
            return self.look(known)
        change = any_change(self.chance, self.documents[known], known)
        return self.edit(change, known, certain=alone and known == self.newest)

    async def edit(self, change: Change, known: int, *, certain: bool) -> None:
        """Send a change of the version ``known``; ``certain``: nothing can come between."""
        headers = {"content_type": change.media}
        if change.needs_match or b"from_version" in change.body:
            allowed = {200, 409 if b"from_version" in change.body else 412, 410}
        else:
            allowed = {200, 410}
        if change.needs_match:
            headers["if_match"] = f'"v{known}"'
        path = f"/blobs/{self.blob_id}{change.suffix}"
        answer = await self.studio.ask(change.method, path, change.body, **headers)
        assert answer.status in ({200} if certain else allowed), answer.body
        if answer.status == 200:
            self.saw(answer)
            self.claims.append((answer.version, change))
        elif answer.status != 410:
            assert answer.json["current_version"] != known

    async def look(self, known: int) -> None:
        """Read the blob as it is and as it was."""
        now = await self.studio.ask("GET", f"/blobs/{self.blob_id}")
        assert now.status in (200, 410)
        if now.status == 200:
            self.saw(now)
        self.saw(await self.studio.ask("GET", f"/blobs/{self.blob_id}?version={known}"))

    async def delete(self, known: int) -> None:
        """Delete the blob, if it is still at ``known``."""
        answer = await self.studio.ask("DELETE", f"/blobs/{self.blob_id}", if_match=f'"v{known}"')
        assert answer.status in (204, 410, 412), answer.body
        if answer.status == 204:
            self.deleted = True
            self.documents.setdefault(answer.version, self.documents[known])

    async def refused(self) -> None:
        """An edit of what is deleted, which nobody but a restore makes possible."""
        patch = orjson.dumps({"delta": {"patch": {"title": "Too late"}}})
        answer = await self.studio.ask("PATCH", f"/blobs/{self.blob_id}", patch, content_type="application/json")
        assert answer.status in (200, 410)
        if answer.status == 200:
            self.saw(answer)

    async def bring_back(self) -> None:
        """Restore the blob."""
        answer = await self.studio.ask("POST", f"/blobs/{self.blob_id}/restore")
        assert answer.status == 200, answer.body
        self.saw(answer)
        self.deleted = False

    async def go_back(self, version: int) -> None:
        """Revert to an earlier version."""
        path = f"/blobs/{self.blob_id}/revert"
        answer = await self.studio.ask(
            "POST", path, orjson.dumps({"version": version}), content_type="application/json"
        )
        assert answer.status in (200, 410), answer.body
        if answer.status == 200:
            self.saw(answer)
            assert spelled(root_of(answer.json)) == spelled(self.documents[version])

    # --- what has to be true in the end ---------------------------------------------------------------------------

    async def prove(self) -> list[dict[str, Any]]:
        """Hold the stored history against everything that was acknowledged; return it."""
        history = await self.studio.history(self.blob_id)
        documents = folded(history)
        assert self.newest <= max(documents), "an acknowledged version is gone"
        for version, root in self.documents.items():
            assert spelled(documents[version]) == spelled(root), f"version {version} is not what was acknowledged"
        for version, change in self.claims:
            wanted = [made for at in (version - 1, version) if (made := change.of(documents.get(at))) is not None]
            assert spelled(documents[version]) in map(spelled, wanted), f"version {version} is not what was asked for"
        await self._read_back(documents, deleted=deleted_after(history))
        return history

    async def _read_back(self, documents: Mapping[int, Root], *, deleted: bool) -> None:
        now = await self.studio.ask("GET", f"/blobs/{self.blob_id}")
        assert now.status == (410 if deleted else 200)
        last = max(documents)
        if not deleted:
            assert spelled(root_of(now.json)) == spelled(documents[last])
        for version in {last, self.chance.randint(1, last), self.chance.randint(1, last)}:
            then = await self.studio.ask("GET", f"/blobs/{self.blob_id}?version={version}")
            assert spelled(root_of(then.json)) == spelled(documents[version])
        await self._read_at(documents)

    async def _read_at(self, documents: Mapping[int, Root]) -> None:
        """Read the blob as it was at the instant of a version, and just before it."""
        user_id, blob_id = self.studio.user.user_id, UUID(self.blob_id)
        version = self.chance.choice(sorted(self.times))
        view = await self.studio.blobs.get(user_id, blob_id, at=self.times[version])
        assert (view.version, spelled(view.document.to_json())) == (version, spelled(documents[version]))
        if version > 1:
            before = self.times[version] - timedelta(microseconds=1)
            assert (await self.studio.blobs.get(user_id, blob_id, at=before)).version == version - 1


@dataclass
class Merging(Story):
    """Several people write into versions that are not the newest any more; nothing that one of them put in is lost."""

    tokens: set[str] = field(default_factory=set)
    """Put in and acknowledged, and not taken out again by somebody who decided so."""
    put: int = 0

    async def play(self) -> None:
        """Make a blob, write into old versions of it, decide what is proposed, and look for every token."""
        made = await self.studio.create(insertable(self.chance))
        self.blob_id = made.json["id"]
        self.saw(made)
        for _ in range(self.chance.randint(*ROUNDS)):
            if self.chance.random() < 0.3:
                await self.decide_one()
            await asyncio.gather(*(self.put_in() for _ in range(self.chance.randint(*WRITERS))))
        history = await self.prove()
        missing = self.tokens - tokens_kept(history, folded(history))
        assert not missing, f"lost: {missing}"

    def put_in(self) -> Awaitable[None]:
        """Put a token into a version that somebody has seen."""
        self.put += 1
        token = f"q{self.seed}t{self.put}z"
        known = self.chance.choice(sorted(self.documents))
        policy = "merge" if self.chance.random() < 0.75 else "last_write_wins"
        return self._sent(token, token_put(self.chance, self.documents[known], token), known, policy)

    async def _sent(self, token: str, changes: Root, known: int, policy: str) -> None:
        answer = await self.studio.ask(
            "PATCH", f"/blobs/{self.blob_id}?on_conflict={policy}", orjson.dumps(changes),
            content_type=MERGE_PATCH, if_match=f'"v{known}"',
        )  # fmt: skip
        assert answer.status == 200, answer.body
        self.tokens.add(token)
        self.saw(answer)

    async def decide_one(self) -> None:
        """Accept or reject something that is proposed; what an accepted one replaces was given up on purpose."""
        history = await self.studio.history(self.blob_id)
        proposed = [one for one in history if one["status"] == "proposed"]
        if not proposed:
            return
        one = self.chance.choice(proposed)
        if self.chance.random() < 0.4:
            assert (await self.studio.ask("POST", f"/deltas/{one['id']}/reject")).status == 200
            return
        policy = self.chance.choice(["", "?on_conflict=merge", "?on_conflict=last_write_wins"])
        answer = await self.studio.ask("POST", f"/deltas/{one['id']}/accept{policy}")
        assert answer.status in ({200} if "last" in policy else {200, 409}), answer.body
        documents = folded(history)
        if answer.status == 200:
            self.tokens -= tokens_in(documents[one["from_version"]]) - tokens_in(offered(one, documents))
