"""Quotas before a write: what is large is looked at before it goes to the object store."""

from __future__ import annotations

from uuid import UUID

from api.deps import Ports

ROOM_BYTES_MIN = 65_536
"""Growth from which on the quota is looked at before the write; the write itself is always checked, under its lock."""


async def require_room(ports: Ports, user_id: UUID, growth: int) -> None:
    """Raise Forbidden ``storage_quota_exceeded`` if so many bytes more do not fit as things stand."""
    if growth >= ROOM_BYTES_MIN:
        await ports.users.require_room(user_id, growth)
