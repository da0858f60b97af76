"""``python -m ai``: the ai-service; the composition root of ``ai/``."""

from __future__ import annotations

import argparse
import ipaddress

import uvicorn
from pydantic import SecretStr

from ai.app import Options, create_app
from domain.errors import StudioError
from sections import AiGroup
from settings import load_settings, required

GRACE_SECONDS = 5


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m ai", description="Memmie Studio's ai-service.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8020)
    arguments = parser.parse_args()
    try:
        options = options_from(load_settings().ai)
    except StudioError as error:
        parser.error(error.detail)
    if options.token is None and not is_loopback(arguments.host):
        parser.error("Set AI_TOKEN: without it the service listens on loopback addresses only.")
    uvicorn.run(create_app(options), host=arguments.host, port=arguments.port, timeout_graceful_shutdown=GRACE_SECONDS)


def options_from(ai: AiGroup) -> Options:
    """What the service needs of the settings; raises Invalid when the model's address is missing."""
    return Options(
        model_url=required(ai.model_url, "ai.model_url"),
        model_name=ai.model_name,
        model_key=_revealed(ai.model_api_key),
        token=_revealed(ai.token),
        concurrency=ai.concurrency,
        queue_max=ai.queue_max,
    )


def _revealed(secret: SecretStr | None) -> str | None:
    return (secret.get_secret_value() or None) if secret else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    main()
