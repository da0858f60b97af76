"""A real worker in this process, on a real Temporal dev server and NATS, with a service of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest
import pytest_asyncio
from temporalio.client import Client

import worker
from devstack.stack import Stack
from settings import Settings, load_settings
from tests.conftest import Person, admin, app, client_of, contents, database, make_user

# Named again here, so that they belong to this folder's database: its worker plans whatever it finds there.
__all__ = ["admin", "app", "contents", "database", "make_user"]


@dataclass
class TextService:
    """A small real HTTP service: answers ``{"text": …}`` from ``{"text": …}``, and counts calls per step key."""

    url: str = ""
    calls: list[str] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses to answer first; afterwards it works."""
    bodies: list[Any] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers wait while it is closed; it is open unless a test closes it."""

    def __post_init__(self) -> None:
        self.gate.set()

    async def asked(self, count: int) -> None:
        """Wait until there were so many calls."""
        async with asyncio.timeout(20):
            while len(self.calls) < count:  # noqa: ASYNC110 - the calls come from other tasks' sockets
                await asyncio.sleep(0.01)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other on a connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = orjson.loads(await reader.readexactly(int(headers["content-length"])))
                self.calls.append(headers["idempotency-key"])
                self.bodies.append(body)
                await self.gate.wait()
                status = self.answers.pop(0) if self.answers else 200
                answer = orjson.dumps({"text": f"<{body.get('text')}>", "usage": {"model": "echo", "total_tokens": 3}})
                writer.write(
                    f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
                    f"content-length: {len(answer)}\r\n\r\n".encode()
                    + answer
                )
                await writer.drain()
        writer.close()


@pytest.fixture(scope="session")
def engine_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Temporal and NATS, started once for this process."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("STUDIO_", "DATABASE_"))}
    folder = Path(tmp_path_factory.mktemp("engine"))
    with Stack(folder, services=("temporal", "nats"), environ=outside) as running:
        yield running


@pytest_asyncio.fixture(scope="session")
async def text_service() -> AsyncIterator[TextService]:
    """The service ``test``."""
    service = TextService()
    server = await asyncio.start_server(service.handle, "127.0.0.1", 0)
    service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield service
    server.close()


@pytest_asyncio.fixture(scope="session")
async def database_urls(make_database: Callable[..., Awaitable[Mapping[str, str]]]) -> Mapping[str, str]:
    """The environment with a database that only this worker uses."""
    return await make_database()


@pytest.fixture(scope="session")
def settings(database_urls: Mapping[str, str], engine_stack: Stack, text_service: TextService) -> Settings:
    """The settings of API and worker: this process's database, Temporal and NATS, and the service ``test``."""
    return load_settings(
        {
            **database_urls,
            **{name: value for name, value in engine_stack.endpoints.items() if name.startswith(("TEMPORAL", "NATS"))},
            "STUDIO__SERVICES__TEST__URL": text_service.url,
            "STUDIO__SERVICES__TEST__PURE": "true",
            "STUDIO__SERVICES__PAID__URL": text_service.url,
            "STUDIO__SERVICES__PAID__PRICES__DEFAULT__PROMPT": "1000000",
            "STUDIO__SERVICES__PAID__PRICES__DEFAULT__COMPLETION": "2000000",
            "STUDIO__SERVICES__PAID__PROMPT_TOKENS_MAX": "10",
            "STUDIO__SERVICES__PAID__COMPLETION_TOKENS_MAX": "10",
            "STUDIO__PROVIDERS__RETRY_POLICY__FIRST_PAUSE": "200ms",
            "STUDIO__RELAY__POLL_INTERVAL": "200ms",
        }
    )


@pytest_asyncio.fixture(scope="session")
async def engine(settings: Settings) -> AsyncIterator[None]:
    """The worker, relay included."""
    async with worker.running(settings):
        yield


@pytest_asyncio.fixture(scope="session")
async def temporal(settings: Settings, engine: None) -> Client:
    """A client of the Temporal server."""
    return await Client.connect(settings.workflow.temporal_host, namespace=settings.workflow.namespace)


@dataclass(frozen=True)
class Studio:
    """What a person does over HTTP, with the worker running."""

    http: httpx2.AsyncClient
    user: Person

    async def post(self, path: str, body: Any, **headers: str) -> Any:
        """POST and return the JSON; a refusal fails the test."""
        answer = await self.http.post(f"/api/v1/studio{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()

    async def get(self, path: str) -> Any:
        """GET and return the JSON; a refusal fails the test."""
        answer = await self.http.get(f"/api/v1/studio{path}")
        assert answer.is_success, answer.text
        return answer.json()

    async def provider(self, slug: str, source: str, target: str, *steps: Mapping[str, Any], **more: Any) -> None:
        """Register schemas, workflow and provider: ``source`` to ``target`` by these steps."""
        for schema in (source, target):
            await self.post("/schemas", {"slug": schema, "version": "1.0.0", "definition": {"type": "object"}})
        keep = {"id": "keep", "type": "state-update", "operation": "create-blob", "schema_id": target,
                "data_map": {"text": "$.text"}}  # fmt: skip
        await self.post("/workflows", {"id": f"wf-{slug}", "name": slug, "steps": [*steps, keep]})
        await self.post(
            "/providers", {"id": slug, "name": slug.title(), "workflow_id": f"wf-{slug}", "input_schema_id": source,
                           "output_schema_id": target, **more}
        )  # fmt: skip

    async def settled(self, blob_id: str) -> dict[str, Any]:
        """Wait until nothing below a blob is stale or running, and return its graph."""
        async with asyncio.timeout(30):
            while True:
                graph: dict[str, Any] = await self.get(f"/blobs/{blob_id}/dag")
                if graph["settled"] and len(graph["nodes"]) > 1:
                    return graph
                await asyncio.sleep(0.02)


INLINE = {"id": "shout", "type": "computation", "operations": [{"text": "$.data.text + '!'"}]}
CALL = {
    "id": "ask-service", "type": "api-call", "service": "test", "endpoint": "/text",
    "input_map": {"text": "$.data.text"}, "output_map": {"text": "$.text"},
}  # fmt: skip


@pytest_asyncio.fixture
async def studio(app: Any, user: Person, engine: None) -> AsyncIterator[Studio]:
    """A user with a running worker."""
    async with client_of(app, user.headers) as http:
        yield Studio(http, user)


Wait = Callable[[str], Awaitable[dict[str, Any]]]
