"""How long a soak plays, where it begins, and what it says at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable

SOAK_EXAMPLES = int(os.environ.get("STUDIO_SOAK_EXAMPLES", "0"))
SOAK_SEED = int(os.environ.get("STUDIO_SOAK_SEED", "0"))
FAILURES_MAX = 8
"""How many failing seeds a soak collects before it ends."""


class Tally:
    """The scenarios of one kind: how many were played, and which broke something.

    ``share`` kinds divide the examples among themselves, for scenarios that take long.
    """

    def __init__(self, kind: str, repeat: str, *, share: int = 1) -> None:
        self.kind = kind
        self.examples = -(-SOAK_EXAMPLES // share)
        self.repeat = repeat
        self.played = 0
        self.failures: list[str] = []

    def seeds(self) -> Iterable[int]:
        """Yield the seeds to play, until enough of them have failed."""
        for seed in range(SOAK_SEED, SOAK_SEED + self.examples):
            if len(self.failures) == FAILURES_MAX:
                return
            self.played += 1
            yield seed

    def failed(self, seed: int, error: BaseException) -> None:
        """Note a counterexample, with the command that plays it again."""
        again = f"STUDIO_SOAK_SEED={seed} STUDIO_SOAK_EXAMPLES=1 .venv/bin/pytest {self.repeat}"
        self.failures.append(f"{self.kind}, seed {seed}: {str(error)[:2000]}\nrepeat: {again}")

    def close(self) -> None:
        """Print what was played; raises AssertionError with what was found."""
        seeds = f"seeds {SOAK_SEED} to {SOAK_SEED + max(self.played - 1, 0)}"
        print(f"\n{self.kind}: {self.played} scenarios, {seeds}, {len(self.failures)} broken", flush=True)  # noqa: T201
        assert not self.failures, "\n\n".join(self.failures)
