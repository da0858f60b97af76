"""Providers over HTTP: registered, found, switched, asked to process; and what none of that may do."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest

from domain.ids import instance_id, new_id, provider_key
from storage.contents import Contents
from storage.database import Database
from storage.schedule import PostgresSchedule
from tests.api.requests import make, problem
from tests.api.schedule import plan_all, schedule_of
from tests.api.test_workflows import SHOUT
from tests.conftest import BASE, Person, client_of

Count = Callable[[UUID], Awaitable[dict[str, int]]]

SEED = (Path(__file__).parent / "seed_requests" / "003-register-provider.yaml").read_text()
YAML = {"content-type": "application/yaml"}
ANY = {"if-match": "*"}


@pytest.fixture
def schedule(database: Database, contents: Contents) -> PostgresSchedule:
    return schedule_of(database, contents)


async def register(client: httpx2.AsyncClient, status: int = 201, **body: Any) -> dict[str, Any]:
    """Register ``shout``, which any blob of a person's wakes."""
    await client.post(f"{BASE}/workflows", json=SHOUT)
    answer = await client.post(f"{BASE}/providers", json={"id": "shout", "workflow_id": "wf-shout", **body})
    assert answer.status_code == status, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def events(client: httpx2.AsyncClient, kind: str) -> list[dict[str, Any]]:
    answer = await client.get(f"{BASE}/events", params={"type": kind})
    return [event["data"] for event in answer.json()["data"]]


async def derived(database: Database, user: Person, provider: str) -> int:
    """How many derivations of a provider the schedule has that are not asleep."""
    row = await database.row(
        user.user_id,
        "select count(*) as n from derivations d join providers p on p.id = d.provider_id"
        " where d.user_id = $1 and p.slug = $2 and coalesce(d.hold, '') not in ('inactive', 'retired')",
        user.user_id,
        provider,
    )
    return row["n"] if row else 0


async def test_the_built_in_providers_are_there_and_active(client: httpx2.AsyncClient) -> None:
    listed = (await client.get(f"{BASE}/providers")).json()["data"]
    by_id = {row["id"]: row for row in listed}
    expected = {
        "outline-generator", "text-expansion", "style-editor", "grammar-checker", "summarizer", "book-compiler",
    }  # fmt: skip
    assert expected == set(by_id)
    assert all(row["built_in"] and row["active"] and row["input_schema_id"] for row in listed)
    expander = by_id["text-expansion"]
    assert (expander["input_schema_id"], expander["output_schema_id"]) == ("text-input-v1", "expanded-text-v1")
    for alias in ("text-expansion", "content-expander", expander["key"]):
        assert (await client.get(f"{BASE}/providers/{alias}")).json() == expander
    assert (await client.get("/api/v1/processors")).json()["data"] == listed
    assert by_id["book-compiler"]["collect"] == {
        "bucket_type": "book", "schema_id": "checked-text-v1", "order": "position",
    }  # fmt: skip


async def test_registering_activates_and_is_a_cause(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    await make(client)
    await plan_all(database, schedule, user.user_id)
    made = await register(client)
    assert (made["active"], made["revision"], made["built_in"], made["origin"]) == (True, 1, False, "person")
    (data,) = await events(client, "provider.registered")
    cascade = (await client.get(f"{BASE}/cascades/{data['cascade_id']}")).json()
    assert (cascade["cause"], cascade["provider_id"]) == ("provider", "shout")
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "shout") == 1


async def test_activate_false_leaves_it_off_until_it_is_switched_on(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    await make(client)
    assert (await register(client, activate=False))["active"] is False
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "shout") == 0
    url = f"{BASE}/providers/shout/instance"
    answer = await client.put(url, json={"active": True}, headers=ANY)
    assert (answer.status_code, answer.json()["active"]) == (200, True)
    assert answer.json()["cascade_id"] in answer.headers["link"]
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "shout") == 1
    await client.put(url, json={"active": False}, headers=ANY)
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "shout") == 0
    assert [len(await events(client, kind)) for kind in ("provider.activated", "provider.paused")] == [1, 1]


async def test_registering_the_same_again_changes_nothing_and_something_else_makes_a_revision(
    client: httpx2.AsyncClient, user: Person, count_rows: Count
) -> None:
    made = await register(client)
    before = await count_rows(user.user_id)
    assert await register(client, 200) == made
    assert await count_rows(user.user_id) == before
    changed = await register(client, name="Shout louder")
    assert (changed["revision"], changed["name"], changed["key"]) == (2, "Shout louder", made["key"])
    answer = await client.get(f"{BASE}/providers/shout")
    assert (answer.headers["etag"], answer.json()) == ('"v2"', changed)


async def test_a_new_revision_leaves_a_provider_off_that_was_switched_off(client: httpx2.AsyncClient) -> None:
    await register(client)
    await client.put(f"{BASE}/providers/shout/instance", json={"active": False}, headers=ANY)
    assert (await register(client, name="Shout louder"))["active"] is False


