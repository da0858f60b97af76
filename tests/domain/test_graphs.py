import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Conflict
from domain.graphs import children_by_parent, closes_cycle, level_of, levels, reachable

NODES = st.integers(0, 12)
# Edges that go upwards in number cannot close a cycle.
EDGES = st.lists(st.tuples(NODES, NODES).filter(lambda edge: edge[0] < edge[1]), max_size=30)


def test_a_node_stands_below_its_deepest_parent() -> None:
    assert levels([("a", "b"), ("b", "c"), ("a", "c"), ("x", "c")]) == [["a", "x"], ["b"], ["c"]]
    assert levels([], nodes=["alone"]) == [["alone"]]
    assert levels([("a", "b"), ("a", "b")]) == [["a"], ["b"]]


def test_a_cycle_is_refused_and_named() -> None:
    with pytest.raises(Conflict, match=r"\['a', 'b', 'c'\]") as refused:
        levels([("s", "a"), ("a", "b"), ("b", "a"), ("b", "c")])
    assert refused.value.problem_code == "cycle"


@given(EDGES, st.lists(NODES))
def test_every_edge_leads_to_a_deeper_level_and_no_level_could_be_higher(
    edges: list[tuple[int, int]], nodes: list[int]
) -> None:
    level = level_of(edges, nodes)
    assert set(level) == {end for edge in edges for end in edge} | set(nodes)
    for node, number in level.items():
        parents = [level[parent] for parent, child in edges if child == node]
        assert number == (max(parents) + 1 if parents else 0)


@given(EDGES, NODES, NODES)
def test_an_edge_closes_a_cycle_exactly_if_the_levels_then_fail(
    edges: list[tuple[int, int]], parent: int, child: int
) -> None:
    try:
        levels([*edges, (parent, child)])
        closed = False
    except Conflict:
        closed = True
    assert closes_cycle(children_by_parent(edges), parent, child) == closed


def test_a_start_is_reached_only_if_something_leads_back_to_it() -> None:
    children = {1: [2, 3], 2: [4], 3: [4], 4: []}
    assert list(reachable([1], children.__getitem__)) == [2, 3, 4]
    loop = {1: [2], 2: [1]}
    assert set(reachable([1], loop.__getitem__)) == {1, 2}
