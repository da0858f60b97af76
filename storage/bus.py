"""NATS JetStream: events for others. PostgreSQL keeps them; losing NATS loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamConfig
from nats.js.errors import NotFoundError

from domain.errors import Unavailable
from domain.events import Event, cloud_event, nats_subject

STREAM = "STUDIO"
DUPLICATE_WINDOW_SECONDS = 3600.0
MAX_AGE_SECONDS = 7 * 24 * 3600.0
IN_FLIGHT_MAX = 128
PUBLISH_TIMEOUT_SECONDS = 5.0

log = structlog.get_logger("bus")


class Bus:
    """One connection to NATS; it connects and reconnects by itself, and publishing fails meanwhile."""

    def __init__(self, client: Client, topics: Mapping[str, str]) -> None:
        self._client = client
        self._jetstream: JetStreamContext = client.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)
        self._topics = topics
        self._ready = False
        self._connecting: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, url: str, *, topics: Mapping[str, str]) -> Bus:
        """Begin to connect; NATS may be away, nobody has to wait for it.

        ``topics`` maps event types to the subject prefixes of the configuration.
        """
        client = Client()
        bus = cls(client, topics)
        bus._connecting = asyncio.create_task(
            client.connect(
                url,
                name="memmie-studio-relay",
                max_reconnect_attempts=-1,
                reconnect_time_wait=1,
                allow_reconnect=True,
                error_cb=_log_error,
            )
        )
        return bus

    async def close(self) -> None:
        """Close the connection."""
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        await self._client.close()

    async def publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Publish rows of ``events`` as CloudEvents; the event's id makes a repeated publication harmless.

        Rows of one user keep their order: acknowledgements are awaited in windows, publications are sent in order.
        Raises Unavailable.
        """
        if not self._client.is_connected:
            self._ready = False
            raise Unavailable("NATS does not answer.")
        try:
            await self._ensure_stream()
            for start in range(0, len(rows), IN_FLIGHT_MAX):
                await asyncio.gather(*(self._publish(row) for row in rows[start : start + IN_FLIGHT_MAX]))
        except (TimeoutError, NatsError, OSError) as error:
            self._ready = False
            raise Unavailable("NATS does not answer.") from error

    async def _publish(self, row: Mapping[str, Any]) -> None:
        event = Event(**row)
        await self._jetstream.publish(
            nats_subject(event, self._topics),
            orjson.dumps(cloud_event(event)),
            headers={"Nats-Msg-Id": str(event.id)},
        )

    async def _ensure_stream(self) -> None:
        if self._ready:
            return
        config = StreamConfig(
            name=STREAM,
            subjects=["studio.>"],
            retention=RetentionPolicy.LIMITS,
            max_age=MAX_AGE_SECONDS,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
        )
        try:
            await self._jetstream.stream_info(STREAM)
        except NotFoundError:
            await self._jetstream.add_stream(config)
        self._ready = True


async def _log_error(error: Exception) -> None:
    log.warning("nats.error", error=str(error))
