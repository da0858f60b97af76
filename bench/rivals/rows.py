"""The row that every node of a peer's cascade writes."""

import os
import threading

import psycopg

_LOCAL = threading.local()


def prepare() -> None:
    """Make the table."""
    with psycopg.connect(os.environ["PEER_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("create table if not exists peer_rows (cascade text, node int, content text)")


def write(cascade: str, node: int, content: str) -> str:
    """Write one derived row, committed; return what the next node is derived from."""
    if not hasattr(_LOCAL, "connection"):
        _LOCAL.connection = psycopg.connect(os.environ["PEER_DATABASE_URL"], autocommit=True)
    _LOCAL.connection.execute("insert into peer_rows values (%s, %s, %s)", (cascade, node, content + "!"))
    return content + "!"
