"""Free TCP ports on loopback, chosen below the ephemeral range so that a dead server finds its port free again."""

from __future__ import annotations

import errno
import random
import socket

from devstack.errors import DevstackError

HOST = "127.0.0.1"
FIRST, LAST = 15000, 32000  # Linux hands out 32768 and above to outgoing connections
ATTEMPTS = 400


def is_free(port: int, host: str = HOST) -> bool:
    """Tell whether a server could listen on the port now (sockets in TIME_WAIT do not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL}:
                return False
            raise
        return True


def accepts(port: int, host: str = HOST, timeout_seconds: float = 0.5) -> bool:
    """Tell whether somebody listens on the port."""
    try:
        socket.create_connection((host, port), timeout=timeout_seconds).close()
    except OSError:
        return False
    return True


def choose(taken: set[int]) -> int:
    """Return a free port outside ``taken``; random, so that two stacks that start together rarely meet."""
    for _ in range(ATTEMPTS):
        port = random.randrange(FIRST, LAST)  # noqa: S311 - no secret
        if port not in taken and is_free(port):
            return port
    raise DevstackError(f"no free port between {FIRST} and {LAST} after {ATTEMPTS} attempts")
