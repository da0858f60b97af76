"""``python -m ai``: the ai-service. With ``ai.model`` the only place of ``ai/`` that reads the environment."""

from __future__ import annotations

import argparse
import ipaddress
import os

import uvicorn

from ai.app import CONCURRENCY_DEFAULT, QUEUE_MAX_DEFAULT, Settings, create_app
from ai.model import MODEL_NAME

GRACE_SECONDS = 5
COUNT_MAX = 1000


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m ai", description="Memmie Studio's ai-service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8020)
    arguments = parser.parse_args()
    settings = settings_from(dict(os.environ))
    if settings.token is None and not is_loopback(arguments.host):
        parser.error("Set AI_TOKEN: without it the service listens on loopback addresses only.")
    uvicorn.run(create_app(settings), host=arguments.host, port=arguments.port, timeout_graceful_shutdown=GRACE_SECONDS)


def settings_from(environment: dict[str, str]) -> Settings:
    """The settings in ``environment``; raises SystemExit with what is missing."""
    url = environment.get("MODEL_URL")
    if not url:
        raise SystemExit("Set MODEL_URL to an OpenAI-compatible API (it ends in /v1); python -m ai.model serves one.")
    return Settings(
        model_url=url,
        model_name=environment.get("MODEL_NAME") or MODEL_NAME,
        model_key=environment.get("MODEL_API_KEY") or None,
        token=environment.get("AI_TOKEN") or None,
        concurrency=_count(environment, "AI_CONCURRENCY", default=CONCURRENCY_DEFAULT),
        queue_max=_count(environment, "AI_QUEUE_MAX", default=QUEUE_MAX_DEFAULT),
    )


def _count(environment: dict[str, str], name: str, *, default: int) -> int:
    given = environment.get(name) or str(default)
    if not (given.isascii() and given.isdigit() and 1 <= int(given) <= COUNT_MAX):
        raise SystemExit(f"{name} is a number from 1 to {COUNT_MAX}, not {given!r}.")
    return int(given)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
