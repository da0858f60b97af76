"""The tree of a graph, and what a watcher sees of it."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from cli.graph import Graph, seconds_of, tree
from cli.watching import Lines, Moving, Sight, summary, viewing, watch


def node(blob: str, *, provider: str | None = None, state: str = "fresh", **more: Any) -> dict[str, Any]:
    return {
        "blob_id": blob,
        "title": f"Title of {blob}",
        "schema_id": "x-v1",
        "version": 1,
        "level": 0 if provider is None else 1,
        "provider_id": provider,
        "derivation_id": None if provider is None else f"d-{blob}",
        "run_id": None,
        "state": "source" if provider is None else state,
        "reason": "Because.",
        "blocked_by": [],
        **more,
    }


def body(nodes: list[dict[str, Any]], *edges: str, settled: bool = True) -> dict[str, Any]:
    pairs = [edge.split(">") for edge in edges]
    return {
        "nodes": nodes,
        "edges": [{"parent_id": a, "child_id": b, "provider_id": None, "kind": "derived"} for a, b in pairs],
        "settled": settled,
        "truncated": False,
    }


def book(state: str = "fresh", version: int = 1) -> Graph:
    one = body(
        [node("a"), node("x", provider="expander", state=state, version=version), node("j", provider="join")],
        "a>x",
        "x>j",
    )
    two = body([node("b"), node("y", provider="expander"), node("j", provider="join")], "b>y", "y>j", settled=False)
    return Graph.of(one, two)


def drawn(graph: Graph, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(tree(graph, **options))
    out = console.file
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def test_graphs_laid_over_each_other_share_their_nodes() -> None:
    graph = book()
    assert sorted(graph.nodes) == ["a", "b", "j", "x", "y"]
    assert len(graph.edges) == 4
    assert graph.settled is False
    assert sorted(graph.sources("j")) == ["a", "b"]
    assert graph.name("x") == "expander of Title of a"
    assert graph.name("j") == "join"


def test_a_tree_shows_each_node_once_and_a_join_after_what_it_joins() -> None:
    lines = [line.rstrip() for line in drawn(book(), heading="Book").splitlines()]
    assert [line.strip("│├└─ ") for line in lines] == [
        "Book", "◆ Title of a  v1", "✓ expander  v1", "◆ Title of b  v1", "✓ expander  v1", "✓ join (joins 2)  v1",
    ]  # fmt: skip


def test_a_node_says_how_long_it_runs_and_why_it_does_not() -> None:
    graph = Graph.of(body([node("x", provider="p", state="running"), node("y", provider="p", state="failed")]))
    shown = drawn(graph, seconds={"d-x": 3.21}, ids=True)
    assert "running  3.2 s" in shown
    assert "✗ p  v1  failed  Because.  y" in shown


def test_of_many_runs_of_a_derivation_the_newest_is_timed() -> None:
    start, end = "2030-01-01T00:00:00+00:00", "2030-01-01T00:00:0{}+00:00"
    runs = [
        {"id": str(number), "derivation_id": "d", "started_at": start, "ended_at": end.format(number)}
        for number in (2, 5, 3)
    ]
    assert seconds_of(runs) == {"d": 5.0}


def sights(*states: tuple[str, int]) -> Iterator[Sight]:
    for number, (state, version) in enumerate(states, 1):
        yield Sight(book(state, version), {"d-x": 1.0}, over=number == len(states))


def test_without_a_terminal_each_change_is_one_line_and_nothing_else() -> None:
    console = Console(file=io.StringIO(), width=150)
    view = Lines(console)
    for sight in sights(("stale", 0), ("running", 0), ("running", 0), ("fresh", 1)):
        view.show(sight)
    out = console.file
    assert isinstance(out, io.StringIO)
    lines = [line.split(" s  ")[1] for line in out.getvalue().splitlines()]
    assert lines == [
        "◆ source   Title of a v1",
        "◆ source   Title of b v1",
        "● running  expander of Title of a",
        "✓ fresh    expander of Title of a v1",
    ]
    assert "\x1b" not in out.getvalue()


def test_what_was_shown_before_is_not_told_again() -> None:
    console = Console(file=io.StringIO(), width=150)
    with viewing(console, known=book("fresh", 1)) as view:
        view.show(Sight(book("fresh", 1), {}, over=False))
        view.show(Sight(book("fresh", 2), {}, over=True))
    out = console.file
    assert isinstance(out, io.StringIO)
    assert [line.split(" s  ")[1] for line in out.getvalue().splitlines()] == ["✓ fresh    expander of Title of a v2"]


def test_when_nothing_changes_for_long_a_line_says_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=150)
    view = Lines(console)
    monkeypatch.setattr("cli.watching.QUIET_SECONDS", 0.0)
    for sight in sights(("running", 0), ("running", 0)):
        view.show(sight)
    out = console.file
    assert isinstance(out, io.StringIO)
    assert out.getvalue().rstrip().endswith("… 2 of 3 fresh, now expander 1.0 s")


async def test_a_watch_ends_when_it_is_over_and_returns_the_last_sight() -> None:
    coming = sights(("running", 0), ("fresh", 1))
    console = Console(file=io.StringIO(), force_terminal=True, width=100)

    async def look() -> Sight:
        return next(coming)

    with viewing(console, "Book") as view:
        assert isinstance(view, Moving)
        last = await watch(look, view)
    assert summary(last) == "3 of 3 fresh"
    out = console.file
    assert isinstance(out, io.StringIO)
    assert "expander" in out.getvalue()


async def test_a_watch_gives_up_after_its_timeout() -> None:
    async def look() -> Sight:
        await asyncio.sleep(0)
        return Sight(book("running"), {}, over=False)

    with pytest.raises(TimeoutError):
        await watch(look, Lines(Console(file=io.StringIO())), timeout_seconds=0.05)
