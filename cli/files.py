"""Files and blobs: what a file becomes, and under which name a blob is safe on every system."""

from __future__ import annotations

import hashlib
import json
import mimetypes
import os
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

MANIFEST = "manifest.json"
"""What export writes beside the files; import leaves it out."""
MANIFEST_KIND = "memmie-studio-export"
DOCUMENT_BYTES_MAX = 4 * 2**20
"""Texts up to this size go along with others in a batch; what is larger, or binary, is sent by itself."""
JSON_BYTES_MAX = 12 * 2**20
"""JSON is always a document; beyond, no body of a request holds it."""
FILE_BYTES_MAX = 256 * 2**20
"""A larger file is an upload of its own."""
TITLE_CHARACTERS_MAX = 500
TAGS_MAX = 50
TAG_CHARACTERS_MAX = 100
HEADING_BYTES = 4_096
"""How far into a text its first heading is looked for."""
NAME_BYTES_MAX = 120
DEPTH_MAX = 32
TEXTS = {
    ".md": "text/markdown", ".markdown": "text/markdown", ".txt": "text/plain", ".rst": "text/plain",
    ".json": "application/json", ".csv": "text/csv", ".yaml": "text/yaml", ".yml": "text/yaml", ".log": "text/plain",
}  # fmt: skip
SUFFIXES = {"text/markdown": ".md", "text/plain": ".txt", "application/json": ".json", "text/yaml": ".yaml"}

_HEADING = re.compile(r"^#{1,6}[ \t]+(.+?)[ \t]*#*[ \t\r]*$", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_UNSAFE = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f-\x9f]|[\u202a-\u202e\u2066-\u2069]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)


class NotImported(Exception):
    """Why a file cannot become a blob."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A file below the folder; ``path`` is relative, with slashes."""

    path: str
    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """A file as it was read: a text, a JSON value, or bytes of a type."""

    content_type: str
    data: bytes
    body: Mapping[str, Any] | None
    """``content`` or ``data`` of a document; None: it is sent as it is."""
    title: str

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, in hexadecimal."""
        return hashlib.sha256(self.data).hexdigest()


def walk(folder: Path) -> Iterator[Found | tuple[str, str]]:
    """Yield the files below a folder in the order of their names, and ``(path, why)`` of what is left out.

    Links are not followed, so nothing outside is read and no loop is entered; hidden names are left out.
    """
    for at, folders, names in os.walk(folder, followlinks=False):
        here = Path(at)
        folders.sort()
        for name in [*folders]:
            if name.startswith(".") or (here / name).is_symlink():
                folders.remove(name)
                yield _relative(folder, here / name), "hidden" if name.startswith(".") else "link"
        for name in sorted(names):
            file = here / name
            path = _relative(folder, file)
            if name.startswith("."):
                yield path, "hidden"
            elif file.is_symlink():
                yield path, "link"
            elif not file.is_file():
                yield path, "no regular file"
            elif path != MANIFEST or not _is_manifest(file):
                yield Found(path=path, file=file)


def read(found: Found) -> Content:
    """Read a file as what it is. Raises NotImported."""
    try:
        found.path.encode()
    except UnicodeEncodeError:
        raise NotImported("invalid_value", "Its name is not UTF-8.") from None
    try:
        size = found.file.stat().st_size
        if size > FILE_BYTES_MAX:
            raise NotImported("content_too_large", f"It has {size} bytes; import takes files of {FILE_BYTES_MAX}.")
        data = found.file.read_bytes()
    except OSError as error:
        raise NotImported("unreadable", f"It cannot be read: {error.strerror}.") from None
    kind = _type_of(found.file.name, data)
    stem = PurePosixPath(found.path).stem
    if kind == "application/json" or kind.endswith("+json"):
        return Content(content_type=kind, data=data, body={"data": _json(data)}, title=_line(stem))
    if not kind.startswith("text/"):
        return Content(content_type=kind, data=data, body=None, title=_line(found.file.name))
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise NotImported("not_utf8", f"It is no UTF-8 text: byte {error.start}.") from None
    body = {"content": text} if len(data) <= DOCUMENT_BYTES_MAX else None
    heading = _HEADING.search(text[:HEADING_BYTES]) if kind == "text/markdown" else None
    return Content(content_type=kind, data=data, body=body, title=_line(heading[1] if heading else stem))


def tags_of(path: str) -> list[str]:
    """Return the folders of a path as tags."""
    names = (_CONTROL.sub(" ", name).strip()[:TAG_CHARACTERS_MAX] for name in PurePosixPath(path).parent.parts)
    return list(dict.fromkeys(name for name in names if name))[:TAGS_MAX]


def safe_path(blob: Mapping[str, Any]) -> str:
    """Return the relative path of a blob's file: where it was imported from, else its title; safe on every system."""
    suffix = suffix_of(str(blob["content_type"]))
    told = (blob.get("metadata") or {}).get("path")
    if isinstance(told, str):
        parts = [part for part in told.replace("\\", "/").split("/") if part not in {"", ".", ".."}]
        if 0 < len(parts) <= DEPTH_MAX:
            return "/".join(_safe(part) for part in parts)
    words = str(blob.get("title") or blob.get("preview") or blob["id"]).strip().partition("\n")[0]
    return _safe(words if words.lower().endswith(suffix) else words[:80] + suffix)


