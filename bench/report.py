"""The table that a person reads, and the JSON that a program keeps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from bench.figures import Result

COLOURS = {"met": "green", "missed": "yellow", "no goal": "dim", "broken": "bold red"}


def number(value: float) -> str:
    """Show three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def table(results: Sequence[Result], *, rounds: int) -> Table:
    """Render one row a figure."""
    made = Table(title=f"Memmie Studio against its raw limits: medians of {rounds} interleaved rounds")
    for name in ("figure", "unit"):
        made.add_column(name, overflow="fold")
    for name in ("ours", "raw", "ratio", "range", "goal"):
        made.add_column(name, justify="right", no_wrap=True)
    made.add_column("verdict", no_wrap=True)
    section = ""
    for result in results:
        scenario = result.figure.key.partition("-")[0]
        if section and scenario != section:
            made.add_section()
        section = scenario
        made.add_row(*_cells(result))
    return made


def _cells(result: Result) -> tuple[str, ...]:
    figure = result.figure
    goal = "" if figure.goal is None else f"{figure.goal}{'x' if figure.raw else ''}"
    floor = f" (floor {result.floor})" if result.verdict == "broken" else ""
    return (
        figure.title,
        figure.unit,
        number(result.ours),
        "" if result.raw is None else number(result.raw),
        f"{number(result.ratio)}x" if figure.raw else "",
        f"{number(result.lowest)}-{number(result.highest)}",
        f"{goal} ({figure.number})" if figure.number else goal,
        f"[{COLOURS[result.verdict]}]{result.verdict}{floor}[/]",
    )


def show(results: Sequence[Result], *, rounds: int) -> None:
    """Print the table; a pipe gets lines wide enough to stay whole."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    console.print(table(results, rounds=rounds))


def write_json(path: Path, results: Sequence[Result], samples: dict[str, Any], *, rounds: int) -> None:
    """Write what was measured, every round of it."""
    document = {
        "rounds": rounds,
        "figures": [
            {
                "key": result.figure.key,
                "title": result.figure.title,
                "unit": result.figure.unit,
                "ours": result.ours,
                "raw": result.raw,
                "ratio": result.ratio,
                "lowest": result.lowest,
                "highest": result.highest,
                "goal": None if result.figure.goal is None else str(result.figure.goal),
                "goal_number": result.figure.number,
                "verdict": result.verdict,
            }
            for result in results
        ],
        "samples": samples,
    }
    path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
