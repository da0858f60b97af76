"""A small app in place of ours: ``stand_in.py NAME``; listens where ours would, answers everything 200."""

from __future__ import annotations

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"user_id": "user-of-" + os.environ["STUDIO_DEV_API_KEY"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def port(name: str, arguments: list[str]) -> int:
    if "--port" in arguments:
        return int(arguments[arguments.index("--port") + 1])
    return int(os.environ["WORKER_HEALTH_PORT" if name == "worker" else "STUDIO_PORT"])


if __name__ == "__main__":
    if sys.argv[1] == "migrate":
        sys.exit(0 if os.environ["DATABASE_APP_PASSWORD"] in os.environ["DATABASE_URL"] else 1)
    ThreadingHTTPServer(("127.0.0.1", port(sys.argv[1], sys.argv)), Answers).serve_forever()
