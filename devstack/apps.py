"""Our own processes: migrate, ai, api, worker, and the local model; started from the checkout's root."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from devstack.errors import DevstackError
from devstack.ports import HOST, is_free
from devstack.probes import ask
from devstack.processes import Command
from devstack.services import Service, Site

ROOT = Path(__file__).resolve().parent.parent
API_PORT = 8010
PORT_MAX = 65535
PATIENCE = "STUDIO__PROVIDERS__TIMEOUT"
LOCAL_MODEL_PATIENCE = "300s"  # it answers one question at a time, on whatever the machine has left
MODEL_NAME = "SmolLM2-135M-Instruct-Q4_1"


class App(Service):
    """A Python process of ours. Its command can be replaced (``argv``), its environment is the stack's.

    Killed outright when the supervisor dies: every one of them is built to be killed at any moment.
    """

    module: ClassVar[str]
    health: ClassVar[str] = "/healthz"
    stop_seconds: ClassVar[float] = 10.0

    def __init__(self, argv: Sequence[str] | None = None) -> None:
        self._argv = tuple(argv) if argv else (sys.executable, "-m", self.module)

    def command(self, site: Site) -> Command:
        """Return the process with the user's environment, over it that of the stack."""
        return Command(
            argv=[*self._argv, *self.arguments(site)],
            env={**site.environ, **site.endpoints, **self.environment(site), "PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
            death_signal=signal.SIGKILL,
        )

    def arguments(self, site: Site) -> list[str]:  # noqa: ARG002
        """Return what follows the command."""
        return []

    def environment(self, site: Site) -> dict[str, str]:  # noqa: ARG002
        """Return what this process alone is told."""
        return {}

    def ready(self, site: Site) -> bool:
        """Answer the health question."""
        return ask(site.url(self.name, self.health)).ok


class Listening(App):
    """An app that takes its address as arguments."""

    def arguments(self, site: Site) -> list[str]:
        """Return the address."""
        return ["--host", HOST, "--port", str(site.ports[self.name])]


class Model(Listening):
    """The local language model, as an OpenAI-compatible server."""

    name = "model"
    module = "ai.model"
    port_names = ("model",)
    health = "/health"
    stop_wave = 2

    def external(self, environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:  # noqa: ARG002
        """Use the model at MODEL_URL; none is needed when the ai-service itself is external."""
        if environ.get("MODEL_URL"):
            names = ("MODEL_URL", "MODEL_NAME", "MODEL_API_KEY")
            return {name: environ[name] for name in names if name in environ}
        return {} if environ.get("AI_URL") else None

    def endpoints(self, site: Site) -> dict[str, str]:
        """Return the OpenAI-compatible base, its model and key."""
        return {
            "MODEL_URL": site.url(self.name, "/v1"),
            "MODEL_NAME": MODEL_NAME,
            "MODEL_API_KEY": site.secrets["model_api_key"],
        }


class Migrate(App):
    """Brings the database to the present: roles, tables, built-in catalogue, the users dev and admin."""

    name = "migrate"
    module = "migrations"
    needs = ("postgres",)
    once = True
    stop_wave = 2
    start_seconds: ClassVar[float] = 120.0

    def ready(self, site: Site) -> bool:  # noqa: ARG002
        """Never while it runs: its end is its readiness."""
        return False


class Ai(Listening):
    """The ai-service."""

    name = "ai"
    module = "ai"
    needs = ("model",)
    port_names = ("ai",)
    stop_wave = 2

    def external(self, environ: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str] | None:
        """Use the service at AI_URL."""
        if not environ.get("AI_URL"):
            return None
        return {"AI_URL": environ["AI_URL"], "AI_TOKEN": environ.get("AI_TOKEN", secrets["ai_token"])}

    def endpoints(self, site: Site) -> dict[str, str]:
        """Return the address and the token that callers show."""
        return {"AI_URL": site.url(self.name), "AI_TOKEN": site.secrets["ai_token"]}


class Worker(App):
    """The Temporal worker and the relay."""

    name = "worker"
    module = "worker"
    needs = ("migrate", "temporal", "nats", "s3", "ai")
    port_names = ("worker",)
    stop_wave = 1

    def environment(self, site: Site) -> dict[str, str]:
        """Return where it answers the health question; with the local model also more patience with it."""
        told = {"WORKER_HEALTH_PORT": str(site.ports[self.name])}
        if Model.name in site.ports and PATIENCE not in site.environ:
            told[PATIENCE] = LOCAL_MODEL_PATIENCE
        return told


class Api(App):
    """The HTTP API: on port 8010 if it is free."""

    name = "api"
    module = "api"
    needs = ("migrate", "nats", "s3")
    port_names = ("api",)
    health = "/readyz"
    stop_wave = 0

    def endpoints(self, site: Site) -> dict[str, str]:
        """Return where the API listens."""
        return {
            "STUDIO_HOST": site.environ.get("STUDIO_HOST") or HOST,
            "STUDIO_PORT": str(site.ports[self.name]),
        }

    def preferred_port(self, port: str, environ: Mapping[str, str]) -> int | None:  # noqa: ARG002
        """Return STUDIO_PORT, which must then be free, else the contract's."""
        wanted = environ.get("STUDIO_PORT")
        if not wanted:
            return API_PORT
        if not (wanted.isdigit() and 0 < int(wanted) <= PORT_MAX and is_free(int(wanted))):
            raise DevstackError(f"STUDIO_PORT={wanted} is taken or not a port: choose another or unset it")
        return int(wanted)


def common_endpoints(site: Site) -> dict[str, str]:
    """Return what every child is told, whichever services run."""
    return {
        "STUDIO_STATE_DIR": str(site.state.path),
        "STUDIO_CONFIG": site.environ.get("STUDIO_CONFIG") or str(ROOT / "config" / "studio.yaml"),
        "STUDIO_DEV_API_KEY": site.environ.get("STUDIO_DEV_API_KEY") or site.secrets["dev_api_key"],
        "STUDIO_ADMIN_API_KEY": site.environ.get("STUDIO_ADMIN_API_KEY") or site.secrets["admin_api_key"],
    }


APPS: tuple[type[App], ...] = (Migrate, Ai, Worker, Api)
