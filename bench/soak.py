"""Placeholder."""

from __future__ import annotations

from pathlib import Path

EXAMPLES = 500
KILLS = 20


def run(folder: Path, *, examples: int, kills: int, seed: int | None) -> int:
    return 0
