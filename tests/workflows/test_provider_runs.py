"""Runs as workflows: superseded before the next paid call, left to finish, declined, failed by others and by us."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError

from activities.errors import INTERNAL_DETAIL
from tests.workflows.conftest import CALL, INLINE, Studio, TextService

SECOND = {**CALL, "id": "ask-again", "input_map": {"text": "$.text"}}


async def create(studio: Studio, text: str = "a") -> Any:
    return await studio.post("/blobs", {"schema_id": "in-v1", "data": {"text": text}, "title": "Draft"})


async def edit(studio: Studio, blob: Any, text: str) -> None:
    answer = await studio.http.patch(
        f"/api/v1/studio/blobs/{blob['id']}", json={"delta": {"operation": "update", "patch": {"data": {"text": text}}}}
    )
    assert answer.is_success, answer.text


async def runs(studio: Studio) -> list[Any]:
    """The user's runs, oldest first."""
    found = await studio.get("/runs")
    return sorted(found["data"], key=lambda run: str(run["id"]))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in PostgreSQL
            await asyncio.sleep(0.02)


def keys(service: TextService, run: Any) -> list[str]:
    """The steps for which a run called, in order."""
    return [key.partition(":")[2] for key in service.calls if key.startswith(run["id"])]


async def test_a_run_that_an_edit_supersedes_stops_before_its_next_paid_call(
    studio: Studio, text_service: TextService
) -> None:
    await studio.provider("paid", "in-v1", "out-v1", CALL, SECOND, supersede="cancel")
    before = len(text_service.calls)
    text_service.gate.clear()
    try:
        blob = await create(studio)
        await text_service.asked(before + 1)
        await edit(studio, blob, "b")

        async def superseded() -> bool:
            return bool((await runs(studio))[0]["status"] == "superseded")

        await until(superseded)
    finally:
        text_service.gate.set()
    graph = await studio.settled(blob["id"])
    first, second = await runs(studio)
    assert (first["status"], second["status"]) == ("superseded", "settled")
    assert keys(text_service, first) == ["ask-service"]
    assert keys(text_service, second) == ["ask-service", "ask-again"]
    made = next(node for node in graph["nodes"] if node["provider_id"] == "paid")
    assert (await studio.get(f"/blobs/{made['blob_id']}"))["data"] == {"text": "<<b>>"}


async def test_a_paid_run_is_left_to_finish_and_the_newest_edit_runs_after_it(
    studio: Studio, text_service: TextService
) -> None:
    await studio.provider("finishes", "in-v1", "out-v1", CALL, SECOND)
    before = len(text_service.calls)
    text_service.gate.clear()
    try:
        blob = await create(studio)
        await text_service.asked(before + 1)
        for text in "bcd":
            await edit(studio, blob, text)
    finally:
        text_service.gate.set()
    graph = await studio.settled(blob["id"])
    found = await runs(studio)
    assert [run["status"] for run in found] == ["settled", "settled"]
    assert [keys(text_service, run) for run in found] == [["ask-service", "ask-again"]] * 2
    made = next(node for node in graph["nodes"] if node["provider_id"] == "finishes")
    shown = await studio.get(f"/blobs/{made['blob_id']}")
    assert (shown["data"], shown["version"]) == ({"text": "<<d>>"}, 2)


async def test_a_run_whose_provider_declines_the_content_calls_nobody(
    studio: Studio, text_service: TextService, temporal: Client
) -> None:
    await studio.provider("picky", "in-v1", "out-v1", CALL, trigger_patterns=["chapter"])
    before = len(text_service.calls)
    blob = await create(studio, "a poem")
    await studio.settled(blob["id"])
    [run] = await runs(studio)
    assert (run["status"], len(text_service.calls)) == ("settled", before)
    history = await temporal.get_workflow_handle(run["temporal"]["workflow_id"]).fetch_history()
    kinds = {event.event_type for event in history.events}
    assert EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED not in kinds
    await edit(studio, blob, "a chapter")
    await studio.settled(blob["id"])
    assert len(text_service.calls) == before + 1


