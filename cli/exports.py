"""``studio blob export``: blobs become files, each written whole or not at all; what is there already stays."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from cli.files import MANIFEST, MANIFEST_KIND, folded, safe_path, suffix_of
from cli.progress import progress

if TYPE_CHECKING:
    from sdk.client import Studio

SAVE_EVERY = 500
"""Blobs after which the manifest is written: names outlive an interruption."""
ID_CHARACTERS = 12
"""Of an id, from its end: what tells two files of one name apart."""


@dataclass(slots=True)
class Report:
    """What became of the blobs of an export."""

    exported: int = 0
    unchanged: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


class NotExported(Exception):
    """Why a blob cannot become a file."""


async def export_folder(studio: Studio, folder: Path, filters: Mapping[str, Any]) -> Report:
    """Export blobs into a folder; raises ApiProblem when the API refuses the list."""
    export = _Export(studio, folder)
    with progress("Exporting", None) as advance:
        async for blob in studio.blobs(**filters):
            await export.take(blob)
            advance(1)
    export.save()
    return export.report


class _Export:
    """One export: which names are taken, which files are there, what the manifest says."""

    def __init__(self, studio: Studio, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        self._studio = studio
        self._folder = folder
        self._known = {str(entry["id"]): str(entry["path"]) for entry in _entries(folder / MANIFEST)}
        self._files: set[str] = {MANIFEST}
        self._folders: set[str] = set()
        for path in self._known.values():
            self._take(path)
        self._entries: dict[str, dict[str, Any]] = {}
        self.report = Report()

    async def take(self, blob: Mapping[str, Any]) -> None:
        """Write a blob's file, unless the one there has the same bytes."""
        from sdk.problems import ApiProblem  # noqa: PLC0415 - the command's help need not pay for it

        path = self._path_of(blob)
        try:
            written = await self._written(blob, self._folder / PurePosixPath(path))
        except (NotExported, OSError, ApiProblem) as error:
            if isinstance(error, ApiProblem) and error.retryable:
                raise
            self.report.failed.append({"id": blob["id"], "path": path, "detail": str(error)})
            return
        self.report.exported += written
        self.report.unchanged += not written
        self._entries[blob["id"]] = {
            "id": blob["id"], "version": blob["version"], "hash": blob["content_hash"], "path": path,
        }  # fmt: skip
        if len(self._entries) % SAVE_EVERY == 0:
            self.save()

    def save(self) -> None:
        """Write the manifest of what is here."""
        entries = sorted(self._entries.values(), key=lambda entry: entry["path"])
        manifest = {"kind": MANIFEST_KIND, "blobs": entries}
        _write(self._folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=1).encode())

    async def _written(self, blob: Mapping[str, Any], file: Path) -> bool:
        self._require_inside(file)
        if _digest(file) == blob["content_hash"]:
            return False
        if isinstance(blob.get("content"), str):
            data = blob["content"].encode()
        else:
            data = await self._studio.get_content(blob["id"], version=blob["version"])
        if _digest_of(data) != blob["content_hash"]:
            raise NotExported("What arrived is not what the blob's hash names.")
        file.parent.mkdir(parents=True, exist_ok=True)
        self._require_inside(file)
        _write(file, data)
        return True

    def _require_inside(self, file: Path) -> None:
        """Raise NotExported if a link on the way leads out of the folder."""
        if not file.parent.resolve().is_relative_to(self._folder):
            raise NotExported("A link in the folder leads out of it.")
        if file.is_dir() and not file.is_symlink():
            raise NotExported("There is a folder of that name.")

    def _path_of(self, blob: Mapping[str, Any]) -> str:
        """Return the name that the blob had before, else one that no other file has on any system."""
        known = self._known.get(blob["id"])
        if known is not None:
            return known
        wanted = PurePosixPath(safe_path(blob))
        told = wanted.with_name(f"{wanted.stem}-{blob['id'][-ID_CHARACTERS:]}{wanted.suffix}")
        last = PurePosixPath("blobs") / f"{blob['id']}{suffix_of(blob['content_type'])}"
        path = next((str(path) for path in (wanted, told) if self._free(str(path))), str(last))
        self._take(path)
        return path

    def _free(self, path: str) -> bool:
        name = folded(path)
        above = {str(parent) for parent in PurePosixPath(name).parents}
        return name not in self._files and name not in self._folders and not above & self._files

    def _take(self, path: str) -> None:
        name = folded(path)
        self._files.add(name)
        self._folders |= {str(parent) for parent in PurePosixPath(name).parents}


def _entries(manifest: Path) -> list[Any]:
    """Return the entries of an earlier export, as far as their paths are ours and stay inside."""
    try:
        told = json.loads(manifest.read_bytes())
        if told["kind"] != MANIFEST_KIND:
            return []
        return [entry for entry in told["blobs"] if _is_ours(entry["path"]) and isinstance(entry["id"], str)]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _is_ours(path: Any) -> bool:
    return isinstance(path, str) and safe_path({"content_type": "", "metadata": {"path": path}}) == path


def _digest(file: Path) -> str | None:
    try:
        if file.is_symlink():
            return None
        with file.open("rb") as content:
            return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
    except OSError:
        return None


def _digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all; a link in its place is replaced, not followed."""
    handle, name = tempfile.mkstemp(prefix=".studio-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as temporary:
            temporary.write(data)
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
