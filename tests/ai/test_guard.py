from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from ai.guard import BODY_BYTES_MAX, Admission, Guard
from domain.errors import LimitExceeded


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    del scope
    message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-request-id", b"mine")]})
    await send({"type": "http.response.body", "body": message["body"]})


async def ask(guard: Guard, *chunks: bytes, path: str = "/edit/grammar", **headers: str) -> list[Message]:
    waiting = [
        {"type": "http.request", "body": chunk, "more_body": at < len(chunks) - 1} for at, chunk in enumerate(chunks)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return waiting.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    await guard({"type": "http", "method": "POST", "path": path, "headers": pairs}, receive, send)
    return sent


async def test_a_body_in_pieces_arrives_whole_and_the_answer_has_one_id() -> None:
    start, body = await ask(Guard(echo, token=None), b"one ", b"two")
    assert body["body"] == b"one two"
    ids = [value for name, value in start["headers"] if name == b"x-request-id"]
    assert len(ids) == 1
    assert ids[0] != b"mine"


async def test_a_body_beyond_the_bound_is_refused_by_its_declared_length() -> None:
    start, body = await ask(Guard(echo, token=None), content_length=str(BODY_BYTES_MAX + 1))
    assert start["status"] == 413
    assert str(BODY_BYTES_MAX).encode() in body["body"]


async def test_a_body_that_does_not_say_its_length_is_counted() -> None:
    half = b"x" * (BODY_BYTES_MAX // 2 + 1)
    start, _ = await ask(Guard(echo, token=None), half, half, b"never read")
    assert start["status"] == 413


@pytest.mark.parametrize(
    ("authorization", "status"),
    [("Bearer right", 200), ("bearer  right", 200), ("Bearer wrong", 401), ("Basic right", 401), ("Bearer ", 401)],
)
async def test_the_token_is_asked_for(authorization: str, status: int) -> None:
    start, _ = await ask(Guard(echo, token="right"), b"x", authorization=authorization)
    assert start["status"] == status


async def test_probes_need_no_token() -> None:
    start, _ = await ask(Guard(echo, token="right"), b"x", path="/healthz")
    assert start["status"] == 200


async def test_beyond_the_queue_requests_are_turned_away_at_once_with_a_time() -> None:
    admission = Admission(concurrency=1, queue_max=1)
    release = asyncio.Event()
    inside: list[str] = []

    async def work(name: str) -> None:
        async with admission.place():
            inside.append(name)
            await release.wait()

    first = asyncio.create_task(work("first"))
    second = asyncio.create_task(work("second"))
    await asyncio.sleep(0)  # both have asked: one is in, one waits
    with pytest.raises(LimitExceeded) as caught:
        await work("third")
    assert caught.value.members["retry_after"] >= 1
    assert inside == ["first"]
    release.set()
    await asyncio.gather(first, second)
    assert inside == ["first", "second"]


async def test_one_who_leaves_the_queue_gives_up_the_place() -> None:
    admission = Admission(concurrency=1, queue_max=1)
    async with admission.place():
        waiting = asyncio.create_task(admission.place().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        other = asyncio.create_task(admission.place().__aenter__())
        await asyncio.sleep(0)
        assert not other.done()  # it waits, and was not turned away
    await other


async def test_waiting_too_long_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ai.guard.QUEUE_WAIT_SECONDS_MAX", 0.01)
    admission = Admission(concurrency=1, queue_max=1)
    async with admission.place():
        with pytest.raises(Exception, match="busy") as caught:
            await admission.place().__aenter__()
    assert getattr(caught.value, "problem_code", None) == "service_unavailable"
