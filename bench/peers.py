"""``python -m bench peers``: the same cascade by DBOS and by Prefect, beside ours, on this machine.

A cascade here is so many trivial nodes in ten levels, each of which writes something that lasts: ours with users,
versions, merges and events; theirs one step or task a node that writes a row into PostgreSQL. They are installed into a
folder of their own under the state folder, by name and version, and are no dependencies of ours; where packages cannot
be had, that is said, and nothing fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from bench.scenarios.layered import layers
from bench.stage import Stage, connected, staged

PEERS: Mapping[str, tuple[str, ...]] = {
    "dbos": ("dbos==3.4.0",),
    "prefect": ("prefect==3.7.2", "fastapi==0.119.1"),  # its server does not start with the newest fastapi
}
DRIVER = "psycopg[binary]"
"""What both write their rows with."""
LEVELS = 10
NODES = (100, 1000)
INSTALL_SECONDS_MAX = 600
RUN_SECONDS_MAX = 600
SCRIPTS = Path(__file__).with_name("rivals")


def run(folder: Path, *, nodes: Sequence[int] | None) -> int:
    """Measure all of them and print the table; 0 also where peers could not be had."""
    sizes = tuple(nodes or NODES)
    console = Console()
    with staged(folder) as stack:
        ours = uvloop.run(_ours(stack, sizes))
        rows: dict[str, list[float] | str] = {"Memmie Studio": ours}
        for peer in PEERS:
            rows[peer] = _theirs(folder, peer, stack.endpoints["DATABASE_ADMIN_URL"], sizes)
    table = Table(title=f"One cascade in {LEVELS} levels, every node written, seconds")
    table.add_column("")
    for size in sizes:
        table.add_column(f"{size} nodes", justify="right")
    for name, found in rows.items():
        cells = [found] if isinstance(found, str) else [f"{seconds:.2f}" for seconds in found]
        table.add_row(*PEERS.get(name, (name,))[:1], *cells)
    console.print(table)
    return 0


async def _ours(stack: object, sizes: Sequence[int]) -> list[float]:
    async with connected(stack) as stage:  # type: ignore[arg-type]
        await stage.let_work()
        return [await _edited(stage, size) for size in sizes]


async def _edited(stage: Stage, size: int) -> float:
    """The second edit's seconds: the first warms up, as the peers' first run does."""
    async with AsyncExitStack() as closing:
        made = await closing.enter_async_context(layers(stage, levels=LEVELS, width=max(size // LEVELS, 1)))
        root, _, _ = await made.create()
        took = [(await made.edit(root))[1].closed for _ in range(2)]
        await asyncio.sleep(0)
        return took[-1]


def _theirs(folder: Path, peer: str, database_url: str, sizes: Sequence[int]) -> list[float] | str:
    """A peer's seconds, or why there are none."""
    python = _installed(folder / "peers" / peer, PEERS[peer])
    if python is None:
        return "skipped: its package cannot be had here"
    environment = {**os.environ, "PEER_DATABASE_URL": database_url, "PEER_HOME": str(folder / "peers" / f"{peer}-home")}
    command = [str(python), str(SCRIPTS / f"with_{peer}.py"), str(LEVELS), *map(str, sizes)]
    try:
        done = subprocess.run(  # noqa: S603 - our own script
            command, capture_output=True, text=True, env=environment, timeout=RUN_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done within {RUN_SECONDS_MAX} s"
    if done.returncode:
        return f"failed: {(done.stderr.strip().splitlines() or ['no reason'])[-1][:120]}"
    seconds: list[float] = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds


def _installed(home: Path, packages: Sequence[str]) -> Path | None:
    """The interpreter of a peer's own environment, made unless it is there; None where it cannot be made."""
    python, ready = home / "bin" / "python", home / packages[0]
    if ready.exists():
        return python
    steps = (
        [sys.executable, "-m", "venv", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", *packages, DRIVER],
    )
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, timeout=INSTALL_SECONDS_MAX, check=False)  # noqa: S603
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
    ready.touch()
    return python