async def test_attempts_end_where_the_definition_says(studio: Studio, text_service: TextService) -> None:
    await studio.provider("twice", "in-v1", "out-v1", {**CALL, "retry": {"max_attempts": 2}})
    before = len(text_service.calls)
    text_service.answers[:] = [503, 503, 503]
    blob = await create(studio)
    await studio.settled(blob["id"])
    text_service.answers.clear()
    [run] = await runs(studio)
    assert (run["status"], run["error"]["code"]) == ("failed", "service_unavailable")
    assert len(text_service.calls) == before + 2


async def test_a_fault_of_ours_ends_as_internal_and_says_nothing_of_our_insides(
    studio: Studio, admin: Any, temporal: Client
) -> None:
    await studio.provider("ours", "in-v1", "out-v1", CALL)
    await studio.provider("beside", "in-v1", "side-v1", INLINE)
    await admin.execute("update definitions set ir = '{}' where slug = 'wf-ours'")
    blob = await create(studio)
    graph = await studio.settled(blob["id"])
    states = {node["provider_id"]: node["state"] for node in graph["nodes"]}
    assert states == {None: "source", "ours": "failed", "beside": "fresh"}
    run = next(run for run in await runs(studio) if run["provider_id"] == "ours")
    assert (run["error"]["code"], run["error"]["detail"]) == ("internal", INTERNAL_DETAIL)
    handle = temporal.get_workflow_handle(run["temporal"]["workflow_id"])
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "internal"
    found = await handle.describe()
    assert found.status == WorkflowExecutionStatus.FAILED


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ({"id": "wrong", "type": "computation", "operations": [{"n": "$.text + 1"}]}, "expression_failed"),
        ({"id": "wrong", "type": "schema-validation", "schema_id": "strict-v1", "value": "$.data"},
         "schema_violation"),
        ({"id": "wrong", "type": "state-update", "operation": "create-blob", "schema_id": "strict-v1",
          "data_map": {"text": "$.text"}}, "invalid_output"),
    ],
)  # fmt: skip
async def test_what_fails_after_a_paid_call_fails_the_run_and_pays_once(
    studio: Studio, text_service: TextService, after: dict[str, Any], code: str
) -> None:
    strict = {"type": "object", "properties": {"text": {"type": "integer"}}}
    await studio.post("/schemas", {"slug": "strict-v1", "version": "1.0.0", "definition": strict})
    await studio.provider("wrong", "in-v1", "out-v1", CALL, after)
    before = len(text_service.calls)
    blob = await create(studio)
    await studio.settled(blob["id"])
    [run] = await runs(studio)
    assert (run["status"], run["error"]["code"], len(text_service.calls)) == ("failed", code, before + 1)
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "partial"


async def test_a_run_that_an_operator_terminates_has_failed(
    studio: Studio, text_service: TextService, temporal: Client
) -> None:
    await studio.provider("stopped", "in-v1", "out-v1", CALL)
    before = len(text_service.calls)
    text_service.gate.clear()
    try:
        blob = await create(studio)
        await text_service.asked(before + 1)
        [run] = await runs(studio)
        await temporal.get_workflow_handle(run["temporal"]["workflow_id"]).terminate("an operator's decision")
        await studio.settled(blob["id"])
    finally:
        text_service.gate.set()
    [run] = await runs(studio)
    assert (run["status"], run["error"]["code"]) == ("failed", "provider_failed")
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["status"] == "partial"


async def test_a_service_is_told_what_the_definition_names_and_nothing_else(
    studio: Studio, text_service: TextService, temporal: Client
) -> None:
    await studio.provider("told", "in-v1", "out-v1", CALL)
    before = len(text_service.bodies)
    blob = await studio.post(
        "/blobs", {"schema_id": "in-v1", "data": {"text": "a", "secret": "s3cret"}, "metadata": {"own": "mine"}}
    )
    await studio.settled(blob["id"])
    assert text_service.bodies[before:] == [{"text": "a"}]
    [run] = await runs(studio)
    for workflow_id in (run["temporal"]["workflow_id"], f"cascade:{blob['cascade_id']}"):
        history = (await temporal.get_workflow_handle(workflow_id).fetch_history()).to_json()
        assert "postgres" not in history
        assert "s3cret" not in history
