"""One module a measured path; the table shows them in this order."""

from bench.scenario import Scenario
from bench.scenarios import cascade, create, delta, derive, graph, lineage, merge, rewind, store, upload

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
    graph.SCENARIO,
)
"""Those without the worker first: what they write would keep it busy."""
