"""Where the API is and which key to show: the environment, else ``endpoints.json`` of a running stack."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAME = "endpoints.json"
DEFAULT_FOLDER = ".studio"


class NoEndpoints(LookupError):
    """Neither the environment nor a file says where the API is; the message names the fix."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """An API and the keys for it. ``source`` says where that was found, ``values`` is the whole file."""

    api_url: str
    api_key: str | None
    source: str
    admin_key: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


def find_endpoints(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Endpoints:
    """Return the endpoints to use.

    First STUDIO_API_URL and STUDIO_API_KEY; what they leave open comes from ``endpoints.json`` below
    STUDIO_STATE_DIR (or in its ``.studio``), else in ``.studio`` of ``folder`` (the current one).
    Raises NoEndpoints.
    """
    environ = os.environ if environ is None else environ
    url, key = environ.get("STUDIO_API_URL"), environ.get("STUDIO_API_KEY")
    if url:
        return Endpoints(url.rstrip("/"), key or None, "STUDIO_API_URL")
    looked = list(_candidates(environ, folder or Path.cwd()))
    for path in looked:
        values = _read(path)
        if values.get("api_url"):
            return Endpoints(
                str(values["api_url"]).rstrip("/"),
                key or values.get("api_key"),
                str(path),
                values.get("admin_key"),
                values,
            )
    places = " or ".join(str(path) for path in looked)
    raise NoEndpoints(f"No running Studio: there is no {places}. Start one with `studio dev`, or set STUDIO_API_URL.")


def read_endpoints(path: Path) -> Endpoints:
    """Return what one file says. Raises NoEndpoints when it is absent or says nothing."""
    values = _read(path)
    if not values.get("api_url"):
        raise NoEndpoints(f"There is no {path}.")
    return Endpoints(
        str(values["api_url"]).rstrip("/"), values.get("api_key"), str(path), values.get("admin_key"), values
    )


def _candidates(environ: Mapping[str, str], folder: Path) -> Iterator[Path]:
    state = environ.get("STUDIO_STATE_DIR")
    if state:
        yield Path(state) / DEFAULT_FOLDER / NAME
        yield Path(state) / NAME
    else:
        yield folder / DEFAULT_FOLDER / NAME


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
