"""Health, readiness, version, metrics, problem pages, OpenAPI."""

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx2
import pytest

from api.app import create_app
from domain.errors import CATALOGUE
from domain.keys import SCOPES
from settings import load_settings
from tests.api.requests import make, problem
from tests.conftest import BASE, Person, client_of

PROBES = ("healthz", "readyz", "version")


@pytest.mark.parametrize("path", PROBES)
async def test_probes_are_open_below_the_prefix_and_at_the_root(app: Any, path: str) -> None:
    async with client_of(app) as nobody:
        for url in (f"/{path}", f"{BASE}/{path}"):
            assert (await nobody.get(url)).status_code == 200


async def test_readiness_checks_the_database_and_the_content_store(app: Any) -> None:
    async with client_of(app) as nobody:
        found = (await nobody.get(f"{BASE}/readyz")).json()
        assert found == {"status": "ready", "checks": {"database": "ok", "s3": "ok"}}


async def test_readiness_names_the_part_that_fails_and_health_does_not_care(database_urls: Mapping[str, str]) -> None:
    broken = create_app(load_settings({**database_urls, "S3_ENDPOINT": "http://127.0.0.1:9"}))
    async with broken.router.lifespan_context(broken), client_of(broken) as nobody:
        found = problem(await nobody.get(f"{BASE}/readyz"), 503, "unavailable")
        assert found["failing"] == ["s3"]
        assert found["checks"]["database"] == "ok"
        assert (await nobody.get(f"{BASE}/healthz")).json() == {"status": "ok"}


async def test_the_version_says_which_installation_answers(app: Any, admin: Any) -> None:
    async with client_of(app) as nobody:
        found = (await nobody.get(f"{BASE}/version")).json()
    assert (found["name"], found["api_version"]) == ("memmie-studio", "v1")
    assert found["version"].count(".") == 2
    assert found["installation_id"] == str(await admin.fetchval("select id from installation"))


async def test_metrics_want_the_admin_scope(
    app: Any, client: httpx2.AsyncClient, make_user: Callable[..., Awaitable[Person]]
) -> None:
    await make(client)
    problem(await client.get(f"{BASE}/metrics"), 403, "missing_scope")
    chief = await make_user(SCOPES)
    async with client_of(app) as nobody:
        problem(await nobody.get("/metrics"), 401, "missing_credentials")
        found = await nobody.get("/metrics", headers=chief.headers)
    assert found.headers["content-type"].startswith("text/plain")
    assert 'studio_http_request_seconds_count{method="POST"' in found.text
    assert f'route="{BASE}/blobs"' in found.text


async def test_every_problem_code_has_a_page_at_its_type(app: Any, client: httpx2.AsyncClient) -> None:
    refused = problem(await client.get(f"{BASE}/blobs/seven"), 422, "invalid_id")
    async with client_of(app) as nobody:
        page = (await nobody.get(refused["type"])).json()
        assert (page["code"], page["title"]) == ("invalid_id", refused["title"])
        assert "<h1>" in (await nobody.get(refused["type"], headers={"accept": "text/html"})).text
        listed = (await nobody.get("/problems")).json()["data"]
    assert {row["code"] for row in listed} == set(CATALOGUE)


@pytest.fixture(scope="module")
def description(app: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return found


def operations(description: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]


async def test_openapi_is_served_openly_and_is_version_3_1(app: Any) -> None:
    async with client_of(app) as nobody:
        for url in ("/openapi.json", f"{BASE}/openapi.json"):
            assert (await nobody.get(url)).json()["openapi"].startswith("3.1")


def test_every_operation_has_its_own_name_of_noun_and_verb(description: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(names) == len(set(names))
    assert all(name.replace("_", "").islower() and "_" in name for name in names)
    assert {
        "blobs_create", "blobs_get", "buckets_create", "buckets_add_blob", "schemas_register", "schemas_validate",
        "workflows_register", "providers_register", "providers_process", "providers_put_instance", "runs_get",
        "cascades_get", "events_list", "users_create", "api_keys_create", "platform_readyz",
    } <= set(names)  # fmt: skip


def test_openapi_shows_the_canonical_paths_only(description: dict[str, Any]) -> None:
    outside = [path for path in description["paths"] if not path.startswith((BASE, "/problems"))]
    assert outside == []
    assert not any("processors" in path for path in description["paths"])


def test_every_operation_that_takes_a_body_shows_an_example(description: dict[str, Any]) -> None:
    without = [
        (method, path)
        for method, path, operation in operations(description)
        if "requestBody" in operation
        and not any("example" in media or "examples" in media for media in operation["requestBody"]["content"].values())
    ]
    assert without == []


def test_every_operation_is_tagged_and_described(description: dict[str, Any]) -> None:
    bare = [
        operation["operationId"]
        for _, _, operation in operations(description)
        if not operation.get("tags") or not operation.get("description")
    ]
    assert bare == []
