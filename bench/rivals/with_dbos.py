"""DBOS: one workflow, a step a node, level by level; prints the seconds of each size as JSON."""

import json
import os
import sys
import time

from dbos import DBOS
from rows import prepare, write


@DBOS.step()
def node(cascade: str, number: int, content: str) -> str:
    """Derive one node."""
    return write(cascade, number, content)


@DBOS.workflow()
def cascade(name: str, levels: int, width: int) -> int:
    """Derive every level from the one above."""
    above = [name] * width
    for level in range(levels):
        above = [node(name, level * width + at, content) for at, content in enumerate(above)]
    return levels * width


if __name__ == "__main__":
    levels, sizes = int(sys.argv[1]), [int(size) for size in sys.argv[2:]]
    prepare()
    DBOS(config={"name": "peer", "system_database_url": os.environ["PEER_DATABASE_URL"], "log_level": "ERROR"})
    DBOS.launch()
    cascade("warm", 1, 1)
    taken = []
    for size in sizes:
        started = time.perf_counter()
        cascade(f"nodes-{size}", levels, max(size // levels, 1))
        taken.append(time.perf_counter() - started)
    DBOS.destroy()
    print(json.dumps(taken))
