"""``python -m api``: serves the API until SIGTERM."""

from __future__ import annotations

import gc

import uvicorn

import logs
from api.app import create_app
from settings import load_settings

_GRACE_SECONDS = 10
"""How long requests under way may take after SIGTERM."""


def main() -> None:
    """Run one server process."""
    logs.configure()
    settings = load_settings()
    app = create_app(settings)
    gc.freeze()  # what is there now stays: each full collection would look at all of it, with everybody waiting
    uvicorn.run(
        app,
        host=settings.service.host,
        port=settings.service.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


if __name__ == "__main__":
    main()
