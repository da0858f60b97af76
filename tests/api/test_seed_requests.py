"""Every request of the five seeds that is built so far, byte for byte (ids aside), against what its seed says.

The bodies are files, cut from the seeds as they are; a test holds that they still parse as what they were cut from.
A ``{name}`` in a path, and the seeds' made-up ids in bodies, stand for ids of this run.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import BASE

FOLDER = Path(__file__).parent / "seed_requests"
JSON = "application/json"
YAML = "application/yaml"

World = dict[str, str]
"""Ids of this run by the name that paths use."""


@dataclass(frozen=True)
class Example:
    """One request of a seed, and what its answer must say."""

    name: str
    method: str
    path: str
    body: str = ""
    media: str = JSON
    status: int = 200
    says: dict[str, Any] = field(default_factory=dict)
    holds: tuple[str, ...] = ()
    """Members that the answer must have, whatever their value."""
    swap: dict[str, str] = field(default_factory=dict)
    """Made-up ids of the body → name of the id of this run."""


STUDIO = BASE
OLD = "/api/v1"

EXAMPLES = [
    # seed 000, Blob Operations
    Example("000 create blob", "POST", f"{STUDIO}/blobs", "000-create-blob.json", status=201,
            says={"content": "The quick brown fox", "content_type": "text/plain", "metadata": {}, "version": 1}),
    Example("000 get blob with version", "GET", f"{STUDIO}/blobs/{{blob}}?version=3",
            says={"version": 3, "content": "third"}),
    Example("000 update blob", "PATCH", f"{STUDIO}/blobs/{{fox}}", "000-update-blob.json",
            says={"content": "The quick brown fox jumps", "version": 2}),
    Example("000 history", "GET", f"{STUDIO}/blobs/{{blob}}/history", holds=("data",)),
    Example("000 dag", "GET", f"{STUDIO}/blobs/{{blob}}/dag", holds=("root_id", "nodes", "edges", "levels")),
    # seed 000, Provider Operations
    Example("000 register provider", "POST", f"{STUDIO}/providers", "000-register-provider.json", status=201,
            says={"id": "content-expander", "name": "Content Expander", "events": ["onCreate", "onEdit"],
                  "description": "Expands brief text into detailed content", "active": True}),
    Example("000 process blob", "POST", f"{STUDIO}/providers/content-expander/process", "000-process-blob.json",
            status=202, says={"event": "onCreate", "cause": "process"}, holds=("cascade_id",), swap={"123": "blob"}),
    # seed 001, first document, 7.1 RESTful API
    Example("001 versions", "GET", f"{STUDIO}/blobs/{{blob}}/versions", holds=("data",)),
    Example("001 version", "GET", f"{STUDIO}/blobs/{{blob}}/versions/2", says={"version": 2, "content": "second"}),
    Example("001 children", "GET", f"{STUDIO}/blobs/{{blob}}/children", holds=("data",)),
    Example("001 deltas", "GET", f"{STUDIO}/blobs/{{blob}}/deltas", holds=("data",)),
    Example("001 delta", "GET", f"{STUDIO}/deltas/{{delta}}", says={"operation": "create", "to_version": 1}),
    Example("001 list providers", "GET", f"{STUDIO}/providers", holds=("data",)),
    Example("001 delete blob", "DELETE", f"{STUDIO}/blobs/{{gone}}", status=204),
    # seed 001, second document, Service Communication Patterns and Key Endpoints
    Example("001 validate token", "GET", f"{OLD}/validate-token", says={"roles": ["user"]},
            holds=("user_id", "expires_at")),
    Example("001 validate", "POST", f"{OLD}/schemas/text-input-v1/validate", "001-validate.json",
            says={"valid": True, "errors": []}),
    Example("001 get schema", "GET", f"{OLD}/schemas/text-input-v1", says={"slug": "text-input-v1"}),
    Example("001 get schema by id", "GET", f"{OLD}/schemas/{{schema}}", says={"slug": "text-input-v1"}),
    Example("001 processor schemas", "GET", f"{OLD}/processors/text-expansion/schemas", holds=("data",)),
    # seed 003, Event Flow and Text Expansion Processor Example
    Example("003 create blob", "POST", f"{OLD}/blobs", "003-create-blob.json", status=201,
            says={"schema_id": "text-input-v1", "version": 1, "created_by": "user",
                  "data": {"content": "The ship sailed into the storm.",
                           "metadata": {"type": "chapter", "book_id": "my-novel"}}},
            holds=("blob_id", "created_at", "cascade_id")),
    Example("003 create derived blob", "POST", f"{OLD}/blobs", "003-create-derived-blob.json", status=201,
            says={"schema_id": "expanded-text-v1"}, holds=("blob_id",), swap={"blob_123": "blob"}),
    Example("003 workflow", "POST", f"{STUDIO}/workflows", "003-workflow.yaml", YAML, 201,
            says={"id": "wf-text-expansion", "name": "Text Expansion Workflow", "version": 1}),
    Example("003 processor registration", "POST", f"{OLD}/processors", "003-register-provider.yaml", YAML, 201,
            says={"id": "text-expansion", "input_schema_id": "text-input-v1", "output_schema_id": "expanded-text-v1",
                  "workflow_id": "wf-text-expansion", "events": ["onCreate", "onEdit"]}),
    # seed 004, Event Flow
    Example("004 create note", "POST", f"{OLD}/blobs", "004-create-note.json", status=201,
            says={"storage_type": "inline", "schema_id": "text-input-v1",
                  "data": {"content": "Quick note for chapter 3", "book_id": "my-novel"}}),
    Example("004 create chapter draft", "POST", f"{OLD}/blobs", "004-create-chapter-draft.json", status=201,
            says={"storage_type": "inline", "schema_id": "chapter-draft-v1"}),
    Example("004 get blob", "GET", f"{OLD}/blobs/{{note}}",
            says={"storage_type": "inline"}, holds=("content_url", "size", "preview")),
]  # fmt: skip


async def posted(client: httpx2.AsyncClient, path: str, body: Any) -> dict[str, Any]:
    answer = await client.post(f"{BASE}{path}", json=body)
    assert answer.status_code in {200, 201}, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def world_of(client: httpx2.AsyncClient) -> World:
    """What the seeds take for granted: a blob with a history, the schema of drafts, a few ids."""
    blob = (await posted(client, "/blobs", {"content": "first"}))["id"]
    for content in ("second", "third"):
        envelope = {"delta": {"operation": "update", "patch": {"content": content}}}
        assert (await client.patch(f"{BASE}/blobs/{blob}", json=envelope)).status_code == 200
    draft = {"type": "object", "required": ["content"], "properties": {"content": {"type": "string"}}}
    await posted(client, "/schemas", {"name": "chapter-draft", "version": "1.0.0", "definition": draft})
    deltas = (await client.get(f"{BASE}/blobs/{blob}/deltas")).json()["data"]
    return {
        "blob": blob,
        "fox": (await posted(client, "/blobs", {"content": "The quick brown fox"}))["id"],
        "gone": (await posted(client, "/blobs", {"content": "soon gone"}))["id"],
        "note": (await posted(client, "/blobs", {"content": "Quick note for chapter 3"}))["id"],
        "delta": next(delta["id"] for delta in deltas if delta["to_version"] == 1),
        "schema": (await client.get(f"{BASE}/schemas/text-input-v1")).json()["id"],
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
async def test_a_request_of_a_seed_gets_the_answer_its_seed_describes(
    client: httpx2.AsyncClient, example: Example
) -> None:
    world = await world_of(client)
    if example.path.endswith("content-expander/process"):
        registration = (FOLDER / "000-register-provider.json").read_bytes()
        await client.post(f"{BASE}/providers", content=registration, headers={"content-type": JSON})
    body = (FOLDER / example.body).read_bytes() if example.body else None
    for made_up, name in example.swap.items():
        assert body is not None
        assert f'"{made_up}"'.encode() in body
        body = body.replace(f'"{made_up}"'.encode(), f'"{world[name]}"'.encode())
    headers = {"content-type": example.media} if body is not None else {}
    path = example.path.format(**world)
    answer = await client.request(example.method, path, content=body, headers=headers)
    assert answer.status_code == example.status, answer.text
    found = answer.json() if answer.content else {}
    assert {name: found.get(name) for name in example.says} == example.says
    assert [name for name in example.holds if name not in found] == []


async def test_the_schemas_of_seed_003_register_as_they_are(client: httpx2.AsyncClient) -> None:
    for name, file in (("text-input", "003-input-schema.json"), ("expanded-text", "003-output-schema.json")):
        text = (FOLDER / file).read_text()
        body = f'{{"name": "{name}", "version": "1.0.0", "definition": {text}}}'
        answer = await client.post("/api/v1/schemas", content=body, headers={"content-type": JSON})
        assert answer.status_code == 201, answer.text
        assert answer.json()["slug"] == f"{name}-v1"


async def test_the_whole_of_seed_003_in_its_own_order(
    client: httpx2.AsyncClient, count_rows: Callable[..., Awaitable[dict[str, int]]], user: Any
) -> None:
    """Schemas, workflow, registration, blob: one user's own text expansion, and one cascade that plans it."""
    await test_the_schemas_of_seed_003_register_as_they_are(client)
    for path, file in (("/workflows", "003-workflow.yaml"), ("/providers", "003-register-provider.yaml")):
        content = (FOLDER / file).read_bytes()
        answer = await client.post(f"{BASE}{path}", content=content, headers={"content-type": YAML})
        assert answer.status_code == 201, answer.text
    content = (FOLDER / "003-create-blob.json").read_bytes()
    answer = await client.post("/api/v1/blobs", content=content, headers={"content-type": JSON})
    assert answer.status_code == 201, answer.text
    rows = await count_rows(user.user_id)
    assert (rows["blobs"], rows["deltas"]) == (1, 1)


async def test_a_storage_address_of_ours_is_never_taken_from_a_client(client: httpx2.AsyncClient) -> None:
    """Seed 004's worker hands over ``content_url: redis://…``; here content is stored by the platform alone."""
    body = (FOLDER / "004-create-reference.json").read_bytes()
    answer = await client.post("/api/v1/blobs", content=body, headers={"content-type": JSON})
    assert answer.status_code == 422
    assert "/content_url" in [fault["pointer"] for fault in answer.json()["errors"]]


def test_every_file_is_used() -> None:
    used = {example.body for example in EXAMPLES} | {
        "003-input-schema.json", "003-output-schema.json", "004-create-reference.json",
    }  # fmt: skip
    assert {file.name for file in FOLDER.iterdir()} == used - {""}
