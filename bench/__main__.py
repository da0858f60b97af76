"""``python -m bench``: measure, print the table, fail when a floor of ``budgets.toml`` is broken.

``python -m bench soak`` runs the long things instead: see ``bench/soak.py``; ``python -m bench peers`` the same cascade
by DBOS and Prefect: ``bench/peers.py``. Exit status: 0 good, 1 a floor is broken (or the soak found something), 2
usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from rich.console import Console

from bench import peers, soak
from bench.figures import Result, judge, read_budgets
from bench.report import show, write_json
from bench.scenario import Scenario, measure
from bench.scenarios import LONG, SCENARIOS
from bench.sizes import GOALS, SMOKE, Sizes
from bench.stage import connected, staged
from devstack.stack import Stack

DEFAULT_FOLDER = ".studio-bench"
ROUNDS = 3

Samples = dict[str, list[dict[str, float]]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments say; return the exit status."""
    options = _parser().parse_args(arguments)
    folder = Path(os.environ.get("STUDIO_STATE_DIR") or DEFAULT_FOLDER).absolute()
    if options.what == "soak":
        return soak.run(
            folder,
            examples=options.examples,
            kills=options.kills,
            histories=options.histories,
            seed=options.seed,
            only=options.part,
        )
    if options.what == "peers":
        return peers.run(folder, nodes=options.nodes)
    usual = (*SCENARIOS, *LONG) if options.smoke else SCENARIOS
    chosen = [one for one in (*SCENARIOS, *LONG) if one.name in options.only] if options.only else list(usual)
    sizes = SMOKE if options.smoke else GOALS
    results, samples = run(folder, chosen, sizes, rounds=options.rounds)
    show(results, rounds=options.rounds)
    if options.json:
        write_json(options.json, results, samples, rounds=options.rounds)
    return int(any(result.verdict == "broken" for result in results) and not options.smoke)


def run(folder: Path, scenarios: Sequence[Scenario], sizes: Sizes, *, rounds: int) -> tuple[list[Result], Samples]:
    """Measure scenarios on fresh servers in a state folder."""
    floors = read_budgets()
    with staged(folder) as stack:
        samples = uvloop.run(_measured(stack, scenarios, sizes, rounds))
    results = [judge(figure, samples[scenario.name], floors) for scenario in scenarios for figure in scenario.figures]
    return results, samples


async def _measured(stack: Stack, scenarios: Sequence[Scenario], sizes: Sizes, rounds: int) -> Samples:
    progress = Console(stderr=True)
    samples: Samples = {}
    async with connected(stack) as stage:
        for scenario in scenarios:
            progress.print(f"[dim]measuring {scenario.name}[/]", highlight=False)
            samples[scenario.name] = await measure(scenario, stage, sizes, rounds=rounds)
    return samples


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", choices=("measure", "soak", "peers"), default="measure")
    parser.add_argument("--only", action="append", choices=[scenario.name for scenario in (*SCENARIOS, *LONG)])
    parser.add_argument("--nodes", type=_count, action="append", help="peers: nodes of a cascade (default 100, 1000)")
    parser.add_argument("--rounds", type=_count, default=ROUNDS, help=f"interleaved rounds (default {ROUNDS})")
    parser.add_argument("--json", type=Path, help="write every sample to this file")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: shows that everything runs, judges nothing")
    parser.add_argument("--examples", type=_count, default=soak.EXAMPLES, help="soak: scenarios of the model")
    parser.add_argument("--kills", type=int, default=soak.KILLS, help="soak: random kills on real servers")
    parser.add_argument("--histories", type=_count, default=soak.HISTORIES, help="soak: random lives of blobs")
    parser.add_argument("--part", default="", help="soak: only tests whose name has this, such as histories")
    parser.add_argument("--seed", type=int, help="soak: repeat a run")
    return parser


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
