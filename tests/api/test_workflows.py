"""Workflows over HTTP: the seed's YAML as it is, versions by digest, and every fault of a bad one at once."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from tests.api.requests import problem
from tests.conftest import BASE, Person, client_of

Count = Callable[[UUID], Awaitable[dict[str, int]]]

SEED = (Path(__file__).parent / "seed_requests" / "003-workflow.yaml").read_text()
YAML = {"content-type": "application/yaml"}

SHOUT: dict[str, Any] = {
    "id": "wf-shout",
    "name": "Shout",
    "steps": [
        {"id": "count", "type": "computation", "operations": [{"words": "len($.data.content.split())"}]},
        {
            "id": "shouted",
            "type": "state-update",
            "operation": "create-blob",
            "schema_id": "blob-v1",
            "data_map": {"words": "$.words"},
        },
    ],
}

FIVE_FAULTS = """\
id: wf-bad
steps:
  - id: one
    type: schema-validatoin
    schema_id: text-input-v1
  - id: two
    type: api-call
    service: nobody
    endpoint: /x
  - id: three
    type: computation
    operations:
      - words: "len($.data.content"
  - id: three
    type: computation
    operations: []
  - id: four
    type: state-update
    operation: create-blob
    schema_id: nope-v1
    data_map: {}
    colour: red
