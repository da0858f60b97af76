"""The composition root of the API: ``create_app(settings)``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.responses import Response

from api import (
    approvals,
    batches,
    blobs,
    buckets,
    budgets,
    cascades,
    comparisons,
    contents,
    controls,
    dag,
    dead_letters,
    deltas,
    events,
    instances,
    plans,
    platform,
    problems,
    proposals,
    providers,
    queues,
    reprocess,
    runs,
    schemas,
    uploads,
    users,
    versions,
    whys,
    workflows,
)
from api.auth import Authenticator
from api.deps import close_ports, open_ports
from api.middleware import PREFIX, Edge
from api.openapi import describe
from settings import Settings

ROUTERS = (
    blobs,
    batches,
    contents,
    uploads,
    deltas,
    versions,
    proposals,
    comparisons,
    dag,
    whys,
    buckets,
    workflows,
    providers,
    instances,
    reprocess,
    schemas,
    runs,
    dead_letters,
    queues,
    controls,
    approvals,
    cascades,
    plans,
    budgets,
    events,
    users,
)
"""Modules whose ``router`` lives below ``/api/v1/studio``, the busiest first: routes are tried in order."""
OPEN_ROUTERS = (platform,)
"""Those whose ``router`` names whole paths: health, readiness, version, metrics."""

OPEN_PATHS = frozenset(
    {"/problems", "/problems/{code}", *(f"{PREFIX}/{name}" for name in ("healthz", "readyz", "version"))}
)
"""Paths that need no key, beside the OpenAPI document itself."""


def create_app(settings: Settings) -> FastAPI:
    """Return the application; its lifespan opens the database pool, the content store and the notifier."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ports = await open_ports(settings)
        app.state.ports = ports
        app.state.authenticator = Authenticator(ports.keys, settings.api.key_cache.total_seconds())
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
    app.state.body_max = settings.limits.body_max
    _mount(app)
    problems.install(app)
    describe(app, OPEN_PATHS)
    app.add_middleware(Edge)
    return app


def _mount(app: FastAPI) -> None:
    for modules, prefix in ((ROUTERS, PREFIX), (OPEN_ROUTERS, "")):
        for module in modules:
            _add(app, module.router, prefix)


def _add(app: FastAPI, router: APIRouter, prefix: str) -> None:
    """Add a router's routes one by one: an included router is matched twice, and its routes do not know their path."""
    for route in router.routes:
        if not isinstance(route, APIRoute):
            raise TypeError(f"{route} is no route of the API")
        app.router.add_api_route(
            prefix + route.path,
            route.endpoint,
            methods=sorted(route.methods or ()),
            name=route.name,
            operation_id=route.operation_id,
            status_code=route.status_code,
            tags=route.tags,
            responses=route.responses,
            openapi_extra=route.openapi_extra,
            include_in_schema=route.include_in_schema,
            response_model=None,
            response_class=Response,
        )
