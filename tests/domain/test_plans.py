"""What a plan calls things, and how it tells that it does not hold any more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.plan_views import actual_json, plan_json
from domain.plans import Forecast, Node, Outlook, Plan, Root, etag_of, moved, outlooks, reason_of, target_of
from domain.runs import Hold

NOW = datetime(2026, 11, 30, tzinfo=UTC)
NODE = Node(
    id=UUID(int=1), provider_id="p", provider="P", definition_digest="d", anchor_kind="blob", anchor_id=UUID(int=99),
    anchor="T", execution="inline", made=True, unsettled=True, pending=0, hold=None, force=False, level=1,
    run_after=None, complete=True, waits=(), moved=False, spared=None, inputs=(UUID(int=99),), outputs=(),
)  # fmt: skip
ROOT = Root(kind="blob", id=UUID(int=99), title="T", operation="update", version=1, print="r")


def node(number: int, **changed: Any) -> Node:
    output = {"slot": "main", "blob_id": str(UUID(int=100 + number)), "version": 1, "title": "", "schema_id": "s",
              "edited": False, "deleted": False, "on_conflict": "keep_human"}  # fmt: skip
    return replace(NODE, **{"id": UUID(int=number), "outputs": [output], **changed})


def below(number: int, above: Node, **changed: Any) -> Node:
    return node(number, pending=1, waits=(above.id,), **changed)


def seen(*nodes: Node) -> list[str]:
    found = outlooks(nodes)
    return [str(found[one.id]) for one in nodes]


def test_what_is_ready_is_certain_and_what_waits_is_possible() -> None:
    top = node(1)
    assert seen(top, below(2, top), below(3, top, made=False)) == ["certain", "possible", "possible"]


def test_what_waits_is_certain_where_something_else_that_it_reads_has_changed_for_good() -> None:
    top = node(1)
    assert seen(top, below(2, top, moved=True), below(3, top, force=True)) == ["certain"] * 3
    assert seen(top, below(2, top, moved=True, complete=False)) == ["certain", "possible"]
    assert seen(top, below(2, top, force=True, made=False)) == ["certain", "possible"]


@pytest.mark.parametrize("hold", [Hold.APPROVAL, Hold.BUDGET, Hold.CANCELLED, Hold.FAILED, Hold.CONFLICT])
def test_what_is_held_blocks_what_is_below(hold: Hold) -> None:
    top = node(1, hold=hold)
    assert seen(top, below(2, top), below(3, below(2, top))) == ["blocked"] * 3


@pytest.mark.parametrize("hold", [Hold.APPROVAL, Hold.FAILED, Hold.CONFLICT, Hold.BUDGET])
def test_what_was_held_for_what_it_read_may_run_when_that_is_made_anew(hold: Hold) -> None:
    top = node(1)
    assert seen(top, below(2, top, hold=hold)) == ["certain", "possible"]
    assert seen(top, below(2, top, hold=Hold.CANCELLED)) == ["certain", "blocked"]


def test_what_is_asleep_rests_and_what_is_settled_is_unchanged() -> None:
    assert seen(node(1, hold=Hold.RETIRED, unsettled=False), node(2, unsettled=False)) == ["rests", "unchanged"]


@pytest.mark.parametrize("outlook", list(Outlook))
@pytest.mark.parametrize("made", [True, False])
@pytest.mark.parametrize("hold", [None, Hold.FAILED, Hold.RETIRED])
def test_everything_has_a_reason(outlook: Outlook, made: bool, hold: Hold | None) -> None:  # noqa: FBT001
    for complete in (True, False):
        assert reason_of(replace(NODE, made=made, complete=complete, hold=hold), outlook).endswith(".")


def test_the_etag_is_of_what_matters_in_whatever_order() -> None:
    other = replace(ROOT, id=UUID(int=98))
    assert etag_of([ROOT, other], {"a": "1", "b": "2"}) == etag_of([other, ROOT], {"b": "2", "a": "1"})
    assert etag_of([ROOT], {"a": "1"}) != etag_of([ROOT], {"a": "2"})
    assert etag_of([ROOT], {}) != etag_of([replace(ROOT, print="x")], {})
    assert etag_of([ROOT], {}) == etag_of([replace(ROOT, title="renamed")], {})


def plan(forecast: Forecast, **changed: Any) -> Plan:
    values: dict[str, Any] = {
        "id": UUID(int=7), "path": "/x", "etag": forecast.etag, "roots": [r.to_json() for r in forecast.roots],
        "prints": forecast.prints, "outputs": (), "body": {}, "blob_id": UUID(int=8), "created_at": NOW,
        "expires_at": NOW, "used_at": None, "used_key": None, "cascade_id": None,
    }  # fmt: skip
    return Plan(**{**values, **changed})


def test_the_difference_names_what_came_what_went_and_what_is_another() -> None:
    before = Forecast(roots=[ROOT], prints={"a": "1", "b": "1", "c": "1"})
    after = Forecast(roots=[replace(ROOT, version=2, print="s")], prints={"b": "2", "c": "1", "d": "1"})
    error = moved(plan(before), after)
    assert error.problem_code == "plan_moved"
    assert error.members["difference"] == {
        "counts": {"roots": 1, "added": 1, "removed": 1, "changed": 1},
        "roots": [{"kind": "blob", "id": str(ROOT.id), "planned_version": 1, "current_version": 2}],
        "added": ["d"], "removed": ["a"], "changed": ["b"],
    }  # fmt: skip


def test_a_plan_is_open_until_it_is_used_or_expires() -> None:
    now = datetime.now(UTC)
    later, earlier = now + timedelta(hours=1), now - timedelta(hours=1)
    assert plan(Forecast(), expires_at=later).status == "open"
    assert plan(Forecast(), expires_at=earlier).status == "expired"
    assert plan(Forecast(), expires_at=earlier, used_at=earlier).status == "used"


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/api/v1/studio/blobs", "/api/v1/studio/blobs"),
        ("/api/v1/studio/blobs/b", "/api/v1/studio/blobs/b"),
        ("/api/v1/studio/blobs/b/content", "/api/v1/studio/blobs/b"),
        ("/api/v1/studio/blobs/b/revert", "/api/v1/studio/blobs/b"),
        ("/api/v1/studio/buckets/k/blobs/b", "/api/v1/studio/buckets/k/blobs/b"),
        ("/api/v1/studio/providers/p/instance", "/api/v1/studio/providers/p/instance"),
    ],
)
def test_every_way_to_change_a_blob_is_about_that_blob(path: str, target: str) -> None:
    assert target_of(path) == target


def test_a_long_plan_shows_the_first_nodes_by_level_and_counts_all() -> None:
    top = node(1)
    nodes = [below(3, top, inputs=(UUID(int=101),)), below(2, top, inputs=(UUID(int=101),)), top]
    found = plan_json(Forecast(roots=[ROOT], nodes=nodes), now=NOW, window=10, nodes_max=2, paid=())
    assert [one["derivation_id"] for one in found["nodes"]] == [str(UUID(int=1)), str(UUID(int=2))]
    assert (found["truncated"], found["counts"]["total"], found["estimate"]["runs"]) == (True, 3, 3)
    assert found["levels"] == [[str(UUID(int=99))], [str(UUID(int=101))], [str(UUID(int=102))]]
    assert len(found["edges"]) == 2


def test_who_calls_nobody_that_takes_money_costs_nothing_and_that_is_known() -> None:
    nodes = [node(1), replace(node(2), services=("ai-service",))]

    def planned(*paid: str) -> Any:
        body = plan_json(Forecast(roots=[ROOT], nodes=nodes), now=NOW, window=10, nodes_max=2, paid=paid)
        return body["estimate"]["cost"], body["nodes"][1]["estimate"]["cost"]

    free = {"low": 0.0, "high": 0.0}
    assert planned() == ({**free, "unknown_nodes": 0}, free)
    assert planned("ai-service") == ({**free, "unknown_nodes": 1}, None)


def test_afterwards_what_ran_is_held_against_what_was_said() -> None:
    top = node(1)
    body = plan_json(Forecast(roots=[ROOT], nodes=[top, below(2, top)]), now=NOW, window=10, nodes_max=10, paid=())
    actual = {
        "id": UUID(int=5), "status": "completed", "runs": 2, "failed": 0, "cut_off": 0, "tokens": 3.0, "cost": None,
        "created_at": NOW, "ended_at": NOW + timedelta(seconds=4), "ran": [UUID(int=2), UUID(int=3)],
    }  # fmt: skip
    found = actual_json(body, actual)
    assert (found["seconds"], found["certain_and_ran"], found["possible_and_ran"]) == (4.0, 0, 1)
    assert found["certain_not_run"] == [str(UUID(int=1))]
    assert found["unforeseen"] == [str(UUID(int=3))]
