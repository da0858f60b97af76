"""NATS JetStream: events arrive once, in order, as CloudEvents; NATS may be away, and come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import nats
import orjson
import pytest
from nats.js import JetStreamContext

from devstack.stack import Stack
from domain.errors import Unavailable
from domain.ids import new_id
from storage.bus import STREAM, Bus


@asynccontextmanager
async def bus_of(urls: Mapping[str, str], topics: Mapping[str, str] | None = None) -> AsyncIterator[Bus]:
    bus = await Bus.connect(urls["NATS_URL"], topics=topics or {})
    try:
        yield bus
    finally:
        await bus.close()


def row(user_id: UUID, seq: int, type_: str = "blob.created", key: str = "in-v1") -> dict[str, Any]:
    return {
        "id": new_id(), "user_id": user_id, "seq": seq, "type": type_, "subject": "blobs/x", "key": key,
        "data": {"n": seq}, "time": datetime.now(UTC),
    }  # fmt: skip


async def published(bus: Bus, rows: list[dict[str, Any]]) -> None:
    """Publish as soon as the connection is there."""
    async with asyncio.timeout(20):
        while True:
            try:
                await bus.publish(rows)
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                return


async def received(urls: Mapping[str, str], subject: str, count: int) -> list[Any]:
    """The first messages of a subject, as another program reads them."""
    client = await nats.connect(urls["NATS_URL"])
    jetstream: JetStreamContext = client.jetstream()
    try:
        subscription = await jetstream.subscribe(subject, stream=STREAM, ordered_consumer=True)
        return [await subscription.next_msg(timeout=10) for _ in range(count)]
    finally:
        await client.close()


async def test_events_arrive_as_cloud_events_in_order_and_once(nats_urls: Mapping[str, str]) -> None:
    user = new_id()
    rows = [row(user, seq) for seq in range(1, 301)]
    async with bus_of(nats_urls) as bus:
        await published(bus, rows)
        await published(bus, rows)
        last = row(user, 301)
        await published(bus, [last])
    messages = await received(nats_urls, f"studio.blob.created.{user}.in-v1", 301)
    events = [orjson.loads(message.data) for message in messages]
    assert [event["data"]["n"] for event in events] == list(range(1, 302))
    assert events[-1]["id"] == str(last["id"])
    assert events[0]["type"] == "ai.memmie.studio.blob.created.v1"
    assert [message.headers["Nats-Msg-Id"] for message in messages[:2]] == [str(rows[0]["id"]), str(rows[1]["id"])]


async def test_topics_of_the_configuration_are_prefixes(nats_urls: Mapping[str, str]) -> None:
    user = new_id()
    async with bus_of(nats_urls, {"blob_created": "studio.mine.made"}) as bus:
        await published(bus, [row(user, 1)])
    [message] = await received(nats_urls, f"studio.mine.made.{user}.in-v1", 1)
    assert orjson.loads(message.data)["data"] == {"n": 1}


async def test_nats_may_be_away_and_come_back(tmp_path: Path, outside: Mapping[str, str]) -> None:
    user = new_id()
    with Stack(tmp_path / "bus", services=("nats",), environ=outside) as stack:
        urls = dict(stack.endpoints)
    async with bus_of(urls) as bus:
        # Nothing listens there: connecting keeps nobody waiting, publishing says so at once.
        for _ in range(3):
            with pytest.raises(Unavailable):
                await bus.publish([row(user, 1)])
        with Stack(tmp_path / "bus", services=("nats",), environ=outside) as stack:
            assert stack.endpoints["NATS_URL"] == urls["NATS_URL"]
            await published(bus, [row(user, 1)])
        with pytest.raises(Unavailable):
            await bus.publish([row(user, 2)])
