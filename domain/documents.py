"""A blob's document: what people and programs write, what deltas change, what schemas and expressions see.

The patch root is ``{content_type, content | data | binary, title, tags, metadata}`` (CONTRACT, Documents):
``content`` is the text of a ``text/*`` document, ``data`` the JSON value of an ``application/json`` or ``+json``
one, ``binary`` (``{"hash", "size"}``) names the bytes of any other type, or of a text or JSON too large to be patched;
they are stored beside the document and never within it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from domain.canonical import (
    DEPTH_MAX,
    INTEGER_MAX,
    INTEGER_MIN,
    JSON_BYTES_MAX,
    canonical,
    canonical_of_valid,
    escaped,
    load,
    same,
)
from domain.errors import Fault, Invalid, StudioError, TooLarge

__all__ = [
    "CONTENT_TYPE_CHARACTERS_MAX",
    "DEPTH_MAX",
    "INTEGER_MAX",
    "INTEGER_MIN",
    "JSON_BYTES_MAX",
    "METADATA_BYTES_MAX",
    "PREVIEW_CHARACTERS",
    "TAGS_MAX",
    "TAG_CHARACTERS_MAX",
    "TITLE_CHARACTERS_MAX",
    "Document",
    "binary_hash",
    "body_bytes",
    "canonical",
    "content_hash",
    "content_size",
    "cutoff_hash",
    "document_hash",
    "escaped",
    "load",
    "meta_hash",
    "preview",
    "same",
    "visible",
]

CONTENT_TYPE_CHARACTERS_MAX = 255
TITLE_CHARACTERS_MAX = 500
TAGS_MAX = 50
TAG_CHARACTERS_MAX = 100
METADATA_BYTES_MAX = 64 * 1024
PREVIEW_CHARACTERS = 500

TEXT_DEFAULT = "text/plain"
JSON_DEFAULT = "application/json"
READABLE = ("content", "expanded", "text", "summary", "chapter", "outline", "body", "description", "title")
"""Members of ``data`` that say best, in this order, what a document is about: they become its preview."""
FIELDS = ("content_type", "content", "data", "binary", "title", "tags", "metadata")
BODIES = ("content", "data", "binary")
BINARY_SIZE_MAX = 2**53 - 1

_NAME = r"[A-Za-z0-9!#$&^_.+-]{1,127}"
_CONTENT_TYPE = re.compile(rf"({_NAME})/({_NAME})[ \t]*(;[ -~]*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Document:
    """One state of a blob's content. ``body`` is a text, a JSON value, or the reference ``{"hash", "size"}`` of bytes.

    ``kind`` says which: the name of the field of the patch root that holds the body.

    Build it with ``parse``, which checks it. Values are shared, never copied: nobody changes ``body`` or
    ``metadata`` in place.
    """

    content_type: str
    body: Any
    title: str = ""
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    binary: bool = False
    """Whether the body only names bytes."""
    _bytes: bytes | None = field(default=None, init=False, repr=False)
    _body_bytes: bytes | None = field(default=None, init=False, repr=False)
    _cutoff: tuple[Any, tuple[str, ...], str] | None = field(default=None, init=False, repr=False)

    @property
    def kind(self) -> str:
        """``content``, ``data`` or ``binary``."""
        if self.binary:
            return "binary"
        return "content" if _is_text(self.content_type) else "data"

    @property
    def is_text(self) -> bool:
        """Whether the body is text (``content``)."""
        return not self.binary and _is_text(self.content_type)

    @classmethod
    def parse(cls, value: Any) -> Document:
        """Check a document's JSON and return it; title, tags, metadata and content type may be left out.

        Raises Invalid with every fault of the fields at once, each with its pointer, or TooLarge
        (``content_too_large``, ``too_deep``) beyond the bounds.
        """
        if not isinstance(value, dict):
            raise _invalid([Fault("", "wrong_type", "A document is an object.")])
        faults = list(_faults(value))
        if faults:
            raise _invalid(faults)
        document = cls.stored(value)
        document.to_bytes()
        return document

    @classmethod
    def stored(cls, root: Mapping[str, Any], data: bytes | None = None) -> Document:
        """Return the document of a patch root that was checked before it was stored, as ``data`` if that is at hand."""
        content_type = _content_type_of(root)
        binary = "binary" in root
        document = cls(
            content_type=content_type,
            body=root["binary" if binary else "content" if _is_text(content_type) else "data"],
            binary=binary,
            title=root.get("title", ""),
            tags=tuple(root.get("tags", ())),
            metadata=root.get("metadata", {}),
        )
        object.__setattr__(document, "_bytes", data)
        return document

    def to_json(self) -> dict[str, Any]:
        """Return the patch root, every field present; its values are shared with the document."""
        return {
            "content_type": self.content_type,
            self.kind: self.body,
            "title": self.title,
            "tags": list(self.tags),
            "metadata": self.metadata,
        }

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the patch root: what is stored and hashed. Made once."""
        if self._bytes is None:
            # One level more than a value alone, for the root itself.
            object.__setattr__(self, "_bytes", canonical(self.to_json(), depth_max=DEPTH_MAX + 1))
        return self._bytes or b""

    def body_bytes(self) -> bytes:
        """Return the bytes of a body that is text or data; see the function of this name. Made once."""
        if self._body_bytes is None:
            self.to_bytes()  # which looks whether it is valid
            made = self.body.encode() if self.is_text else canonical_of_valid(self.body)
            object.__setattr__(self, "_body_bytes", made)
        return self._body_bytes or b""

    def cutoff_under(self, rule: Any, volatile: tuple[str, ...], made: Callable[[], str]) -> str:
        """Return the hash that cut-off compares under one rule, the schema's; made again only for another rule.

        A head is compared by each run that would replace it, and stays in memory from one edit to the next.
        """
        if self._cutoff is None or self._cutoff[0] is not rule or self._cutoff[1] != volatile:
            object.__setattr__(self, "_cutoff", (rule, volatile, made()))
        return self._cutoff[2] if self._cutoff else ""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Document) and same(self.to_json(), other.to_json()))

    def __hash__(self) -> int:
        return hash((self.content_type, self.title, self.tags))


