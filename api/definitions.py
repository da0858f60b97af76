"""Reading what registers things: definitions and providers, as JSON or as the YAML that people write."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from fastapi import Request

from api.bodies import JSON, parsed, read_body, require_media
from api.deps import Ports
from domain.definitions import Definition, parse_definition
from domain.errors import Malformed
from domain.ids import UserId
from domain.schemas import Schema, canonical_slug
from domain.yaml_text import parse_yaml

YAML = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")
MEDIA = (JSON, *YAML)
REFERENCES_MAX = 5_000
_SLUG_AT_END = re.compile(r"[A-Za-z0-9-]{1,100}\Z")


async def read_registration(request: Request) -> tuple[Any, str]:
    """Return the parsed body, JSON or YAML by its media type, and its text."""
    media = require_media(request, MEDIA)
    body = await read_body(request)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Malformed("The body is not UTF-8.") from None
    if "\0" in text:
        raise Malformed("The body holds a NUL character.")
    return (parsed(body) if media == JSON else parse_yaml(text)), text


async def checked_definition(ports: Ports, user_id: UserId, raw: Any) -> Definition:
    """Return the definition, or raise Invalid with every fault at once."""
    schemas = await schemas_named(ports, user_id, raw)
    return parse_definition(raw, services=ports.services, schemas=schemas, pure=ports.pure_services)


async def schemas_named(ports: Ports, user_id: UserId, raw: Any) -> Callable[[str], Schema | None]:
    """Return a lookup of every schema that the text might name, read in one query."""
    names = [name for _, name in zip(range(REFERENCES_MAX), _references(raw), strict=False)]
    known = await ports.schemas.known(user_id, list(dict.fromkeys(names)))
    return lambda reference: known.get(canonical_slug(reference))


def _references(raw: Any) -> Iterator[str]:
    """Yield every text that might name a schema, by itself or at the end of a pattern (``blob.created.X``)."""
    pending: list[Any] = [raw]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
        elif isinstance(value, str) and (match := _SLUG_AT_END.search(value)):
            yield match[0]
