"""An API that kills itself while it answers a write: ``python -m tests.e2e.armed_api POINT PORT``.

``before_commit``: the effect and its answer are written, the transaction is not committed. ``after_commit``: it is, and
nobody has heard of it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.app import create_app
from settings import load_settings
from storage.idempotency import IdempotencyKeys

BEFORE_COMMIT = "before_commit"
AFTER_COMMIT = "after_commit"


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


def speechless(app: ASGIApp) -> ASGIApp:
    """The application, which does not live to answer a write."""

    async def answering(scope: Scope, receive: Receive, send: Send) -> None:
        async def dying(message: Message) -> None:
            if message["type"] == "http.response.start" and scope["method"] != "GET":
                die()
            await send(message)

        await app(scope, receive, dying if scope["type"] == "http" else send)

    return answering


def main() -> None:
    point, port = sys.argv[1], int(sys.argv[2])
    made: type[IdempotencyKeys] = {BEFORE_COMMIT: Keys, AFTER_COMMIT: Forgetful}[point]
    import api.deps  # noqa: PLC0415 - the one place where the API gets its keys from

    api.deps.IdempotencyKeys = made  # type: ignore[attr-defined]
    app = speechless(create_app(load_settings()))
    uvicorn.run(app, host="127.0.0.1", port=port, access_log=False, log_config=None)


if __name__ == "__main__":
    main()
