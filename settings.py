"""One frozen settings tree: config/studio.yaml under environment variables, read once per process.

Only composition roots import this module (``worker.py``, ``api/app.py``, ``migrations``, ``__main__``, ``cli``).
Three layers, later ones win: the defaults of ``sections.py``, the file (``STUDIO_CONFIG`` names another), the
environment (``VARIABLES``, then ``STUDIO__SECTION__KEY`` for any key; an empty variable counts as unset). Nothing reads
``os.environ`` but ``load_settings``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from domain.errors import Fault, Invalid
from sections import (
    AiGroup,
    ApiGroup,
    CalledService,
    CascadesGroup,
    EventsGroup,
    HousekeepingGroup,
    LimitsGroup,
    ProvidersGroup,
    RelayGroup,
    ServiceGroup,
    StorageGroup,
    WorkflowGroup,
)

CONFIG_FILE = Path(__file__).parent / "config" / "studio.yaml"
GENERIC_PREFIX = "STUDIO__"
CONFIG_BYTES_MAX = 1_000_000

VARIABLES: Mapping[str, tuple[str, ...]] = {
    "STUDIO_HOST": ("service.host",),
    "STUDIO_PORT": ("service.port",),
    "STUDIO_DEV_API_KEY": ("api.dev_api_key",),
    "STUDIO_ADMIN_API_KEY": ("api.admin_api_key",),
    "DATABASE_URL": ("storage.metadata.url",),
    "DATABASE_RELAY_URL": ("storage.metadata.relay_url",),
    "DATABASE_ADMIN_URL": ("storage.metadata.admin_url",),
    "S3_ENDPOINT": ("storage.blobs.endpoint",),
    "S3_ACCESS_KEY": ("storage.blobs.access_key",),
    "S3_SECRET_KEY": ("storage.blobs.secret_key",),
    "S3_BUCKET": ("storage.blobs.bucket",),
    "NATS_URL": ("events.url",),
    "TEMPORAL_HOST": ("workflow.temporal_host",),
    "TEMPORAL_NAMESPACE": ("workflow.namespace",),
    "TEMPORAL_UI_URL": ("workflow.ui_url",),
    "WORKER_HEALTH_PORT": ("workflow.health_port",),
    "AI_URL": ("services.ai-service.url",),
    "AI_TOKEN": ("services.ai-service.token", "ai.token"),
    "MODEL_URL": ("ai.model_url",),
    "MODEL_NAME": ("ai.model_name",),
    "MODEL_API_KEY": ("ai.model_api_key",),
}
"""Environment variables with a name of their own, and the keys that each sets."""

T = TypeVar("T")


class Settings(BaseSettings):
    """Everything that can be set; sections are frozen and know no other keys."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True
    )

    service: ServiceGroup = ServiceGroup()
    storage: StorageGroup = StorageGroup()
    providers: ProvidersGroup = ProvidersGroup()
    events: EventsGroup = EventsGroup()
    workflow: WorkflowGroup = WorkflowGroup()
    services: dict[str, CalledService] = Field(default_factory=dict)
    """Services by name; a definition that names another one is faulty."""
    limits: LimitsGroup = LimitsGroup()
    api: ApiGroup = ApiGroup()
    ai: AiGroup = AiGroup()
    cascades: CascadesGroup = CascadesGroup()
    housekeeping: HousekeepingGroup = HousekeepingGroup()
    relay: RelayGroup = RelayGroup()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take only what ``load_settings`` hands in: pydantic's own source would ignore a misspelt variable."""
        return (init_settings,)


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read the file and the environment (``os.environ`` unless given).

    Raises:
        Invalid: ``invalid_settings``, with one fault per key that is unknown or wrong, naming where it was set.
    """
    env = os.environ if env is None else env
    path = Path(env.get("STUDIO_CONFIG") or CONFIG_FILE)
    tree = _read_file(path)
    origins: dict[str, str] = {}
    for variable, keys in VARIABLES.items():
        for key in keys:
            _overlay(tree, key.split("."), env.get(variable, ""), variable, origins)
    for variable in sorted(env):
        if variable.startswith(GENERIC_PREFIX):
            keys_path = _spelled(variable.removeprefix(GENERIC_PREFIX).split("__"), tree)
            _overlay(tree, keys_path, env[variable], variable, origins)
    try:
        return Settings(**tree)
    except ValidationError as error:
        raise _explained(error, path, origins) from None  # the cause would show the values, secrets among them


def required(value: T | None, key: str) -> T:
    """Return the value of a key that this process cannot do without.

    Raises:
        Invalid: ``invalid_settings`` if it is not set, naming the variable that sets it.
    """
    if value is None:
        names = [name for name, keys in VARIABLES.items() if key in keys]
        raise _invalid({key: ("missing_field", f"is not set: set {names[0] if names else _generic(key)}")})
    return value


def leaves(group: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, type[BaseModel], str]]:
    """Yield ``(key, group, field)`` of every single setting; ``services.<name>`` stands for any name."""
    for name, field in group.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from leaves(kind, f"{prefix}{name}.")
        elif kind == dict[str, CalledService]:
            yield from leaves(CalledService, f"{prefix}{name}.<name>.")
        else:
            yield prefix + name, group, name


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(CONFIG_BYTES_MAX + 1)
        if len(text) > CONFIG_BYTES_MAX:
            raise _invalid({str(path): ("invalid_value", f"is larger than {CONFIG_BYTES_MAX} bytes")})
        tree = yaml.safe_load(text)
    except OSError as error:
        raise _invalid({str(path): ("invalid_value", f"cannot be read: {error.strerror}")}) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise _invalid({str(path): ("invalid_value", f"is not YAML{where}")}) from None
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
        raise _invalid({str(path): ("wrong_type", "must hold a mapping of sections")})
    return tree


def _overlay(tree: dict[str, Any], path: list[str], value: str, source: str, origins: dict[str, str]) -> None:
    """Set one key from a variable; an empty value counts as unset."""
    if not value:
        return
    node = tree
    for part in path[:-1]:
        if node.get(part) is None:
            node[part] = {}
        node = node[part]
        if not isinstance(node, dict):
            return  # the file holds a value where a section belongs: validation says so
    node[path[-1]] = value
    origins[".".join(path)] = source


def _spelled(parts: list[str], tree: Mapping[str, Any]) -> list[str]:
    """Find the keys that a variable means: lower case, and ``AI_SERVICE`` is ``ai-service`` if that is known."""
    path = [part.lower() for part in parts]
    if path[0] == "services" and len(path) > 1:
        known = {name.replace("-", "_"): name for name in (tree.get("services") or {})}
        path[1] = known.get(path[1], path[1])
    return path


def _explained(error: ValidationError, path: Path, origins: Mapping[str, str]) -> Invalid:
    """Turn pydantic's findings into sentences about keys; values are never repeated, they may be secrets."""
    found: dict[str, tuple[str, str]] = {}
    for item in error.errors(include_url=False, include_input=False):
        key = ".".join(str(part) for part in item["loc"])
        source = next((origins[k] for k in origins if k == key or k.startswith(f"{key}.")), str(path))
        if item["type"] == "extra_forbidden":
            found[key] = ("unknown_field", f"is not a setting{_nearest(key)} (set by {source})")
        elif item["type"] == "missing":
            found[key] = ("missing_field", f"is not set: set it in {path} or by {_generic(key)}")
        else:
            message = item["msg"].removeprefix("Value error, ")
            found[key] = ("invalid_value", f"{message[:1].lower()}{message[1:]} (set by {source})")
    return _invalid(found)


def _nearest(key: str) -> str:
    known = {leaf for leaf, _, _ in leaves()} | {leaf.rpartition(".")[0] for leaf, _, _ in leaves()}
    close = difflib.get_close_matches(key, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _generic(key: str) -> str:
    return GENERIC_PREFIX + key.replace("-", "_").replace(".", "__").upper()


def _invalid(found: Mapping[str, tuple[str, str]]) -> Invalid:
    faults = [Fault("/" + key.replace(".", "/"), code, f"{key} {detail}") for key, (code, detail) in found.items()]
    return Invalid(
        "The settings are not valid: " + "; ".join(fault.detail for fault in faults),
        code="invalid_settings",
        faults=faults,
    )
