"""A language model that answers at once: OpenAI-compatible, a function of the question, so that a story is short."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "parrot-1"
THINKING_SECONDS = 0.1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hard = ""
    hard_seconds = 0.0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in the middle of its call is what these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self._send({"object": "list", "data": [{"id": NAME, "object": "model", "created": 1, "owned_by": "tests"}]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = asked["messages"][-1]["content"]
        hard = bool(self.server.hard) and self.server.hard in question
        time.sleep(self.server.hard_seconds if hard else THINKING_SECONDS)
        text = answer(question, as_outline=asked.get("response_format") is not None)
        self._send(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": NAME,
                "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
                "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
            }
        )

    def _send(self, body: Any) -> None:
        raw = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        with suppress(ConnectionError):
            self.end_headers()
            self.wfile.write(raw)

    def log_message(self, *arguments: object) -> None:
        del arguments


def answer(question: str, *, as_outline: bool) -> str:
    """Sections that name the subject, or a paragraph that does."""
    subject = question.partition('"')[2].partition('"')[0] or question.rpartition(":")[2].strip() or question
    if as_outline:
        aspects = ("Where {} comes from", "What {} is good for", "What {} costs", "Who uses {}", "The end of {}")
        return json.dumps({"sections": [aspect.format(subject)[:60] for aspect in aspects]})
    words = " ".join(subject.split()[:12]).rstrip(".")
    return f"{words} is an old matter. Many people have written about {words}. Nobody has ever finished with it."


@contextmanager
def language_model(hard: str = "", hard_seconds: float = 0.0) -> Iterator[str]:
    """Serve it for the block; gives the base URL. Questions that speak of ``hard`` take longer to answer."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.hard, server.hard_seconds = hard, hard_seconds
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            thread.join()
