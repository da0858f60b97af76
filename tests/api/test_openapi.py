"""The description of the API is true: real answers fit it, and it names every route."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import jsonschema

from api.shapes import Blob, Dag, Delta, HistoryEntry, Page
from tests.api.requests import edit, make
from tests.conftest import BASE

ROOT = Path(__file__).parents[2]


async def document(client: httpx2.AsyncClient) -> dict[str, Any]:
    answer = await client.get(f"{BASE}/openapi.json")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def operations(described: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


async def test_every_operation_has_a_name_of_its_own_a_tag_and_a_sentence(client: httpx2.AsyncClient) -> None:
    found = operations(await document(client))
    names = [operation["operationId"] for _, _, operation in found]
    assert len(set(names)) == len(names)
    for path, method, operation in found:
        assert operation.get("tags"), (path, method)
        assert operation["description"].rstrip().endswith((".", "!")), (path, method)


async def test_only_canonical_paths_are_shown(client: httpx2.AsyncClient) -> None:
    paths = (await document(client))["paths"]
    assert not [path for path in paths if "processor" in path or not path.startswith((BASE, "/problems"))]
    properties = paths[f"{BASE}/blobs"]["post"]["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert {"content", "data", "content_type", "provider_id", "parent_id"} <= set(properties)
    assert not {"type", "processor_id", "inline_data", "blobId"} & set(properties)


async def test_every_reference_leads_somewhere(client: httpx2.AsyncClient) -> None:
    described = await document(client)

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for inner in value.values() for found in references(inner)]
        return [found for inner in value for found in references(inner)] if isinstance(value, list) else []

    for reference in references(described):
        assert reference.startswith("#/components/schemas/"), reference
        assert reference.rpartition("/")[2] in described["components"]["schemas"], reference


async def test_every_request_example_fits_its_schema(client: httpx2.AsyncClient) -> None:
    described = await document(client)
    checked = 0
    for path, method, operation in operations(described):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                schema = {**content["schema"], "components": described["components"]}
                jsonschema.validate(content["example"], schema)
                checked += 1
        if method == "post":
            bodies = operation.get("requestBody", {}).get("content", {}).values()
            assert all("schema" in content for content in bodies), path
    assert checked >= 2


async def test_a_problem_is_described_on_every_operation(client: httpx2.AsyncClient) -> None:
    described = await document(client)
    problem = (await client.get(f"{BASE}/nowhere")).json()
    jsonschema.validate(problem, described["components"]["schemas"]["Problem"])
    for path, method, operation in operations(described):
        assert "application/problem+json" in operation["responses"]["default"]["content"], (path, method)
        assert operation["security"] or "/problems" in path or path.endswith(("z", "version")), (path, method)


async def test_real_answers_fit_their_shapes(client: httpx2.AsyncClient) -> None:
    made = await make(client)
    Blob.model_validate(made)
    await edit(client, made["id"], title="T")
    await make(client, data=[1], parent_id=made["id"])
    url = f"{BASE}/blobs/{made['id']}"
    Blob.model_validate((await client.get(url.replace("/studio", ""))).json())
    Page[Blob].model_validate((await client.get(f"{BASE}/blobs")).json())
    Page[Blob].model_validate((await client.get(f"{url}/children")).json())
    Page[Delta].model_validate((await client.get(f"{url}/deltas")).json())
    Page[HistoryEntry].model_validate((await client.get(f"{url}/history")).json())
    Page[HistoryEntry].model_validate((await client.get(f"{url}/versions")).json())
    Dag.model_validate((await client.get(f"{url}/dag")).json())


async def test_the_reference_page_names_every_operation(client: httpx2.AsyncClient) -> None:
    page = (ROOT / "docs" / "reference" / "http-api.md").read_text()
    missing = [
        f"{method.upper()} {path.removeprefix(f'{BASE}/')}"
        for path, method, _ in operations(await document(client))
        if f"| {method.upper()} | `{path.removeprefix(f'{BASE}/')}` |" not in page
    ]
    assert missing == []