def suffix_of(content_type: str) -> str:
    """Return the suffix of a file of this type."""
    kind = content_type.partition(";")[0].strip().lower()
    return SUFFIXES.get(kind) or (".json" if kind.endswith("+json") else mimetypes.guess_extension(kind) or ".bin")


def folded(path: str) -> str:
    """Return what two names have in common that are one file on some system."""
    return unicodedata.normalize("NFC", path).casefold()


def _safe(name: str) -> str:
    clean = _UNSAFE.sub("_", unicodedata.normalize("NFC", name)).strip().rstrip(". ")
    clean = "_" + clean[1:] if clean.startswith(".") else clean
    clean = f"_{clean}" if _RESERVED.match(clean) or folded(clean) == MANIFEST else clean
    stem, dot, suffix = clean.rpartition(".")
    stem, suffix = (stem, dot + suffix) if dot and stem and len(suffix) <= 10 else (clean, "")  # noqa: PLR2004
    room = NAME_BYTES_MAX - len(suffix.encode())
    return (stem.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").rstrip(". ") or "_") + suffix


def _type_of(name: str, data: bytes) -> str:
    suffix = Path(name).suffix.lower()
    kind = TEXTS.get(suffix) or mimetypes.guess_type(name)[0]
    if kind is not None:
        return kind
    # A name that says nothing: README, LICENSE, Makefile.
    try:
        return "application/octet-stream" if "\0" in data.decode() else "text/plain"
    except UnicodeDecodeError:
        return "application/octet-stream"


def _json(data: bytes) -> Any:
    if len(data) > JSON_BYTES_MAX:
        raise NotImported("content_too_large", f"A JSON document has at most {JSON_BYTES_MAX} bytes.")
    try:
        return json.loads(data.decode(), object_pairs_hook=_once, parse_constant=_refused)
    except UnicodeDecodeError as error:
        raise NotImported("not_utf8", f"It is no UTF-8 text: byte {error.start}.") from None
    except (ValueError, RecursionError) as error:
        raise NotImported("unparsable_body", f"It is not JSON: {error}.") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is there twice")
    return found


def _refused(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")


def _line(text: str) -> str:
    return _CONTROL.sub(" ", text).strip()[:TITLE_CHARACTERS_MAX]


def _relative(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()


def _is_manifest(file: Path) -> bool:
    try:
        known = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(known, dict) and known.get("kind") == MANIFEST_KIND
