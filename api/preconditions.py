"""Request headers that change what a request means: If-Match, If-None-Match, Prefer, Idempotency-Key."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import Request

from domain.errors import Fault, Invalid, Malformed, PreconditionRequired, StudioError, VersionConflict

_TAG = re.compile(r'(W/)?"([\x21\x23-\x7e\x80-\xff]*)"')
_VERSION_TAG = re.compile(r"v([1-9][0-9]{0,9})")
_WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?=$|[,;\s])", re.IGNORECASE)
_KEY_BARE = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*")
_KEY_QUOTED = re.compile(r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"')
_ESCAPED = re.compile(r'\\(["\\])')
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)
_BLANK_SIGN = re.compile(r" (\d\d:\d\d)$")
KEY_CHARACTERS_MAX = 255


@dataclass(frozen=True, slots=True)
class IfMatch:
    """What ``If-Match`` allows: ``any`` (``*``), else exactly these versions; weak tags never match (RFC 9110)."""

    any: bool
    versions: frozenset[int]

    def allows(self, version: int) -> bool:
        """Tell whether a resource at this version may be changed."""
        return self.any or version in self.versions


def _tags(request: Request, name: str) -> list[tuple[bool, str]] | None:
    """Return the entity tags of a header as (weak, opaque); None if the header is absent, [(…, "*")] for ``*``."""
    value = request.headers.get(name)
    if value is None:
        return None
    value = value.strip()
    if value == "*":
        return [(False, "*")]
    found: list[tuple[bool, str]] = []
    for part in value.split(","):
        match = _TAG.fullmatch(part.strip())
        if match is None:
            raise invalid_header(name, f'{name} is * or a list of entity tags such as "v3".')
        found.append((match[1] is not None, match[2]))
    return found


def invalid_header(name: str, detail: str) -> Malformed:
    """Return the error of a header that cannot be read."""
    return Malformed(detail, code="invalid_header", faults=[Fault(f"/header/{name.lower()}", "invalid_header", detail)])


def if_match(request: Request, *, required: bool = False) -> IfMatch | None:
    """Return ``If-Match``; None if absent. Raises PreconditionRequired if absent and required, Malformed."""
    tags = _tags(request, "If-Match")
    if tags is None:
        if required:
            raise PreconditionRequired('Send If-Match with the ETag you read, such as "v3", or *.')
        return None
    versions = (_VERSION_TAG.fullmatch(tag) for weak, tag in tags if not weak)
    return IfMatch((False, "*") in tags, frozenset(int(match[1]) for match in versions if match))


def not_modified(request: Request, tag: str) -> bool:
    """Tell whether ``If-None-Match`` names this entity tag (weak comparison), so that 304 is the answer."""
    tags = _tags(request, "If-None-Match")
    return tags is not None and any(given in {"*", tag.strip('"')} for _, given in tags)


def moved_on(version: int, deltas_url: str, *, by_header: bool) -> StudioError:
    """Return the error of a stale version: 412 if a header named it, 409 if the body did."""
    members = {"current_version": version, "current_etag": f'"v{version}"', "deltas_url": deltas_url}
    detail = f"The current version is {version}."
    if by_header:
        return VersionConflict(detail, code="precondition_failed", members=members)
    return VersionConflict(detail, members=members)


def query_instant(request: Request, name: str) -> datetime | None:
    """Return an instant of the query string (RFC 3339), None if absent; raises Invalid ``invalid_value``.

    A plus sign that was not escaped arrives as a blank: it still is the offset's sign.
    """
    value = request.query_params.get(name)
    if value is None:
        return None
    with suppress(ValueError, OverflowError):  # the thirtieth of February, an hour before the first year
        if _INSTANT.fullmatch(value):
            return datetime.fromisoformat(_BLANK_SIGN.sub(r"+\1", value).upper()).astimezone(UTC)
    detail = f"{name} is an instant with its offset (RFC 3339), such as 2026-11-20T17:36:07Z."
    raise Invalid(detail, code="invalid_value", faults=[Fault(f"/query/{name}", "invalid_value", detail)])


def wait_seconds(request: Request, limit: float) -> float | None:
    """Return the seconds of ``Prefer: wait=N``, at most ``limit``; None if nothing is preferred."""
    for value in request.headers.getlist("prefer"):
        match = _WAIT.search(value)
        if match:
            return min(float(match[1]), limit)
    return None


def idempotency_key(request: Request) -> str | None:
    """Return the ``Idempotency-Key``: a string of RFC 8941, or bare visible characters; None if absent.

    Raises Malformed if it is neither, has more than 255 characters, or is sent twice.
    """
    values = request.headers.getlist("idempotency-key")
    if not values:
        return None
    value = values[0].strip()
    quoted = _KEY_QUOTED.fullmatch(value)
    key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else value
    if len(values) > 1 or not 0 < len(key) <= KEY_CHARACTERS_MAX or not (quoted or _KEY_BARE.fullmatch(value)):
        detail = f'Idempotency-Key is one string of 1 to {KEY_CHARACTERS_MAX} ASCII characters, such as "8e03978e".'
        raise invalid_header("Idempotency-Key", detail)
    return key
