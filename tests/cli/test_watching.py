from __future__ import annotations

import pytest

from cli.graph import Graph
from cli.watching import advice


def node(blob: str, provider: str | None, state: str, reason: str = "") -> dict[str, object]:
    return {"blob_id": blob, "provider_id": provider, "state": state, "reason": reason, "version": 1}


def test_a_failure_is_explained_with_commands_that_paste() -> None:
    graph = Graph.of(
        {
            "nodes": [
                node("a", None, "source"),
                node("b", "outline-generator", "failed", "The last run failed. (invalid_output)"),
                node("c", "text-expansion", "blocked"),
            ],
            "edges": [{"parent_id": "a", "child_id": "b"}, {"parent_id": "b", "child_id": "c"}],
            "settled": True,
            "truncated": False,
        }
    )
    (said,) = advice(graph)
    assert "outline-generator failed: The last run failed. (invalid_output)" in said
    assert "studio run list --status failed --blob b" in said
    assert "studio provider process outline-generator a" in said


@pytest.mark.parametrize(
    ("state", "command"),
    [("awaiting_approval", "studio run approve r"), ("blocked_budget", "studio budget top-up"),
     ("conflict", "studio blob proposals b"), ("cancelled", "studio run retry")],
)  # fmt: skip
def test_what_waits_for_somebody_names_what_for_and_the_command_that_goes_on(state: str, command: str) -> None:
    node = {"blob_id": "b", "provider_id": "outliner", "derivation_id": "d", "state": state, "reason": "It has to.",
            "run_id": "r"}  # fmt: skip
    body = {"nodes": [node, {**node, "blob_id": "c"}], "edges": [], "settled": True, "truncated": False}
    (said,) = advice(Graph.of(body))
    assert "It has to." in said
    assert command in said