"""


async def test_the_seeds_yaml_registers_unchanged(client: httpx2.AsyncClient) -> None:
    answer = await client.post(f"{BASE}/workflows", content=SEED, headers=YAML)
    made = answer.json()
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{BASE}/workflows/wf-text-expansion"
    assert (made["id"], made["name"], made["version"]) == ("wf-text-expansion", "Text Expansion Workflow", 1)
    assert [step["id"] for step in made["steps"]] == [
        "validate-input", "analyze-style", "expand-text", "calculate-metrics", "create-output-blob",
    ]  # fmt: skip
    assert made["outputs"][0]["schema"]["slug"] == "expanded-text-v1"
    assert made["execution"] == "workflow"
    read = (await client.get(f"{BASE}/workflows/wf-text-expansion")).json()
    assert (read["source"], read["built_in"], read["digest"]) == (SEED, False, made["digest"])


async def test_the_same_workflow_as_json_and_as_yaml_has_one_digest(client: httpx2.AsyncClient) -> None:
    first = await client.post(f"{BASE}/workflows", json=SHOUT)
    again = await client.post(f"{BASE}/workflows", json=SHOUT)
    assert (first.status_code, again.status_code, again.json()) == (201, 200, first.json())
    assert first.json()["execution"] == "inline"
    changed = {**SHOUT, "name": "Shout louder"}
    second = (await client.post(f"{BASE}/workflows", json=changed)).json()
    assert (second["version"], second["digest"] != first.json()["digest"]) == (2, True)
    assert (await client.get(f"{BASE}/workflows/wf-shout")).json()["version"] == 2
    assert (await client.get(f"{BASE}/workflows/wf-shout?version=1")).json()["name"] == "Shout"
    problem(await client.get(f"{BASE}/workflows/wf-shout?version=3"), 404, "not_found")
    problem(await client.get(f"{BASE}/workflows/wf-shout?version=x"), 422, "invalid_value", "/query/version")
    events = (await client.get(f"{BASE}/events", params={"type": "workflow.registered"})).json()["data"]
    assert [event["data"]["version"] for event in events] == [1, 2]


async def test_all_faults_of_a_definition_come_at_once_each_at_its_place(
    client: httpx2.AsyncClient, user: Person, count_rows: Count
) -> None:
    before = await count_rows(user.user_id)
    found = problem(
        await client.post(f"{BASE}/workflows", content=FIVE_FAULTS, headers=YAML), 422, "invalid_definition"
    )
    faults = {fault["pointer"]: fault["code"] for fault in found["errors"]}
    assert faults["/steps/0/type"] == "unknown_step_type"
    assert faults["/steps/1/service"] == "unknown_service"
    assert faults["/steps/2/operations/0/words"] == "invalid_expression"
    assert faults["/steps/3/id"] == "duplicate_id"
    assert faults["/steps/4/schema_id"] == "unknown_schema"
    assert faults["/steps/4/colour"] == "unknown_field"
    assert any("did you mean schema-validation" in fault["detail"] for fault in found["errors"])
    assert all(fault["detail"] for fault in found["errors"])
    checked = (await client.post(f"{BASE}/workflows/validate", content=FIVE_FAULTS, headers=YAML)).json()
    assert (checked["valid"], checked["errors"]) == (False, found["errors"])
    assert await count_rows(user.user_id) == before
    problem(await client.get(f"{BASE}/workflows/wf-bad"), 404, "not_found")


async def test_validating_registers_nothing(client: httpx2.AsyncClient, user: Person, count_rows: Count) -> None:
    before = await count_rows(user.user_id)
    answer = (await client.post(f"{BASE}/workflows/validate", json=SHOUT)).json()
    assert (answer["valid"], answer["errors"], len(answer["digest"])) == (True, [], 64)
    problem(await client.get(f"{BASE}/workflows/wf-shout"), 404, "not_found")
    assert await count_rows(user.user_id) == before


@pytest.mark.parametrize(
    ("content", "media", "status", "code"),
    [
        (b"id: [", "application/yaml", 400, "unparsable_body"),
        (b"a: 1\na: 2\n", "application/yaml", 400, "unparsable_body"),
        (b"a: &x [1]\nb: *x\n", "application/yaml", 400, "unparsable_body"),
        (b"a: !!python/object:os.system x\n", "application/yaml", 400, "unparsable_body"),
        (b"id: \xff\n", "application/yaml", 400, "unparsable_body"),
        (b"{", "application/json", 400, "unparsable_body"),
        (b"", "application/json", 400, "unparsable_body"),
        (b"a: 1", "text/plain", 415, "unsupported_media_type"),
        (b"[]", "application/json", 422, "invalid_definition"),
        (b"{}", "application/json", 422, "invalid_definition"),
    ],
)
async def test_what_is_no_definition_is_refused(
    client: httpx2.AsyncClient, content: bytes, media: str, status: int, code: str
) -> None:
    answer = await client.post(f"{BASE}/workflows", content=content, headers={"content-type": media})
    problem(answer, status, code)


async def test_the_built_in_workflows_are_there_under_the_seeds_names_too(client: httpx2.AsyncClient) -> None:
    built_in = (await client.get(f"{BASE}/workflows/wf-text-expansion")).json()
    assert built_in["built_in"] is True
    assert (await client.get(f"{BASE}/workflows/expand-content-workflow")).json() == built_in
    listed = (await client.get(f"{BASE}/workflows")).json()["data"]
    assert {"wf-outline", "wf-style-edit", "wf-grammar-check", "wf-summary", "wf-book-compile"} <= {
        row["id"] for row in listed
    }


async def test_a_definition_sees_ones_own_schemas_and_not_somebody_elses(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient
) -> None:
    schema = {"name": "count", "definition": {"type": "object", "properties": {"words": {"type": "integer"}}}}
    assert (await client.post(f"{BASE}/schemas", json=schema)).status_code == 201
    steps = [SHOUT["steps"][0], {**SHOUT["steps"][1], "schema_id": "schema-count-v1"}]
    assert (await client.post(f"{BASE}/workflows", json={**SHOUT, "steps": steps})).status_code == 201
    refused = await stranger.post(f"{BASE}/workflows", json={**SHOUT, "steps": steps})
    problem(refused, 422, "invalid_definition", "/steps/1/schema_id")
    problem(await stranger.get(f"{BASE}/workflows/wf-shout"), 404, "not_found")


async def test_registering_needs_its_scope(app: Any, make_user: Callable[..., Awaitable[Person]]) -> None:
    reader = await make_user(("blobs:read",))
    async with client_of(app, reader.headers) as client:
        problem(await client.post(f"{BASE}/workflows", json=SHOUT), 403, "missing_scope")
        assert (await client.post(f"{BASE}/workflows/validate", json=SHOUT)).status_code == 200
