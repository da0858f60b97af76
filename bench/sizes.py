"""How much is measured: the sizes of the goals, and small ones that show in seconds that every scenario runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Work of one configuration in one round."""

    seconds: float
    """Length of a closed loop that counts requests."""
    connections: int
    """Requests in flight in that loop."""
    singles: int
    """Requests one after the other, for the median latency."""
    edits: int
    """Edits followed to their derived blob, one after the other."""
    pause_seconds: float
    """Pause between two of them, as a person's would be, so that queues are empty."""
    levels: int
    width: int
    """The cascade: ``levels`` of ``width`` nodes."""
    chain: int
    """Nodes one below the other."""
    runs: int
    """Runs at once, each a child workflow."""
    tree: tuple[int, ...]
    """Providers of each level of the large tree: their products are its nodes."""
    queued: int
    """Nodes that one user has queued while another edits."""
    nodes: int
    """The tree and the chain whose descendants are read."""
    deltas: int
    """Of the blob with a long past."""
    words: int
    """Of the text that is merged."""
    upload_bytes: int
    """Of the file that is sent and fetched."""


GOALS = Sizes(
    seconds=1.5, connections=16, singles=300, edits=40, pause_seconds=0.02, levels=10, width=100, chain=100, runs=100,
    queued=10_000, tree=(10, 9, 10, 10), nodes=1000, deltas=10_000, words=100_000, upload_bytes=2**30,
)  # fmt: skip
"""The sizes that the goals speak of."""
SMOKE = Sizes(
    seconds=0.1, connections=4, singles=5, edits=3, pause_seconds=0.0, levels=2, width=3, chain=3, runs=3,
    queued=20, tree=(2, 2, 2), nodes=20, deltas=100, words=1_000, upload_bytes=300_000,
)  # fmt: skip
"""Enough to see that everything runs."""
