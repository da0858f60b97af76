"""The graph around a blob: states, reasons, levels, caps. The schedule's rows are written here as facts."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx2
import pytest

from domain.dag import blockers, dag, level_of
from domain.ids import new_id
from tests.api.requests import make, problem
from tests.conftest import BASE

NODE_FIELDS = {
    "blob_id", "title", "schema_id", "version", "level", "provider_id", "derivation_id", "run_id", "state", "reason",
    "blocked_by",
}  # fmt: skip


class Facts:
    """Writes derivations as plan and settle would."""

    def __init__(self, admin: Any, user_id: UUID) -> None:
        self._admin = admin
        self._user_id = user_id

    async def derived(self, *parents: str, **state: Any) -> str:
        """A blob made of ``parents``: fresh at version 1 unless ``state`` says otherwise; returns its id."""
        blob, derivation = new_id(), state.pop("id", new_id())
        version = state.pop("version", 1)
        values = {"unsettled": False, "hold": None, "run_id": None, "pending_inputs": 0} | state
        await self._admin.execute(
            "insert into blobs (user_id, id, content_type, schema_id, created_by, provider_id, root_id, title, version)"
            " values ($1, $2, 'text/plain', 'text-v1', 'maker', 'maker', $3, $4, $5)",
            self._user_id, blob, UUID(parents[0]), f"made of {len(parents)}", version,
        )  # fmt: skip
        await self._admin.execute(
            "insert into derivations (user_id, id, instance_id, provider_id, anchor_kind, anchor_id, execution,"
            " supersede, want_digest, unsettled, hold, run_id, pending_inputs, attempt)"
            " values ($1, $2, $3, $3, 'blob', $4, 'inline', 'finish', 'x', $5, $6, $7, $8, 2)",
            self._user_id, derivation, new_id(), UUID(parents[0]), values["unsettled"], values["hold"],
            values["run_id"], values["pending_inputs"],
        )  # fmt: skip
        await self._admin.execute(
            "insert into derivation_outputs (user_id, derivation_id, slot, blob_id) values ($1, $2, 'out', $3)",
            self._user_id, derivation, blob,
        )  # fmt: skip
        for position, parent in enumerate(parents):
            await self._admin.execute(
                "insert into derivation_inputs (user_id, derivation_id, blob_id, position) values ($1, $2, $3, $4)",
                self._user_id, derivation, UUID(parent), position,
            )  # fmt: skip
        return str(blob)

    async def quiet(self) -> None:
        """No cascade is under way."""
        await self._admin.execute(
            "update cascades set status = 'completed', planned_at = now() where user_id = $1", self._user_id
        )


@pytest.fixture
def facts(admin: Any, user: Any) -> Facts:
    return Facts(admin, user.user_id)


async def graph(client: httpx2.AsyncClient, blob_id: str, query: str = "") -> dict[str, Any]:
    answer = await client.get(f"{BASE}/blobs/{blob_id}/dag{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_single_blob_is_a_graph_of_one_source(client: httpx2.AsyncClient, facts: Facts) -> None:
    made = await make(client, content="First line\nsecond")
    under_way = await graph(client, made["id"])
    assert under_way["settled"] is False
    assert [cascade["id"] for cascade in under_way["cascades"]] == [made["cascade_id"]]
    await facts.quiet()
    assert await graph(client, made["id"]) == {
        "root_id": made["id"],
        "settled": True,
        "truncated": False,
        "cascades": [],
        "nodes": [
            {
                "blob_id": made["id"],
                "title": "First line",
                "schema_id": "text-v1",
                "version": 1,
                "level": 0,
                "provider_id": None,
                "derivation_id": None,
                "run_id": None,
                "state": "source",
                "reason": "Written by a person.",
                "blocked_by": [],
            }
        ],
        "edges": [],
        "levels": [[made["id"]]],
    }


async def test_a_diamond_has_the_levels_of_its_longest_paths(client: httpx2.AsyncClient, facts: Facts) -> None:
    root = (await make(client))["id"]
    left, right = await facts.derived(root), await facts.derived(root)
    below = await facts.derived(right)
    sink = await facts.derived(left, below)
    manual = (await make(client, content="mine", parent_id=sink))["id"]
    await facts.quiet()
    found = await graph(client, root)
    assert [set(level) for level in found["levels"]] == [{root}, {left, right}, {below}, {sink}, {manual}]
    assert all(node.keys() == NODE_FIELDS for node in found["nodes"])
    edges = {(edge["parent_id"], edge["child_id"], edge["provider_id"], edge["kind"]) for edge in found["edges"]}
    assert edges == {
        (root, left, "maker", "derived"),
        (root, right, "maker", "derived"),
        (right, below, "maker", "derived"),
        (left, sink, "maker", "derived"),
        (below, sink, "maker", "derived"),
        (sink, manual, None, "manual"),
    }
    states = {node["blob_id"]: node["state"] for node in found["nodes"]}
    assert states == {root: "source", manual: "source"} | dict.fromkeys((left, right, below, sink), "fresh")
    assert found["settled"] is True
    part = await graph(client, right)
    assert [set(level) for level in part["levels"]] == [{right}, {below}, {sink}, {manual}]


@pytest.mark.parametrize(
    ("values", "state", "settled"),
    [
        ({}, "fresh", True),
        ({"unsettled": True}, "stale", False),
        ({"unsettled": True, "run_id": new_id()}, "running", False),
        ({"unsettled": True, "hold": "failed"}, "failed", True),
        ({"unsettled": True, "hold": "approval"}, "awaiting_approval", True),
        ({"unsettled": True, "hold": "conflict"}, "conflict", True),
        ({"unsettled": True, "hold": "budget"}, "blocked_budget", True),
        ({"unsettled": True, "hold": "cancelled"}, "cancelled", True),
        ({"hold": "inactive"}, "inactive", True),
        ({"hold": "retired"}, "retired", True),
    ],
)
async def test_each_state_is_named_explained_and_counts_as_settled_or_not(
    client: httpx2.AsyncClient, facts: Facts, values: dict[str, Any], state: str, settled: Any
) -> None:
    root = (await make(client))["id"]
    made = await facts.derived(root, **values)
    await facts.quiet()
    found = await graph(client, root)
    node = next(node for node in found["nodes"] if node["blob_id"] == made)
    assert node["state"] == state
    assert node["reason"].endswith((".", ")"))
    assert found["settled"] is settled


async def test_what_waits_for_a_failure_says_by_what_it_is_blocked(client: httpx2.AsyncClient, facts: Facts) -> None:
    root = (await make(client))["id"]
    failed = await facts.derived(root, unsettled=True, hold="failed")
    waiting = await facts.derived(failed, unsettled=True, pending_inputs=1)
    below = await facts.derived(waiting, unsettled=True, pending_inputs=1)
    sibling = await facts.derived(root)
    await facts.quiet()
    found = await graph(client, root)
    nodes = {node["blob_id"]: node for node in found["nodes"]}
    for blocked in (waiting, below):
        assert (nodes[blocked]["state"], nodes[blocked]["blocked_by"]) == ("blocked", [failed])
        assert "made of 1" in nodes[blocked]["reason"]
    assert nodes[sibling]["state"] == "fresh"
    assert found["settled"] is True


async def test_a_blocker_outside_of_the_graph_is_named_too(client: httpx2.AsyncClient, facts: Facts) -> None:
    here, there = (await make(client))["id"], (await make(client))["id"]
    failed = await facts.derived(there, unsettled=True, hold="failed")
    join = await facts.derived(here, failed, unsettled=True, pending_inputs=1)
    await facts.quiet()
    found = await graph(client, here)
    node = next(node for node in found["nodes"] if node["blob_id"] == join)
    assert (node["state"], node["blocked_by"]) == ("blocked", [failed])
    assert failed not in [node["blob_id"] for node in found["nodes"]]


async def test_an_output_that_is_not_made_yet_is_a_node_but_no_blob(client: httpx2.AsyncClient, facts: Facts) -> None:
    root = (await make(client))["id"]
    planned = await facts.derived(root, unsettled=True, version=0)
    await facts.quiet()
    node = next(node for node in (await graph(client, root))["nodes"] if node["blob_id"] == planned)
    assert (node["version"], node["state"]) == (0, "stale")
    problem(await client.get(f"{BASE}/blobs/{planned}"), 404, "not_found")


async def test_a_cascade_on_a_bucket_of_a_node_keeps_it_unsettled(
    client: httpx2.AsyncClient, facts: Facts, admin: Any, user: Any
) -> None:
    made = await make(client)
    await facts.quiet()
    assert (await graph(client, made["id"]))["settled"] is True
    bucket = (await client.post(f"{BASE}/buckets", json={"name": "Book"})).json()["id"]
    put = await client.put(f"{BASE}/buckets/{bucket}/blobs/{made['id']}")
    assert put.status_code in {200, 201, 204}, put.text
    found = await graph(client, made["id"])
    assert (found["settled"], [cascade["cause"] for cascade in found["cascades"]]) == (False, ["bucket"])


async def test_caps_cut_the_graph_and_say_so(client: httpx2.AsyncClient, facts: Facts) -> None:
    root = current = (await make(client))["id"]
    for _ in range(5):
        current = await facts.derived(current)
    await facts.quiet()
    cut = await graph(client, root, "?nodes=3")
    assert (len(cut["nodes"]), cut["truncated"], cut["settled"]) == (3, True, True)
    assert cut["nodes"][0]["blob_id"] == root
    shallow = await graph(client, root, "?depth=2")
    assert (len(shallow["nodes"]), shallow["truncated"]) == (3, False)
    for query in ("nodes=0", "nodes=10001", "depth=x"):
        problem(await client.get(f"{BASE}/blobs/{root}/dag?{query}"), 422, "invalid_value")


async def test_a_graph_of_one_hundred_nodes_is_one_statement(
    client: httpx2.AsyncClient, facts: Facts, app: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    level = [(await make(client))["id"]]
    root = level[0]
    for _ in range(11):
        level = [await facts.derived(*level[:2]) for _ in range(9)]
    asked: list[str] = []
    rows = app.state.ports.database.rows

    async def counted(user_id: UUID, query: Any, *arguments: object) -> Any:
        asked.append(str(query))
        return await rows(user_id, query, *arguments)

    monkeypatch.setattr(app.state.ports.database, "rows", counted)
    found = await graph(client, root)
    assert len(found["nodes"]) == 100
    assert len(asked) == 2


async def test_children_descendants_and_ancestors_are_lists_of_blobs(client: httpx2.AsyncClient) -> None:
    root = await make(client)
    child = await make(client, content="child", parent_id=root["id"])
    grandchildren = [await make(client, content=f"grandchild {n}", parent_id=child["id"]) for n in range(3)]

    async def listed(blob: dict[str, Any], what: str) -> list[tuple[str, int]]:
        seen: list[tuple[str, int]] = []
        url = f"{BASE}/blobs/{blob['id']}/{what}"
        while url:
            page = await client.get(url)
            assert page.status_code == 200, page.text
            seen += [(row["id"], row["distance"]) for row in page.json()["data"]]
            url = page.headers["link"].partition(">")[0].lstrip("<") if "link" in page.headers else ""
        return seen

    below = [(blob["id"], 2) for blob in grandchildren]
    assert await listed(root, "children") == [(child["id"], 1)]
    assert await listed(root, "descendants") == [(child["id"], 1), *sorted(below)]
    assert await listed(root, "descendants?limit=1") == [(child["id"], 1), *sorted(below)]
    assert await listed(root, "descendants?depth=1") == [(child["id"], 1)]
    assert await listed(grandchildren[0], "ancestors") == [(child["id"], 1), (root["id"], 2)]
    assert await listed(grandchildren[0], "children") == []
    one = (await client.get(f"{BASE}/blobs/{root['id']}/children")).json()["data"][0]
    assert one == {**(await client.get(f"{BASE}/blobs/{child['id']}")).json(), "distance": 1}


def test_levels_follow_the_longest_path() -> None:
    edges = [("a", "b"), ("a", "c"), ("c", "b"), ("b", "d"), ("a", "d")]
    assert level_of("a", edges, "abcd") == {"a": 0, "c": 1, "b": 2, "d": 3}


def test_blockers_are_found_through_whatever_waits_in_between() -> None:
    unsettled = [("f", True, "F", "failed"), ("m", False, "M", ""), ("w", False, "W", "")]
    waits = [("m", "f"), ("w", "m")]
    assert blockers(unsettled, waits) == {"f": [], "m": [("F", "failed")], "w": [("F", "failed")]}


def test_an_empty_graph_of_an_unknown_blob_is_still_a_graph() -> None:
    root = new_id()
    nothing: dict[str, list[Any]] = {"nodes": [], "edges": [], "cascades": [], "unsettled": [], "waits": []}
    assert dag(root, nothing, nodes_max=1, read_max=1)["nodes"] == []
