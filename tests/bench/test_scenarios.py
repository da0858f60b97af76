import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.scenarios import LONG, SCENARIOS

ROOT = Path(__file__).parents[2]
SECONDS_MAX = 170


@pytest.mark.timeout(SECONDS_MAX + 10)
def test_every_scenario_runs_on_real_servers_and_the_table_shows_every_figure(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    environment = {**os.environ, "STUDIO_STATE_DIR": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke", "--rounds", "1", "--json", report],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    figures = [figure for scenario in (*SCENARIOS, *LONG) for figure in scenario.figures]
    for figure in figures:
        assert figure.title in done.stdout
    measured = json.loads(report.read_bytes())["figures"]
    assert [figure["key"] for figure in measured] == [figure.key for figure in figures]
    assert all(figure["ratio"] > 0 for figure in measured if figure["raw"])
    assert next(figure["ours"] for figure in measured if figure["key"] == "cascade-children") == 0
