"""How stored bytes are packed: ``zstd`` above a kilobyte where it helps, else ``identity``."""

from __future__ import annotations

import asyncio

import zstandard

from domain.errors import StudioError

IDENTITY = "identity"
ZSTD = "zstd"
PACKED_BYTES_MIN = 1_024
"""Smaller content is left as it is."""
HELPS = 0.9
"""Packed content is kept if it has at most this part of the size."""
LEVEL = 3
THREAD_BYTES_MIN = 65_536
"""Beyond, packing and unpacking leave the event loop alone (a megabyte takes some milliseconds)."""


async def encoded(data: bytes) -> tuple[str, bytes]:
    """Return the codec chosen and the bytes to be stored."""
    if len(data) < PACKED_BYTES_MIN:
        return IDENTITY, data
    packed = await asyncio.to_thread(_pack, data) if len(data) >= THREAD_BYTES_MIN else _pack(data)
    return (ZSTD, packed) if len(packed) <= HELPS * len(data) else (IDENTITY, data)


async def decoded(codec: str, stored: bytes, *, size: int) -> bytes:
    """Return the bytes that were stored; never more than ``size``. Raises StudioError ``integrity``."""
    if codec == IDENTITY:
        return stored
    if size >= THREAD_BYTES_MIN:
        return await asyncio.to_thread(_unpack, stored, size)
    return _unpack(stored, size)


def _pack(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=LEVEL).compress(data)


def _unpack(stored: bytes, size: int) -> bytes:
    try:
        if zstandard.frame_content_size(stored) != size:
            raise StudioError("Stored content does not unpack to its size.", code="integrity")
        return zstandard.ZstdDecompressor().decompress(stored)
    except zstandard.ZstdError as error:
        raise StudioError("Stored content cannot be unpacked.", code="integrity") from error
