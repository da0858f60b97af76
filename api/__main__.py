"""``python -m api``: serves the API until SIGTERM."""

from __future__ import annotations

import logging
import sys

import orjson
import structlog
import uvicorn

from api.app import create_app
from settings import load_settings

_GRACE_SECONDS = 10
"""How long requests under way may take after SIGTERM."""


def configure_logging() -> None:
    """One JSON line per event on standard error; other libraries only when something is wrong."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        logger_factory=structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)


def main() -> None:
    """Run one server process."""
    configure_logging()
    settings = load_settings()
    uvicorn.run(
        create_app(settings),
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
