from pathlib import Path

import pytest

from bench.figures import Bound, Figure, judge, percentile, read_budgets
from bench.scenarios import LONG, SCENARIOS

RATE = Figure(key="a-rate", title="a rate", unit="/s", ours="ours", raw="raw", goal=Bound(at_least=0.5), number="6")
COUNT = Figure(key="a-count", title="a count", unit="", ours="ours", goal=Bound(at_most=0))


def rounds(*pairs: tuple[float, float]) -> list[dict[str, float]]:
    return [{"ours": ours, "raw": raw} for ours, raw in pairs]


def test_a_ratio_is_taken_within_each_round_and_its_median_counts() -> None:
    # The machine was three times slower in the last round, for both sides.
    result = judge(RATE, rounds((60, 100), (50, 100), (20, 33)), {})
    assert result.ratio == pytest.approx(0.6)
    assert result.lowest == 0.5
    assert result.highest == pytest.approx(0.606, abs=0.001)
    assert (result.ours, result.raw) == (50, 100)
    assert result.verdict == "met"


def test_a_missed_goal_is_no_failure_but_a_broken_floor_is() -> None:
    samples = rounds((30, 100))
    assert judge(RATE, samples, {}).verdict == "missed"
    assert judge(RATE, samples, {"a-rate": Bound(at_least=0.2)}).verdict == "missed"
    assert judge(RATE, samples, {"a-rate": Bound(at_least=0.4)}).verdict == "broken"
    assert judge(RATE, rounds((50, 100)), {"a-rate": Bound(at_least=0.4)}).verdict == "met"


def test_a_count_is_judged_itself() -> None:
    assert judge(COUNT, [{"ours": 0}], {}).verdict == "met"
    result = judge(COUNT, [{"ours": 0}, {"ours": 2}, {"ours": 2}], {})
    assert (result.verdict, result.ratio, result.raw) == ("missed", 2, None)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([5, 1, 4, 2, 3], 0.5) == 3
    assert percentile(list(range(1, 101)), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_every_floor_names_a_figure_and_is_easier_than_its_goal() -> None:
    figures = {figure.key: figure for scenario in (*SCENARIOS, *LONG) for figure in scenario.figures}
    for key, floor in read_budgets().items():
        goal = figures[key].goal
        if goal is not None and goal.at_least is not None:
            assert floor.at_least is not None
            assert floor.at_least <= goal.at_least
        if goal is not None and goal.at_most is not None:
            assert floor.at_most is not None
            assert floor.at_most >= goal.at_most


def test_keys_and_samples_are_unique_and_times_have_a_raw_side() -> None:
    figures = [figure for scenario in (*SCENARIOS, *LONG) for figure in scenario.figures]
    assert len({figure.key for figure in figures}) == len(figures)
    alone = {figure.key for figure in figures if figure.raw is None}
    assert not {figure.key for figure in figures if figure.unit in ("ms", "s", "requests/s")} & alone


def test_a_budget_with_two_bounds_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "budgets.toml"
    file.write_text("[a-rate]\nat_least = 1\nat_most = 2\n")
    with pytest.raises(ValueError, match="one of them"):
        read_budgets(file)
