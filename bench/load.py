"""Closed loops: a few clients that each send the next request when the last one is answered.

The HTTP client knows just enough of HTTP/1.1 (one request at a time on a connection that is kept, answers with a
content length), so that the driver takes little of the two cores that it shares with the servers it measures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from statistics import fmean, median
from types import TracebackType
from typing import Self, cast

ANSWER_SECONDS_MAX = 60.0
SLICES = 3
DRAINED_BYTES = 2**20
"""Read at once of a large answer."""
_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, its head undecoded."""

    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """Return a header's value, empty if it is not there."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.decode("latin-1").lower() == name:
                return value.decode("latin-1").strip()
        return ""


class BadAnswer(Exception):
    """A server refused what a scenario sent: its figure would mean nothing."""


class Connection(asyncio.Protocol):
    """One kept connection; ``async with Connection(address) as http``."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._received = bytearray()
        self._answered: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    async def __aenter__(self) -> Self:
        """Nothing yet: it connects when it is used, and again when the server closed it for being idle."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        if self._transport is not None:
            self._transport.close()

    async def ask(self, message: bytes, expected: int) -> Answer:
        """Send a request made by ``request``; raises BadAnswer unless the status is the expected one."""
        transport = self._transport
        if transport is None or transport.is_closing():
            transport = await self._connect()
        self._answered = asyncio.get_running_loop().create_future()
        transport.write(message)
        answer = await asyncio.wait_for(self._answered, ANSWER_SECONDS_MAX)
        if answer.status != expected:
            raise BadAnswer(f"{answer.status} instead of {expected}: {answer.body[:500].decode(errors='replace')}")
        return answer

    async def _connect(self) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, self._address.host, self._address.port)
        assert self._transport is not None
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by its type

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail who waits."""
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(BadAnswer(f"The server closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Collect one answer."""
        self._received += data
        end = self._received.find(_END_OF_HEAD)
        if end < 0 or self._answered is None:
            return
        head = bytes(self._received[:end])
        answer = Answer(int(head[9:12]), head, b"")
        size = int(answer.header("content-length") or 0)
        if len(self._received) - end - len(_END_OF_HEAD) < size:
            return
        body = bytes(self._received[end + len(_END_OF_HEAD) :])
        self._received.clear()
        self._answered.set_result(Answer(answer.status, head, body))


def request(method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "host: bench", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in {"content-type": "application/json", **(headers or {})}.items()]
    return "\r\n".join(lines).encode() + _END_OF_HEAD + body


async def drained(address: Address, message: bytes) -> int:
    """Return how many bytes of body an answer of 200 has, without keeping them; raises BadAnswer for another status."""
    reader, writer = await asyncio.open_connection(address.host, address.port, limit=DRAINED_BYTES)
    try:
        writer.write(message)
        head = await reader.readuntil(_END_OF_HEAD)
        answer = Answer(int(head[9:12]), head, b"")
        size = int(answer.header("content-length") or 0)
        if answer.status != 200:
            raise BadAnswer(f"{answer.status} instead of 200: {(await reader.read(500)).decode(errors='replace')}")
        received = 0
        while received < size and (part := await reader.read(DRAINED_BYTES)):
            received += len(part)
        return received
    finally:
        writer.close()


Turn = Callable[[int], Awaitable[object]]
"""One request of client number n."""


async def per_second(turn: Turn, *, clients: int, seconds: float) -> float:
    """Return how many turns a second ``clients`` clients get done."""
    deadline = time.perf_counter() + seconds
    done = 0

    async def client(number: int) -> None:
        nonlocal done
        while time.perf_counter() < deadline:
            await turn(number)
            done += 1

    started = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(clients)))
    return done / (time.perf_counter() - started)


async def rates(turns: Mapping[str, Turn], *, clients: int, seconds: float) -> dict[str, float]:
    """Return each one's turns a second: in ``SLICES`` short slices that take turns, so that noise hits all alike."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(SLICES):
        for name, turn in turns.items():
            taken[name].append(await per_second(turn, clients=clients, seconds=seconds / SLICES))
    return {name: fmean(slices) for name, slices in taken.items()}


async def medians_ms(turns: Mapping[str, Turn], *, times: int) -> dict[str, float]:
    """Return each one's median milliseconds a turn of client 0; one turn of each, then the next of each."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(times):
        for name, turn in turns.items():
            started = time.perf_counter()
            await turn(0)
            taken[name].append((time.perf_counter() - started) * 1000)
    return {name: median(values) for name, values in taken.items()}


async def connections(stack: AsyncExitStack, address: Address, count: int) -> list[Connection]:
    """Open connections that live as long as ``stack``."""
    return [await stack.enter_async_context(Connection(address)) for _ in range(count)]
