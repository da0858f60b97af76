"""Quotas: how many bytes a user may have, and what is said to who wants more.

What counts is the current content of every blob, deleted ones too, for their history stays readable; and what open
uploads have reserved. A write that makes this grow beyond the quota is refused before anything is stored; one that
shrinks it always passes, even over the quota.
"""

from __future__ import annotations

from dataclasses import dataclass

from domain.errors import Forbidden

QUOTA_BYTES_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a user has and may have, in bytes; ``quota`` None: as much as there is room for."""

    used: int
    reserved: int = 0
    quota: int | None = None

    @property
    def free(self) -> int | None:
        """Bytes that are left, never less than none; None: no quota."""
        return None if self.quota is None else max(0, self.quota - self.used - self.reserved)

    def require(self, growth: int) -> None:
        """Raise Forbidden ``storage_quota_exceeded`` if so many bytes more do not fit."""
        if self.free is not None and growth > 0 and growth > self.free:
            raise quota_exceeded(self, growth)


def quota_exceeded(usage: Usage, needed: int) -> Forbidden:
    """Return the error of a write that needs more bytes than are left."""
    members = {"used": usage.used, "reserved": usage.reserved, "quota": usage.quota, "needed": needed}
    detail = f"{needed} bytes more do not fit: {usage.used + usage.reserved} of {usage.quota} bytes are taken."
    return Forbidden(detail, code="storage_quota_exceeded", members=members)
