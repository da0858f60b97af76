"""Write the reference pages that follow from the code: ``make docs``. A test fails when one is stale.

Each page is a pure function of the code; ``PAGES`` maps its path below ``docs/`` to that function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from domain.errors import CATALOGUE
from settings import VARIABLES, leaves, load_settings

HERE = Path(__file__).parent


SETTINGS_HEAD = """\
# Settings

<!-- Written by docs/generate.py from sections.py; change it there, then `make docs`. -->

Settings are read once, when a process starts. Three layers, later ones win: the defaults below,
`config/studio.yaml` (or the file that `STUDIO_CONFIG` names), the environment. Any key can be set by a
variable: `STUDIO__`, then the key in capitals with `__` for each dot and `_` for a hyphen, as in
`STUDIO__PROVIDERS__RETRY_POLICY__MAX_ATTEMPTS=5`. Some keys also have a variable with a name of its own,
listed here. An empty variable counts as unset. A key that nothing knows is an error that names it.

Durations are a number and a unit: `500ms`, `30s`, `5m`, `2h`, `30d`. Sizes are bytes. Secrets are never
printed; give them by the environment, not in the file.
"""

ERRORS_HEAD = """\
# Errors

<!-- Written by docs/generate.py from domain/errors.py; change it there, then `make docs`. -->

Every error, over HTTP, on the command line and on a run, is one of these codes. An HTTP answer is a problem
document (RFC 9457, `application/problem+json`) whose `type` is a page about the code; `errors` points at
each field that is wrong (`pointer`, a JSON Pointer of RFC 6901) and says how to mend it.

| code | title | what to do | repeat |
|---|---|---|---|
"""


def settings_page() -> str:
    """List every setting: key, type, default, variable, meaning."""
    lines = [SETTINGS_HEAD.rstrip()]
    section = ""
    variables = {name: _generalised(keys) for name, keys in VARIABLES.items()}
    for key, group, field in leaves():
        if key.removesuffix(f".{field}") != section:
            section = key.removesuffix(f".{field}")
            lines += ["", f"## {section}", "", _sentence(group), ""]
            lines += ["| key | type | default | variable | meaning |", "|---|---|---|---|---|"]
        named = [f"`{name}`" for name, keys in variables.items() if key in keys]
        lines.append(_setting_row(key, group.model_fields[field], " ".join(named)))
    return "\n".join([*lines, ""])


def errors_page() -> str:
    """List every problem code: title, what to do, whether the same request may succeed later."""
    rows = (
        f"| `{code}` | {kind.title} | {kind.hint} | {'yes' if kind.retryable else 'no'} |\n"
        for code, kind in sorted(CATALOGUE.items())
    )
    return ERRORS_HEAD + "".join(rows)


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/settings.md": settings_page,
    "reference/errors.md": errors_page,
}


def _sentence(group: type[BaseModel]) -> str:
    return (group.__doc__ or "").strip().replace("``", "`")


def _setting_row(key: str, info: FieldInfo, variables: str) -> str:
    default = "required" if info.is_required() else _value(info.default)
    return f"| `{key}` | {_kind(info.annotation)} | {default} | {variables} | {info.description} |"


def _generalised(keys: tuple[str, ...]) -> set[str]:
    """Replace the names that the shipped file gives its services by ``<name>``."""
    services = load_settings({}).services
    return {key.replace(f"services.{name}.", "services.<name>.") for key in keys for name in services} | set(keys)


def _kind(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{choice}`" for choice in get_args(annotation))
    options = [option for option in get_args(annotation) if option is not NoneType] or [annotation]
    names = {str: "text", int: "integer", float: "number", bool: "`true` or `false`"}
    return names.get(options[0]) or {timedelta: "duration", SecretStr: "secret", Path: "folder"}[options[0]]


def _value(value: Any) -> str:
    if value is None:
        return "unset"
    if isinstance(value, timedelta):
        return f"`{value.total_seconds():g}s`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def main() -> None:
    """Write every generated page."""
    for path, page in PAGES.items():
        (HERE / path).write_text(page())


if __name__ == "__main__":
    main()