def document_hash(data: bytes) -> str:
    """Return the name of stored bytes, ``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def body_bytes(document: Document) -> bytes:
    """Return the body as it is served: the text in UTF-8, or the canonical JSON of the data.

    Not of a binary document, whose bytes are elsewhere.
    """
    if document.binary:
        raise StudioError("The bytes of a binary document are not within it.")
    return document.body_bytes()


def content_hash(document: Document) -> str:
    """Return the hash of the body's bytes, title, tags and metadata left out."""
    if document.binary:
        return str(document.body["hash"])
    return document_hash(body_bytes(document))


def binary_hash(document: Document) -> str | None:
    """Return the hash of the bytes that a binary document names, None for others."""
    return str(document.body["hash"]) if document.binary else None


def content_size(document: Document) -> int:
    """Return the size of the body in bytes."""
    if document.binary:
        return int(document.body["size"])
    return len(body_bytes(document))


def cutoff_hash(document: Document, *, body: Any = None, reads: Collection[str] = ()) -> str:
    """Return the hash that early cut-off compares (CASCADES, rule 5).

    It covers the content type, the body, and of ``title``, ``tags``, ``metadata`` only what the provider declares
    in ``reads``. ``body`` is the body without the fields that the schema marks ``x-volatile``; None means that
    there are none (a body that really is null is the same either way).
    """
    root = document.to_json()
    covered = {name: root[name] for name in ("title", "tags", "metadata") if name in reads}
    covered["content_type"] = document.content_type
    covered["body"] = document.body if body is None else body
    document.to_bytes()  # which looks whether it is valid
    return document_hash(canonical_of_valid(covered))


def meta_hash(document: Document) -> str:
    """Return the hash of title, tags and metadata: what only providers that declare reading them look at."""
    document.to_bytes()  # which looks whether it is valid
    root = document.to_json()
    return document_hash(canonical_of_valid({name: root[name] for name in ("title", "tags", "metadata")}))


def visible(document: Document) -> Any:
    """Return what schemas and expressions see: ``{"content", "metadata"}`` of a text, else the data itself.

    Of a binary document ``{"binary", "content_type", "metadata"}``.
    """
    if document.binary:
        return {"binary": document.body, "content_type": document.content_type, "metadata": document.metadata}
    if document.is_text:
        return {"content": document.body, "metadata": document.metadata}
    return document.body


def preview(document: Document) -> str:
    """Return the first 500 characters of the text, or of the most readable text in the data, without NUL.

    PostgreSQL text holds no NUL; it is shown as U+FFFD.
    """
    if document.binary:
        return ""
    readable = document.body if document.is_text else _readable(document.body)
    return readable[:PREVIEW_CHARACTERS].replace("\0", "\ufffd")


def _readable(data: Any) -> str:
    if isinstance(data, str):
        return data
    if isinstance(data, dict):
        for name in READABLE:
            if isinstance(data.get(name), str) and data[name].strip():
                return str(data[name])
    return canonical(data).decode()


def _faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    for name in value:
        if name not in FIELDS:
            yield Fault(f"/{escaped(name)}", "unknown_field", f"A document has {', '.join(FIELDS)}.")
    yield from _body_faults(value)
    yield from _title_faults(value.get("title", ""))
    yield from _tags_faults(value.get("tags", []))
    yield from _metadata_faults(value.get("metadata", {}))


