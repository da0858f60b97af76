"""One module a measured path; the table shows them in this order."""

from bench.scenario import Scenario
from bench.scenarios import (
    cascade,
    chain,
    create,
    delta,
    derive,
    fairness,
    graph,
    lineage,
    merge,
    rewind,
    runs,
    store,
    ten_thousand,
    upload,
)

SCENARIOS: tuple[Scenario, ...] = (
    create.SCENARIO,
    store.SCENARIO,
    delta.SCENARIO,
    rewind.SCENARIO,
    merge.SCENARIO,
    upload.SCENARIO,
    lineage.SCENARIO,
    derive.SCENARIO,
    cascade.SCENARIO,
    chain.SCENARIO,
    runs.SCENARIO,
    fairness.SCENARIO,
    graph.SCENARIO,
)
"""Those without the worker first: what they write would keep it busy."""
LONG: tuple[Scenario, ...] = (ten_thousand.SCENARIO,)
"""Minutes each: measured when they are named, and shown to run in a smoke run."""
