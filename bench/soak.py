"""``python -m bench soak``: the same promises for longer, in an order that nobody chose.

Each part is a selection of the test suite: random lives of blobs by several writers, held against oracles of their own;
random scenarios of the cascade model; the same scenarios in PostgreSQL with the model as oracle; random lives of users
while workers die at random points; random kills of real servers under writers, audited after every few; large files
and many files through the real API.
A failure prints its seed; ``--seed`` plays that run again, of the lives only the one that the seed names.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = 500
"""Scenarios of each kind of world of the model, and of all kinds together in PostgreSQL, beside the model and alone.

Each kind says how many it played, from which seed on.
"""
KILLS = 20
HISTORIES = 10_000
"""Lives of blobs."""
SEED_MAX = 1_000_000
SECONDS_MAX = 3600
"""What one test of a soak may take."""


def run(folder: Path, *, examples: int, kills: int, histories: int, seed: int | None, only: str = "") -> int:
    """Run every test that is called a soak (and ``only``, a name within its); return pytest's exit status."""
    histories = histories if seed is None else 1
    seed = secrets.randbelow(SEED_MAX) if seed is None else seed
    sizes = f"{histories} histories, {examples} scenarios, {kills} kills"
    print(f"soak: seed {seed}, {sizes}; again with SEED={seed} make soak", flush=True)
    environment = {
        **os.environ,
        "STUDIO_STATE_DIR": str(folder / "soak"),
        "STUDIO_SOAK_EXAMPLES": str(examples),
        "STUDIO_SOAK_HISTORIES": str(histories),
        "STUDIO_SOAK_KILLS": str(kills),
        "STUDIO_SOAK_SEED": str(seed),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests",
        "-k",
        f"soak and {only}" if only else "soak",
        "-s",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.call([*command, f"--timeout={SECONDS_MAX}"], cwd=ROOT, env=environment)  # noqa: S603 - our own
