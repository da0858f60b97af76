"""Which version this is, and which one answers."""

from __future__ import annotations

import asyncio
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

from sdk.client import Studio
from sdk.endpoints import NoEndpoints, find_endpoints
from sdk.problems import ApiProblem

PATIENCE_SECONDS = 3.0


def own_version() -> str:
    """Return the version of this software: of the installed package, or of the checkout."""
    try:
        return metadata.version("memmie-studio")
    except metadata.PackageNotFoundError:
        project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
        return str(project["project"]["version"])


def version_of_api() -> dict[str, Any] | None:
    """Return what the API says about itself, None when none answers."""

    async def ask() -> dict[str, Any]:
        found = find_endpoints()
        async with Studio(found.api_url, timeout=PATIENCE_SECONDS, retries=0) as studio:
            body: dict[str, Any] = (await studio.request("GET", "/version")).body
            return body

    try:
        return asyncio.run(ask())
    except (ApiProblem, NoEndpoints):
        return None
