"""Health, readiness, version, metrics, OpenAPI: below the prefix and, for probes, at the root."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Awaitable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from api.auth import Admin
from api.bodies import answer
from api.deps import Stores
from api.middleware import PREFIX
from domain.errors import StudioError, Unavailable

router = APIRouter(tags=["platform"])

CHECK_SECONDS_MAX = 3.0


@router.get(f"{PREFIX}/healthz", operation_id="platform_healthz")
@router.get("/healthz", include_in_schema=False)
async def healthz() -> Response:
    """Answer as long as this process works; it asks nobody else."""
    return answer({"status": "ok"})


@router.get(f"{PREFIX}/readyz", operation_id="platform_readyz")
@router.get("/readyz", include_in_schema=False)
async def readyz(ports: Stores) -> Response:
    """Answer 200 if the database and the content store answer, else 503, naming the part that does not."""
    checks = dict(
        await asyncio.gather(
            _checked("database", ports.database.call("select 1")), _checked("s3", ports.contents.check())
        )
    )
    failing = sorted(name for name, found in checks.items() if found != "ok")
    if failing:
        raise Unavailable(f"{' and '.join(failing)} do not answer.", members={"checks": checks, "failing": failing})
    return answer({"status": "ready", "checks": checks})


@router.get(f"{PREFIX}/version", operation_id="platform_version")
@router.get("/version", include_in_schema=False)
async def version(ports: Stores) -> Response:
    """Say which version answers, and of which installation."""
    return answer(
        {
            "name": ports.service_name,
            "version": own_version(),
            "api_version": "v1",
            "installation_id": ports.installation_id,
        }
    )


@router.get(f"{PREFIX}/metrics", operation_id="platform_metrics")
@router.get("/metrics", include_in_schema=False)
async def metrics(_: Admin) -> Response:
    """Measurements of this process, in the text format of Prometheus."""
    return Response(generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    """Describe this API (OpenAPI 3.1)."""
    return answer(request.app.openapi())


@cache
def own_version() -> str:
    """Return the version of this software: of the installed package, or of the checkout."""
    try:
        return metadata.version("memmie-studio")
    except metadata.PackageNotFoundError:
        project: dict[str, Any] = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
        return str(project["project"]["version"])


async def _checked(name: str, check: Awaitable[object]) -> tuple[str, str]:
    try:
        await asyncio.wait_for(check, CHECK_SECONDS_MAX)
    except StudioError as error:
        return name, error.detail
    except TimeoutError:
        return name, f"No answer within {CHECK_SECONDS_MAX:g} s."
    return name, "ok"