def _body_faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    content_type = value.get("content_type", "")
    if "binary" in value:
        yield from _binary_faults(value)
    elif "content_type" in value and (not isinstance(content_type, str) or not _family(content_type)):
        detail = "text/* for content, application/json or +json for data."
        kind = "invalid_value" if isinstance(content_type, str) else "wrong_type"
        yield Fault("/content_type", kind, detail)
    elif "content" in value and "data" in value:
        other = "data" if _is_text(content_type or TEXT_DEFAULT) else "content"
        yield Fault(f"/{other}", "invalid_value", "Give content (text) or data (JSON), not both.")
    elif "content" not in value and "data" not in value:
        wanted = "content" if _is_text(content_type or TEXT_DEFAULT) else "data"
        yield Fault(f"/{wanted}", "missing_field", "Give content (text) or data (JSON).")
    elif "content" in value and not isinstance(value["content"], str):
        yield Fault("/content", "wrong_type", "content is text; JSON values go into data.")
    elif "content_type" in value and _is_text(content_type) != ("content" in value):
        given, wanted = ("data", "content") if _is_text(content_type) else ("content", "data")
        yield Fault(f"/{given}", "invalid_value", f"A document of type {content_type} has {wanted}.")


def _binary_faults(value: Mapping[str, Any]) -> Iterator[Fault]:
    content_type, binary = value.get("content_type"), value["binary"]
    if not isinstance(content_type, str) or not _matched(content_type):
        yield Fault("/content_type", "invalid_value", "A media type, such as image/png.")
    if "content" in value or "data" in value:
        yield Fault("/binary", "invalid_value", "Give content (text), data (JSON) or binary, only one of them.")
    if not isinstance(binary, dict) or binary.keys() != {"hash", "size"}:
        yield Fault("/binary", "wrong_type", 'binary is {"hash", "size"}; bytes come by POST /uploads.')
        return
    if not isinstance(binary["hash"], str) or not _HASH.fullmatch(binary["hash"]):
        yield Fault("/binary/hash", "invalid_value", "sha256: and 64 hexadecimal digits.")
    if type(binary["size"]) is not int or not 0 <= binary["size"] <= BINARY_SIZE_MAX:
        yield Fault("/binary/size", "wrong_type", "A size is a whole number of bytes.")


def _title_faults(title: Any) -> Iterator[Fault]:
    if not isinstance(title, str):
        yield Fault("/title", "wrong_type", "The title is a text.")
    elif len(title) > TITLE_CHARACTERS_MAX:
        yield Fault("/title", "invalid_value", f"The title has at most {TITLE_CHARACTERS_MAX} characters.")
    elif _CONTROL.search(title):
        yield Fault("/title", "invalid_value", "The title is one line without control characters.")


def _tags_faults(tags: Any) -> Iterator[Fault]:
    if not isinstance(tags, list):
        yield Fault("/tags", "wrong_type", "tags is an array of texts.")
        return
    if len(tags) > TAGS_MAX:
        yield Fault("/tags", "too_many", f"A document has at most {TAGS_MAX} tags.")
        return
    for index, tag in enumerate(tags):
        if not isinstance(tag, str):
            yield Fault(f"/tags/{index}", "wrong_type", "A tag is a text.")
        elif not 1 <= len(tag) <= TAG_CHARACTERS_MAX or _CONTROL.search(tag):
            detail = f"A tag has 1 to {TAG_CHARACTERS_MAX} characters and no control characters."
            yield Fault(f"/tags/{index}", "invalid_value", detail)
        elif tag in tags[:index]:
            yield Fault(f"/tags/{index}", "invalid_value", "The tag is there already.")


def _metadata_faults(metadata: Any) -> Iterator[Fault]:
    if not isinstance(metadata, dict):
        yield Fault("/metadata", "wrong_type", "metadata is an object.")
        return
    try:
        canonical(metadata, bytes_max=METADATA_BYTES_MAX)
    except TooLarge as err:
        if err.problem_code == "content_too_large":
            yield Fault("/metadata", "content_too_large", f"metadata has at most {METADATA_BYTES_MAX} bytes.")
        # Depth is checked again, with its own error, over the whole document.
    except StudioError as err:
        yield from (Fault(f"/metadata{fault.pointer}", fault.code, fault.detail) for fault in err.faults)


def _content_type_of(value: Mapping[str, Any]) -> str:
    default = TEXT_DEFAULT if "content" in value else JSON_DEFAULT
    return str(value.get("content_type", default))


def _family(content_type: str) -> str | None:
    """Return ``text`` or ``json``, None for a content type that has no document form."""
    match = _matched(content_type)
    if match is None:
        return None
    kind, subtype = match[1].lower(), match[2].lower()
    if kind == "text":
        return "text"
    if (kind, subtype) == ("application", "json") or subtype.endswith("+json"):
        return "json"
    return None


def _matched(content_type: str) -> re.Match[str] | None:
    return None if len(content_type) > CONTENT_TYPE_CHARACTERS_MAX else _CONTENT_TYPE.fullmatch(content_type)


def _is_text(content_type: str) -> bool:
    return content_type[:5].lower() == "text/"


def _invalid(faults: list[Fault]) -> Invalid:
    return Invalid(f"The document has {len(faults)} fault(s): {faults[0].detail}", faults=faults)