async def test_a_provider_of_ones_own_replaces_the_built_in_one_of_its_name(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    answer = await client.post(f"{BASE}/providers", content=SEED, headers=YAML)
    assert answer.status_code == 201, answer.text
    listed = (await client.get(f"{BASE}/providers")).json()["data"]
    assert [row["built_in"] for row in listed if row["id"] == "text-expansion"] == [False]
    await make(client, schema_id="text-input-v1", data={"content": "The ship sailed into the storm."})
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "text-expansion") == 1
    assert (await client.delete(f"{BASE}/providers/text-expansion")).status_code == 204
    assert (await client.get(f"{BASE}/providers/text-expansion")).json()["built_in"] is True
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "text-expansion") == 1


async def test_a_deleted_provider_is_gone_and_can_come_back(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    await make(client)
    await register(client)
    await plan_all(database, schedule, user.user_id)
    url = f"{BASE}/providers/shout"
    problem(await client.delete(url, headers={"if-match": '"v9"'}), 412, "precondition_failed")
    assert (await client.delete(url)).status_code == 204
    problem(await client.get(url), 404, "not_found")
    problem(await client.delete(url), 404, "not_found")
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "shout") == 0
    assert (await register(client))["active"] is True
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "shout") == 1
    refused = await client.delete(f"{BASE}/providers/summarizer")
    problem(refused, 403, "built_in")


async def test_all_faults_of_a_registration_come_at_once(
    client: httpx2.AsyncClient, user: Person, count_rows: Count
) -> None:
    before = await count_rows(user.user_id)
    bad = {
        "id": "Bad Id",
        "workflow": "wf-nowhere",
        "input_schema_id": "schema-nope-v1",
        "events": ["onCreat", "blob.updated.nada-v1"],
        "priority": "high",
        "colour": "red",
    }
    found = problem(await client.post(f"{BASE}/providers", json=bad), 422, "invalid_request")
    faults = {fault["pointer"]: fault["code"] for fault in found["errors"]}
    assert faults["/workflow"] == "unknown_workflow"
    assert faults["/input_schema_id"] == "unknown_schema"
    assert faults["/events/1"] == "unknown_schema"
    assert faults["/colour"] == "unknown_field"
    assert {"/id", "/events/0", "/priority"} <= set(faults)
    assert await count_rows(user.user_id) == before


async def test_a_provider_that_names_an_unknown_schema_says_which(
    client: httpx2.AsyncClient, user: Person, count_rows: Count
) -> None:
    before = await count_rows(user.user_id)
    text = SEED.replace("schema-text-input-v1", "schema-text-inptu-v1")
    found = problem(await client.post(f"{BASE}/providers", content=text, headers=YAML), 422, "invalid_request")
    assert [(fault["pointer"], fault["code"]) for fault in found["errors"]] == [
        ("/processor/input_schema_id", "unknown_schema")
    ]
    assert "schema-text-inptu-v1" in found["errors"][0]["detail"]
    assert await count_rows(user.user_id) == before


