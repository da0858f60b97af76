"""Providers that fail, for good and for a while, and operators who end runs: what people see, and how it heals."""

from __future__ import annotations

from typing import Any

from tests.e2e.audit import Auditor
from tests.e2e.catalogue import DERIVATIONS, GRAPH, SOURCE, Node
from tests.e2e.people import Person
from tests.e2e.service import Rule, TestService
from tests.e2e.studio import Studio
from tests.e2e.waiting import eventually

CALLED = (
    Node("ask", SOURCE, "e2e-asked-v1", calls=True),
    Node("tell", "e2e-asked-v1", "e2e-told-v1"),
)


async def nodes_of(person: Person, root_id: str) -> dict[str, list[dict[str, Any]]]:
    """The nodes of the DAG below a root by provider."""
    found: dict[str, list[dict[str, Any]]] = {}
    for node in (await person.get(f"/blobs/{root_id}/dag"))["nodes"]:
        found.setdefault(node["provider_id"] or "root", []).append(node)
    return found


async def cascade_statuses(person: Person) -> list[str]:
    """The status of every cascade that a blob's creation or edit caused, oldest first."""
    listed = (await person.get("/cascades"))["data"]
    return [cascade["status"] for cascade in reversed(listed) if cascade["cause"] in ("create", "edit")]


async def test_a_provider_that_fails_for_good_blocks_what_is_below_it_and_nothing_else(
    person: Person, auditor: Auditor, service: TestService
) -> None:
    await person.register(GRAPH)
    with service.ruled(Rule(person.name, "cut-4", status=422)):
        root = await person.root(await person.bucket())
        await auditor.at_rest(person)
    nodes = await nodes_of(person, root["id"])
    failed = nodes["cut-4"][0]
    assert failed["state"] == "failed"
    states = [node["state"] for each in nodes.values() for node in each]
    # Below the failure: its own measure, polish, check, refine, finish; the index and the volume that join; the digest.
    assert {state: states.count(state) for state in set(states)} == {
        "source": 1, "failed": 1, "blocked": 8, "fresh": DERIVATIONS - 9,
    }  # fmt: skip
    for name in ("index", "volume", "digest"):
        assert (nodes[name][0]["state"], nodes[name][0]["blocked_by"]) == ("blocked", [failed["blob_id"]])
        assert nodes[name][0]["reason"]
    assert await cascade_statuses(person) == ["partial"]

    run = (await person.get("/runs", provider_id="cut-4"))["data"][0]
    assert (run["status"], run["error"]["code"]) == ("failed", "service_rejected")
    assert "answered 422" in run["error"]["detail"]
    letters = (await person.get("/dead-letters"))["data"]
    assert [(letter["run_id"], letter["code"]) for letter in letters] == [(run["id"], "service_rejected")]
    await auditor.counts_are_recounts(person)
    await auditor.nothing_ran_twice(person)

    await person.mark(root["id"], "mended")
    await auditor.at_rest(person)
    states = [node["state"] for each in (await nodes_of(person, root["id"])).values() for node in each]
    assert {state: states.count(state) for state in set(states)} == {"source": 1, "fresh": DERIVATIONS}
    assert await cascade_statuses(person) == ["partial", "completed"]
    await auditor.everything_holds(person, failed=1)


async def test_a_service_that_fails_twice_is_asked_again_with_the_same_key(
    person: Person, auditor: Auditor, service: TestService
) -> None:
    await person.register(CALLED)
    with service.ruled(Rule(person.name, "ask", status=503, times=2)):
        await person.root()
        await auditor.at_rest(person)
    calls = service.of(person.name, "ask")
    assert len(calls) == 3
    assert len({call.key for call in calls}) == 1
    query = "select count(*) from deltas where user_id = $1 and provider_id = 'ask'"
    assert await auditor.value(query, person.user_id) == 1
    await auditor.everything_holds(person)


async def test_a_run_that_an_operator_terminates_in_temporal_has_failed_and_says_so(
    person: Person, auditor: Auditor, service: TestService
) -> None:
    await person.register(CALLED)
    with service.hold(person.name, "ask"):
        root = await person.root()
        await eventually(lambda: service.held(person.name, "ask"), "the run is in its call")
        run = (await person.get("/runs", provider_id="ask"))["data"][0]
        temporal = await auditor.temporal()
        await temporal.get_workflow_handle(run["temporal"]["workflow_id"]).terminate("an operator")
        await auditor.at_rest(person)
    run = await person.get(f"/runs/{run['id']}")
    assert (run["status"], run["error"]["code"]) == ("failed", "provider_failed")
    assert "stopped in Temporal" in run["error"]["detail"]
    nodes = await nodes_of(person, root["id"])
    assert (nodes["ask"][0]["state"], nodes["tell"][0]["state"]) == ("failed", "blocked")
    await person.mark(root["id"], "again")
    await auditor.at_rest(person)
    await auditor.everything_holds(person, failed=1)


async def test_an_answer_that_a_service_has_given_outlives_a_crash_of_postgres(
    person: Person, studio: Studio, auditor: Auditor, service: TestService
) -> None:
    await person.register(CALLED)
    with service.hold(person.name, "ask"):
        await person.root()
        await eventually(lambda: service.held(person.name, "ask"), "the run is in its call")
        killed = studio.kill("postgres")  # the service answers while there is nowhere to keep what it says
    await studio.restarted("postgres", killed)
    await auditor.at_rest(person)
    assert len(service.of(person.name, "ask")) == 1, "the service was asked, and perhaps paid, again"
    await auditor.everything_holds(person)
