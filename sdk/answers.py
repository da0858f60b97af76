"""What the API answered to one request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_CASCADE = re.compile(r'/cascades/([0-9a-f-]{36})>; rel="cascade"')
_ETAG = re.compile(r'"v(\d+)"')


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer. ``body`` is its JSON (None without one), ``content`` its bytes."""

    status: int
    headers: Mapping[str, str]
    body: Any
    content: bytes

    def __getitem__(self, name: str) -> Any:
        """Return a member of the body."""
        return self.body[name]

    @property
    def etag(self) -> str | None:
        """Return the ETag, as ``If-Match`` wants it."""
        return self.headers.get("etag")

    @property
    def version(self) -> int | None:
        """Return the version that the ETag names."""
        found = _ETAG.fullmatch(self.etag or "")
        return int(found[1]) if found else None

    @property
    def cascade_id(self) -> str | None:
        """Return the cascade that a write set in motion, None if it changed nothing that others follow."""
        found = _CASCADE.search(self.headers.get("link", ""))
        return found[1] if found else None

    @property
    def location(self) -> str | None:
        """Return the path of what was made."""
        return self.headers.get("location")
