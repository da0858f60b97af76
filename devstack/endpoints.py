"""``endpoints.json``: what programs outside read to find a running stack (CONTRACT.md, "Running it")."""

from __future__ import annotations

import json
import os

from devstack.probes import ask
from devstack.stack import Stack

NAME = "endpoints.json"
WHOAMI = "/api/v1/studio/validate-token"

VARIABLES = {
    "api_key": "STUDIO_DEV_API_KEY",
    "admin_key": "STUDIO_ADMIN_API_KEY",
    "database_url": "DATABASE_URL",
    "temporal_address": "TEMPORAL_HOST",
    "temporal_namespace": "TEMPORAL_NAMESPACE",
    "temporal_ui_url": "TEMPORAL_UI_URL",
    "nats_url": "NATS_URL",
    "s3_endpoint": "S3_ENDPOINT",
    "s3_bucket": "S3_BUCKET",
    "s3_access_key": "S3_ACCESS_KEY",
    "s3_secret_key": "S3_SECRET_KEY",
    "ai_url": "AI_URL",
}
"""Our key, and the variable that children are given."""


def write(stack: Stack) -> None:
    """Write the file: atomically, 0600. Called last on start, and again when a child's pid changed."""
    known = stack.state.read(NAME)
    environment = stack.endpoints
    api_url = f"http://127.0.0.1:{environment['STUDIO_PORT']}" if "STUDIO_PORT" in environment else None
    values: dict[str, object] = {name: environment.get(variable) for name, variable in VARIABLES.items()}
    stack.state.write(
        NAME,
        {
            "api_url": api_url,
            **values,
            "database_admin_url": None if stack.external("postgres") else environment.get("DATABASE_ADMIN_URL"),
            "user_id": known.get("user_id") or user_id(api_url, environment["STUDIO_DEV_API_KEY"]),
            "state_dir": str(stack.state.path),
            "processes": {**stack.processes, "supervisor": os.getpid()},
        },
    )


def user_id(api_url: str | None, api_key: str) -> str | None:
    """Ask the API whose key this is; None when it does not say, or does not run."""
    if api_url is None:
        return None
    answer = ask(api_url + WHOAMI, headers={"Authorization": f"Bearer {api_key}"})
    if not answer.ok:
        return None
    try:
        found = json.loads(answer.body).get("user_id")
    except (ValueError, AttributeError):
        return None
    return str(found) if found else None
