"""Money under real workflows: who cannot be paid is held, and goes on after a top-up without paying anything twice."""

from __future__ import annotations

from typing import Any

from temporalio.client import Client

from tests.workflows.conftest import CALL, INLINE, Studio, TextService
from tests.workflows.test_provider_runs import SECOND, create, keys, runs

PAID = {**CALL, "service": "paid"}
PAID_AGAIN = {**SECOND, "service": "paid"}
WORST = 30
"""Ten tokens sent at one micro-dollar, ten answered at two."""
ACTUAL = 6
"""Three tokens that nobody told apart, at the higher price."""


async def put_budget(studio: Studio, limit: int | None) -> Any:
    answer = await studio.http.put("/api/v1/studio/budget", json={"limit": limit}, headers={"If-Match": "*"})
    assert answer.is_success, answer.text
    return answer.json()


async def test_an_exhausted_budget_holds_and_a_top_up_goes_on_without_paying_again(
    studio: Studio, text_service: TextService, temporal: Client
) -> None:
    await studio.provider("costly", "in-v1", "out-v1", PAID, PAID_AGAIN)
    await studio.provider("beside", "in-v1", "side-v1", INLINE)
    await studio.provider("below", "out-v1", "deep-v1", INLINE)
    await put_budget(studio, WORST)
    blob = await create(studio)
    graph = await studio.settled(blob["id"])
    states = {node["provider_id"]: node["state"] for node in graph["nodes"]}
    assert states == {None: "source", "costly": "blocked_budget", "beside": "fresh", "below": "blocked"}
    [first] = [run for run in await runs(studio) if run["provider_id"] == "costly"]
    assert (first["status"], first["error"]["code"], first["usage"]["cost"]) == (
        "blocked_budget", "budget_exhausted", ACTUAL,
    )  # fmt: skip
    assert keys(text_service, first) == ["ask-service"]
    handle = temporal.get_workflow_handle(first["temporal"]["workflow_id"])
    assert (await handle.result())["status"] == "blocked_budget"
    cascade = await studio.get(f"/cascades/{blob['cascade_id']}")
    assert (cascade["status"], cascade["cost"]) == ("partial", ACTUAL)
    budget = await studio.get("/budget")
    assert (budget["spent"], budget["reserved"], budget["remaining"]) == (ACTUAL, 0, WORST - ACTUAL)
    assert budget["blocked"] == {"derivations": 1, "needed": WORST}

    raised = await studio.post("/budget/top-up", {"amount": ACTUAL})
    assert (raised["limit"], raised["resumed"]) == (WORST + ACTUAL, 1)
    assert (await studio.get(f"/cascades/{raised['cascade_id']}"))["cause"] == "top_up"
    graph = await studio.settled(blob["id"])
    assert {node["state"] for node in graph["nodes"]} == {"source", "fresh"}
    found = [run for run in await runs(studio) if run["provider_id"] == "costly"]
    second = next(run for run in found if run["id"] != first["id"])
    assert (second["status"], keys(text_service, second)) == ("settled", ["ask-again"])
    assert (await studio.get(f"/cascades/{blob['cascade_id']}"))["cost"] == 2 * ACTUAL
    charges = (await studio.get(f"/budget/charges?cascade_id={blob['cascade_id']}"))["data"]
    assert [(charge["step_id"], charge["amount"], charge["model"]) for charge in charges] == [
        ("ask-again", ACTUAL, "echo"), ("ask-service", ACTUAL, "echo"),
    ]  # fmt: skip
