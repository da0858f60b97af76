"""The egress guard on real sockets: what may be called, and what every way of answering badly comes to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
import pytest_asyncio

from activities.adapters.services import ANSWER_BYTES_MAX, HttpServices, Service
from activities.errors import failure_of
from domain.errors import StudioError, Unusable
from domain.steps import ServiceCall

TOKEN = "s3cret-token"
PATIENCE = timedelta(seconds=5)


@dataclass
class Server:
    """One HTTP server that answers with whatever the test says, and notes what it is asked."""

    url: str = ""
    answer: Callable[[asyncio.StreamWriter], Any] = lambda writer: None
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rest = head.split("\r\n")
            headers = dict(one.lower().split(": ", 1) for one in rest if ": " in one)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.asked.append((line.split(" ")[1], dict(one.split(": ", 1) for one in rest if ": " in one), body))
            answered = self.answer(writer)
            if asyncio.iscoroutine(answered):
                await answered
            await writer.drain()
        writer.close()

    def says(self, status: int, body: bytes = b"{}", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.answer = lambda writer: writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + body)


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/base"
    made.says(200)
    yield made
    listening.close()


@pytest_asyncio.fixture
async def services(server: Server) -> AsyncIterator[HttpServices]:
    made = HttpServices({"text": Service(url=server.url, token=TOKEN), "open": Service(url=server.url + "/")})
    yield made
    await made.close()


def call(endpoint: str = "/go", *, service: str = "text", body: Any = None) -> ServiceCall:
    return ServiceCall(step_id="ask", name="Ask", service=service, endpoint=endpoint, body=body or {}, key="k")


async def refused(services: HttpServices, asked: ServiceCall, code: str, patience: timedelta = PATIENCE) -> StudioError:
    with pytest.raises(StudioError) as caught:
        await services.call(asked, key="key-1", patience=patience)
    assert caught.value.problem_code == code
    assert TOKEN not in repr(caught.value) + str(caught.value) + caught.value.detail + str(failure_of(caught.value))
    return caught.value


async def test_a_call_is_a_post_of_json_with_key_and_token(services: HttpServices, server: Server) -> None:
    server.says(200, b'{"text": "\xc3\xa4", "n": [1.5]}')
    answer = await services.call(call(body={"a": "ü"}), key="key-1", patience=PATIENCE)
    assert answer == {"text": "ä", "n": [1.5]}
    [(path, headers, body)] = server.asked
    assert (path, orjson.loads(body)) == ("/base/go", {"a": "ü"})
    assert headers["idempotency-key"] == "key-1"
    assert headers["authorization"] == f"Bearer {TOKEN}"
    assert headers["content-type"] == "application/json"
    await services.call(call(service="open"), key="key-2", patience=PATIENCE)
    assert (server.asked[1][0], "authorization" in server.asked[1][1]) == ("/base/go", False)


async def test_only_declared_services_are_called(services: HttpServices, server: Server) -> None:
    await refused(services, call(service="other"), "egress_denied")
    assert server.asked == []


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://elsewhere.test/x", "//elsewhere.test/x", "elsewhere", "", "/../admin", "/a/../../admin",
        "/%2e%2e/admin",
        "/a/%2E%2e%2fadmin", "/%252e%252e/admin", "/..\\admin", "/\\elsewhere.test", "/%2felsewhere.test", "/a\nb",
        "/a\x00b", "/x/%2e.",
    ],
)  # fmt: skip
async def test_an_endpoint_outside_of_its_service_is_denied(
    services: HttpServices, server: Server, endpoint: str
) -> None:
    error = await refused(services, call(endpoint), "egress_denied")
    assert not error.retryable
    assert server.asked == []


async def test_an_endpoint_may_have_a_query_and_dots(services: HttpServices, server: Server) -> None:
    await services.call(call("/v1.2/a..b?x=../y"), key="k", patience=PATIENCE)
    assert server.asked[0][0] == "/base/v1.2/a..b?x=../y"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(services: HttpServices, server: Server, status: int) -> None:
    server.says(status, location=server.url + "/elsewhere")
    await refused(services, call(), "service_rejected")
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422])
async def test_a_rejection_is_final_and_quotes_the_problem_without_the_token(
    services: HttpServices, server: Server, status: int
) -> None:
    server.says(status, f'{{"content": "a secret story", "detail": "unknown token {TOKEN} {"x" * 1000}"}}'.encode())
    error = await refused(services, call(), "service_rejected")
    assert not error.retryable
    assert f"text/go answered {status}" in error.detail
    assert "unknown token …" in error.detail
    assert "secret" not in error.detail
    assert len(error.detail) < 400


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_trouble_of_the_service_may_pass(services: HttpServices, server: Server, status: int) -> None:
    server.says(status, b"<html>trouble</html>")
    error = await refused(services, call(), "service_unavailable")
    assert (error.retryable, error.members) == (True, {"status": status, "said": None})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("999999999999", 3600.0), ("9" * 400, 3600.0), ("soon", None), ("-1", None), ("", None),
     ("\u0661", None)],
)  # fmt: skip
async def test_retry_after_is_honoured_within_bounds(
    services: HttpServices, server: Server, value: str, seconds: float | None
) -> None:
    head = f"HTTP/1.1 429 X\r\nretry-after: {value}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    server.answer = lambda writer: writer.write(head.encode())
    error = await refused(services, call(), "service_unavailable")
    assert error.members.get("retry_after") == seconds
    delay = failure_of(error).next_retry_delay
    assert (None if delay is None else delay.total_seconds()) == seconds


async def test_retry_after_may_be_a_date(services: HttpServices, server: Server) -> None:
    server.says(503, retry_after=format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    error = await refused(services, call(), "service_unavailable")
    assert 80 < error.members["retry_after"] <= 90
    server.says(503, retry_after="Thu, 01 Jan 1970 00:00:00 GMT")
    assert (await refused(services, call(), "service_unavailable")).members["retry_after"] == 0


@pytest.mark.parametrize("body", [b"<html></html>", b"", b"{", b"NaN", b"\xff\xfe"])
async def test_an_answer_that_is_not_json_is_rejected(services: HttpServices, server: Server, body: bytes) -> None:
    server.says(200, body)
    assert isinstance(await refused(services, call(), "service_rejected"), Unusable)  # and may have cost something


async def test_an_endless_answer_is_cut_off(services: HttpServices, server: Server) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    server.answer = endless
    error = await refused(services, call(), "service_rejected")
    assert str(ANSWER_BYTES_MAX) in error.detail
    assert sent < 4 * ANSWER_BYTES_MAX


async def test_an_answer_of_fifty_megabytes_is_read_up_to_the_setting(server: Server) -> None:
    bounded = HttpServices({"text": Service(url=server.url, token=TOKEN)}, answer_max=100_000)
    server.says(200, b'{"text": "' + b"x" * 50_000_000 + b'"}')
    error = await refused(bounded, call(), "service_rejected")
    assert "100000 bytes" in error.detail
    assert not error.retryable
    server.says(200, b'{"text": "' + b"x" * 90_000 + b'"}')
    assert len((await bounded.call(call(), key="key-1", patience=PATIENCE))["text"]) == 90_000
    await bounded.close()


async def test_a_service_that_never_answers_or_drips_runs_out_of_patience(
    services: HttpServices, server: Server
) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 10000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    for answer in (silent, drips):
        server.answer = answer
        error = await refused(services, call(), "service_unavailable", timedelta(milliseconds=150))
        assert error.retryable


async def test_a_service_that_is_gone_may_come_back(services: HttpServices) -> None:
    gone = HttpServices({"text": Service(url="http://127.0.0.1:9", token=TOKEN)})
    error = await refused(gone, call(), "service_unavailable")
    assert error.retryable
    await gone.close()


def test_a_service_does_not_show_its_token() -> None:
    assert TOKEN not in repr(Service(url="http://x", token=TOKEN))


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_error_that_says_it_is_final_is_believed(
    services: HttpServices, server: Server, status: int
) -> None:
    server.says(
        status,
        b'{"code": "invalid_output", "detail": "no usable text", "retryable": false, "usage": {"total_tokens": 9}}',
    )
    error = await refused(services, call(), "invalid_output")
    assert isinstance(error, Unusable)
    assert (error.retryable, error.usage) == (False, {"total_tokens": 9})
    assert "no usable text" in error.detail
