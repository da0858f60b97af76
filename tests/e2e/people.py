"""Users of the public API who insist: every write has an Idempotency-Key and is repeated until it is acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import httpx2

from tests.e2e.catalogue import BUCKET_TYPE, SOURCE, TEXT, Node, schemas

BASE = "/api/v1/studio"
JSON_PATCH = "application/json-patch+json"
INSIST_SECONDS = 60.0
PAUSE_SECONDS = 0.1
PATIENCE_SECONDS = 10.0
AGAIN = frozenset({429, 500, 502, 503, 504})


@dataclass
class Workload:
    """What a person was promised: each acknowledged mark of a root, each acknowledged note with its content."""

    marks: dict[str, list[str]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    repeated: int = 0


class Client:
    """One API key."""

    def __init__(self, url: str, api_key: str) -> None:
        self.http = httpx2.AsyncClient(
            base_url=url + BASE, headers={"Authorization": f"Bearer {api_key}"}, timeout=PATIENCE_SECONDS
        )
        self.repeated = 0

    async def get(self, path: str, **parameters: Any) -> Any:
        """Read, repeated while the API is not there."""
        return (await self._insisting("GET", path, params=parameters)).json()

    async def write(
        self, method: str, path: str, body: Any, *, media: str = "application/json", **headers: str
    ) -> httpx2.Response:
        """Write once, however often it has to be sent."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {"Idempotency-Key": str(uuid4()), "content-type": media, **named}
        return await self._insisting(method, path, json=body, headers=sent)

    async def _insisting(self, method: str, path: str, **request: Any) -> httpx2.Response:
        deadline = time.monotonic() + INSIST_SECONDS
        while True:
            try:
                answer = await self.http.request(method, path, **request)
            except httpx2.TransportError as error:
                said = repr(error)
            else:
                if answer.is_success:
                    return answer
                said = f"{answer.status_code}: {answer.text}"
                if answer.status_code not in AGAIN and "idempotency_key_in_flight" not in answer.text:
                    raise AssertionError(f"{method} {path} was refused, {said}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{method} {path} was not acknowledged, {said}")
            self.repeated += 1
            await asyncio.sleep(PAUSE_SECONDS)


class Person(Client):
    """A user of one test, with a name that scopes its calls of the test service."""

    def __init__(self, url: str, user_id: UUID, name: str, api_key: str) -> None:
        super().__init__(url, api_key)
        self.user_id = user_id
        self.name = name
        self.workload = Workload()

    async def register(self, nodes: Sequence[Node], definitions: Mapping[str, Any] | None = None) -> None:
        """Make the schemas, workflows and providers of a graph known."""
        for slug in schemas(nodes):
            definition = (definitions or {}).get(slug, TEXT)
            await self.write("POST", "/schemas", {"slug": slug, "definition": definition})
        for node in nodes:
            await self.write("POST", "/workflows", node.workflow(self.name))
            await self.write("POST", "/providers", node.provider())

    async def bucket(self, kind: str = BUCKET_TYPE) -> str:
        """A new bucket."""
        made = await self.write("POST", "/buckets", {"name": self.name, "type": kind})
        return str(made.json()["id"])

    async def root(self, bucket_id: str | None = None, *, schema: str = SOURCE, **data: Any) -> dict[str, Any]:
        """A new root of the graph, without marks."""
        body = {"schema_id": schema, "data": {"text": "root", "marks": [], **data}}
        body |= {"bucket_ids": [bucket_id]} if bucket_id else {}
        made: dict[str, Any] = (await self.write("POST", "/blobs", body)).json()
        self.workload.marks[made["id"]] = []
        return made

    async def mark(self, root_id: str, mark: str) -> dict[str, Any]:
        """Append a mark to a root; acknowledged, it is there exactly once."""
        patch = [{"op": "add", "path": "/data/marks/-", "value": mark}]
        answer = await self.write("PATCH", f"/blobs/{root_id}", patch, media=JSON_PATCH, If_Match="*")
        self.workload.marks[root_id].append(mark)
        edited: dict[str, Any] = answer.json()
        return edited

    async def replace(self, blob_id: str, path: str, value: Any) -> dict[str, Any]:
        """Replace one field of a blob."""
        patch = [{"op": "replace", "path": path, "value": value}]
        answer = await self.write("PATCH", f"/blobs/{blob_id}", patch, media=JSON_PATCH, If_Match="*")
        edited: dict[str, Any] = answer.json()
        return edited

    async def note(self, text: str) -> dict[str, Any]:
        """A blob that no provider reacts to."""
        made: dict[str, Any] = (await self.write("POST", "/blobs", {"content": text})).json()
        self.workload.notes[made["id"]] = text
        return made

    async def keep_writing(self, root_id: str, writer: str, stop: asyncio.Event, pause_seconds: float = 1.0) -> None:
        """Mark the root and make notes in turn until told to stop; the pause is the pace of a hasty person."""
        count = 0
        while not stop.is_set():
            count += 1
            await self.mark(root_id, f"{writer}-{count}")
            await self.note(f"{self.name} {writer} note {count}")
            await asyncio.sleep(pause_seconds)
