"""The OpenAPI document: what FastAPI finds in the routes, and what it cannot know about our answers.

Handlers read bodies and identities themselves (``api/bodies.py`` says why), so security, problem answers and the
models of bodies are added here. Aliases are no routes of their own (``api/middleware.py``): only canonical paths show.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.problems import NO_SUCH_FIELD, PROBLEM_JSON

DESCRIPTION = "A reactive, versioned content platform: blobs, deltas, providers and durable cascades."

_PROBLEM = {
    "type": "object",
    "description": "RFC 9457. Every error of this API has this form; code is one of GET /problems.",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id", "retryable", "hint", "errors"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": ["string", "null"]},
        "retryable": {"type": "boolean"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "code", "detail"],
                "properties": {name: {"type": "string"} for name in ("pointer", "code", "detail")},
            },
        },
    },
    "example": {
        "type": "http://localhost:8010/problems/unknown_field",
        "title": "Unknown field",
        "status": 422,
        "detail": f"The request has 1 fault(s): /colour: {NO_SUCH_FIELD}",
        "instance": "/api/v1/studio/blobs",
        "code": "unknown_field",
        "request_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "retryable": False,
        "hint": "Remove the field or correct its spelling.",
        "errors": [{"pointer": "/colour", "code": "unknown_field", "detail": NO_SUCH_FIELD}],
    },
}


def query(name: str, kind: str, meaning: str) -> dict[str, Any]:
    """Describe one query parameter; handlers read these themselves as well."""
    return {"name": name, "in": "query", "required": False, "schema": {"type": kind}, "description": meaning}


def parameters(*described: dict[str, Any]) -> dict[str, Any]:
    """Return parameters as ``openapi_extra`` takes them."""
    return {"parameters": list(described)}


VERSION = query("version", "integer", "The version to read; the newest without it.")
AT = query("at", "string", "An instant (RFC 3339): the version that the blob was at then.")
ON_CONFLICT = query(
    "on_conflict",
    "string",
    "If the version you knew is not the newest: reject (default), merge, or last_write_wins.",
)
LIMIT = query("limit", "integer", "Rows of a page, 1 to 200; 50 without it.")
CURSOR = query("cursor", "string", "next_cursor of the page before.")
_REFUSAL = {
    "description": "A problem",
    "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def describe(app: FastAPI, open_paths: frozenset[str]) -> None:
    """Let the application answer its own description; ``open_paths`` need no key."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _described(app, open_paths)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _described(app: FastAPI, open_paths: frozenset[str]) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = _PROBLEM
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "bearerFormat": "mst_live_…"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation.setdefault("responses", {}).pop("422", None)
            _show_answer(operation)
            operation["responses"]["default"] = _REFUSAL
            operation["security"] = [] if path in open_paths else [{"key": []}]
            for content in operation.get("requestBody", {}).get("content", {}).values():
                schemas.update(content.get("schema", {}).pop("$defs", {}))
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document


@cache
def examples() -> Mapping[str, Any]:
    """Return a real answer of each operation, cut short; ``tests/api/test_examples.py`` holds their shape."""
    text = (resources.files("api") / "examples.json").read_bytes()
    found: Mapping[str, Any] = orjson.loads(text)
    return found


def _show_answer(operation: dict[str, Any]) -> None:
    """Add what a real answer looks like to the response that says success."""
    example = examples().get(operation.get("operationId", ""))
    if example is not None:
        status = next(status for status in operation["responses"] if status.startswith("2"))
        operation["responses"][status]["content"] = {"application/json": {"schema": {}, "example": example}}
