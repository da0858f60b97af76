"""The service that the tests' providers call: deterministic, counted per idempotency key, slow or failing when told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

HOLD_SECONDS_MAX = 60.0


@dataclass
class Rule:
    """What happens to calls of one scope, tag and text: held, slowed down, refused ``times`` times (-1: always)."""

    scope: str
    tag: str = ""
    about: str = ""
    gate: threading.Event | None = None
    delay_seconds: float = 0.0
    status: int = 0
    times: int = -1

    def matches(self, scope: str, tag: str, text: str) -> bool:
        return scope == self.scope and self.tag in ("", tag) and self.about in text


@dataclass(frozen=True)
class Call:
    """One call as it arrived."""

    key: str
    scope: str
    tag: str
    text: str


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle of its call is what these tests are about."""


@dataclass
class TestService:
    """The server and its memory; use ``with``."""

    __test__ = False

    calls: list[Call] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    waiting: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self.answer))
        self._thread = threading.Thread(target=self._server.serve_forever, name="test-service", daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of(self, scope: str, tag: str | None = None) -> list[Call]:
        """The calls of one scope, of one tag if it is given."""
        with self._lock:
            return [call for call in self.calls if call.scope == scope and tag in (None, call.tag)]

    def held(self, scope: str, tag: str, about: str = "") -> int:
        """How many calls are being held at this moment."""
        with self._lock:
            return sum(call.scope == scope and call.tag == tag and about in call.text for call in self.waiting)

    @contextmanager
    def ruled(self, rule: Rule) -> Iterator[Rule]:
        """A rule for the block."""
        with self._lock:
            self.rules.append(rule)
        try:
            yield rule
        finally:
            with self._lock:
                self.rules.remove(rule)
            if rule.gate is not None:
                rule.gate.set()

    def hold(self, scope: str, tag: str, about: str = "") -> AbstractContextManager[Rule]:
        """Let no such call come back before the block ends."""
        return self.ruled(Rule(scope, tag, about, gate=threading.Event()))

    def answer(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        scope, tag, text = str(body.get("scope")), str(body.get("tag")), str(body.get("text"))
        with self._lock:
            found = [rule for rule in self.rules if rule.matches(scope, tag, text)]
        call = Call(key, scope, tag, text)
        for rule in found:
            self._wait(rule, call)
        status = next((rule.status for rule in found if self._fails(rule)), 200)
        with self._lock:
            self.calls.append(call)
        if status != 200:
            return status, {"detail": "the test says so"}
        if path == "/paragraphs":
            return 200, {"text": paragraphs(body["topics"])}
        return 200, {"text": f"{tag}({text})", "usage": {"total_tokens": 1, "model": "test"}}

    def _wait(self, rule: Rule, call: Call) -> None:
        if rule.delay_seconds:
            time.sleep(rule.delay_seconds)
        if rule.gate is None:
            return
        with self._lock:
            self.waiting.append(call)
        rule.gate.wait(HOLD_SECONDS_MAX)
        with self._lock:
            self.waiting.remove(call)

    def _fails(self, rule: Rule) -> bool:
        with self._lock:
            if not rule.status or not rule.times:
                return False
            rule.times -= 1
            return True


def paragraphs(topics: list[str]) -> str:
    """A text of one paragraph a topic, as a deterministic writer would write it."""
    return "\n\n".join(
        f"{topic.capitalize()} is where this part begins. Whoever looks for {topic} finds it here, and stays."
        for topic in topics
    )


def _handler(answer: Callable[[str, str, dict[str, Any]], tuple[int, dict[str, Any]]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, said = answer(self.path, self.headers.get("idempotency-key", ""), body)
            payload = json.dumps(said).encode()
            with suppress(OSError):
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class has it so
            """Nothing: pytest shows what matters."""

    return Handler
