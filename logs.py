"""Logging of every process of ours: one JSON line an event on standard error, never the locals of a traceback.

Only composition roots call this. Workflow code logs through ``workflow.logger``, which is silent in replays.
"""

from __future__ import annotations

import logging
import sys

import orjson
import structlog


def configure() -> None:
    """Configure structlog and the standard library's logging; call once, first."""
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
