"""An API that kills itself on the way of an upload: ``python -m tests.api.armed_uploads POINT PORT``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import uvicorn

from api.app import create_app
from settings import load_settings
from storage.objects import S3Objects
from storage.uploads import Uploads

POINTS = ("multipart_begun", "part_stored", "object_finished", "before_commit", "after_commit")


def die() -> None:
    """As a crash would: nothing is closed, flushed or told."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(owner: type, name: str) -> None:
    """Die when a method has done its work and nobody has heard of it."""
    method: Callable[..., Any] = getattr(owner, name)

    async def deadly(*arguments: Any) -> Any:
        await method(*arguments)
        die()

    setattr(owner, name, deadly)


def before_commit() -> None:
    """Die inside the transaction that makes the blob."""
    landing = Uploads.landing

    def deadly(self: Uploads, *arguments: Any, **options: Any) -> Any:
        made = landing(self, *arguments, **options)

        async def fatal(connection: Any) -> None:
            await made.before(connection)
            die()

        return type(made)(before=fatal, reserved=made.reserved)

    Uploads.landing = deadly  # type: ignore[method-assign]


def after_commit() -> None:
    """Die when the blob is there, before what is left over of the upload is removed and anybody is answered."""

    async def fatal(*_: Any) -> None:
        die()

    Uploads.close = fatal  # type: ignore[method-assign, assignment]


def arm(point: str) -> None:
    """Set the trap."""
    if point == "before_commit":
        before_commit()
    elif point == "after_commit":
        after_commit()
    else:
        after(S3Objects, {"multipart_begun": "begin", "part_stored": "part", "object_finished": "finish"}[point])


if __name__ == "__main__":
    arm(sys.argv[1])
    uvicorn.run(create_app(load_settings()), host="127.0.0.1", port=int(sys.argv[2]), log_config=None)
