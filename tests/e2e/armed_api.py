"""An API that kills itself while it answers a write: ``python -m tests.e2e.armed_api POINT PORT``.

``before_commit``: the effect and its answer are written, the transaction is not committed. ``after_commit``: it is, and
nobody has heard of it.

``python -m tests.e2e.armed_api each`` makes a process for each number that it reads, which dies after that many steps:
after anything that stays when a process dies, a transaction that wrote or a change of the object store, and before it
answers. It tells the port, then where it died, then its exit code.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from settings import load_settings
from storage.database import Database
from storage.idempotency import IdempotencyKeys
from storage.objects import S3Objects

BEFORE_COMMIT = "before_commit"
AFTER_COMMIT = "after_commit"
EACH = "each"
TOLD = 3
"""The file descriptor on which the test is told; the log has standard output."""
_STORING = ("put", "begin", "part", "finish", "abort", "delete")
_WROTE = "select pg_current_xact_id_if_assigned() is not null"


def die() -> None:
    """As a crash would: nothing is closed, flushed or told."""
    os.kill(os.getpid(), signal.SIGKILL)


class Keys(IdempotencyKeys):
    """Keys that are written down and never committed."""

    async def keep(self, *arguments: Any) -> None:
        await super().keep(*arguments)
        die()

    async def record(self, *arguments: Any) -> None:
        await super().record(*arguments)
        die()


class Forgetful(IdempotencyKeys):
    """Keys of writes that are committed: their answers are never written down."""

    async def complete(self, *_: Any) -> None:
        die()


def speechless(app: ASGIApp, passed: Callable[[], None] = die) -> ASGIApp:
    """The application, which does not live to answer a write."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        async def dying(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["method"] != "GET":
                passed()
            await send(message)

        await app(scope, receive, dying if scope["type"] == "http" else send)

    return answering


def tell(*words: object) -> None:
    """Say something to the test."""
    os.write(TOLD, " ".join(map(str, words)).encode() + b"\n")


class Steps:
    """Counts what stays when a process dies, and lets it die of the last one."""

    def __init__(self, left: int) -> None:
        self._left = left

    def passed(self, name: str) -> None:
        """A step has been made."""
        self._left -= 1
        if self._left == 0:
            tell(name)
            die()

    def arm(self) -> None:
        """Count the steps of this process from now on."""
        for name in _STORING:
            setattr(S3Objects, name, self._counted(name, getattr(S3Objects, name)))
        transaction = Database.transaction

        @asynccontextmanager
        async def committed(database: Database, user_id: Any) -> AsyncIterator[Any]:
            async with transaction(database, user_id) as connection:
                yield connection
                wrote = await connection.fetchval(_WROTE)
            if wrote:
                self.passed("commit")

        async def call(database: Database, query: str, *arguments: object) -> Any:
            async with database.connection() as connection:
                async with connection.transaction():
                    row = await connection.fetchrow(query, *arguments)
                    wrote = await connection.fetchval(_WROTE)
                if wrote:
                    self.passed("commit")
                return row

        Database.transaction = committed  # type: ignore[method-assign, assignment]
        Database.call = call  # type: ignore[method-assign, assignment]

    def _counted(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(*arguments: Any) -> Any:
            result = await method(*arguments)
            self.passed(name)
            return result

        return counted


def live(made: ASGIApp, listening: socket.socket, steps: Steps) -> None:
    """Serve until death."""
    steps.arm()
    app = speechless(made, lambda: steps.passed("answer"))
    uvicorn.Server(uvicorn.Config(app, access_log=False, log_config=None)).run(sockets=[listening])
    os._exit(0)


def each() -> None:
    """Bring up one process for each number that is read: forks, which need not import everything again."""
    os.dup2(1, TOLD)
    os.dup2(2, 1)
    made = create_app(load_settings())
    for line in sys.stdin:
        listening = socket.create_server(("127.0.0.1", 0))
        child = os.fork()
        if child == 0:
            live(made, listening, Steps(int(line)))
        tell(listening.getsockname()[1], child)
        listening.close()
        tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def main() -> None:
    if sys.argv[1] == EACH:
        each()
        return
    point, port = sys.argv[1], int(sys.argv[2])
    made: type[IdempotencyKeys] = {BEFORE_COMMIT: Keys, AFTER_COMMIT: Forgetful}[point]
    import api.deps  # noqa: PLC0415 - the one place where the API gets its keys from

    api.deps.IdempotencyKeys = made  # type: ignore[attr-defined]
    app = speechless(create_app(load_settings()))
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_config=None)


if __name__ == "__main__":
    main()
