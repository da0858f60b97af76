"""The composition root of the API: ``create_app(settings)``."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api import problems
from api.auth import Authenticator
from api.deps import close_ports, open_ports
from api.middleware import PREFIX, Edge
from settings import Settings

ROUTERS = (
    "blobs",
    "contents",
    "deltas",
    "dag",
    "buckets",
    "workflows",
    "providers",
    "instances",
    "schemas",
    "runs",
    "cascades",
    "events",
    "users",
)
"""Modules of ``api`` whose ``router`` lives below ``/api/v1/studio``."""
OPEN_ROUTERS = ("platform",)
"""Those whose ``router`` names whole paths: health, readiness, version, metrics."""

AUTH_CACHE_SECONDS = 5.0


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its lifespan opens the database pool, the content store and the notifier."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ports = await open_ports(settings)
        app.state.ports = ports
        app.state.authenticator = Authenticator(ports.keys, AUTH_CACHE_SECONDS)
        try:
            yield
        finally:
            await close_ports(ports)

    app = FastAPI(
        title="Memmie Studio",
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
    )
    app.state.settings = settings
    app.state.body_max = settings.limits.body_max
    _mount(app)
    problems.install(app)
    app.add_middleware(Edge)
    return app


def _mount(app: FastAPI) -> None:
    for names, prefix in ((ROUTERS, PREFIX), (OPEN_ROUTERS, "")):
        for name in names:
            if importlib.util.find_spec(f"api.{name}") is not None:
                app.include_router(importlib.import_module(f"api.{name}").router, prefix=prefix)
