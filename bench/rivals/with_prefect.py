"""Prefect: one flow, a task a node, level by level; prints the seconds of each size as JSON."""

import json
import os
import sys
import time

os.environ.setdefault("PREFECT_HOME", os.environ["PEER_HOME"])
os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")

from prefect import flow, task
from rows import prepare, write


@task
def node(cascade: str, number: int, content: str) -> str:
    """Derive one node."""
    return write(cascade, number, content)


@flow
def cascade(name: str, levels: int, width: int) -> int:
    """Derive every level from the one above."""
    above = [name] * width
    for level in range(levels):
        above = [node(name, level * width + at, content) for at, content in enumerate(above)]
    return levels * width


if __name__ == "__main__":
    levels, sizes = int(sys.argv[1]), [int(size) for size in sys.argv[2:]]
    prepare()
    cascade("warm", 1, 1)
    taken = []
    for size in sizes:
        started = time.perf_counter()
        cascade(f"nodes-{size}", levels, max(size // levels, 1))
        taken.append(time.perf_counter() - started)
    print(json.dumps(taken))
