"""The object store in a folder: for one machine, or a shared file system that renames atomically.

An object is written beside its place, flushed to the disk, then renamed: a reader sees the whole of it or nothing,
whatever is killed. What a kill leaves is listed like an object that no row names, and so is collected like one.
Nothing here blocks the event loop; files are touched in threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from domain.errors import Unavailable
from storage.objects import LISTED_MAX, PIECE_BYTES, PartsLost, Stored, checked_key, lost

_OBJECTS = "objects"
_PARTS = "parts"
_UNFINISHED = "unfinished-"
_PART_DIGITS = 5


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unavailable(f"The content store does not answer: {error.strerror}.") from error


class FileObjects:
    """Objects below one folder, which is made at first use."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, data: bytes) -> None:
        """Store an object. Raises Unavailable if the file system does not take it."""
        await asyncio.to_thread(_write, self._place(key), lambda file: file.write(data))

    async def get(self, key: str) -> bytes:
        """Return an object. Raises StudioError ``integrity`` if it is gone."""
        return b"".join([piece async for piece in self.open(key)])

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes of a range. Raises StudioError ``integrity`` if it is gone."""
        place = self._place(key)
        while end is None or start < end:
            wanted = PIECE_BYTES if end is None else min(PIECE_BYTES, end - start)
            piece = await asyncio.to_thread(_read, key, place, start, wanted)
            if not piece:
                return
            yield piece
            start += len(piece)

    async def stat(self, key: str) -> Stored | None:
        """Return size and time of an object, None if it is not there."""
        return await asyncio.to_thread(_stat, key, self._place(key))

    async def begin(self, key: str) -> str:
        """Make a folder for the parts."""
        upload = uuid4().hex
        with _in_our_words():
            await asyncio.to_thread((self._parts(key) / upload).mkdir, parents=True)
        return upload

    async def part(self, key: str, upload: str, number: int, data: bytes | bytearray) -> str:
        """Store one part; its tag is its hash."""
        folder = self._parts(key) / upload

        def write() -> str:
            if not folder.is_dir():
                raise PartsLost("The content store does not know this upload.")
            tag = hashlib.sha256(data).hexdigest()
            # The tag is in the name: replacing a part and finishing at the same time cannot mix two of them.
            place = folder / f"{number:0{_PART_DIGITS}}-{tag}"
            _write(place, lambda file: file.write(data))
            for older in folder.glob(f"{number:0{_PART_DIGITS}}-*"):
                if older != place:
                    older.unlink(missing_ok=True)
            return tag

        return await asyncio.to_thread(write)

    async def finish(self, key: str, upload: str, parts: Sequence[tuple[int, str]]) -> None:
        """Join the parts to the object; the parts go last, so that a crash before lets it be done again."""
        folder = self._parts(key) / upload

        def copy(file: BinaryIO) -> None:
            for number, tag in parts:
                with (folder / f"{number:0{_PART_DIGITS}}-{tag}").open("rb") as part:
                    shutil.copyfileobj(part, file, PIECE_BYTES)

        def join() -> None:
            if not all((folder / f"{number:0{_PART_DIGITS}}-{tag}").is_file() for number, tag in parts):
                raise PartsLost("The content store does not have every part.")
            _write(self._place(key), copy)
            shutil.rmtree(folder, ignore_errors=True)
            _remove_empty(folder.parent, self._folder / _PARTS)

        await asyncio.to_thread(join)

    async def abort(self, key: str) -> None:
        """Remove the folder of the parts."""
        folder = self._parts(key)

        def remove() -> None:
            shutil.rmtree(folder, ignore_errors=True)
            _remove_empty(folder.parent, self._folder / _PARTS)

        await asyncio.to_thread(remove)

    async def delete(self, key: str) -> None:
        """Remove a file, and the folders that are empty without it."""
        place = self._place(key)

        def remove() -> None:
            place.unlink(missing_ok=True)
            _remove_empty(place.parent, self._folder / _OBJECTS)

        with _in_our_words():
            await asyncio.to_thread(remove)

    async def list(self, prefix: str = "", after: str = "") -> Sequence[Stored]:
        """Return one page of objects in the order of keys."""
        root = self._folder / _OBJECTS

        def page() -> list[Stored]:
            wanted = (key for key in _keys(root, "", after) if key.startswith(prefix) and key > after)
            found = (_stat(key, root / key) for key in wanted)
            return list(islice((stored for stored in found if stored is not None), LISTED_MAX))

        with _in_our_words():
            return await asyncio.to_thread(page)

    async def check(self) -> None:
        """Write a file and remove it. Raises Unavailable."""

        def probe() -> None:
            place = self._folder / f"check-{uuid4().hex}"
            _write(place, lambda file: file.write(b""))
            place.unlink()

        with _in_our_words():
            await asyncio.to_thread(probe)

    async def close(self) -> None:
        """Nothing is held open between calls."""

    def _place(self, key: str) -> Path:
        return self._folder / _OBJECTS / checked_key(key)

    def _parts(self, key: str) -> Path:
        return self._folder / _PARTS / checked_key(key)


def _write(place: Path, fill: Callable[[BinaryIO], object]) -> None:
    """Write a file whole or not at all."""
    beside = place.with_name(_UNFINISHED + uuid4().hex)
    with _in_our_words():
        try:
            with _new_file(beside) as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
        _flush(place.parent)


def _new_file(place: Path) -> BinaryIO:
    while True:
        place.parent.mkdir(parents=True, exist_ok=True)
        # A delete may take the folder away as empty between these two lines.
        with suppress(FileNotFoundError):
            return place.open("xb")


def _flush(folder: Path) -> None:
    """Flush a folder: a renamed file survives a power cut only with the entry that names it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read(key: str, place: Path, start: int, size: int) -> bytes:
    with _in_our_words():
        try:
            with place.open("rb") as file:
                file.seek(start)
                return file.read(size)
        except FileNotFoundError as error:
            raise lost(key) from error


def _stat(key: str, place: Path) -> Stored | None:
    with _in_our_words():
        try:
            found = place.stat()
        except FileNotFoundError:
            return None
    return Stored(key, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))


def _keys(folder: Path, above: str, after: str) -> Iterator[str]:
    """Yield the keys below a folder in their order, leaving out folders that lie whole before ``after``."""
    try:
        entries = sorted((entry.name + "/" * entry.is_dir(), entry.is_dir()) for entry in os.scandir(folder))
    except FileNotFoundError:
        return
    for name, is_folder in entries:
        key = above + name
        if not is_folder:
            yield key
        elif key >= after[: len(key)]:
            yield from _keys(folder / name, key, after)


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:  # something is in it, or somebody else was faster
            return
        folder = folder.parent
