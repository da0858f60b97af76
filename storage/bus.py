"""NATS JetStream: events for others. PostgreSQL keeps them; losing NATS loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamConfig
from nats.js.errors import APIError, NotFoundError

from domain.errors import Unavailable
from domain.events import Event, cloud_event, nats_subject

STREAM = "STUDIO"
DUPLICATE_WINDOW_SECONDS = 3600.0
MAX_AGE_SECONDS = 7 * 24 * 3600.0
IN_FLIGHT_MAX = 128
AT_A_STRETCH = 64
PUBLISH_TIMEOUT_SECONDS = 5.0

log = structlog.get_logger("bus")


class _Acknowledgements:
    """Those of one window of publications; ``all`` is done when each has come, or when one of them is a refusal."""

    def __init__(self, count: int) -> None:
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = set(range(count))

    def take(self, number: int, message: Msg) -> None:
        """Take the acknowledgement of one publication."""
        if self.all.done():
            return
        if b'"error"' in message.data or not message.data:  # empty: nobody listens to the subject, the stream is gone
            self.all.set_exception(APIError(description=message.data.decode() or "There is no stream."))
            return
        self._missing.discard(number)
        if not self._missing:
            self.all.set_result(None)


class Bus:
    """One connection to NATS; it connects and reconnects by itself, and publishing fails meanwhile."""

    def __init__(self, client: Client, topics: Mapping[str, str]) -> None:
        self._client = client
        self._jetstream: JetStreamContext = client.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)
        self._topics = topics
        self._ready = False
        self._inbox = client.new_inbox()
        self._subscribed = False
        self._windows = 0
        self._acks: dict[str, _Acknowledgements] = {}
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
                await self._publish(rows[start : start + IN_FLIGHT_MAX])
        except (TimeoutError, NatsError, OSError) as error:
            self._ready = False
            raise Unavailable("NATS does not answer.") from error

    async def _publish(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Send these rows, then wait for the acknowledgements of all of them at once.

        A request of the client's own for each of them takes twice the time: a future, a timer and a task for every row.
        """
        self._windows += 1
        window = self._acks[str(self._windows)] = _Acknowledgements(len(rows))
        try:
            for number, row in enumerate(rows):
                if number % AT_A_STRETCH == AT_A_STRETCH - 1:
                    await asyncio.sleep(0)  # to send takes no time of its own, and others have the same event loop
                event = Event(**row)
                await self._client.publish(
                    nats_subject(event, self._topics),
                    orjson.dumps(cloud_event(event)),
                    reply=f"{self._inbox}.{self._windows}.{number}",
                    headers={"Nats-Msg-Id": str(event.id)},
                )
            await asyncio.wait_for(window.all, PUBLISH_TIMEOUT_SECONDS)
        finally:
            del self._acks[str(self._windows)]

    async def _acknowledged(self, message: Msg) -> None:
        _, window, number = message.subject.rsplit(".", 2)
        if window in self._acks:  # else nobody waits for it any more
            self._acks[window].take(int(number), message)

    async def _ensure_stream(self) -> None:
        if not self._subscribed:
            await self._client.subscribe(f"{self._inbox}.>", cb=self._acknowledged)
            self._subscribed = True
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