async def test_an_instance_is_changed_under_preconditions_only(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/providers/summarizer/instance"
    read = await client.get(url)
    assert (read.headers["etag"], read.json()["active"]) == ('"v1"', True)
    problem(await client.put(url, json={"active": False}), 428, "precondition_required")
    stale = problem(
        await client.put(url, json={"active": False}, headers={"if-match": '"v7"'}), 412, "precondition_failed"
    )
    assert stale["current_version"] == 1
    changed = await client.put(url, json={"active": False}, headers={"if-match": '"v1"'})
    assert (changed.headers["etag"], changed.json()["version"]) == ('"v2"', 2)
    same = await client.put(url, json={"active": False}, headers={"if-match": '"v2"'})
    assert (same.headers["etag"], same.json()["cascade_id"]) == ('"v2"', None)
    problem(await client.put(url, json={"active": "no"}, headers=ANY), 422, "wrong_type", "/active")
    problem(await client.put(url, json={"on": True}, headers=ANY), 422, "unknown_field", "/on")
    problem(await client.put(f"{BASE}/providers/nobody/instance", json={}, headers=ANY), 404, "not_found")


async def test_settings_satisfy_what_the_provider_declares(client: httpx2.AsyncClient, user: Person) -> None:
    schema = {"type": "object", "properties": {"tone": {"enum": ["dry", "warm"]}}, "additionalProperties": False}
    await register(client, settings_schema=schema, settings={"tone": "dry"})
    url = f"{BASE}/providers/shout/instance"
    assert (await client.get(url)).json()["settings"] == {"tone": "dry"}
    wrong = await client.put(url, json={"settings": {"tone": "loud"}}, headers=ANY)
    problem(wrong, 422, "schema_violation", "/settings/tone")
    unknown = await client.put(url, json={"settings": {"colour": "red"}}, headers=ANY)
    problem(unknown, 422, "schema_violation", "/settings/colour")
    changed = (await client.put(url, json={"settings": {"tone": "warm"}}, headers=ANY)).json()
    assert (changed["settings"], changed["active"]) == ({"tone": "warm"}, True)
    assert changed["id"] == str(instance_id(user.user_id, provider_key(user.user_id, "shout")))
    assert len(await events(client, "provider.configured")) == 1


async def test_processing_answers_202_and_names_the_cascade(
    client: httpx2.AsyncClient, user: Person, database: Database, schedule: PostgresSchedule
) -> None:
    blob = await make(client)
    body = {"blobId": blob["id"], "event": "onCreate"}
    answer = await client.post(f"{BASE}/providers/text-expansion/process", json=body)
    found = answer.json()
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"{BASE}/cascades/{found['cascade_id']}"
    assert (found["cause"], found["provider_id"], found["blob_id"]) == ("process", "text-expansion", blob["id"])
    assert await derived(database, user, "text-expansion") == 0
    await plan_all(database, schedule, user.user_id)
    assert await derived(database, user, "text-expansion") == 1
    again = await client.post(f"{BASE}/providers/text-expansion/process", json={"blob_id": blob["id"]})
    assert again.json()["cascade_id"] != found["cascade_id"]


async def test_processing_refuses_what_could_not_run(
    client: httpx2.AsyncClient, stranger: httpx2.AsyncClient, user: Person, count_rows: Count
) -> None:
    blob, theirs, gone = await make(client), await make(stranger), await make(client)
    await client.delete(f"{BASE}/blobs/{gone['id']}")
    before = await count_rows(user.user_id)
    url = f"{BASE}/providers/text-expansion/process"
    problem(await client.post(url, json={"blob_id": theirs["id"]}), 404, "not_found", "/blob_id")
    problem(await client.post(url, json={"blob_id": str(new_id())}), 404, "not_found", "/blob_id")
    problem(await client.post(url, json={"blob_id": gone["id"]}), 410, "deleted")
    problem(await client.post(url, json={"blobId": "123"}), 422, "invalid_id", "/blobId")
    problem(await client.post(url, json={}), 422, "missing_field", "/blob_id")
    wrong = {"blob_id": blob["id"], "event": "onSneeze"}
    problem(await client.post(url, json=wrong), 422, "invalid_value", "/event")
    problem(await client.post(f"{BASE}/providers/nobody/process", json=wrong), 404, "not_found")
    joins = await client.post(f"{BASE}/providers/book-compiler/process", json={"blob_id": blob["id"]})
    problem(joins, 422, "invalid_value", "/blob_id")
    assert await count_rows(user.user_id) == before
    await client.put(f"{BASE}/providers/text-expansion/instance", json={"active": False}, headers=ANY)
    problem(await client.post(url, json={"blob_id": blob["id"]}), 409, "provider_inactive")


async def test_the_schemas_of_a_provider_are_those_it_takes_and_makes(client: httpx2.AsyncClient) -> None:
    rows = (await client.get("/api/v1/processors/text-expansion/schemas")).json()["data"]
    assert [(row["slug"], row["role"]) for row in rows] == [("text-input-v1", "input"), ("expanded-text-v1", "output")]
    problem(await client.get(f"{BASE}/providers/nobody/schemas"), 404, "not_found")


async def test_the_health_of_a_provider_without_runs_is_idle_or_inactive(client: httpx2.AsyncClient) -> None:
    url = f"{BASE}/providers/summarizer"
    assert (await client.get(f"{url}/health")).json()["status"] == "idle"
    await client.put(f"{url}/instance", json={"active": False}, headers=ANY)
    assert (await client.get(f"{url}/health")).json()["status"] == "inactive"


async def test_providers_and_activations_are_ones_own(client: httpx2.AsyncClient, stranger: httpx2.AsyncClient) -> None:
    made = await register(client)
    for reference in ("shout", made["key"]):
        problem(await stranger.get(f"{BASE}/providers/{reference}"), 404, "not_found")
    problem(await stranger.delete(f"{BASE}/providers/shout"), 404, "not_found")
    problem(await stranger.put(f"{BASE}/providers/shout/instance", json={}, headers=ANY), 404, "not_found")
    assert "shout" not in [row["id"] for row in (await stranger.get(f"{BASE}/providers")).json()["data"]]
    named = await stranger.post(f"{BASE}/providers", json={"id": "mine", "workflow_id": "wf-shout"})
    problem(named, 422, "invalid_request", "/workflow_id")
    await client.put(f"{BASE}/providers/summarizer/instance", json={"active": False}, headers=ANY)
    assert (await stranger.get(f"{BASE}/providers/summarizer/instance")).json()["active"] is True


async def test_each_act_needs_its_scope(app: Any, make_user: Callable[..., Awaitable[Person]]) -> None:
    reader = await make_user(("blobs:read",))
    async with client_of(app, reader.headers) as client:
        assert (await client.get(f"{BASE}/providers")).status_code == 200
        for method, path, scope in (
            ("POST", "", "providers:write"),
            ("DELETE", "/summarizer", "providers:write"),
            ("POST", "/summarizer/process", "providers:execute"),
            ("PUT", "/summarizer/instance", "providers:execute"),
        ):
            answer = await client.request(method, f"{BASE}/providers{path}", json={})
            assert problem(answer, 403, "missing_scope")["required_scope"] == scope
