"""Send 1 GB in parts and fetch it again, against the same bytes in the same parts to and from S3, with nothing between.

Ours checks the key and the quota, hashes every part and the whole, proves the type, makes the blob, and checks what it
reads; four parts are on their way at a time on both sides. What a round stored is deleted before the next one.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import orjson

from bench.figures import Figure
from bench.load import Connection, connections, drained, request
from bench.scenario import Configurations, Scenario
from bench.sizes import Sizes
from bench.stage import PREFIX, Person, Stage
from domain.ids import new_id

AT_ONCE = 4
MEGABYTE = 1_000_000
FIGURES = (
    Figure(key="upload", title="upload of 1 GB in parts", unit="MB/s", ours="ours.up", raw="s3.up"),
    Figure(key="download", title="download of 1 GB", unit="MB/s", ours="ours.down", raw="s3.down"),
)

SendPart = Callable[[int, bytes], Awaitable[None]]


@asynccontextmanager
async def setting(stage: Stage, sizes: Sizes) -> AsyncIterator[Configurations]:
    """One user; bytes that no codec makes smaller."""
    person, size = await stage.person(), sizes.upload_bytes
    async with AsyncExitStack() as closing:
        lines = await connections(closing, stage.api, AT_ONCE)

        async def both() -> dict[str, float]:
            # Others each time: what the user has already is not kept twice, and the objects of a round are removed.
            noise = os.urandom(min(size, 2**23))
            samples = await _ours(stage, person, lines, noise, size)
            samples.update(await _bare(stage, person, noise, size))
            for stored in await stage.objects.list(f"{person.user_id}/"):
                await stage.objects.delete(stored.key)
            return {name: size / MEGABYTE / seconds for name, seconds in samples.items()}

        yield {"both": both}


async def _ours(stage: Stage, person: Person, lines: list[Connection], noise: bytes, size: int) -> dict[str, float]:
    body = {"content_type": "application/octet-stream", "size": size}
    started = time.perf_counter()
    begun = await stage.post(person, "/uploads", body)
    headers = {**person.headers, "content-type": "application/octet-stream"}
    free = list(lines)

    async def send(number: int, data: bytes) -> None:
        line = free.pop()
        await line.ask(request("PUT", f"{begun['parts_url']}/{number}", data, headers), 204)
        free.append(line)

    await _in_parts(noise, size, begun["part_size"], send)
    done = await lines[0].ask(request("POST", f"{PREFIX}/uploads/{begun['id']}/complete", headers=person.headers), 201)
    sent = time.perf_counter()
    path = f"{PREFIX}/blobs/{orjson.loads(done.body)['id']}/content"
    assert await drained(stage.api, request("GET", path, headers=person.headers)) == size
    return {"ours.up": sent - started, "ours.down": time.perf_counter() - sent}


async def _bare(stage: Stage, person: Person, noise: bytes, size: int) -> dict[str, float]:
    objects, key = stage.objects, f"{person.user_id}/{new_id()}"
    started = time.perf_counter()
    upload = await objects.begin(key)
    tags: dict[int, str] = {}

    async def send(number: int, data: bytes) -> None:
        tags[number] = await objects.part(key, upload, number, data)

    await _in_parts(noise, size, len(noise), send)
    await objects.finish(key, upload, sorted(tags.items()))
    sent = time.perf_counter()
    received = 0
    async for part in objects.open(key):
        received += len(part)
    assert received == size
    return {"s3.up": sent - started, "s3.down": time.perf_counter() - sent}


async def _in_parts(noise: bytes, size: int, part_size: int, send: SendPart) -> None:
    """Send ``size`` bytes, a few parts at a time; each begins with its number, so that no two are the same."""
    numbers = iter(range(1, -(-size // part_size) + 1))

    async def sender() -> None:
        for number in numbers:
            length = min(part_size, size - (number - 1) * part_size)
            await send(number, _part(noise, number, length))

    await asyncio.gather(*(sender() for _ in range(AT_ONCE)))


def _part(noise: bytes, number: int, length: int) -> bytes:
    repeated = noise * (-(-length // len(noise)))
    return (number.to_bytes(8, "big") + repeated)[:length]


SCENARIO = Scenario(name="upload", figures=FIGURES, setting=setting)
