"""``python -m bench soak``: the same promises for longer, in an order that nobody chose.

Three parts, each a selection of the test suite: random scenarios of the cascade model; the same scenarios in
PostgreSQL with the model as oracle; random kills of real servers under writers, audited after every few.
A failure prints its seed; ``--seed`` plays that run again.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = 500
"""Scenarios of the model, and as many in PostgreSQL."""
KILLS = 20
SEED_MAX = 1_000_000
SECONDS_MAX = 3600
"""What one test of a soak may take."""


def run(folder: Path, *, examples: int, kills: int, seed: int | None) -> int:
    """Run every test that is called a soak; return pytest's exit status."""
    seed = secrets.randbelow(SEED_MAX) if seed is None else seed
    print(f"soak: seed {seed}, {examples} scenarios, {kills} kills; again with --seed {seed}", flush=True)
    environment = {
        **os.environ,
        "STUDIO_STATE_DIR": str(folder / "soak"),
        "STUDIO_SOAK_EXAMPLES": str(examples),
        "STUDIO_SOAK_KILLS": str(kills),
        "STUDIO_SOAK_SEED": str(seed),
    }
    command = [sys.executable, "-m", "pytest", "tests", "-k", "soak", "-s", "-p", "no:cacheprovider"]
    return subprocess.call([*command, f"--timeout={SECONDS_MAX}"], cwd=ROOT, env=environment)  # noqa: S603 - our own
